package limits

// Entry is one key and value of a request's descriptor.
type Entry struct{ Key, Value string }

// Match returns the rule of the descriptor with these entries, or nil. It
// walks one depth for each entry, in order:
//
//  1. the child of that key and that value, else
//  2. the first child, in the order of the file, whose pattern takes the text
//     key_value, else
//  3. the child of that key alone, else no rule.
//
// Key and value are compared each for itself in 1 and 3, so that no two
// descriptors are one: the rule of key a_b does not take a=b, and that of key
// f_g and value h does not take f=g_h. A pattern sees one text, in which
// nothing tells where the key ends: key c_d with value e* takes c=d_ex.
//
// A choice is never taken back: when the child of key and value leads nowhere
// deeper down, the others are not tried. Only a rule at exactly the depth of
// the last entry applies. Match neither blocks nor allocates.
func (d *Domain) Match(entries []Entry) *Rule {
	if len(entries) == 0 {
		return nil
	}
	at := &d.root
	for i := range entries {
		if at, _ = at.step(&entries[i]); at == nil {
			return nil
		}
	}
	return at.rule
}

// By is by what a descriptor of the rules takes an entry of a request.
type By int

// The ways, in the order in which they are tried.
const (
	ByNothing By = iota
	ByValue      // key and value are those of the entry
	ByPattern    // key_value is like the pattern
	ByKey        // the key is that of the entry, and there is no value
)

// String completes "taken by …".
func (b By) String() string {
	return [...]string{"nothing", "key and value", "pattern", "key alone"}[b]
}

// step is one depth of Match. The node is nil where no child takes the entry.
func (n *node) step(e *Entry) (*node, By) {
	b := n.children[e.Key]
	if b != nil {
		if next := b.exact[e.Value]; next != nil {
			return next, ByValue
		}
	}
	for i := range n.patterns {
		if p := &n.patterns[i]; p.matches(e.Key, e.Value) {
			return p.node, ByPattern
		}
	}
	if b != nil && b.any != nil {
		return b.any, ByKey
	}
	return nil, ByNothing
}
