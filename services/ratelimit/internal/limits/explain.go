package limits

import "fmt"

// Walk is the way of one descriptor's entries through a domain's rules, for
// people to read. It takes the same steps as Match.
type Walk struct {
	// Steps has one element for each entry that was looked at. The walk ends
	// with the first that no descriptor of the rules takes.
	Steps []Step
	// Rule is what Match returns.
	Rule *Rule
	// Why says in a sentence why there is no rule; "" if there is one.
	Why string
}

// Step is one depth of a Walk.
type Step struct {
	Entry Entry
	// By is ByNothing if no candidate takes the entry.
	By By
	// Candidates are the descriptors of this depth, in the order of the file.
	Candidates []Candidate
}

// Candidate is a descriptor of the rules that might take an entry.
type Candidate struct {
	Level Level
	Place Place
	// Limited says that it has a rate_limit.
	Limited bool
	Verdict Verdict
}

// Verdict is what became of a Candidate.
type Verdict int

// The verdicts. OtherKey means that no value of the entry's key would be taken,
// TooLate that it would take the entry, and that another comes before it.
const (
	Taken Verdict = iota
	OtherKey
	OtherValue
	PatternDiffers
	TooLate
)

// String completes "the candidate: …".
func (v Verdict) String() string {
	return [...]string{
		"taken", "another key", "another value", "its pattern does not match", "it matches, but another comes first",
	}[v]
}

// Explain tells how Match finds the rule of these entries, or why there is
// none. It takes time and memory; requests are served by Match.
func (d *Domain) Explain(entries []Entry) Walk {
	var w Walk
	at := &d.root
	for i := range entries {
		next, by := at.step(&entries[i])
		step := Step{Entry: entries[i], By: by}
		for _, child := range at.list {
			step.Candidates = append(step.Candidates, child.candidate(&entries[i], next))
		}
		w.Steps = append(w.Steps, step)
		if next == nil {
			w.Why = fmt.Sprintf("no descriptor at depth %d takes %s=%s", i+1, entries[i].Key, entries[i].Value)
			if len(at.list) == 0 {
				w.Why = fmt.Sprintf("the rules have no descriptors at depth %d, where the request has %s=%s", i+1, entries[i].Key, entries[i].Value)
			}
			return w
		}
		at = next
	}
	w.Rule = at.rule
	switch {
	case len(entries) == 0:
		w.Why = "the request's descriptor has no entries"
	case w.Rule == nil && len(at.list) > 0:
		w.Why = "the descriptor of the last entry has no rate_limit; there are some below it"
	case w.Rule == nil:
		w.Why = "the descriptor of the last entry has no rate_limit"
	}
	return w
}

// candidate judges n at a step that leads to taken.
func (n *node) candidate(e *Entry, taken *node) Candidate {
	c := Candidate{Level: n.level, Place: n.place, Limited: n.rule != nil}
	text := n.level.text()
	switch {
	case n == taken:
		c.Verdict = Taken
	case isPattern(text):
		c.Verdict = PatternDiffers
		if p := newPattern(text, n); p.matches(e.Key, e.Value) {
			c.Verdict = TooLate
		} else if !p.takesKey(e.Key) {
			c.Verdict = OtherKey
		}
	case n.level.Key != e.Key:
		c.Verdict = OtherKey
	case n.level.Value != "" && n.level.Value != e.Value:
		c.Verdict = OtherValue
	default:
		c.Verdict = TooLate
	}
	return c
}
