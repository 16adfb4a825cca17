package limits

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

const matchRules = `
domain: d
descriptors:
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 1}
    descriptors:
      - {key: path, rate_limit: {unit: hour, requests_per_unit: 2}}
      - {key: deep, descriptors: [{key: er, rate_limit: {unit: hour, requests_per_unit: 3}}]}
  - key: user
    value: alice
    descriptors:
      - {key: path, value: /x, rate_limit: {unit: hour, requests_per_unit: 4}}
  - {key: user, value: bob, rate_limit: {unit: hour, requests_per_unit: 5}}
  - {key: user_carol, rate_limit: {unit: hour, requests_per_unit: 6}}
`

func TestMatch(t *testing.T) {
	d := parse(t, matchRules)
	for _, c := range []struct {
		name    string
		entries []Entry
		want    string // the rule's key
	}{
		{"a_key_alone_takes_any_value", []Entry{{"user", "zoe"}}, "user"},
		{"a_key_alone_takes_the_empty_value", []Entry{{"user", ""}}, "user"},
		{"a_value_wins_over_its_key_alone", []Entry{{"user", "bob"}}, "user_bob"},
		{"a_value_without_a_limit_still_wins", []Entry{{"user", "alice"}}, ""},
		{"deeper_entries_find_deeper_rules", []Entry{{"user", "zoe"}, {"path", "/x"}}, "user.path"},
		{"a_choice_is_not_taken_back", []Entry{{"user", "alice"}, {"path", "/y"}}, ""},
		{"a_chosen_value_leads_deeper", []Entry{{"user", "alice"}, {"path", "/x"}}, "user_alice.path_/x"},
		{"a_limit_above_the_last_entry_does_not_apply", []Entry{{"user", "bob"}, {"path", "/x"}}, ""},
		{"a_limit_below_the_last_entry_does_not_apply", []Entry{{"user", "zoe"}, {"deep", ""}}, ""},
		{"key_and_value_are_not_glued_together", []Entry{{"user", "carol"}}, "user"},
		{"a_key_that_looks_glued_is_its_own", []Entry{{"user_carol", "x"}}, "user_carol"},
		{"entries_in_another_order_are_another_descriptor", []Entry{{"path", "/x"}, {"user", "zoe"}}, ""},
		{"an_unknown_key_meets_no_rule", []Entry{{"host", "h"}}, ""},
		{"no_entries_meet_no_rule", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule := d.Match(c.entries)
			if c.want == "" {
				require.Nil(t, rule)
				return
			}
			require.NotNil(t, rule)
			require.Equal(t, c.want, rule.Key)
		})
	}
}

var matched = []Entry{{"user", "alice"}, {"path", "/x"}}

func TestMatchDoesNotAllocate(t *testing.T) {
	d := parse(t, matchRules)
	servicetest.Allocations(t, 0, func() {
		if d.Match(matched) == nil {
			t.Error("no rule")
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	d := parse(b, matchRules)
	b.ReportAllocs()
	for b.Loop() {
		d.Match(matched)
	}
}
