package limits

// Entry is one key and value of a request's descriptor.
type Entry struct{ Key, Value string }

// Match returns the rule of the descriptor with these entries, or nil. It
// walks one depth for each entry, in order:
//
//  1. the child of that key and that value, else
//  2. the child of that key alone, else no rule.
//
// A choice is never taken back: when the child of key and value leads nowhere
// deeper down, the child of the key alone is not tried. Only a rule at exactly
// the depth of the last entry applies. Match neither blocks nor allocates.
func (d *Domain) Match(entries []Entry) *Rule {
	if len(entries) == 0 {
		return nil
	}
	at := &d.root
	for i := range entries {
		b := at.children[entries[i].Key]
		if b == nil {
			return nil
		}
		at = b.exact[entries[i].Value]
		if at == nil {
			at = b.any
		}
		if at == nil {
			return nil
		}
	}
	return at.rule
}
