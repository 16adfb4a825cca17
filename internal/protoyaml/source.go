package protoyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Entry is one key of a mapping with its value.
type Entry struct {
	Key   string
	Value *yaml.Node
	key   *yaml.Node
}

// What the YAML library's errors are like. Those of its parser proper, but not
// those of its scanner, count lines from 0, and the first line is left out. One
// repeats text of the file, which may be a secret that begins with a star.
var (
	yamlLine    = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
	yamlParser  = regexp.MustCompile(`did not find expected (?:<|node content|'-' indicator|key|',' or)`)
	yamlUnknown = regexp.MustCompile(`unknown anchor '.*' referenced`)
)

// open parses all documents of a text, as far as it is YAML.
func (r *Report) open(name string, text []byte, schema Schema) (f *File, documents []*yaml.Node, ok bool) {
	if r.places == nil {
		r.places = map[Path]place{}
	}
	r.files = append(r.files, name)
	f = &File{
		Report: r, name: name, schema: schema, left: maxAliased,
		flat: map[*yaml.Node][]Entry{}, open: map[*yaml.Node]bool{}, sensitive: map[protoreflect.FullName]bool{},
	}
	if len(text) > maxBytes {
		f.Fault(start(), "", "%d bytes, of %d at most", len(text), maxBytes)
		return f, nil, false
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return f, documents, true
		case err != nil:
			r.note(syntaxFault(name, err))
			return f, documents, false
		}
		documents = append(documents, &document)
		f.left += 2 * count(&document) // each is entered twice at most, as a message and as the plain value in it
	}
}

func syntaxFault(file string, err error) Fault {
	text := yamlUnknown.ReplaceAllString(err.Error(), "an alias of no anchor")
	f := Fault{File: file, Line: 1, Text: strings.TrimPrefix(text, "yaml: ")}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		f.Text = text[len(m[0]):]
		if yamlParser.MatchString(f.Text) {
			f.Line++
		}
	}
	return f
}

// count is how many nodes there are in n.
func count(n *yaml.Node) int {
	sum := 1
	for _, inner := range n.Content {
		sum += count(inner)
	}
	return sum
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// entries are the keys of a mapping: its own first, in order and without those
// tagged !ignore, then those that merge keys bring and it does not have (Envoy
// itself has no merge keys: what is to run there too must do without). What is
// wrong with them is noted once, at the first call for the mapping.
func (f *File) entries(n *yaml.Node, path Path) []Entry {
	if flat, ok := f.flat[n]; ok {
		return flat
	}
	f.flat[n] = nil // Stays nil while the mapping is being read.
	flat := []Entry{}
	first := map[string]*yaml.Node{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := target(n.Content[i]), n.Content[i+1]
		switch {
		case key.Tag == "!ignore":
		case key.Kind != yaml.ScalarNode:
			f.noteAt(key, path, "the key of an entry must be a name")
		case key.ShortTag() == "!!merge":
			merges = append(merges, value)
		case first[key.Value] != nil:
			f.noteAt(key, path, "duplicate key %s: it stands on line %d already", f.quote(key.Value), first[key.Value].Line)
			f.leaveOut(path.Field(key.Value))
		default:
			first[key.Value] = key
			flat = append(flat, Entry{key.Value, value, key})
		}
	}
	for _, merge := range merges {
		for _, e := range f.merged(merge, path) {
			if first[e.Key] == nil {
				first[e.Key] = e.key
				flat = append(flat, e)
			}
		}
	}
	f.flat[n] = flat
	return flat
}

// merged are the entries that the value of a merge key stands for; of several
// mappings the earlier wins.
func (f *File) merged(value *yaml.Node, path Path) []Entry {
	mappings := []*yaml.Node{value}
	if list := target(value); list.Kind == yaml.SequenceNode {
		mappings = list.Content
	}
	var all []Entry
	for _, item := range mappings {
		mapping := target(item)
		if mapping.Kind != yaml.MappingNode {
			f.noteAt(item, path, "a merge key wants a mapping or a list of mappings")
			continue
		}
		flat := f.entries(mapping, path)
		if flat == nil {
			f.noteAt(item, path, "a mapping merges itself")
		}
		if !f.spend(len(flat)+1, item, path) {
			return nil
		}
		all = append(all, flat...)
	}
	return all
}

// spend takes n of the values that may be read. It is false when there are none
// left, which is a fault at the first time.
func (f *File) spend(n int, at *yaml.Node, path Path) bool {
	if f.left >= 0 && f.left < n {
		f.noteAt(at, path, "aliases and merge keys stand for more than %d values", maxAliased)
	}
	f.left = max(f.left-n, -1)
	return f.left >= 0
}

var plainTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}

// enter follows an alias and calls read with the value, unless that leads into
// itself, too deep or too far. It is false where it, or read, added a fault to
// the value itself.
func (f *File) enter(n *yaml.Node, path Path, read func(*yaml.Node) bool) bool {
	value := target(n)
	if n != value {
		if f.open[value] {
			return f.fault(n, path, "the anchor %s contains itself", f.tell("&"+value.Anchor))
		}
		f.open[value] = true
		defer delete(f.open, value)
	}
	if !f.spend(1, n, path) {
		f.refuse(path)
		return false
	}
	if f.depth == maxDepth {
		return f.fault(n, path, "nested more than %d deep", maxDepth)
	}
	f.depth++
	defer func() { f.depth-- }()
	if style := value.Style & yaml.TaggedStyle; style != 0 && !slices.Contains(plainTags, value.ShortTag()) {
		return f.fault(value, path, "the tag %s means nothing here", f.tell(value.Tag))
	}
	return read(value)
}

// fault is Fault, and false.
func (f *File) fault(n *yaml.Node, path Path, format string, args ...any) bool {
	f.Fault(n, path, format, args...)
	return false
}

// null says whether n is YAML's null or nothing at all.
func null(n *yaml.Node) bool {
	n = target(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// describe names what n is, for faults.
func (f *File) describe(n *yaml.Node) string {
	n = target(n)
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if null(n) {
		return "nothing"
	}
	return f.quote(n.Value)
}

// untold stands in faults for text that nobody may tell.
const untold = "something that is not told"

// quote is text of the file as a fault may tell it.
func (f *File) quote(text string) string {
	if f.hushed > 0 {
		return untold
	}
	return quote(text)
}

// tell is the same without quotes, and at full length.
func (f *File) tell(text string) string {
	if f.hushed > 0 {
		return untold
	}
	return text
}

// quote shows a value in a fault, cut where it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
