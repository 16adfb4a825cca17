package protoyaml

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// Fill sets the fields that a mapping names in m, which may hold something
// already. It goes by the rules of proto.Merge: messages are filled field by
// field, lists grow, and entries of maps are replaced; but a field is set to its
// zero value too, where the file names that, and an Any is always replaced.
// Faults are noted with paths that begin with path.
func (f *File) Fill(n *yaml.Node, m proto.Message, path string) {
	f.message(target(n), m.ProtoReflect(), path)
}

// message fills m, which is no message that has a JSON form of its own.
func (f *File) message(n *yaml.Node, m protoreflect.Message, path string) {
	defer f.leave()
	if !f.enter(n, path) {
		return
	}
	f.fields(f.Mapping(n, path, "the fields of "+string(m.Descriptor().FullName())), m, path)
}

// fields sets what entries name in m.
func (f *File) fields(entries []Entry, m protoreflect.Message, path string) {
	if holdsSensitive(m.Descriptor()) {
		defer f.hush()()
	}
	given := map[protoreflect.FullName]string{} // fields and oneofs, by what gave them
	for _, e := range entries {
		fd := fieldOf(m.Descriptor(), e.Key)
		if fd == nil {
			f.FaultOf(e, path, "%s has no field %s", m.Descriptor().FullName(), f.quote(e.Key))
			continue
		}
		if null(e.Value) && elementName(fd) != "google.protobuf.Value" {
			continue // as in JSON, a field that is not there
		}
		what := fd.FullName()
		if oneof := fd.ContainingOneof(); oneof != nil {
			what = oneof.FullName()
		}
		if first := given[what]; first != "" {
			f.FaultOf(e, path, "%s cannot be there beside %s", e.Key, first)
			continue
		}
		given[what] = e.Key
		f.field(e.Value, m, fd, join(path, string(fd.Name())))
	}
}

// fieldOf returns the field that has a name, or that in JSON; nil if none has.
func fieldOf(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := m.Fields().ByName(protoreflect.Name(name)); fd != nil {
		return fd
	}
	return m.Fields().ByJSONName(name)
}

// join is the path of a field of the message at a path.
func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

// field sets one field of m, or adds to it.
func (f *File) field(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	f.places[path] = n
	if isSensitive(fd) {
		defer f.hush()()
	}
	switch {
	case fd.IsList() && n.Kind != yaml.SequenceNode:
		f.Fault(n, path, "want a list, got %s", f.describe(n))
	case fd.IsList():
		for _, item := range n.Content {
			f.item(target(item), m, fd, fmt.Sprintf("%s[%d]", path, m.Get(fd).List().Len()))
		}
	case fd.IsMap():
		for _, e := range f.Mapping(n, path, "a mapping") {
			f.entry(e, m, fd, fmt.Sprintf("%s[%q]", path, e.Key))
		}
	case elementName(fd) == anyName:
		fresh := m.NewField(fd)
		f.any(n, fresh.Message(), path)
		m.Set(fd, fresh)
	case structured(fd):
		f.message(n, m.Mutable(fd).Message(), path)
	default:
		if fresh := f.leaf(n, m, fd, path, "", ""); fresh != nil && fresh.Has(fd) {
			m.Set(fd, fresh.Get(fd))
		} else {
			m.Clear(fd)
		}
	}
}

// item appends one item to a list of m. A bad one keeps its place, so that the
// paths of those behind it are right.
func (f *File) item(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	f.places[path] = n
	list := m.Mutable(fd).List()
	item := list.NewElement()
	switch {
	case elementName(fd) == anyName:
		f.any(n, item.Message(), path)
	case structured(fd):
		f.message(n, item.Message(), path)
	default:
		if fresh := f.leaf(n, m, fd, path, "[", "]"); fresh != nil {
			item = fresh.Get(fd).List().Get(0)
		}
	}
	list.Append(item)
}

// entry sets one entry of a map of m.
func (f *File) entry(e Entry, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	f.places[path] = e.Value
	table := m.Mutable(fd).Map()
	key := protoreflect.ValueOfString(e.Key).MapKey()
	value := table.NewValue()
	switch value := fd.MapValue(); {
	case !structured(value) && elementName(value) != anyName:
		quoted, _ := json.Marshal(e.Key) // of text, never fails
		if fresh := f.leaf(e.Value, m, fd, path, "{"+string(quoted)+":", "}"); fresh != nil {
			fresh.Get(fd).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				table.Set(k, v)
				return true
			})
		}
		return
	case fd.MapKey().Kind() != protoreflect.StringKind:
		f.FaultOf(e, path, "a map by %s cannot be written in a file", fd.MapKey().Kind())
		return
	}
	if elementName(fd.MapValue()) == anyName {
		f.any(e.Value, value.Message(), path)
	} else {
		f.message(e.Value, value.Message(), path)
	}
	table.Set(key, value)
}

const (
	anyName    = "google.protobuf.Any"
	typePrefix = "type.googleapis.com/"
)

// any fills m, an Any, from a mapping with "@type" and the fields of that type.
func (f *File) any(n *yaml.Node, m protoreflect.Message, path string) {
	content := f.Typed(n, path)
	if content == nil {
		return
	}
	packed, err := proto.MarshalOptions{Deterministic: true}.Marshal(content)
	if err != nil {
		f.Fault(n, path, "%v", err)
		return
	}
	into := m.Interface().(*anypb.Any)
	into.TypeUrl, into.Value = typePrefix+string(content.ProtoReflect().Descriptor().FullName()), packed
}

// Typed reads a message of the type that the mapping's "@type" names, and has it
// validated. It is nil, after noting why, if there is no such type; a message
// with other faults is returned as far as it could be read.
func (f *File) Typed(n *yaml.Node, path string) proto.Message {
	defer f.leave()
	n = target(n)
	if !f.enter(n, path) {
		return nil
	}
	entries := f.Mapping(n, path, "a mapping with @type")
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.Key == "@type" })
	if i < 0 {
		if n.Kind == yaml.MappingNode {
			f.Fault(n, path, `@type is missing, as in "%senvoy.extensions…"`, typePrefix)
		}
		return nil
	}
	url := entries[i].Value
	name, prefixed := strings.CutPrefix(url.Value, typePrefix)
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	switch {
	case !prefixed:
		f.Fault(url, path, "@type %.200q does not begin with %s", url.Value, typePrefix)
		return nil
	case err != nil:
		f.Fault(url, path, "@type: %.200q is no type that is known here", name)
		return nil
	case wellKnown(t.Descriptor()):
		f.Fault(url, path, "@type: %s has no fields that a file can give", name)
		return nil
	}
	content := t.New()
	f.fields(slices.Delete(entries, i, i+1), content, path)
	f.Validate(content.Interface(), path)
	return content.Interface()
}

// elementName is the name of the message type of a field or its items; empty for
// a scalar.
func elementName(fd protoreflect.FieldDescriptor) protoreflect.FullName {
	if fd.Message() == nil {
		return ""
	}
	return fd.Message().FullName()
}

// structured says whether a field's values, or its items, are messages that JSON
// shows as objects of their fields.
func structured(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !wellKnown(fd.Message())
}

// wellKnown says whether a type is one of those that have a form of their own in
// JSON.
func wellKnown(m protoreflect.MessageDescriptor) bool {
	return m.FullName().Parent() == "google.protobuf"
}

// leaf reads a value that is no message of fields, as protobuf reads it from
// JSON: it returns a message like m that has nothing but the field, or nil after
// noting why it cannot. What stands before and after makes the value an item or
// an entry.
func (f *File) leaf(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path, before, after string) protoreflect.Message {
	value := f.json(nil, n, path)
	if value == nil {
		return nil
	}
	fresh := m.New()
	text := fmt.Sprintf("{%q:%s%s%s}", fd.JSONName(), before, value, after)
	if err := protojson.Unmarshal([]byte(text), fresh.Interface()); err != nil {
		if f.sensitive > 0 {
			f.Fault(n, path, "want %s, got something that is not told", fd.Kind())
			return nil
		}
		f.Fault(n, path, "%s", placeInJSON.ReplaceAllString(err.Error(), ""))
		return nil
	}
	return fresh
}

// placeInJSON begins the errors of protojson. It says where in the JSON that
// nobody wrote, and its spaces vary from build to build.
var placeInJSON = regexp.MustCompile(`^proto:[\s\x{a0}]*(syntax error )?\(line \d+:\d+\):[\s\x{a0}]*`)

// json appends the JSON of a value without a schema to text; nil after noting why
// there is none.
func (f *File) json(text []byte, n *yaml.Node, path string) []byte {
	defer f.leave()
	if !f.enter(n, path) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		text = append(text, '{')
		for i, e := range f.Mapping(n, path, "a mapping") {
			if i > 0 {
				text = append(text, ',')
			}
			key, _ := json.Marshal(e.Key) // of text, never fails
			if text = f.json(append(append(text, key...), ':'), e.Value, path); text == nil {
				return nil
			}
		}
		return append(text, '}')
	case yaml.SequenceNode:
		text = append(text, '[')
		for i, item := range n.Content {
			if i > 0 {
				text = append(text, ',')
			}
			if text = f.json(text, target(item), path); text == nil {
				return nil
			}
		}
		return append(text, ']')
	}
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		return append(text, "null"...)
	case tag == "!!bool":
		return append(text, strings.ToLower(n.Value)...)
	case (tag == "!!int" || tag == "!!float") && json.Valid([]byte(n.Value)):
		return append(text, n.Value...)
	}
	quoted, _ := json.Marshal(n.Value) // of text, never fails
	return append(text, quoted...)
}
