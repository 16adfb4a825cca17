package strict

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Source is a text of configuration, YAML or JSON. File is the name that
// faults give.
type Source struct {
	File string
	Text []byte
}

// Load reads one text into an empty message. The report has all faults; the
// message holds what could be read, and is to be used only if there are none.
func Load(file string, text []byte, into proto.Message, schema *Schema) *Report {
	return LoadMerged(into, schema, Source{file, text})
}

// LoadMerged reads texts one after the other into an empty message, as
// protobuf merges: a later one adds to lists, and replaces or fills everything
// else. Rules for the whole message are held against the result.
func LoadMerged(into proto.Message, schema *Schema, sources ...Source) *Report {
	report := &Report{}
	w := walk{schema, report}
	for _, text := range sources {
		s, fault := parse(text.File, text.Text)
		report.sources = append(report.sources, s)
		if fault != nil {
			report.faults = append(report.faults, *fault)
			s.root = nil
			continue
		}
		if s.root == nil {
			report.faults = append(report.faults, Fault{File: text.File, Text: "there is nothing in it"})
			continue
		}
		l := &loader{walk: w, source: s, open: map[*yaml.Node]bool{}}
		l.message(s.root, into.ProtoReflect(), "")
	}
	if readable := slices.ContainsFunc(report.sources, func(s *source) bool { return s.root != nil }); readable {
		w.validate(into, "")
	}
	return report
}

// walk is what loading and checking share.
type walk struct {
	schema *Schema
	report *Report
}

// refuseField settles a field, and its oneof, after a fault.
func (w *walk) refuseField(at Path, fd protoreflect.FieldDescriptor) {
	w.report.settle(at.Field(string(fd.Name())))
	if oneof := fd.ContainingOneof(); oneof != nil {
		w.report.settle(at.Field(string(oneof.Name())))
	}
}

// loader reads one source. Its methods are false where they added a fault to
// the value itself, which then stays as it was.
type loader struct {
	walk
	source *source
	// open are the anchors being read.
	open  map[*yaml.Node]bool
	depth int
}

// fault notes what is wrong with the value at n.
func (l *loader) fault(n *yaml.Node, at Path, format string, args ...any) bool {
	l.report.faults = append(l.report.faults, Fault{
		File: l.source.file, Line: n.Line, Column: n.Column, Path: at, Text: fmt.Sprintf(format, args...),
	})
	l.report.settle(at)
	return false
}

// enter follows an alias and calls read with the value, unless that leads into
// itself, too deep or too far.
func (l *loader) enter(n *yaml.Node, at Path, read func(*yaml.Node) bool) bool {
	value := target(n)
	if n != value {
		if l.open[value] {
			return l.fault(n, at, "the anchor &%s contains itself", value.Anchor)
		}
		l.open[value] = true
		defer delete(l.open, value)
	}
	if len(l.open) > 0 && !l.source.spend(1, n, func(n *yaml.Node, text string) { l.fault(n, at, "%s", text) }) {
		l.report.settle(at)
		return false
	}
	if l.depth++; l.depth > maxDepth {
		l.depth--
		return l.fault(n, at, "nested more than %d deep", maxDepth)
	}
	defer func() { l.depth-- }()
	if style := value.Style & yaml.TaggedStyle; style != 0 && !slices.Contains(plainTags, value.ShortTag()) {
		return l.fault(value, at, "the tag %s means nothing here", value.Tag)
	}
	return read(value)
}

var plainTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}

// entries are the keys of the mapping n.
func (l *loader) entries(n *yaml.Node, at Path) []entry {
	return l.source.entries(n, func(n *yaml.Node, text string) {
		l.report.faults = append(l.report.faults, Fault{File: l.source.file, Line: n.Line, Column: n.Column, Path: at, Text: text})
		if n.Kind == yaml.ScalarNode { // a key
			l.report.leaveOut(at.Field(n.Value))
		}
	})
}

// message fills m from the value n.
func (l *loader) message(n *yaml.Node, m protoreflect.Message, at Path) bool {
	name := m.Descriptor().FullName()
	return l.enter(n, at, func(n *yaml.Node) bool {
		switch {
		case name == "google.protobuf.Any":
			return l.any(n, m, at)
		case wellKnown(name):
			return l.wellKnown(n, m, at)
		case n.Kind != yaml.MappingNode:
			return l.fault(n, at, "want the fields of %s, got %s", name, describe(n))
		}
		l.fields(l.entries(n, at), m, at)
		return true
	})
}

// fields sets what the entries name in m.
func (l *loader) fields(entries []entry, m protoreflect.Message, at Path) {
	given := map[protoreflect.FieldNumber]*yaml.Node{}
	oneofs := map[protoreflect.Name]protoreflect.Name{}
	for _, e := range entries {
		fd := l.field(e.key, m.Descriptor(), at)
		if fd == nil {
			continue
		}
		path := at.Field(string(fd.Name()))
		if first := given[fd.Number()]; first != nil {
			l.fault(e.key, path, "given twice, as %q and %q", first.Value, e.key.Value)
			continue
		}
		given[fd.Number()] = e.key
		if !l.schema.supports(fd) {
			l.fault(e.key, path, "not supported")
			l.refuseField(at, fd)
			continue
		}
		if null(e.value) && elementName(fd) != "google.protobuf.Value" {
			continue // As in JSON, null is a field that is not there.
		}
		if oneof := fd.ContainingOneof(); oneof != nil {
			if first := oneofs[oneof.Name()]; first != "" {
				l.fault(e.key, path, "cannot be set beside %s", first)
				continue
			}
			oneofs[oneof.Name()] = fd.Name()
		}
		if !l.value(e.value, m, fd, path) {
			l.refuseField(at, fd)
		}
	}
}

// field is the field that key names; nil after a fault.
func (l *loader) field(key *yaml.Node, m protoreflect.MessageDescriptor, at Path) protoreflect.FieldDescriptor {
	if fd := m.Fields().ByName(protoreflect.Name(key.Value)); fd != nil {
		return fd
	}
	if fd := m.Fields().ByJSONName(key.Value); fd != nil {
		return fd
	}
	hint := ""
	if near := nearest(key.Value, l.schema.fields(m.FullName())); near != "" {
		hint = fmt.Sprintf(": did you mean %s?", near)
		l.refuseField(at, m.Fields().ByName(protoreflect.Name(near)))
	}
	l.fault(key, at.Field(key.Value), "unknown field of %s%s", m.FullName(), hint)
	return nil
}

// value sets the field fd of m from n.
func (l *loader) value(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, at Path) bool {
	switch {
	case fd.IsList():
		return l.enter(n, at, func(n *yaml.Node) bool { return l.list(n, m.Mutable(fd).List(), fd, at) })
	case fd.IsMap():
		return l.enter(n, at, func(n *yaml.Node) bool { return l.table(n, m.Mutable(fd).Map(), fd, at) })
	case elementName(fd) == "google.protobuf.Any":
		// A new one: merged into an older one it would be of two types.
		fresh := m.NewField(fd)
		ok := l.message(n, fresh.Message(), at)
		m.Set(fd, fresh)
		return ok
	case fd.Message() != nil:
		return l.message(n, m.Mutable(fd).Message(), at)
	}
	v, ok := l.scalar(n, fd, at)
	if ok {
		m.Set(fd, v)
	}
	return ok
}

// list appends the items of n. A refused item keeps its place, so that later
// paths are right.
func (l *loader) list(n *yaml.Node, list protoreflect.List, fd protoreflect.FieldDescriptor, at Path) bool {
	if n.Kind != yaml.SequenceNode {
		return l.fault(n, at, "want a list, got %s", describe(n))
	}
	for _, item := range n.Content {
		path := at.Index(list.Len())
		v := list.NewElement()
		switch {
		case null(item) && elementName(fd) != "google.protobuf.Value":
			l.fault(item, path, "the item is empty")
		case fd.Message() != nil:
			l.message(item, v.Message(), path)
		default:
			if scalar, ok := l.scalar(item, fd, path); ok {
				v = scalar
			}
		}
		list.Append(v)
	}
	return true
}

// table sets the entries of n in a map field.
func (l *loader) table(n *yaml.Node, table protoreflect.Map, fd protoreflect.FieldDescriptor, at Path) bool {
	if n.Kind != yaml.MappingNode {
		return l.fault(n, at, "want a mapping, got %s", describe(n))
	}
	for _, e := range l.entries(n, at) {
		path := at.Key(e.key.Value)
		key, err := parseScalar(e.key.Value, fd.MapKey())
		if err != nil {
			l.fault(e.key, path, "key %v", err)
			continue
		}
		v := table.NewValue()
		switch {
		case null(e.value) && elementName(fd) != "google.protobuf.Value":
			l.fault(e.value, path, "the value is empty")
		case fd.MapValue().Message() != nil:
			l.message(e.value, v.Message(), path)
		default:
			if scalar, ok := l.scalar(e.value, fd.MapValue(), path); ok {
				v = scalar
			}
		}
		table.Set(key.MapKey(), v)
	}
	return true
}

// elementName is the name of the message type of a field or its elements, ""
// for scalars.
func elementName(fd protoreflect.FieldDescriptor) protoreflect.FullName {
	if m := elementOf(fd); m != nil {
		return m.FullName()
	}
	return ""
}

// null says whether n is YAML's null or nothing at all.
func null(n *yaml.Node) bool {
	n = target(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// describe names what n is, for faults.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if null(n) {
		return "nothing"
	}
	return quote(n.Value)
}

// quote shows a value in a fault, cut where it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
