package limits

import (
	"iter"
	"slices"
)

// Descriptor is one descriptor of the rules, for people to read.
type Descriptor struct {
	// Levels are those on the way to it, the last its own.
	Levels []Level
	Place  Place
	// Rule is that of its rate_limit, nil if it has none.
	Rule *Rule
	// Below says that there are descriptors below it.
	Below bool
}

// Descriptors goes through the descriptors of the rules in the order of the
// files, each before those below it.
func (d *Domain) Descriptors() iter.Seq[Descriptor] {
	return func(yield func(Descriptor) bool) { d.root.descriptors(nil, yield) }
}

// descriptors is false once yield was.
func (n *node) descriptors(way []Level, yield func(Descriptor) bool) bool {
	for _, child := range n.list {
		levels := append(slices.Clip(way), child.level)
		if !yield(Descriptor{Levels: levels, Place: child.place, Rule: child.rule, Below: len(child.list) > 0}) ||
			!child.descriptors(levels, yield) {
			return false
		}
	}
	return true
}

// DetailedMetric says that the name of the rule's counters holds the keys and
// values of requests.
func (r *Rule) DetailedMetric() bool { return r.byRequest != nil && r.byRequest.detailed }

// NameOf returns the rule label of counters, or "" if they are none of s.
func (s *Stats) NameOf(counters *Counters) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, found := range s.series {
		if &found.Counters == counters {
			return name.rule
		}
	}
	return ""
}
