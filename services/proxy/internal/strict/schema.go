package strict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// extensionPackages begin the names of what Envoy puts into Anys, and
// wrapperOfExtensions is what it puts there around others.
const (
	extensionPackages   = "envoy.extensions."
	wrapperOfExtensions = "envoy.config.route.v3.FilterConfig"
)

func isExtension(message protoreflect.FullName) bool {
	return strings.HasPrefix(string(message), extensionPackages) || message == wrapperOfExtensions
}

// Fields says which fields of which messages a package supports. A message
// that may be set but has no supported field of its own has an empty list.
type Fields map[protoreflect.FullName][]protoreflect.Name

// Schema is the sum of what all packages support. It is immutable.
type Schema struct {
	messages map[protoreflect.FullName]map[protoreflect.Name]bool
	// extensions are the messages that can only be reached through an Any.
	extensions []string
	// firstKnown are lists as FirstKnown has them.
	firstKnown map[protoreflect.FullName]bool
	slots      Slots
}

// FirstKnown says that of these lists, each a message's field by its full name,
// the first entry counts whose Any is of a supported type, as Envoy has it:
// Check passes over entries of other types. In files those are faults.
func (s *Schema) FirstKnown(lists ...protoreflect.FullName) *Schema {
	made := *s
	made.firstKnown = maps.Clone(s.firstKnown)
	if made.firstKnown == nil {
		made.firstKnown = map[protoreflect.FullName]bool{}
	}
	for _, list := range lists {
		made.firstKnown[list] = true
	}
	return &made
}

// Slots are the types that fit the Anys of fields, by the full names of these. Of a
// message that stands in many places, such as a TypedExtensionConfig, it is the field
// that the message is in which counts.
type Slots map[protoreflect.FullName]Types

// Types are full names of messages, and, with a dot at their end, of packages with
// all that can only be reached through an Any in them and below.
type Types []protoreflect.FullName

// among are those of the types that are supported.
func (s *Schema) among(types Types) (names []string) {
	for _, name := range types {
		if s.messages[name] != nil {
			names = append(names, string(name))
		}
		for _, extension := range s.extensions {
			if strings.HasSuffix(string(name), ".") && strings.HasPrefix(extension, string(name)) {
				names = append(names, extension)
			}
		}
	}
	slices.Sort(names)
	return names
}

// WithSlots says of fields which types fit them. Whoever reads a field decides; here
// it is for the refusals of types that no field takes.
func (s *Schema) WithSlots(slots Slots) *Schema {
	made := *s
	made.slots = slots
	return &made
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
				if fd.IsMap() {
					fd = fd.MapValue()
				}
				if element := fd.Message(); element != nil {
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
		if !reached[message] && isExtension(message) {
			s.extensions = append(s.extensions, string(message))
		}
	}
	slices.Sort(s.extensions)
	return s, nil
}

// Supports says whether a field may be set. The well-known types are whole.
func (s *Schema) Supports(fd protoreflect.FieldDescriptor) bool {
	message := fd.ContainingMessage().FullName()
	return protoyaml.WellKnown(message) || s.messages[message][fd.Name()]
}

// LeavesOutOptional implements protoyaml.Tolerant.
func (s *Schema) LeavesOutOptional() {}

// TakesEmptyAny implements protoyaml.Hollow: an empty FilterConfig.config turns a
// filter on.
func (s *Schema) TakesEmptyAny(fd protoreflect.FieldDescriptor) bool {
	return fd.ContainingMessage().FullName() == wrapperOfExtensions
}

// Find is the extension that a type URL names, if the schema has it.
func (s *Schema) Find(url string) (protoreflect.MessageType, error) { return s.FindFor(url, nil, nil) }

// FindFor implements protoyaml.Slotted. Both fields may be nil.
func (s *Schema) FindFor(url string, field, outer protoreflect.FieldDescriptor) (protoreflect.MessageType, error) {
	t, err := protoyaml.FindType(url)
	if err == nil {
		name := t.Descriptor().FullName()
		if _, ok := s.messages[name]; ok && isExtension(name) {
			return t, nil
		}
		err = fmt.Errorf("type %s is not supported", name)
	}
	return nil, fmt.Errorf("%w; supported are: %s", err, strings.Join(s.fitting(field, outer), ", "))
}

// fitting are the extensions for a field of a message in the field outer.
func (s *Schema) fitting(field, outer protoreflect.FieldDescriptor) []string {
	for _, fd := range []protoreflect.FieldDescriptor{field, outer} {
		if fd == nil {
			continue
		}
		if types, ok := s.slots[fd.FullName()]; ok {
			return s.among(types)
		}
	}
	return s.extensions
}
