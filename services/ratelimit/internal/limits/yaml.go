package limits

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// moreNodes is how many more YAML nodes a file may expand to than it could hold
// without aliases, so that aliases of aliases end in a fault and not in all of
// the memory.
const moreNodes = 1 << 16

// document reads YAML nodes strictly: each method adds a fault for what it
// does not take and returns what is left, so that one pass finds every fault.
type document struct {
	*faults
	file     string
	nodes    int  // visited so far, again for each alias
	maxNodes int  // set by root
	full     bool // maxNodes were visited, and the fault was added
}

// at is where a node stands in the file.
func (d *document) at(n *yaml.Node) Place {
	return Place{File: d.file, Line: n.Line, Column: n.Column}
}

// lineOfError finds the line in the messages of the YAML library.
var lineOfError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// root parses text and returns its one document's node, or nil with a fault.
func (d *document) root(text []byte) *yaml.Node {
	start := Place{File: d.file, Line: 1, Column: 1}
	d.maxNodes = 4*len(text) + moreNodes // a node may be looked at more than once
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		d.add(start, "the file is empty; it needs a domain")
		return nil
	} else if err != nil {
		d.syntax(err)
		return nil
	}
	if err := decoder.Decode(&next); err == nil {
		d.add(d.at(&next), "a second document; a rule file holds one")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	if len(doc.Content) == 0 {
		d.add(start, "the file is empty; it needs a domain")
		return nil
	}
	return doc.Content[0]
}

// syntax adds the YAML library's error, which tells a line at best.
func (d *document) syntax(err error) {
	at := Place{File: d.file, Line: 1, Column: 1}
	text := err.Error()
	if m := lineOfError.FindStringSubmatch(text); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			at.Line = line
		}
		text = m[2]
	}
	d.add(at, "not YAML: %s", text)
}

// resolve follows an alias to what it stands for.
func (d *document) resolve(n *yaml.Node) *yaml.Node {
	d.nodes++
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// exhausted says, with one fault, that the file has expanded to too much.
func (d *document) exhausted(n *yaml.Node) bool {
	if d.nodes < d.maxNodes {
		return false
	}
	if !d.full {
		d.full = true
		d.addAnyhow(d.at(n), "the file's aliases expand to more than %d values", d.maxNodes)
	}
	return true
}

// mapping returns a mapping's values by key, or nil, with a fault, for
// anything else.
func (d *document) mapping(n *yaml.Node, k keys) map[string]*yaml.Node {
	at := d.at(n)
	n = d.resolve(n)
	if n.Kind != yaml.MappingNode {
		d.add(at, "%s must be a mapping, not %s", k.what, kindOf(n))
		return nil
	}
	values := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := d.resolve(n.Content[i]), n.Content[i+1]
		_, twice := values[key.Value]
		switch {
		case key.Tag == "!!merge":
			d.add(d.at(n.Content[i]), "%s: merging with << is not supported", k.what)
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			d.add(d.at(n.Content[i]), "a key of %s must be text, not %s", k.what, kindOf(key))
		case twice:
			d.add(d.at(n.Content[i]), "%s has the key %q twice", k.what, brief(key.Value))
		case slices.Contains(k.known, key.Value):
			values[key.Value] = value
		case elsewhere(key.Value) != "":
			d.add(d.at(n.Content[i]), "%s has no key %q, which belongs to %s", k.what, key.Value, elsewhere(key.Value))
		default:
			d.add(d.at(n.Content[i]), "%s has no key %q; it has %s", k.what, brief(key.Value), strings.Join(k.known, ", "))
		}
	}
	return values
}

// sequence returns a list's elements. A nil node or null is an empty list.
func (d *document) sequence(n *yaml.Node, what string) []*yaml.Node {
	if n == nil {
		return nil
	}
	n = d.resolve(n)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.add(d.at(n), "%s must be a list, not %s", what, kindOf(n))
		return nil
	}
	return n.Content
}

// texts are the tags of scalars that are taken as the text that they are
// written as.
var texts = []string{"!!str", "!!int", "!!bool", "!!timestamp"}

// text returns a scalar's text. Numbers without fraction, booleans and dates are
// taken as they are written; null is "".
func (d *document) text(n *yaml.Node, what string) given[string] {
	if n == nil {
		return given[string]{}
	}
	v := given[string]{at: d.at(n), set: true}
	r := d.resolve(n)
	switch {
	case isNull(r):
	case r.Kind == yaml.ScalarNode && slices.Contains(texts, r.Tag):
		v.value = r.Value
	default:
		d.add(v.at, "%s must be text, not %s", what, kindOf(r))
		v.wrong = true
	}
	return v
}

// uint32 returns a whole number of 32 bits.
func (d *document) uint32(n *yaml.Node, what string) given[uint32] {
	if n == nil {
		return given[uint32]{}
	}
	v := given[uint32]{at: d.at(n), set: true}
	r := d.resolve(n)
	if r.Kind != yaml.ScalarNode || r.Tag != "!!int" || r.Decode(&v.value) != nil {
		d.add(v.at, "%s must be a whole number from 0 to 4294967295, not %s", what, kindOf(r))
		v.wrong = true
	}
	return v
}

// bool returns a boolean. Null is none.
func (d *document) bool(n *yaml.Node, what string) given[bool] {
	if n == nil || isNull(d.resolve(n)) {
		return given[bool]{}
	}
	v := given[bool]{at: d.at(n), set: true}
	r := d.resolve(n)
	if r.Kind != yaml.ScalarNode || r.Tag != "!!bool" || r.Decode(&v.value) != nil {
		d.add(v.at, "%s must be true or false, not %s", what, kindOf(r))
		v.wrong = true
	}
	return v
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// kindOf names a node's kind, or the value of a scalar.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!null":
			return "null"
		case "!!str":
			return "the text " + strconv.Quote(brief(n.Value))
		}
		return brief(n.Value)
	default:
		return "an alias"
	}
}
