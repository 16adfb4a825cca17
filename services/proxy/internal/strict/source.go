package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on what a small text can be made to stand for.
const (
	// maxAliased counts the values reached through aliases and merge keys.
	maxAliased = 200_000
	// maxDepth counts nested values.
	maxDepth = 1_000
)

// source is one parsed text. Aliases stay aliases in its nodes and are
// followed while reading, within bounds.
type source struct {
	file string
	root *yaml.Node
	// flat has the entries of each mapping met so far, merge keys resolved.
	flat map[*yaml.Node][]entry
	// aliased counts toward maxAliased.
	aliased int
}

// entry is one key of a mapping with its value.
type entry struct{ key, value *yaml.Node }

// What the YAML library's errors are like. Those of its parser proper, but not
// those of its scanner, count lines from 0, and the first line is left out.
var (
	yamlLine   = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
	yamlParser = regexp.MustCompile(`did not find expected (?:<|node content|'-' indicator|key|',' or)`)
)

// parse reads the one document of text. A text without a document has no
// root. The fault is nil unless the syntax is broken.
func parse(file string, text []byte) (*source, *Fault) {
	s := &source{file: file, flat: map[*yaml.Node][]entry{}}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return s, nil
	}
	if err != nil {
		return s, syntaxFault(file, err)
	}
	s.root = document.Content[0]
	switch err := decoder.Decode(&second); {
	case err == nil:
		return s, &Fault{File: file, Line: second.Line, Column: second.Column, Text: "a second document: want one in a file"}
	case !errors.Is(err, io.EOF):
		return s, syntaxFault(file, err)
	}
	return s, nil
}

func syntaxFault(file string, err error) *Fault {
	f := &Fault{File: file, Line: 1, Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		f.Text = err.Error()[len(m[0]):]
		if yamlParser.MatchString(f.Text) {
			f.Line++
		}
	}
	return f
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
// wrong with them goes to fault once, at the first call for the mapping.
func (s *source) entries(n *yaml.Node, fault faultFunc) []entry {
	if flat, ok := s.flat[n]; ok {
		return flat
	}
	s.flat[n] = nil // Stays nil while the mapping is being read.
	flat := []entry{}
	first := map[string]*yaml.Node{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := target(n.Content[i]), n.Content[i+1]
		switch {
		case key.Tag == "!ignore":
		case key.Kind != yaml.ScalarNode:
			fault(key, "the key of an entry must be a name")
		case key.ShortTag() == "!!merge":
			merges = append(merges, value)
		case first[key.Value] != nil:
			fault(key, fmt.Sprintf("duplicate key %q: it stands on line %d already", key.Value, first[key.Value].Line))
		default:
			first[key.Value] = key
			flat = append(flat, entry{key, value})
		}
	}
	for _, merge := range merges {
		for _, e := range s.merged(merge, fault) {
			if first[e.key.Value] == nil {
				first[e.key.Value] = e.key
				flat = append(flat, e)
			}
		}
	}
	s.flat[n] = flat
	return flat
}

// merged are the entries that the value of a merge key stands for; of several
// mappings the earlier wins.
func (s *source) merged(value *yaml.Node, fault faultFunc) []entry {
	mappings := []*yaml.Node{value}
	if list := target(value); list.Kind == yaml.SequenceNode {
		mappings = list.Content
	}
	var all []entry
	for _, item := range mappings {
		mapping := target(item)
		if mapping.Kind != yaml.MappingNode {
			fault(item, "a merge key wants a mapping or a list of mappings")
			continue
		}
		flat := s.entries(mapping, fault)
		if flat == nil {
			fault(item, "a mapping merges itself")
		}
		if !s.spend(len(flat)+1, item, fault) {
			return nil
		}
		all = append(all, flat...)
	}
	return all
}

// spend takes n of the values that may be reached through aliases. It is false
// when there are none left, which is a fault at the first time.
func (s *source) spend(n int, at *yaml.Node, fault faultFunc) bool {
	if s.aliased <= maxAliased && s.aliased+n > maxAliased {
		fault(at, fmt.Sprintf("aliases and merge keys stand for more than %d values", maxAliased))
	}
	s.aliased = min(s.aliased, maxAliased) + n
	return s.aliased <= maxAliased
}

// faultFunc notes what is wrong with a node.
type faultFunc func(at *yaml.Node, text string)

// locate finds the position of the longest part of path that the sources have.
// Later sources were merged over earlier ones: their lists go on where the
// earlier one's end, and of anything else the last word is theirs.
func locate(sources []*source, path Path) (file string, line, column int) {
	type place struct {
		*source
		at, value *yaml.Node
	}
	var here []place
	for _, s := range sources {
		if s.root != nil {
			here = append(here, place{s, s.root, s.root})
		}
	}
	if len(here) == 0 {
		return sources[0].file, 0, 0
	}
	silent := func(*yaml.Node, string) {}
	for _, step := range path.steps() {
		var next []place
		for _, p := range here {
			value := target(p.value)
			switch {
			case step.isIndex && value.Kind == yaml.SequenceNode:
				if step.index >= 0 && step.index < len(value.Content) && next == nil {
					item := value.Content[step.index]
					next = []place{{p.source, item, item}}
				}
				step.index -= len(value.Content)
			case !step.isIndex && value.Kind == yaml.MappingNode:
				for _, e := range p.entries(value, silent) {
					if e.key.Value == step.name || !step.isKey && e.key.Value == camelCase(step.name) {
						next = append(next, place{p.source, e.key, e.value})
						break
					}
				}
			}
		}
		if next == nil {
			break
		}
		here = next
	}
	last := here[len(here)-1]
	return last.file, last.at.Line, last.at.Column
}

// camelCase is the JSON form of a field's name: "port_value" → "portValue".
func camelCase(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; c == '_' && i+1 < len(name) && 'a' <= name[i+1] && name[i+1] <= 'z' {
			b.WriteByte(name[i+1] - 'a' + 'A')
			i++
		} else if c != '_' {
			b.WriteByte(c)
		}
	}
	return b.String()
}
