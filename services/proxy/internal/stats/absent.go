package stats

import "strings"

// Absence is names that are shown of a scope though nothing counts them, as 0, for
// those who read them: what they count can't happen, or has not yet, and its handles are
// made when it first does.
type Absence struct {
	// Scope is its dotted name, in which a * stands for the value of a tag; empty is
	// the root.
	Scope string
	Kind  Kind
	Why   string
	// Names may have dots.
	Names []string
}

// ShowAbsent has names shown from now on, in the scopes that there are. They cost no
// scope any memory. It is called before others use the registry.
func (r *Registry) ShowAbsent(all []Absence) {
	r.absent = map[string][]Absence{}
	for _, a := range all {
		r.absent[a.Scope] = append(r.absent[a.Scope], a)
	}
}

// collectAbsent adds the names that are absent from s, whose place in the tree is that
// of a pattern. Those that s has all the same are not.
func (s *Scope) collectAbsent(pattern string, all *[]Metric) {
	for _, a := range s.registry.absent[pattern] {
		for _, name := range a.Names {
			if !s.has(name) {
				i := identity{flat: join(s.flat, name), prometheus: join(s.prometheus, name), labels: s.labels}
				*all = append(*all, i.metric(a.Kind, 0, false))
			}
		}
	}
}

// has says whether there is a counter or a gauge of that dotted name.
func (s *Scope) has(name string) bool {
	path, name := cutLast(name)
	for path != "" {
		var step string
		step, path, _ = strings.Cut(path, ".")
		if s = s.children[part{value: step}]; s == nil {
			return false
		}
	}
	return s.counters[name] != nil || s.gauges[name] != nil
}
