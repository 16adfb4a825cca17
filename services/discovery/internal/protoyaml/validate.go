package protoyaml

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The errors of generated validators, told apart by what they offer.
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

// Validate notes what the generated validators say of the message at a path and
// of all messages in it, but for those in Anys, of which Fill took care.
func (f *File) Validate(m proto.Message, path string) {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return
	}
	if err := v.ValidateAll(); err != nil {
		f.violated(err, m.ProtoReflect().Descriptor(), path)
	}
}

// violated notes what an error says of a message of a type.
func (f *File) violated(err error, m protoreflect.MessageDescriptor, path string) {
	var several violations
	var one violation
	switch {
	case errors.As(err, &several):
		for _, e := range several.AllErrors() {
			f.violated(e, m, path)
		}
	case errors.As(err, &one):
		f.violatedField(one, m, path)
	default:
		f.FaultAt(path, "%v", err)
	}
}

// violatedField finds the field that a validator calls as Go does
// ("FilterChains[0]"), and goes on to the cause inside it, if there is one.
func (f *File) violatedField(v violation, m protoreflect.MessageDescriptor, path string) {
	name, index, indexed := strings.Cut(strings.TrimSuffix(v.Field(), "]"), "[")
	fd := fieldByGoName(m, name)
	if fd == nil { // a oneof
		f.FaultAt(path, "%s: %s", name, v.Reason())
		return
	}
	path = join(path, string(fd.Name()))
	element := fd.Message()
	switch {
	case fd.IsMap():
		path += fmt.Sprintf("[%q]", index)
		element = fd.MapValue().Message()
	case indexed:
		path += "[" + index + "]"
	}
	var several violations
	var one violation
	if inside := errors.As(v.Cause(), &several) || errors.As(v.Cause(), &one); inside && element != nil {
		f.violated(v.Cause(), element, path)
		return
	}
	f.FaultAt(path, "%s", v.Reason())
}

func fieldByGoName(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	for i := range m.Fields().Len() {
		fd := m.Fields().Get(i)
		if strings.EqualFold(strings.ReplaceAll(string(fd.Name()), "_", ""), strings.ReplaceAll(name, "_", "")) {
			return fd
		}
	}
	return nil
}
