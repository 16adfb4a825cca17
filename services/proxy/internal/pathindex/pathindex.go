// Package pathindex finds those of a long list of patterns of paths that can
// match a path, in the order of the list, without a look at each. The route
// table asks it for each request, and holds the patterns that it names one after
// the other. It matches nothing itself, and regular expressions it always names.
package pathindex

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/matcher"
)

// Pattern is one pattern of a list.
type Pattern struct {
	Kind Kind
	// Text is in lower case if Fold is set.
	Text string
	Fold bool // the case of ASCII letters says nothing
	// Final says that a path which matches needs nothing more: no later pattern
	// is asked for.
	Final bool
}

// Kind is how a path matches the text of a pattern.
type Kind int

// The kinds of patterns, by their fields of RouteMatch.
const (
	Whole    Kind = iota // path: it is the text
	Prefix               // prefix: it begins with the text
	Segments             // path_separated_prefix: it is the text, or begins with it and a slash
	Regex                // safe_regex: nothing is known of it
)

// Index is the index of a list. It never changes.
type Index struct {
	exact  texts // of patterns that are case-sensitive
	folded texts // of those that are not
	others []int32
}

// texts are the texts of patterns, sorted.
type texts struct {
	nodes []node
	fold  bool // texts are in lower case, and paths are read so
}

// node is one text. Which patterns a path matches that begins with it, and with
// no longer one, is known here: those of the text, and those of the texts that
// it begins with itself.
type node struct {
	text string
	up   int32 // the longest other text that it begins with, or none
	// Numbers of patterns in their order: if the path is the text, and if it is
	// longer.
	whole, longer []int32
	// next is the node whose longer has more of them, or none.
	next int32
}

const none = -1

// gathered is how many patterns of the texts above a node are repeated in it.
const gathered = 16

// New makes the index of a list.
func New(list []Pattern) *Index {
	x := &Index{folded: texts{fold: true}}
	exact, folded := map[string]*node{}, map[string]*node{}
	for i, p := range list {
		nodes := exact
		if p.Fold {
			nodes = folded
		}
		at := func(text string) *node {
			if nodes[text] == nil {
				nodes[text] = &node{text: text}
			}
			return nodes[text]
		}
		var whole, longer *node
		switch p.Kind {
		case Whole:
			whole = at(p.Text)
		case Prefix:
			longer = at(p.Text)
		case Segments:
			whole, longer = at(p.Text), at(p.Text+"/")
		default:
			x.others = append(x.others, int32(i))
		}
		if whole != nil {
			whole.whole = append(whole.whole, int32(i))
		}
		if longer != nil {
			longer.longer = append(longer.longer, int32(i))
		}
	}
	x.exact.build(exact, list)
	x.folded.build(folded, list)
	return x
}

// build sorts the nodes and passes on the patterns of each to those below it.
func (t *texts) build(own map[string]*node, patterns []Pattern) {
	for _, n := range own {
		t.nodes = append(t.nodes, *n)
	}
	slices.SortFunc(t.nodes, func(a, b node) int { return cmp.Compare(a.text, b.text) })
	for i := range t.nodes {
		n := &t.nodes[i]
		// A text stands before all that begin with it, and those in between do.
		n.up, n.next = int32(i-1), none
		for n.up != none && !strings.HasPrefix(n.text, t.nodes[n.up].text) {
			n.up = t.nodes[n.up].up
		}
		longer := cut(n.longer, patterns)
		if n.up != none {
			above := &t.nodes[n.up]
			all := cut(merge(longer, above.longer), patterns)
			switch {
			case len(longer) == 0:
				longer, n.next = above.longer, above.next
			case len(all) <= gathered:
				longer, n.next = all, above.next
			default:
				n.next = n.up
			}
		}
		n.longer = longer
		n.whole = cut(merge(n.whole, longer), patterns)
	}
}

// cut ends a list of patterns that all match behind the first final one.
func cut(list []int32, patterns []Pattern) []int32 {
	for i, number := range list {
		if patterns[number].Final {
			return list[: i+1 : i+1]
		}
	}
	return list
}

// merge makes one sorted list of two.
func merge(a, b []int32) []int32 {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// Candidates are the patterns that can match a path. The zero value is empty.
type Candidates struct { // some lists, each sorted
	lists [6][]int32
	count int
}

// add adds a list, and says whether there was room.
func (c *Candidates) add(list []int32) bool {
	if len(list) == 0 {
		return true
	}
	if c.count == len(c.lists) {
		return false
	}
	c.lists[c.count] = list
	c.count++
	return true
}

// Next takes the number of the next pattern out, in the list's order; it is
// negative if none is left.
func (c *Candidates) Next() int {
	least, from := int32(math.MaxInt32), none
	for i, list := range c.lists[:c.count] {
		if len(list) > 0 && list[0] < least {
			least, from = list[0], i
		}
	}
	if from == none {
		return none
	}
	c.lists[from] = c.lists[from][1:]
	return int(least)
}

// Find gathers the patterns that can match a path, up to a final one that does,
// in an empty Candidates. It returns false if they are too scattered: the caller
// has to go through the whole list then. It allocates nothing.
func (x *Index) Find(path []byte, into *Candidates) bool {
	return into.add(x.others) && x.exact.add(path, into) && x.folded.add(path, into)
}

// add adds the patterns of the longest text that the path begins with.
func (t *texts) add(path []byte, into *Candidates) bool {
	i := t.find(path)
	if i == none {
		return true
	}
	n := &t.nodes[i]
	list := n.longer
	if len(n.text) == len(path) {
		list = n.whole
	}
	for {
		if !into.add(list) {
			return false
		}
		if n.next == none {
			return true
		}
		n = &t.nodes[n.next]
		list = n.longer
	}
}

// find is the longest text that the path begins with. It begins the last text
// that does not stand behind the path, too, as all texts in between do.
func (t *texts) find(path []byte) int32 {
	low, high := 0, len(t.nodes)
	for low < high {
		if middle := (low + high) / 2; t.behind(t.nodes[middle].text, path) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	i := int32(low - 1)
	if i == none {
		return none
	}
	same := t.same(t.nodes[i].text, path)
	for i != none && len(t.nodes[i].text) > same {
		i = t.nodes[i].up
	}
	return i
}

// behind says whether text stands behind the path in the order of texts.
func (t *texts) behind(text string, path []byte) bool {
	if !t.fold {
		return text > string(path)
	}
	n := t.same(text, path)
	return n < len(text) && (n == len(path) || text[n] > matcher.Lower(path[n]))
}

// same is how many bytes the path begins with that text does, too.
func (t *texts) same(text string, path []byte) int {
	n := min(len(text), len(path))
	for i := range n {
		if c := path[i]; text[i] != c && (!t.fold || text[i] != matcher.Lower(c)) {
			return i
		}
	}
	return n
}
