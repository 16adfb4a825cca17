package strict

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Fields says which fields of which messages a package supports. A message
// that may be set but has no supported field of its own has an empty list.
type Fields map[protoreflect.FullName][]protoreflect.Name

// Schema is the sum of what all packages support. It is immutable.
type Schema struct {
	messages map[protoreflect.FullName]map[protoreflect.Name]bool
	// extensions are the messages that can only be reached through an Any.
	extensions []string
}

// NewSchema merges the parts. The error names every message and field that
// does not exist among the linked protobuf types.
func NewSchema(parts ...Fields) (*Schema, error) {
	s := &Schema{messages: map[protoreflect.FullName]map[protoreflect.Name]bool{}}
	var wrong []string
	reached := map[protoreflect.FullName]bool{}
	for _, part := range parts {
		for message, fields := range part {
			t, err := protoregistry.GlobalTypes.FindMessageByName(message)
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("message %s does not exist", message))
				continue
			}
			if s.messages[message] == nil {
				s.messages[message] = map[protoreflect.Name]bool{}
			}
			for _, name := range fields {
				fd := t.Descriptor().Fields().ByName(name)
				if fd == nil {
					wrong = append(wrong, fmt.Sprintf("message %s has no field %s", message, name))
					continue
				}
				s.messages[message][name] = true
				if element := elementOf(fd); element != nil {
					reached[element.FullName()] = true
				}
			}
		}
	}
	if wrong != nil {
		slices.Sort(wrong)
		return nil, fmt.Errorf("declare supported fields: %s", strings.Join(wrong, "; "))
	}
	for message := range s.messages {
		if !reached[message] && strings.HasPrefix(string(message), extensionPackages) {
			s.extensions = append(s.extensions, string(message))
		}
	}
	slices.Sort(s.extensions)
	return s, nil
}

// elementOf is the message type of a field, of its elements or of its map's
// values; nil for scalars.
func elementOf(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		fd = fd.MapValue()
	}
	return fd.Message()
}

// supports says whether a field may be set. The well-known types are whole.
func (s *Schema) supports(fd protoreflect.FieldDescriptor) bool {
	message := fd.ContainingMessage().FullName()
	return wellKnown(message) || s.messages[message][fd.Name()]
}

// fields are the names of the supported fields of a message, sorted.
func (s *Schema) fields(message protoreflect.FullName) []string {
	var names []string
	for name := range s.messages[message] {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

func wellKnown(message protoreflect.FullName) bool { return message.Parent() == "google.protobuf" }
