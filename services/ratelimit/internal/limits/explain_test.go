package limits

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// show writes a walk as a person would read it.
func show(w Walk) string {
	var b strings.Builder
	for _, s := range w.Steps {
		fmt.Fprintf(&b, "%s=%s by %s\n", s.Entry.Key, s.Entry.Value, s.By)
		for _, c := range s.Candidates {
			fmt.Fprintf(&b, "  %s %s limited=%t: %s\n", c.Place, describe(c.Level), c.Limited, c.Verdict)
		}
	}
	if w.Rule != nil {
		return b.String() + "meets " + w.Rule.Key
	}
	return b.String() + w.Why
}

func TestExplainTellsWhyEachDescriptorWasTakenOrNot(t *testing.T) {
	d := parse(t, `
domain: d
descriptors:
  - {key: user, value: bob, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: user, value: b*, descriptors: [{key: path, rate_limit: {unit: hour, requests_per_unit: 1}}]}
  - {key: user, value: "*", descriptors: [{key: path}]}
  - {key: user}
  - {key: host}
`)
	for _, c := range []struct {
		name    string
		entries []Entry
		want    string
	}{
		{"a_value", []Entry{{"user", "bob"}}, `
user=bob by key and value
  rules.yaml:4:5 user=bob limited=true: taken
  rules.yaml:5:5 user=b* limited=false: it matches, but another comes first
  rules.yaml:6:5 user=* limited=false: it matches, but another comes first
  rules.yaml:7:5 user limited=false: it matches, but another comes first
  rules.yaml:8:5 host limited=false: another key
meets user_bob`},
		{"a_pattern", []Entry{{"user", "ben"}, {"path", "/"}}, `
user=ben by pattern
  rules.yaml:4:5 user=bob limited=true: another value
  rules.yaml:5:5 user=b* limited=false: taken
  rules.yaml:6:5 user=* limited=false: it matches, but another comes first
  rules.yaml:7:5 user limited=false: it matches, but another comes first
  rules.yaml:8:5 host limited=false: another key
path=/ by key alone
  rules.yaml:5:42 path limited=true: taken
meets user_b*.path`},
		{"nothing", []Entry{{"use", "r"}}, `
use=r by nothing
  rules.yaml:4:5 user=bob limited=true: another key
  rules.yaml:5:5 user=b* limited=false: another key
  rules.yaml:6:5 user=* limited=false: another key
  rules.yaml:7:5 user limited=false: another key
  rules.yaml:8:5 host limited=false: another key
no descriptor at depth 1 takes use=r`},
		{"too_many_entries", []Entry{{"host", "h"}, {"path", "/"}}, `
host=h by key alone
  rules.yaml:4:5 user=bob limited=true: another key
  rules.yaml:5:5 user=b* limited=false: another key
  rules.yaml:6:5 user=* limited=false: another key
  rules.yaml:7:5 user limited=false: another key
  rules.yaml:8:5 host limited=false: taken
path=/ by nothing
the rules have no descriptors at depth 2, where the request has path=/`},
		{"no_entries", nil, "\nthe request's descriptor has no entries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, strings.TrimPrefix(c.want, "\n"), show(d.Explain(c.entries)))
		})
	}
	require.Equal(t, "the descriptor of the last entry has no rate_limit", d.Explain([]Entry{{"host", ""}}).Why)
	require.Equal(t, "the descriptor of the last entry has no rate_limit; there are some below it", d.Explain([]Entry{{"user", "ben"}}).Why)
}

func TestExplainSaysOfAPatternWhetherItCouldTakeTheKey(t *testing.T) {
	for _, c := range []struct {
		level Level
		entry Entry
		want  Verdict
	}{
		{Level{Key: "c", Value: "e*"}, Entry{"c", "x"}, PatternDiffers},
		{Level{Key: "c", Value: "e*"}, Entry{"c", "ex"}, TooLate},
		{Level{Key: "c_d", Value: "e*"}, Entry{"c", "x"}, PatternDiffers},
		{Level{Key: "c_d", Value: "e*"}, Entry{"c", "d_ex"}, TooLate},
		{Level{Key: "c", Value: "d_*"}, Entry{"c_d", ""}, TooLate},
		{Level{Key: "c", Value: "e_*"}, Entry{"c_d", ""}, OtherKey},
		{Level{Key: "c", Value: "*x"}, Entry{"c_d", "y"}, PatternDiffers},
		{Level{Key: "cd", Value: "e*"}, Entry{"c", "x"}, OtherKey},
		{Level{Key: "c", Value: "e*"}, Entry{"cd", "x"}, OtherKey},
		{Level{Key: "c*", Value: "x"}, Entry{"cd", "y"}, PatternDiffers},
		{Level{Key: "c*", Value: "x"}, Entry{"d", "x"}, OtherKey},
		{Level{Key: "*", Value: "x"}, Entry{"", "y"}, PatternDiffers},
	} {
		n := &node{level: c.level}
		require.Equal(t, c.want, n.candidate(&c.entry, nil).Verdict, "%v %v", c.level, c.entry)
	}
}

// slow is what Match is said to do, over what Explain is told of the rules.
func slow(n *node, entries []Entry) *Rule {
	for _, e := range entries {
		var next *node
		for _, c := range n.list {
			if c.level == (Level{Key: e.Key, Value: e.Value}) && e.Value != "" {
				next = c
			}
		}
		for _, c := range n.list {
			if text := c.level.text(); next == nil && strings.Contains(text, "*") && like(text, e.Key+"_"+e.Value) {
				next = c
			}
		}
		for _, c := range n.list {
			if next == nil && c.level == (Level{Key: e.Key}) {
				next = c
			}
		}
		if next == nil {
			return nil
		}
		n = next
	}
	return n.rule
}

func TestMatchAndExplainWalkAlikeOnRandomTrees(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	word := func(letters string) string { return string(letters[r.IntN(len(letters))]) }
	var grow func(n *node, depth int)
	grow = func(n *node, depth int) {
		for range r.IntN(5) {
			level := Level{Key: word("ab*") + word("c_"), Value: []string{"", "a", "*", "b*", "*b"}[r.IntN(5)]}
			if child, other := n.child(level, Place{}); other == nil {
				if r.IntN(2) == 0 {
					child.rule = &Rule{}
				}
				if depth < 3 {
					grow(child, depth+1)
				}
				continue
			}
			*n = node{level: n.level, rule: n.rule} // faults are no trees
		}
	}
	met := map[By]int{}
	for range 600 {
		d := &Domain{}
		grow(&d.root, 1)
		for range 20 {
			entries := make([]Entry, 1+r.IntN(3))
			for i := range entries {
				entries[i] = Entry{word("ab*") + word("c_"), []string{"", "a", "b", "ab", "*"}[r.IntN(5)]}
			}
			rule := d.Match(entries)
			w := d.Explain(entries)
			require.Same(t, slow(&d.root, entries), rule)
			require.Same(t, rule, w.Rule)
			require.Equal(t, rule == nil, w.Why != "")
			for _, s := range w.Steps {
				met[s.By]++
				taken := 0
				for _, c := range s.Candidates {
					if c.Verdict == Taken {
						taken++
					}
				}
				require.Equal(t, s.By != ByNothing, taken == 1)
			}
		}
	}
	for _, by := range []By{ByNothing, ByValue, ByPattern, ByKey} {
		require.Greater(t, met[by], 100, by.String())
	}
}
