package strict

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

// validate runs the generated validators of a message and of all messages in
// it, but not inside its Anys, and adds what they say at proto paths.
func (w *walk) validate(m proto.Message, at Path) {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return
	}
	if err := v.ValidateAll(); err != nil {
		w.violated(err, m.ProtoReflect().Descriptor(), at)
	}
}

func (w *walk) violated(err error, m protoreflect.MessageDescriptor, at Path) {
	var several violations
	var one violation
	switch {
	case errors.As(err, &several):
		for _, e := range several.AllErrors() {
			w.violated(e, m, at)
		}
	case errors.As(err, &one):
		w.violatedField(one, m, at)
	default:
		w.report.Add(at, "%s", err.Error())
	}
}

// violatedField finds the field that a validator names as Go does
// ("FilterChains[0]") and goes on to the cause inside it, if there is one.
func (w *walk) violatedField(v violation, m protoreflect.MessageDescriptor, at Path) {
	name, index, indexed := strings.Cut(strings.TrimSuffix(v.Field(), "]"), "[")
	if oneof := oneofByGoName(m, name); oneof != nil {
		w.report.Add(at.Field(string(oneof.Name())), "%s", w.wantOneOf(oneof))
		return
	}
	fd := fieldByGoName(m, name)
	if fd == nil {
		w.report.Add(at, "%s: %s", v.Field(), v.Reason())
		return
	}
	at = at.Field(string(fd.Name()))
	switch {
	case indexed && fd.IsMap():
		at = at.Key(index)
	case indexed:
		at += Path("[" + index + "]")
	}
	var several violations
	var one violation
	inside := errors.As(v.Cause(), &several) || errors.As(v.Cause(), &one)
	if element := elementOf(fd); element != nil && inside {
		w.violated(v.Cause(), element, at)
		return
	}
	text := v.Reason()
	if v.Cause() != nil {
		text += ": " + v.Cause().Error()
	}
	w.report.Add(at, "%s", text)
}

// wantOneOf says which members of a oneof are supported.
func (w *walk) wantOneOf(oneof protoreflect.OneofDescriptor) string {
	var names []string
	for i := range oneof.Fields().Len() {
		if fd := oneof.Fields().Get(i); w.schema.supports(fd) {
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
