package protoyaml

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The generated validators' errors, told apart by what they offer.
type (
	violation interface {
		error
		Field() string
		Reason() string
		Cause() error
	}
	violations interface {
		error
		AllErrors() []error
	}
)

// Validate runs the generated validators of the message at path and of all
// messages in it, but not inside its Anys, and adds what they say at proto paths.
func (r *Report) Validate(m proto.Message, path Path, schema Schema) {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return
	}
	if err := v.ValidateAll(); err != nil {
		validation{r, schema}.violated(err, m.ProtoReflect().Descriptor(), path)
	}
}

// validation puts what the validators say into a report.
type validation struct {
	*Report
	schema Schema
}

func (v validation) violated(err error, m protoreflect.MessageDescriptor, path Path) {
	var several violations
	var one violation
	switch {
	case errors.As(err, &several):
		for _, e := range several.AllErrors() {
			v.violated(e, m, path)
		}
	case errors.As(err, &one):
		v.violatedField(one, m, path)
	default:
		v.Add(path, "%s", err.Error())
	}
}

// violatedField finds the field that a validator names as Go does
// ("FilterChains[0]") and goes on to the cause inside it, if there is one.
func (v validation) violatedField(one violation, m protoreflect.MessageDescriptor, path Path) {
	name, index, indexed := strings.Cut(strings.TrimSuffix(one.Field(), "]"), "[")
	if oneof := oneofByGoName(m, name); oneof != nil {
		v.Add(path.Field(string(oneof.Name())), "%s", v.wantOneOf(oneof))
		return
	}
	fd := fieldByGoName(m, name)
	if fd == nil {
		v.Add(path, "%s: %s", one.Field(), one.Reason())
		return
	}
	path = path.Field(string(fd.Name()))
	switch {
	case indexed && fd.IsMap():
		path = path.Key(index)
	case indexed:
		path += Path("[" + index + "]")
	}
	var several violations
	var inner violation
	inside := errors.As(one.Cause(), &several) || errors.As(one.Cause(), &inner)
	if element := elementOf(fd); element != nil && inside {
		v.violated(one.Cause(), element, path)
		return
	}
	text := one.Reason()
	if one.Cause() != nil && !isSensitive(fd) {
		text += ": " + one.Cause().Error()
	}
	v.Add(path, "%s", text)
}

// wantOneOf says which members of a oneof are supported.
func (v validation) wantOneOf(oneof protoreflect.OneofDescriptor) string {
	var names []string
	for i := range oneof.Fields().Len() {
		if fd := oneof.Fields().Get(i); v.schema.Supports(fd) {
			names = append(names, string(fd.Name()))
		}
	}
	switch len(names) {
	case 0:
		return "required, but nothing of it is supported"
	case 1:
		return names[0] + " is required"
	}
	return fmt.Sprintf("one of %s is required", strings.Join(names, ", "))
}

func fieldByGoName(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	for i := range m.Fields().Len() {
		if fd := m.Fields().Get(i); sameGoName(string(fd.Name()), name) {
			return fd
		}
	}
	return nil
}

func oneofByGoName(m protoreflect.MessageDescriptor, name string) protoreflect.OneofDescriptor {
	for i := range m.Oneofs().Len() {
		if oneof := m.Oneofs().Get(i); sameGoName(string(oneof.Name()), name) && !oneof.IsSynthetic() {
			return oneof
		}
	}
	return nil
}

// sameGoName compares "filter_chains" with "FilterChains".
func sameGoName(protoName, goName string) bool {
	return strings.EqualFold(strings.ReplaceAll(protoName, "_", ""), strings.ReplaceAll(goName, "_", ""))
}
