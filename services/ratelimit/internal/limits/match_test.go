package limits

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

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
  - {key: f_g, value: h, rate_limit: {unit: hour, requests_per_unit: 7}}
  - {key: c_d, value: e*, rate_limit: {unit: hour, requests_per_unit: 8}}
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
		{"the_key_ends_where_the_rule_says", []Entry{{"f", "g_h"}}, ""},
		{"a_pattern_does_not_see_where_the_key_ends", []Entry{{"c", "d_ex"}}, "c_d_e*"},
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

const patternRules = `
domain: d
descriptors:
  - {key: path, value: /pay/exact, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: path, value: /pay/*, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: path, value: /pay/sooner, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: path, value: "/*/admin/*/x", rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: path, value: "*/x", descriptors: [{key: deep, rate_limit: {unit: hour, requests_per_unit: 1}}]}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: a*b, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: k*, value: v*, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: two, value: "aa*aa", rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: mid, value: "*ab*ab*", rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: "__*__", value: "x", rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: many, value: "**b***", rate_limit: {unit: hour, requests_per_unit: 1}}
  - key: all
    descriptors:
      - {key: "*", rate_limit: {unit: hour, requests_per_unit: 1}}
      - {key: late, value: 1, rate_limit: {unit: hour, requests_per_unit: 1}}
      - {key: never, value: "*", rate_limit: {unit: hour, requests_per_unit: 1}}
`

func TestMatchPatterns(t *testing.T) {
	d := parse(t, patternRules)
	for _, c := range []struct {
		name    string
		entries []Entry
		want    string // the rule's key
	}{
		{"a_value_wins_over_a_pattern_after_it", []Entry{{"path", "/pay/exact"}}, "path_/pay/exact"},
		{"a_value_wins_over_a_pattern_before_it", []Entry{{"path", "/pay/sooner"}}, "path_/pay/sooner"},
		{"a_pattern_wins_over_the_key_alone", []Entry{{"path", "/pay/x"}}, "path_/pay/*"},
		{"a_star_stands_for_nothing_too", []Entry{{"path", "/pay/"}}, "path_/pay/*"},
		{"a_star_does_not_stand_for_what_is_written", []Entry{{"path", "/pay"}}, "path"},
		{"the_pattern_itself_is_a_value", []Entry{{"path", "/pay/*"}}, "path_/pay/*"},
		{"the_first_of_two_patterns_wins", []Entry{{"path", "/v1/admin/u/x"}}, "path_/*/admin/*/x"},
		{"the_second_pattern_takes_what_the_first_does_not", []Entry{{"path", "/v1/admin/x"}, {"deep", ""}}, "path_*/x.deep"},
		{"a_pattern_without_a_limit_still_wins", []Entry{{"path", "/v1/x"}}, ""},
		{"a_pattern_is_not_taken_back", []Entry{{"path", "/v1/x"}, {"other", ""}}, ""},
		{"a_pattern_in_a_key_reaches_into_the_value", []Entry{{"abc", "cab"}}, "a*b"},
		{"a_pattern_in_a_key_must_end_with_the_value", []Entry{{"ab", "c"}}, ""},
		{"a_pattern_in_a_key_with_an_empty_value", []Entry{{"ab", ""}}, ""},
		{"patterns_in_key_and_value", []Entry{{"key", "value"}}, "k*_v*"},
		{"the_underscore_between_them_may_lie_elsewhere", []Entry{{"k_v", "w"}}, "k*_v*"},
		{"the_pieces_of_a_pattern_do_not_overlap", []Entry{{"two", "aaa"}}, ""},
		{"the_pieces_of_a_pattern_may_touch", []Entry{{"two", "aaaa"}}, "two_aa*aa"},
		{"pieces_in_the_middle_are_looked_for_in_order", []Entry{{"mid", "xabyabz"}}, "mid_*ab*ab*"},
		{"pieces_in_the_middle_do_not_overlap", []Entry{{"mid", "xabz"}}, ""},
		{"pieces_may_hold_the_underscore", []Entry{{"__", "_x"}}, ""},
		{"a_piece_across_key_and_value", []Entry{{"___", "__x"}}, "__*___x"},
		{"several_stars_are_as_one", []Entry{{"many", "abc"}}, "many_**b***"},
		{"several_stars_need_what_is_between_them", []Entry{{"many", "ac"}}, ""},
		{"a_star_alone_takes_every_key", []Entry{{"all", ""}, {"any", "thing"}}, "all.*"},
		{"a_star_alone_takes_empty_keys", []Entry{{"all", ""}, {"", ""}}, "all.*"},
		{"a_value_wins_over_a_star_before_it", []Entry{{"all", ""}, {"late", "1"}}, "all.late_1"},
		{"a_pattern_after_one_that_takes_all_is_not_reached", []Entry{{"all", ""}, {"never", "x"}}, "all.*"},
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

// like is the meaning of a pattern, slowly: the text with a * stands for any
// run of bytes.
func like(pattern, text string) bool {
	first, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == text
	}
	text, found = strings.CutPrefix(text, first)
	for i := 0; found && i <= len(text); i++ {
		if like(rest, text[i:]) {
			return true
		}
	}
	return false
}

func TestPatternsMatchWhatTheyMean(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(letters string, most int) string {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	matched := 0
	for range 100_000 {
		pattern := text("ab_*", 4) + "*" + text("ab_*", 4)
		key, value := text("ab_", 5), text("ab_", 5)
		p := newPattern(pattern, nil)
		want := like(pattern, key+"_"+value)
		require.Equal(t, want, p.matches(key, value), "%s on %s_%s", pattern, key, value)
		if want {
			matched++
		}
	}
	require.Greater(t, matched, 10_000)
}

// A pattern that fits in many places must not be tried from each of them.
func TestALongValueCostsTimeInProportion(t *testing.T) {
	piece := strings.Repeat("a", 60)
	p := newPattern("*"+piece+"b*"+piece+"c*"+piece+"d", nil)
	long := strings.Repeat("a", 1<<20)
	began := servicetest.CPUTime(t)
	require.False(t, p.matches(long, long))
	require.True(t, p.matches(long, long+"b"+long+"c"+long+"d"))
	require.Less(t, servicetest.CPUTime(t)-began, 5*time.Second)
}

var matched = []Entry{{"user", "alice"}, {"path", "/x"}}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, c := range []struct {
		name, rules string
		entries     []Entry
	}{
		{"by_value", matchRules, matched},
		{"by_pattern", patternRules, []Entry{{"path", "/v1/admin/x"}, {"deep", ""}}},
		{"by_key_past_patterns", patternRules, []Entry{{"path", strings.Repeat("long", 1000)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := parse(t, c.rules)
			servicetest.Allocations(t, 0, func() {
				if d.Match(c.entries) == nil {
					t.Error("no rule")
				}
			})
		})
	}
}

// siblings is a domain of n values of one key, and one pattern after them.
func siblings(n int) string {
	var b strings.Builder
	b.WriteString("domain: d\ndescriptors:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {key: user, value: u%d, rate_limit: {unit: hour, requests_per_unit: 1}}\n", i)
	}
	b.WriteString("- {key: user, value: g*, rate_limit: {unit: hour, requests_per_unit: 1}}\n")
	return b.String()
}

func BenchmarkMatch(b *testing.B) {
	for _, c := range []struct {
		name, rules string
		entries     []Entry
	}{
		{"two_entries", matchRules, matched},
		{"the_fourth_pattern", patternRules, []Entry{{"path", "/v1/admin/u/x"}}},
		{"past_all_patterns", patternRules, []Entry{{"path", "/v1/users/alice"}}},
		{"one_of_a_thousand_values", siblings(1000), []Entry{{"user", "u500"}}},
		{"a_pattern_after_a_thousand_values", siblings(1000), []Entry{{"user", "guest"}}},
		{"a_value_of_a_megabyte", patternRules, []Entry{{"mid", strings.Repeat("a", 1<<20)}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := parse(b, c.rules)
			b.ReportAllocs()
			for b.Loop() {
				d.Match(c.entries)
			}
		})
	}
}
