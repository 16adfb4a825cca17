package adminapi

import (
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// mask is a FieldMask: of each path the names of its fields. An empty path is
// the whole message, an empty mask all there is.
type mask [][]string

// parseMask reads "static_clusters,bootstrap.node.id".
func parseMask(text string) mask {
	var m mask
	for _, path := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' }) {
		m = append(m, strings.Split(path, "."))
	}
	return m
}

// selectParts narrows the parts of a dump. With a resource it is the elements of
// the list of that name; each keeps what the mask has. Else it is the parts of
// which the mask names a field.
func selectParts(parts []proto.Message, resource string, m mask) ([]proto.Message, error) {
	if resource != "" {
		elements, err := elementsOf(parts, resource)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if err := m.trim(e.ProtoReflect()); err != nil {
				return nil, err
			}
		}
		return elements, nil
	}
	if len(m) == 0 {
		return parts, nil
	}
	for _, path := range m {
		if !slices.ContainsFunc(parts, func(p proto.Message) bool { return fieldOf(p.ProtoReflect(), path[0]) != nil }) {
			return nil, wrong("parameter mask: no part of the dump has a field %q", path[0])
		}
	}
	var kept []proto.Message
	for _, part := range parts {
		var own mask
		for _, path := range m {
			if fieldOf(part.ProtoReflect(), path[0]) != nil {
				own = append(own, path)
			}
		}
		if len(own) == 0 {
			continue
		}
		if err := own.trim(part.ProtoReflect()); err != nil {
			return nil, err
		}
		kept = append(kept, part)
	}
	return kept, nil
}

// elementsOf are the elements of the list of a name in the first part that has one.
func elementsOf(parts []proto.Message, name string) ([]proto.Message, error) {
	for _, part := range parts {
		m := part.ProtoReflect()
		field := fieldOf(m, name)
		switch {
		case field == nil:
			continue
		case !field.IsList():
			return nil, wrong("parameter resource=%q: not a list; mask=%s selects it", name, name)
		}
		list := m.Get(field).List()
		var elements []proto.Message
		for i := range list.Len() {
			elements = append(elements, list.Get(i).Message().Interface())
		}
		return elements, nil
	}
	return nil, &queryError{http.StatusNotFound, "parameter resource=\"" + name + "\": not found in the dump"}
}

// fieldOf is a field by its name in protobuf or in JSON; nil if there is none.
func fieldOf(m protoreflect.Message, name string) protoreflect.FieldDescriptor {
	fields := m.Descriptor().Fields()
	if field := fields.ByName(protoreflect.Name(name)); field != nil {
		return field
	}
	return fields.ByJSONName(name)
}

// trim keeps of a message what the mask's paths lead to, also through packed
// messages, which it packs again.
func (k mask) trim(m protoreflect.Message) error {
	if slices.ContainsFunc(k, func(path []string) bool { return len(path) == 0 }) || len(k) == 0 {
		return nil
	}
	if packed, ok := m.Interface().(*anypb.Any); ok {
		return repack(packed, k.trim)
	}
	wanted := map[protoreflect.FieldNumber]mask{}
	for _, path := range k {
		field := fieldOf(m, path[0])
		switch {
		case field == nil:
			return wrong("parameter mask: %s has no field %q", m.Descriptor().FullName(), path[0])
		case len(path) > 1 && (field.Message() == nil || field.IsList() || field.IsMap()):
			return wrong("parameter mask: %s.%s is no message, and has no field %q", m.Descriptor().FullName(), path[0], path[1])
		}
		wanted[field.Number()] = append(wanted[field.Number()], path[1:])
	}
	var err error
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		rest, keep := wanted[field.Number()]
		switch {
		case !keep:
			m.Clear(field)
		case field.Message() != nil && !field.IsList() && !field.IsMap():
			err = rest.trim(value.Message())
		}
		return err == nil
	})
	return err
}

// repack changes a packed message. It fails for one of a type that is not known.
func repack(packed *anypb.Any, change func(protoreflect.Message) error) error {
	m, err := packed.UnmarshalNew()
	if err != nil {
		return err
	}
	if err := change(m.ProtoReflect()); err != nil {
		return err
	}
	return packed.MarshalFrom(m)
}
