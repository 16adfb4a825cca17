package route

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/matcher"
)

// shortList is how many entries are tried one after the other without an index.
const shortList = 8

// index finds those entries of a long list whose path condition can hold for a
// path, in the list's order, so that the first whose other conditions hold too
// is the one that a walk through the whole list finds. It holds no path
// condition itself: the entries are asked all the same.
type index struct {
	exact  texts // of conditions that are case-sensitive
	folded texts // of those that are not
	// others are entries whose path condition is a regular expression.
	others []int32
}

// texts are the texts of path conditions, sorted.
type texts struct {
	nodes []node
	fold  bool // texts are in lower case, and paths are read so
}

// node is one text. Which entries a path can match that begins with it, and
// with no longer one, is known here: those of the text, and those of the texts
// that it begins with itself.
type node struct {
	text string
	up   int32 // the longest other text that it begins with, or none
	// Numbers of entries in their order: if the path is the text, and if it is
	// longer.
	whole, longer []int32
	// next is the node whose longer has more of them, or none.
	next int32
}

const none = -1

// gathered is how many entries of the texts above a node are repeated in it.
const gathered = 16

// newIndex makes the index of a list; nil if the list is short.
func newIndex(entries []entry) *index {
	if len(entries) <= shortList {
		return nil
	}
	x := &index{folded: texts{fold: true}}
	own := [2]map[string]*node{{}, {}}
	for i := range entries {
		c := &entries[i].path
		if c.kind == pathRegex {
			x.others = append(x.others, int32(i))
			continue
		}
		nodes := own[0]
		if c.fold {
			nodes = own[1]
		}
		at := func(text string) *node {
			if nodes[text] == nil {
				nodes[text] = &node{text: text}
			}
			return nodes[text]
		}
		if c.kind == wholePath || c.kind == pathSegments {
			n := at(c.text)
			n.whole = append(n.whole, int32(i))
		}
		switch c.kind {
		case pathPrefix:
			n := at(c.text)
			n.longer = append(n.longer, int32(i))
		case pathSegments:
			n := at(c.text + "/")
			n.longer = append(n.longer, int32(i))
		}
	}
	x.exact.build(own[0], entries)
	x.folded.build(own[1], entries)
	return x
}

// build sorts the nodes and passes on the entries of each to those below it.
func (t *texts) build(own map[string]*node, entries []entry) {
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
		longer := cut(n.longer, entries)
		if n.up != none {
			above := &t.nodes[n.up]
			all := cut(merge(longer, above.longer), entries)
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
		n.whole = cut(merge(n.whole, longer), entries)
	}
}

// cut ends a list of entries whose path conditions hold behind the first that
// has no other condition, since no later one is reached.
func cut(list []int32, entries []entry) []int32 {
	for i, number := range list {
		if len(entries[number].conditions) == 0 {
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

// candidates is the entries that can match a path: some lists, each sorted.
type candidates struct {
	lists [6][]int32
	count int
}

// add adds a list, and says whether there was room.
func (c *candidates) add(list []int32) bool {
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

// next takes the least number out of the lists; it is negative if none is left.
func (c *candidates) next() int32 {
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
	return least
}

// candidates gathers the entries that can match a path; false if they lie in
// too many lists.
func (x *index) candidates(path []byte, into *candidates) bool {
	return into.add(x.others) && x.exact.add(path, into) && x.folded.add(path, into)
}

// add adds the entries of the longest text that the path begins with.
func (t *texts) add(path []byte, into *candidates) bool {
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
