package xds

import (
	"cmp"
	"slices"
)

// catalogue holds the current resources of all kinds. It is guarded by the
// hub's lock; the sets that it gives out are shared and never change.
type catalogue struct {
	byName [kinds]map[string]*resource
	all    [kinds]*set // nil when it has to be made anew
}

// set is some resources, ordered by name.
type set struct {
	list    []*resource
	version uint64
}

// newSet makes a set of resources, whose slice it takes over.
func newSet(list []*resource) *set {
	slices.SortFunc(list, func(a, b *resource) int { return cmp.Compare(a.name, b.name) })
	s := &set{list: list}
	for _, r := range list {
		s.version ^= r.version
	}
	return s
}

// put makes r current and reports whether that changes anything; nil takes the
// resource of that name away.
func (c *catalogue) put(k kind, name string, r *resource) bool {
	held := c.byName[k][name]
	if held == r || held != nil && r != nil && held.version == r.version {
		return false
	}
	if r == nil {
		delete(c.byName[k], name)
	} else {
		if c.byName[k] == nil {
			c.byName[k] = map[string]*resource{}
		}
		c.byName[k][name] = r
	}
	c.all[k] = nil
	return true
}

// everything returns all resources of a kind.
func (c *catalogue) everything(k kind) *set {
	if c.all[k] == nil {
		list := make([]*resource, 0, len(c.byName[k]))
		for _, r := range c.byName[k] {
			list = append(list, r)
		}
		c.all[k] = newSet(list)
	}
	return c.all[k]
}

// changedFrom calls found with each resource of s that older, which may be nil,
// does not hold just so.
func (s *set) changedFrom(older *set, found func(*resource)) {
	var before []*resource
	if older != nil {
		before = older.list
	}
	for _, r := range s.list {
		for len(before) > 0 && before[0].name < r.name {
			before = before[1:]
		}
		if len(before) == 0 || before[0].name != r.name || before[0].version != r.version {
			found(r)
		}
	}
}
