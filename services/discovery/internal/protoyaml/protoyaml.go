// Package protoyaml reads protobuf messages from a file of YAML or JSON, as the
// JSON form of protobuf has them, and tells all that is wrong with it by line
// and field. What an Any may hold is what is linked into the program. Packages
// that take messages from operators call it; it gives no message a meaning, and
// reads no file by itself.
package protoyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file: its bytes, the values that it may stand for, those reached
// through aliases included, how deep they may be nested, and how many faults are
// told.
const (
	maxBytes  = 4 << 20
	maxValues = 200_000
	maxDepth  = 100
	maxFaults = 50
)

// File is one file while it is read. It is for one goroutine.
type File struct {
	name    string
	places  map[string]*yaml.Node // where the values at paths stand
	refused map[string]bool       // the paths of values that could not be read
	faults  []error
	values  int
	depth   int
	// sensitive is in how many values that nobody may tell of it is reading.
	sensitive int
}

// Open returns a file and the top of its only document; the latter is nil if
// there is none, which Err then tells. Name is how faults call the file.
func Open(name string, text []byte) (*File, *yaml.Node) {
	f, documents := OpenAll(name, text)
	switch {
	case len(documents) > 1:
		f.Fault(start(), "", "more than one YAML document")
		return f, nil
	case len(documents) == 0:
		if f.faults == nil {
			f.Fault(start(), "", "there is nothing in it")
		}
		return f, nil
	}
	return f, documents[0]
}

// OpenAll returns a file and the tops of its documents, of which there may be
// none. Those behind one that is no YAML are not read; Err tells why.
func OpenAll(name string, text []byte) (*File, []*yaml.Node) {
	f := &File{name: name, places: map[string]*yaml.Node{}, refused: map[string]bool{}}
	if len(text) > maxBytes {
		f.Fault(start(), "", "%d bytes, of %d at most", len(text), maxBytes)
		return f, nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var documents []*yaml.Node
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return f, documents
		case err != nil:
			f.faults = append(f.faults, fmt.Errorf("%s: %s", name, unknownAnchor.ReplaceAllString(err.Error(), "an alias of no anchor")))
			return f, documents
		}
		documents = append(documents, document.Content[0])
	}
}

// unknownAnchor is the one error of the YAML library that repeats text of the
// file, which may be a secret that begins with a star.
var unknownAnchor = regexp.MustCompile(`unknown anchor '.*' referenced`)

// start is where a file begins.
func start() *yaml.Node { return &yaml.Node{Line: 1, Column: 1} }

// Err joins the faults that were found, each with file, line, column and path;
// nil if there are none.
func (f *File) Err() error { return errors.Join(f.faults...) }

// Fault notes what is wrong with the value at a node, which is not read then: what
// FaultAt tells of it later is nothing new.
func (f *File) Fault(n *yaml.Node, path, format string, args ...any) {
	f.refused[path] = true
	f.note(n, path, format, args...)
}

// FaultAt notes what is wrong with the value at a path, which was read before or
// is missing in one that was.
func (f *File) FaultAt(path, format string, args ...any) {
	for within := path; ; within = outer(within) {
		if f.refused[within] {
			return
		}
		if within == "" {
			break
		}
	}
	f.note(f.place(path), path, format, args...)
}

// note notes a fault. The last that is noted says that there are more.
func (f *File) note(n *yaml.Node, path, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	switch {
	case len(f.faults) == maxFaults:
		f.faults = append(f.faults, fmt.Errorf("%s: and more", f.name))
	case len(f.faults) < maxFaults:
		f.faults = append(f.faults, fmt.Errorf("%s:%d:%d: %s", f.name, n.Line, n.Column, text))
	}
}

// place is where the value at a path stands, or that in which it would.
func (f *File) place(path string) *yaml.Node {
	for {
		if n := f.places[path]; n != nil {
			return n
		}
		if path == "" {
			return start()
		}
		path = outer(path)
	}
}

// Place is where the value at a path stands, or that in which it would:
// "file:line:column".
func (f *File) Place(path string) string {
	n := f.place(path)
	return fmt.Sprintf("%s:%d:%d", f.name, n.Line, n.Column)
}

// outer is the path of the value in which that at a path is, or somewhat less: it
// never gets longer, and ends at the top.
func outer(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// Entry is one key of a mapping with its value.
type Entry struct {
	Key   string
	Value *yaml.Node
	at    *yaml.Node // the key
}

// Mapping returns the entries of a mapping in order, or nil after noting that it
// is none. A key that is there twice is noted, too.
func (f *File) Mapping(n *yaml.Node, path, want string) []Entry {
	n = target(n)
	f.places[path] = n
	if n.Kind != yaml.MappingNode {
		f.Fault(n, path, "want %s, got %s", want, f.describe(n))
		return nil
	}
	var entries []Entry
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := target(n.Content[i])
		switch line := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge":
			f.note(key, path, "the key of an entry must be a name")
		case line != 0:
			f.note(key, path, "%s is there twice, first on line %d", f.quote(key.Value), line)
		default:
			lines[key.Value] = key.Line
			entries = append(entries, Entry{key.Value, target(n.Content[i+1]), key})
		}
	}
	return entries
}

// FaultOf notes what is wrong with the key of an entry of the value at a path,
// the rest of which is read.
func (f *File) FaultOf(e Entry, path, format string, args ...any) {
	f.note(e.at, path, format, args...)
}

// enter says whether one more value may be read, inside those that are being
// read; the caller leaves it again.
func (f *File) enter(n *yaml.Node, path string) bool {
	f.values++
	f.depth++
	switch {
	case f.depth > maxDepth:
		f.Fault(n, path, "nested more than %d deep", maxDepth)
	case f.values == maxValues:
		f.Fault(n, path, "more than %d values", maxValues)
	default:
		return f.values < maxValues
	}
	return false
}

func (f *File) leave() { f.depth-- }

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// null says whether a node is YAML's null, or nothing.
func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe names what a node is.
func (f *File) describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case null(n):
		return "nothing"
	default:
		return f.quote(n.Value)
	}
}

// quote is text of the file as a fault may tell it.
func (f *File) quote(text string) string {
	if f.sensitive > 0 {
		return "something that is not told"
	}
	return fmt.Sprintf("%.80q", text)
}
