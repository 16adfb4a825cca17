package protoyaml

import (
	"fmt"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// The methods that read are false where they added a fault to the value itself,
// which then stays as it was.

// message fills m from the value n.
func (f *File) message(n *yaml.Node, m protoreflect.Message, path Path) bool {
	name := m.Descriptor().FullName()
	return f.enter(n, path, func(n *yaml.Node) bool {
		defer f.hush(m.Descriptor())()
		switch {
		case name == anyName:
			return f.any(n, m.Interface().(*anypb.Any), path)
		case WellKnown(name):
			return f.wellKnown(n, m, path)
		case n.Kind != yaml.MappingNode:
			return f.fault(n, path, "want the fields of %s, got %s", name, f.describe(n))
		}
		f.fields(f.entries(n, path), m, path)
		return true
	})
}

// fields sets what the entries name in m.
func (f *File) fields(entries []Entry, m protoreflect.Message, path Path) {
	given := map[protoreflect.FieldNumber]string{}
	oneofs := map[protoreflect.Name]protoreflect.Name{}
	optional := f.isOptional(entries, m.Descriptor())
	for _, e := range entries {
		fd := f.named(e, m.Descriptor(), path)
		if fd == nil {
			continue
		}
		at := path.Field(string(fd.Name()))
		if first := given[fd.Number()]; first != "" {
			f.Fault(e.key, at, "given twice, as %q and %q", first, e.Key)
			continue
		}
		given[fd.Number()] = e.Key
		if !f.schema.Supports(fd) {
			f.Fault(e.key, at, "%s", WhyNot(f.schema, fd))
			f.refuseField(path, fd)
			continue
		}
		if null(e.Value) && elementName(fd) != valueName {
			continue // As in JSON, null is a field that is not there.
		}
		if oneof := fd.ContainingOneof(); oneof != nil {
			if first := oneofs[oneof.Name()]; first != "" {
				f.Fault(e.key, at, "cannot be set beside %s", first)
				continue
			}
			oneofs[oneof.Name()] = fd.Name()
		}
		f.place(at, e.key)
		if warner, ok := f.schema.(Warner); ok {
			f.Warn(at, warner.Warning(fd))
		}
		if optional && IsExtension(fd) && f.setUnknown(e.Value, m, fd) {
			continue
		}
		if f.isEmptyAny(e.Value, fd) {
			m.Set(fd, m.NewField(fd))
			continue
		}
		if !f.value(e.Value, m, fd, at) {
			f.refuseField(path, fd)
		}
	}
}

// named is the field that a key names, by its name or that in JSON; nil after a
// fault.
func (f *File) named(e Entry, m protoreflect.MessageDescriptor, path Path) protoreflect.FieldDescriptor {
	fields := m.Fields()
	if fd := fields.ByName(protoreflect.Name(e.Key)); fd != nil {
		return fd
	}
	if fd := fields.ByJSONName(e.Key); fd != nil {
		return fd
	}
	var names []string
	for i := range fields.Len() {
		if fd := fields.Get(i); f.schema.Supports(fd) {
			names = append(names, string(fd.Name()))
		}
	}
	near := meant(e.Key, names)
	if near != "" {
		f.refuseField(path, fields.ByName(protoreflect.Name(near)))
	}
	switch {
	case f.hushed > 0:
		f.FaultOf(e, path, "unknown field of %s", m.FullName())
	case near != "":
		f.Fault(e.key, path.Field(e.Key), "unknown field of %s: did you mean %s?", m.FullName(), near)
	default:
		f.Fault(e.key, path.Field(e.Key), "unknown field of %s", m.FullName())
	}
	return nil
}

// value sets the field fd of m from n.
func (f *File) value(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path Path) bool {
	field, outer := f.field, f.outer
	f.field, f.outer = fd, field
	defer func() { f.field, f.outer = field, outer }()
	switch {
	case fd.IsList():
		return f.enter(n, path, func(n *yaml.Node) bool { return f.list(n, m.Mutable(fd).List(), fd, path) })
	case fd.IsMap():
		return f.enter(n, path, func(n *yaml.Node) bool { return f.table(n, m.Mutable(fd).Map(), fd, path) })
	case elementName(fd) == anyName:
		// A new one: merged into an older one it would be of two types.
		fresh := m.NewField(fd)
		ok := f.message(n, fresh.Message(), path)
		m.Set(fd, fresh)
		return ok
	case fd.Message() != nil:
		return f.message(n, m.Mutable(fd).Message(), path)
	}
	v, ok := f.scalar(n, fd, path)
	if ok {
		m.Set(fd, v)
	}
	return ok
}

// list appends the items of n. A refused item keeps its place, so that later
// paths are right.
func (f *File) list(n *yaml.Node, list protoreflect.List, fd protoreflect.FieldDescriptor, path Path) bool {
	if n.Kind != yaml.SequenceNode {
		return f.fault(n, path, "want a list, got %s", f.describe(n))
	}
	for _, item := range n.Content {
		at := path.Index(list.Len())
		f.place(at, item)
		list.Append(f.element(item, list.NewElement(), fd, at, "the item"))
	}
	return true
}

// table sets the entries of n in a map field.
func (f *File) table(n *yaml.Node, table protoreflect.Map, fd protoreflect.FieldDescriptor, path Path) bool {
	if n.Kind != yaml.MappingNode {
		return f.fault(n, path, "want a mapping, got %s", f.describe(n))
	}
	for _, e := range f.entries(n, path) {
		at := path.Key(e.Key)
		f.place(at, e.key)
		key, err := f.parseScalar(e.Key, fd.MapKey())
		if err != nil {
			f.Fault(e.key, at, "key %v", err)
			continue
		}
		table.Set(key.MapKey(), f.element(e.Value, table.NewValue(), fd.MapValue(), at, "the value"))
	}
	return true
}

// element reads one element of a list or a map; it is v, which is empty, after a
// fault.
func (f *File) element(n *yaml.Node, v protoreflect.Value, fd protoreflect.FieldDescriptor, path Path, what string) protoreflect.Value {
	switch {
	case null(n) && elementName(fd) != valueName:
		f.Fault(n, path, "%s is empty", what)
	case fd.Message() != nil:
		f.message(n, v.Message(), path)
	default:
		if scalar, ok := f.scalar(n, fd, path); ok {
			return scalar
		}
	}
	return v
}

const (
	anyName   = "google.protobuf.Any"
	valueName = "google.protobuf.Value"
)

// any fills an Any from a mapping with "@type" and the fields of that type.
func (f *File) any(n *yaml.Node, into *anypb.Any, path Path) bool {
	content := f.typed(n, path)
	if content == nil {
		return false
	}
	packed, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(content)
	if err != nil {
		return f.fault(n, path, "%v", err)
	}
	into.TypeUrl, into.Value = typePrefix+string(content.ProtoReflect().Descriptor().FullName()), packed
	return true
}

// typed reads a message of the type that "@type" names; nil after a fault.
func (f *File) typed(n *yaml.Node, path Path) proto.Message {
	if n.Kind != yaml.MappingNode {
		f.Fault(n, path, "want a mapping with @type, got %s", f.describe(n))
		return nil
	}
	if t, err := FindType(ownType(n)); err == nil {
		defer f.hush(t.Descriptor())() // what is wrong with the keys is told by entries
	}
	var url *yaml.Node
	var rest []Entry
	for _, e := range f.entries(n, path) {
		if e.Key == "@type" {
			url = target(e.Value)
		} else {
			rest = append(rest, e)
		}
	}
	if url == nil || url.Kind != yaml.ScalarNode || null(url) {
		f.Fault(n, path, "@type is missing: it names the type, as in %q", typePrefix+"envoy.…")
		return nil
	}
	t, err := f.findType(url.Value)
	if err != nil {
		if f.hushed > 0 {
			err = fmt.Errorf("@type is %s, and no type that is known", untold)
		}
		f.Fault(url, path, "%v", err)
		return nil
	}
	defer f.hush(t.Descriptor())()
	content := t.New()
	f.fields(rest, content, path)
	f.Validate(content.Interface(), path)
	return content.Interface()
}

// findType is the type that a URL names, for the field being read.
func (f *File) findType(url string) (protoreflect.MessageType, error) {
	if schema, ok := f.schema.(Slotted); ok && f.field != nil {
		return schema.FindFor(url, f.field, f.outer)
	}
	return f.schema.Find(url)
}

// optionalName is the field of a message that lets its extension be of a type
// that nobody knows (HttpFilter.is_optional).
const optionalName = "is_optional"

// IsExtension says whether a field is an Any by itself.
func IsExtension(fd protoreflect.FieldDescriptor) bool {
	return !fd.IsList() && !fd.IsMap() && elementName(fd) == anyName
}

// IsOptional says whether a message lets its extension be of a type that nobody
// knows.
func IsOptional(m protoreflect.Message) bool {
	fd := m.Descriptor().Fields().ByName(optionalName)
	return fd != nil && fd.Kind() == protoreflect.BoolKind && !fd.IsList() && m.Get(fd).Bool()
}

// isOptional says so of a message that is not read yet.
func (f *File) isOptional(entries []Entry, m protoreflect.MessageDescriptor) bool {
	fd := m.Fields().ByName(optionalName)
	if _, tolerant := f.schema.(Tolerant); !tolerant || fd == nil || !f.schema.Supports(fd) {
		return false
	}
	for _, e := range entries {
		if (e.Key == optionalName || e.Key == fd.JSONName()) && target(e.Value).Value == "true" {
			return true
		}
	}
	return false
}

// isEmptyAny says whether n is an Any without contents, where one may be.
func (f *File) isEmptyAny(n *yaml.Node, fd protoreflect.FieldDescriptor) bool {
	if !IsExtension(fd) {
		return false
	}
	hollow, ok := f.schema.(Hollow)
	n = target(n)
	return ok && n.Kind == yaml.MappingNode && len(n.Content) == 0 && hollow.TakesEmptyAny(fd)
}

// setUnknown sets an Any of a type that the schema does not have, without what is
// in it. It is false for one that it has, and for what is none.
func (f *File) setUnknown(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	url := ownType(target(n))
	if url == "" {
		return false
	}
	if _, err := f.schema.Find(url); err == nil {
		return false
	}
	m.Set(fd, protoreflect.ValueOfMessage((&anypb.Any{TypeUrl: url}).ProtoReflect()))
	return true
}

// ownType is the "@type" among the keys of a mapping, before they are looked at.
func ownType(n *yaml.Node) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "@type" {
			return target(n.Content[i+1]).Value
		}
	}
	return ""
}

// elementOf is the message type of a field, of its elements or of its map's
// values; nil for scalars.
func elementOf(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		fd = fd.MapValue()
	}
	return fd.Message()
}

// elementName is the name of that type, "" for scalars.
func elementName(fd protoreflect.FieldDescriptor) protoreflect.FullName {
	if m := elementOf(fd); m != nil {
		return m.FullName()
	}
	return ""
}
