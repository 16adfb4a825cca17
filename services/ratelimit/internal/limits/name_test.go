package limits

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNoTwoRulesAreCalledTheSame(t *testing.T) {
	for _, c := range []struct {
		name        string
		descriptors []string
		want        []string // the rules' keys
	}{
		{"what_reads_one_way_is_spelled_as_by_the_peer", []string{
			`{key: remote_address, LIMIT, descriptors: [{key: path, value: /x, LIMIT}]}`, `{key: user, value: bob, LIMIT}`, `{key: user, LIMIT}`,
		}, []string{"remote_address", "remote_address.path_/x", "user_bob", "user"}},
		{"a_key_and_a_key_with_a_value", []string{
			`{key: a_b, LIMIT}`, `{key: a, value: b, LIMIT}`, `{key: c, LIMIT}`,
		}, []string{`"a_b"`, `"a"="b"`, "c"}},
		{"a_key_and_two_depths", []string{
			`{key: a.b, LIMIT}`, `{key: a, LIMIT, descriptors: [{key: b, LIMIT}]}`,
		}, []string{`"a.b"`, "a", `"a"."b"`}},
		{"what_is_below_them_too", []string{
			`{key: a_b, descriptors: [{key: c, LIMIT}]}`, `{key: a, value: b, descriptors: [{key: c, LIMIT}, {key: d, LIMIT}]}`,
		}, []string{`"a_b"."c"`, `"a"="b"."c"`, "a_b.d"}},
		{"a_key_that_is_called_as_what_belongs_to_no_rule", []string{
			`{key: (override), LIMIT}`, `{key: (other), LIMIT}`,
		}, []string{`"(override)"`, `"(other)"`}},
		{"patterns_are_spelled_as_they_are", []string{
			`{key: path, value: /a*b, LIMIT}`, `{key: "*", LIMIT}`,
		}, []string{"path_/a*b", "*"}},
		{"a_key_that_looks_quoted", []string{
			`{key: '"a_b"', LIMIT}`, `{key: a_b, LIMIT}`, `{key: a, value: b, LIMIT}`,
		}, []string{`"\"a_b\""`, `"a_b"`, `"a"="b"`}},
		{"a_key_that_would_break_its_line", []string{
			`{key: "a\nb", LIMIT}`,
		}, []string{`"a\nb"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "domain: d\ndescriptors:\n- " + strings.Join(c.descriptors, "\n- ") + "\n"
			d := parse(t, strings.ReplaceAll(text, "LIMIT", "rate_limit: {unit: day, requests_per_unit: 1}"))
			var keys []string
			counters := map[*Counters]bool{d.Overrides: true}
			for _, r := range d.Rules {
				keys = append(keys, r.Key)
				require.False(t, counters[r.counters], "%s shares its counters", r.Key)
				counters[r.counters] = true
			}
			require.Equal(t, c.want, keys)
		})
	}
}

func TestARulesLineTellsDomainAndKeyApart(t *testing.T) {
	for _, c := range []struct{ domain, key, want string }{
		{"a_b", "c", "a_b.c: unlimited, shadow_mode: false, quota_mode: false"},
		{"a", "b.c", "a.b.c: unlimited, shadow_mode: false, quota_mode: false"},
		{"a.b", "c", `"a.b".c: unlimited, shadow_mode: false, quota_mode: false`},
		{`"a`, "b", `"\"a".b: unlimited, shadow_mode: false, quota_mode: false`},
		{"a\nb", "c", `"a\nb".c: unlimited, shadow_mode: false, quota_mode: false`},
	} {
		require.Equal(t, c.want, (&Rule{Domain: c.domain, Key: c.key, Unlimited: true}).String())
	}
}
