// Package protoyaml reads protobuf messages from YAML or JSON, as the JSON form
// of protobuf has them, and tells all that is wrong at once, by file, line,
// column and path. Packages that take configuration from operators call it and
// report into the same Report what they find later, also of messages that came
// from no file; what messages and fields may be there a Schema says. It never
// stops at the first fault, never panics on its input, tells nothing of what
// Envoy's messages mark as sensitive, gives no message a meaning, and reads no
// file by itself.
package protoyaml

import (
	"fmt"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Bounds of a file: its bytes, the values that it stands for beyond those that
// are written in it, and how deep they are nested, of which Envoy's protobuf
// takes no more.
const (
	maxBytes   = 16 << 20
	maxAliased = 200_000
	maxDepth   = 100
)

// Schema says what may be there.
type Schema interface {
	// Supports says whether a field may be set.
	Supports(fd protoreflect.FieldDescriptor) bool
	// Find is the type that the URL of an Any names, or says why it may not be
	// there.
	Find(url string) (protoreflect.MessageType, error)
}

// Explainer is a Schema that can say more of a field than that it is not supported.
type Explainer interface {
	Schema
	// WhyNot is what is wrong with a field that is not supported.
	WhyNot(fd protoreflect.FieldDescriptor) string
}

// Warner is a Schema that has something to say of fields though they may be set.
type Warner interface {
	Schema
	// Warning is what to say of a field that is supported; empty is nothing.
	Warning(fd protoreflect.FieldDescriptor) string
}

// Slotted is a Schema that knows which types fit the field that an Any is in.
type Slotted interface {
	Schema
	// FindFor is Find for an Any in a field; its error names the types that fit. Outer
	// is the field that the message of the field is in, nil if it is in none.
	FindFor(url string, field, outer protoreflect.FieldDescriptor) (protoreflect.MessageType, error)
}

// WhyNot is what to say of a field that a schema does not support.
func WhyNot(schema Schema, fd protoreflect.FieldDescriptor) string {
	if explainer, ok := schema.(Explainer); ok {
		return explainer.WhyNot(fd)
	}
	return "not supported"
}

// Tolerant is the Schema of a reader that leaves out what is_optional lets it: an
// extension of a type that the Schema does not have is then an Any without
// contents, and no fault.
type Tolerant interface {
	Schema
	LeavesOutOptional()
}

// Hollow is the Schema of a reader to which an Any that is there and empty, {},
// says something.
type Hollow interface {
	Schema
	// TakesEmptyAny says whether that field may be one.
	TakesEmptyAny(fd protoreflect.FieldDescriptor) bool
}

// Linked is the Schema of a program that takes whatever is linked into it.
type Linked struct{}

// Supports is true.
func (Linked) Supports(protoreflect.FieldDescriptor) bool { return true }

// Find is the linked type that a URL names, unless it is one of protobuf's own,
// which has no fields to give beside @type.
func (Linked) Find(url string) (protoreflect.MessageType, error) {
	t, err := FindType(url)
	if err == nil && WellKnown(t.Descriptor().FullName()) {
		return nil, fmt.Errorf("type %s has no fields that a file can give", t.Descriptor().FullName())
	}
	return t, err
}

// WellKnown says whether a message is one of protobuf's own, which have forms of
// their own in JSON.
func WellKnown(message protoreflect.FullName) bool { return message.Parent() == "google.protobuf" }

// File is one file while it is read into its Report.
type File struct {
	*Report
	name   string
	schema Schema
	// flat has the entries of each mapping met so far, merge keys resolved.
	flat map[*yaml.Node][]Entry
	// open are the anchors being read.
	open  map[*yaml.Node]bool
	depth int
	// left is how many values may still be read: those of the file, and maxAliased.
	left int
	// hushed is in how many values that nobody may tell of it is reading.
	hushed int
	// field is the one being read, of a message in the field outer; nil is none.
	field, outer protoreflect.FieldDescriptor
	// sensitive are the messages met so far, by whether they hold such values.
	sensitive map[protoreflect.FullName]bool
}

// Open opens a file with a Report of its own for whatever is linked.
func Open(name string, text []byte) (*File, *yaml.Node) {
	return new(Report).Open(name, text, Linked{})
}

// Open returns a file that reports here, and the top of its only document; the
// latter is nil, after noting why, if the text is not one document of YAML. Name
// is how faults call the file.
func (r *Report) Open(name string, text []byte, schema Schema) (*File, *yaml.Node) {
	f, documents, ok := r.open(name, text, schema)
	switch {
	case !ok:
		return f, nil
	case len(documents) == 0:
		f.Fault(start(), "", "there is nothing in it")
		return f, nil
	case len(documents) > 1:
		f.Fault(documents[1], "", "a second document: want one in a file")
		return f, nil
	}
	return f, documents[0].Content[0]
}

// OpenAll returns a file, and the tops of its documents, of which there may be
// none. Those behind one that is no YAML are not read; Err tells why.
func OpenAll(name string, text []byte) (*File, []*yaml.Node) {
	f, documents, _ := new(Report).open(name, text, Linked{})
	for i, document := range documents {
		documents[i] = document.Content[0]
	}
	return f, documents
}

// start is where a file begins.
func start() *yaml.Node { return &yaml.Node{Line: 1, Column: 1} }

// Fault notes what is wrong with the value at a node, which is not read then:
// what Add tells of it later is nothing new.
func (f *File) Fault(n *yaml.Node, path Path, format string, args ...any) {
	f.noteAt(n, path, format, args...)
	f.refuse(path)
}

// FaultOf notes what is wrong with the key of an entry of the value at a path,
// the rest of which is read.
func (f *File) FaultOf(e Entry, path Path, format string, args ...any) {
	f.noteAt(e.key, path, format, args...)
}

func (f *File) noteAt(n *yaml.Node, path Path, format string, args ...any) {
	f.note(Fault{File: f.name, Line: n.Line, Column: n.Column, Path: path, Text: fmt.Sprintf(format, args...)})
}

// place notes where the value at a path, or its key, stands.
func (f *File) place(path Path, n *yaml.Node) {
	f.places[path] = place{f.name, n.Line, n.Column}
}

// top does so for a value that a caller reads, if it has no place in this file.
func (f *File) top(path Path, n *yaml.Node) {
	if f.places[path].file != f.name {
		f.place(path, n)
	}
}

// Mapping returns the entries of a mapping in order, or nil after noting that it
// is none, with what was wanted. It is for what is no message.
func (f *File) Mapping(n *yaml.Node, path Path, want string) []Entry {
	f.top(path, n)
	if n = target(n); n.Kind != yaml.MappingNode {
		f.Fault(n, path, "want %s, got %s", want, f.describe(n))
		return nil
	}
	flat := f.entries(n, path)
	if !f.spend(len(flat)+1, n, path) {
		return nil
	}
	var entries []Entry
	for _, e := range flat {
		f.place(path.Field(e.Key), e.key)
		entries = append(entries, Entry{e.Key, target(e.Value), e.key})
	}
	return entries
}

// List returns the items of a list, or nil after noting that it is none, or has
// more than most. It is for what is no message.
func (f *File) List(n *yaml.Node, path Path, most int) []*yaml.Node {
	f.top(path, n)
	n = target(n)
	switch {
	case n.Kind != yaml.SequenceNode:
		f.Fault(n, path, "want a list, got %s", f.describe(n))
		return nil
	case len(n.Content) > most:
		f.Fault(n, path, "%d, of %d at most", len(n.Content), most)
		return nil
	case !f.spend(len(n.Content)+1, n, path):
		return nil
	}
	items := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		f.place(path.Index(i), item)
		items[i] = target(item)
	}
	return items
}

// Fill sets the fields that a mapping names in m, which may hold something
// already. It goes by the rules of proto.Merge: messages are filled field by
// field, lists grow, and entries of maps are replaced; but a field is set to its
// zero value too, where the file names that, and an Any is always replaced.
// Faults are noted with paths that begin with path.
func (f *File) Fill(n *yaml.Node, m proto.Message, path Path) {
	f.top(path, n)
	f.message(n, m.ProtoReflect(), path)
}

// Validate notes what the generated validators say of the message at a path and
// of all messages in it, but for those in Anys, of which Fill took care.
func (f *File) Validate(m proto.Message, path Path) { f.Report.Validate(m, path, f.schema) }

// Typed reads a message of the type that the mapping's "@type" names, and has it
// validated. It is nil, after noting why, if there is no such type; a message
// with other faults is returned as far as it could be read.
func (f *File) Typed(n *yaml.Node, path Path) (m proto.Message) {
	f.top(path, n)
	f.enter(n, path, func(n *yaml.Node) bool {
		m = f.typed(n, path)
		return m != nil
	})
	return m
}

// typePrefix is the only authority of type URLs.
const typePrefix = "type.googleapis.com/"

// FindType is the linked type that a type URL names.
func FindType(url string) (protoreflect.MessageType, error) {
	if len(url) < len(typePrefix) || url[:len(typePrefix)] != typePrefix {
		return nil, fmt.Errorf("type URL %s does not begin with %s", quote(url), typePrefix)
	}
	name := url[len(typePrefix):]
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("unknown type %s", quote(name))
	}
	return t, nil
}
