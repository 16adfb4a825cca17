package limits

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// load parses a file and puts it in force.
func load(t testing.TB, p *Parser, text string) *Domain {
	t.Helper()
	d, err := p.Parse("f", []byte(text))
	require.NoError(t, err)
	p.Stats.Retain(NewSet([]*Domain{d}))
	return d
}

func TestCountersSurviveAReloadAndGoWithTheirRule(t *testing.T) {
	p := newParser()
	p.Stats = NewStats(prometheus.NewPedanticRegistry())
	const both = "domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: hour, requests_per_unit: 1}}\n- {key: b, rate_limit: {unlimited: true}}\n"
	const onlyB = "domain: d\ndescriptors:\n- {key: b, rate_limit: {unit: day, unit_multiplier: 2, requests_per_unit: 7}}\n"
	d := load(t, p, both)
	d.Rules[1].counters.TotalHits.Add(3)
	d.Rules[1].counters.Over.Add(1)
	require.NoError(t, testutil.CollectAndCompare(p.Stats, strings.NewReader(""), "ratelimit_service_rate_limit_requests_per_unit"),
		"no request has met a")
	d.Rules[0].counters.TotalHits.Add(1)
	require.NoError(t, testutil.CollectAndCompare(p.Stats, strings.NewReader(`
# HELP ratelimit_service_rate_limit_requests_per_unit Requests that the rule grants per unit of time.
# TYPE ratelimit_service_rate_limit_requests_per_unit gauge
ratelimit_service_rate_limit_requests_per_unit{domain="d",rule="a",unit="HOUR"} 1
`), "ratelimit_service_rate_limit_requests_per_unit"))

	d = load(t, p, onlyB)
	require.Equal(t, uint64(3), d.Rules[0].counters.TotalHits.Load())
	d.Rules[0].counters.OverWithLocalCache.Add(4)
	d.Rules[0].counters.Shadow.Add(5)
	d.Rules[0].counters.Refunded.Add(6)
	require.NoError(t, testutil.CollectAndCompare(p.Stats, strings.NewReader(`
# HELP ratelimit_service_rate_limit_over_limit Hits that the rule refused.
# TYPE ratelimit_service_rate_limit_over_limit counter
ratelimit_service_rate_limit_over_limit{domain="d",rule="b"} 1
# HELP ratelimit_service_rate_limit_over_limit_with_local_cache Hits that the rule refused without asking the store.
# TYPE ratelimit_service_rate_limit_over_limit_with_local_cache counter
ratelimit_service_rate_limit_over_limit_with_local_cache{domain="d",rule="b"} 4
# HELP ratelimit_service_rate_limit_requests_per_unit Requests that the rule grants per unit of time.
# TYPE ratelimit_service_rate_limit_requests_per_unit gauge
ratelimit_service_rate_limit_requests_per_unit{domain="d",rule="b",unit="2 DAY"} 7
# HELP ratelimit_service_rate_limit_shadow_mode Hits that the rule would have refused, were it not in shadow mode.
# TYPE ratelimit_service_rate_limit_shadow_mode counter
ratelimit_service_rate_limit_shadow_mode{domain="d",rule="b"} 5
# HELP ratelimit_service_rate_limit_total_hits Hits that met the rule.
# TYPE ratelimit_service_rate_limit_total_hits counter
ratelimit_service_rate_limit_total_hits{domain="d",rule="b"} 3
# HELP ratelimit_service_rate_limit_total_negative_hits Hits that were given back.
# TYPE ratelimit_service_rate_limit_total_negative_hits counter
ratelimit_service_rate_limit_total_negative_hits{domain="d",rule="b"} 6
`), "ratelimit_service_rate_limit_over_limit", "ratelimit_service_rate_limit_over_limit_with_local_cache",
		"ratelimit_service_rate_limit_requests_per_unit", "ratelimit_service_rate_limit_shadow_mode",
		"ratelimit_service_rate_limit_total_hits", "ratelimit_service_rate_limit_total_negative_hits"))
}

// shown lists the rule labels that metrics show, with their hits if there are
// any.
func shown(t *testing.T, s *Stats) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s)
	families, err := reg.Gather()
	require.NoError(t, err)
	hits := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "ratelimit_service_rate_limit_total_hits" {
			continue
		}
		for _, m := range f.GetMetric() {
			hits[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return hits
}

const limited = "rate_limit: {unit: hour, requests_per_unit: 1, name: n}, metadata: {a: b}"

func TestWhatARequestIsCountedUnder(t *testing.T) {
	for _, c := range []struct {
		name, descriptors string
		entries           []Entry
		want              string
	}{
		{"the_rules_own_name", `{key: a, descriptors: [{key: b, value: c, LIMITED}]}`,
			[]Entry{{"a", "x"}, {"b", "c"}}, "a.b_c"},
		{"the_rules_pattern", `{key: a, value: x*, LIMITED}`,
			[]Entry{{"a", "xyz"}}, "a_x*"},
		{"detailed_all_of_the_request", `{key: a, descriptors: [{key: b, detailed_metric: true, LIMITED}]}`,
			[]Entry{{"a", "x"}, {"b", "y"}}, "a_x.b_y"},
		{"detailed_with_empty_values", `{key: a, descriptors: [{key: b, detailed_metric: true, LIMITED}]}`,
			[]Entry{{"a", ""}, {"b", ""}}, "a_.b_"},
		{"detailed_of_a_level_above_does_nothing", `{key: a, detailed_metric: true, descriptors: [{key: b, LIMITED}]}`,
			[]Entry{{"a", "x"}, {"b", "y"}}, "a.b"},
		{"detailed_keys_that_a_pattern_takes", `{key: a*, detailed_metric: true, LIMITED}`,
			[]Entry{{"abc", "x"}}, "abc_x"},
		{"values_of_the_levels_that_ask", `{key: a, value_to_metric: true, descriptors: [{key: b, descriptors: [{key: c, value_to_metric: true, LIMITED}]}]}`,
			[]Entry{{"a", "x"}, {"b", "y"}, {"c", ""}}, "a_x.b.c"},
		{"values_in_place_of_patterns", `{key: a, value: "x*", value_to_metric: true, descriptors: [{key: b, value: "y*", LIMITED}]}`,
			[]Entry{{"a", "xx"}, {"b", "yy"}}, "a_xx.b_y*"},
		{"values_that_the_rule_names_itself", `{key: a, value: x, value_to_metric: true, LIMITED}`,
			[]Entry{{"a", "x"}}, "a_x"},
		{"detailed_but_shared", `{key: a, value: "x*", share_threshold: true, descriptors: [{key: b, detailed_metric: true, LIMITED}]}`,
			[]Entry{{"a", "xx"}, {"b", "yy"}}, "a_x*.b_yy"},
		{"a_value_that_is_shared", `{key: a, value: "x*", share_threshold: true, value_to_metric: true, LIMITED}`,
			[]Entry{{"a", "xx"}}, "a_x*"},
		{"detailed_but_shared_with_empty_values", `{key: a, value: "x*", share_threshold: true, descriptors: [{key: b, detailed_metric: true, LIMITED}]}`,
			[]Entry{{"a", "xx"}, {"b", ""}}, "a_x*.b"},
		{"the_key_that_a_pattern_takes_and_the_pattern", `{key: "w*", LIMITED}`,
			[]Entry{{"wx", "1"}}, "wx_w*"},
		{"a_key_that_the_pattern_begins_with", `{key: "w*", LIMITED}`,
			[]Entry{{"w", ""}}, "w_w*"},
		{"a_key_that_is_the_pattern", `{key: "w*", LIMITED}`,
			[]Entry{{"w*", ""}}, "w*_w*"},
		{"a_key_and_a_pattern_with_a_value", `{key: "k*", value: "v*", LIMITED}`,
			[]Entry{{"kx", "vy"}}, "kx_k*_v*"},
		{"a_key_that_ends_elsewhere_than_the_pattern's", `{key: "k*", value: "v*", LIMITED}`,
			[]Entry{{"k_v", "w"}}, "k_v_k*_v*"},
		{"a_key_and_value_that_are_the_pattern's", `{key: "k*", value: "v*", LIMITED}`,
			[]Entry{{"k*", "v*"}}, "k*_v*"},
		{"a_key_that_a_star_alone_takes", `{key: "*", LIMITED}`,
			[]Entry{{"a.b.c", "val"}}, "a.b.c_*"},
		{"a_key_above_the_rule", `{key: "ne*", descriptors: [{key: x, value: "y*", LIMITED}]}`,
			[]Entry{{"nex", "1"}, {"x", "yz"}}, "nex_ne*.x_y*"},
		{"a_key_of_values_that_are_shared", `{key: "ts*", value: "q*", share_threshold: true, descriptors: [{key: in, detailed_metric: true, LIMITED}]}`,
			[]Entry{{"tsx", "qq"}, {"in", "2"}}, "tsx_ts*_q*.in_2"},
		{"a_key_of_a_shared_value_that_is_asked_for", `{key: "sv*", value: "a*", share_threshold: true, value_to_metric: true, LIMITED}`,
			[]Entry{{"svx", "ay"}}, "svx_sv*_a*"},
		{"a_value_without_the_pattern_of_its_key", `{key: "um*", value_to_metric: true, LIMITED}`,
			[]Entry{{"umx", "1"}}, "umx_1"},
		{"a_shorter_key_than_the_rule's", `{key: c_d, value: "e*", LIMITED}`,
			[]Entry{{"c", "d_ex"}}, "c_d_e*"},
		{"a_longer_key_than_the_rule's", `{key: user, value: "a*", LIMITED}`,
			[]Entry{{"user_abc", "z"}}, "user_abc_user_a*"},
		{"an_empty_key_without_a_value", `{key: "*", value_to_metric: true, LIMITED}`,
			[]Entry{{"", ""}}, `""`},
		{"what_looks_like_another_rule", `{key: a, detailed_metric: true, LIMITED}`,
			[]Entry{{"a", "x.b_y"}}, "a_x.b_y"},
		{"what_would_break_a_line", `{key: a, value_to_metric: true, LIMITED}`,
			[]Entry{{"a", "x\ny"}}, `"a_x\ny"`},
		{"what_is_not_text", `{key: a, value_to_metric: true, LIMITED}`,
			[]Entry{{"a", "\xff"}}, `"a_\xff"`},
		{"what_looks_like_no_rules_name", `{key: "*", value_to_metric: true, LIMITED}`,
			[]Entry{{"(other)", ""}}, `"(other)"`},
		{"a_key_that_is_too_long", `{key: "a*", LIMITED}`,
			[]Entry{{strings.Repeat("a", maxName), ""}}, "(other)"},
		{"what_is_too_long", `{key: a, value_to_metric: true, LIMITED}`,
			[]Entry{{"a", strings.Repeat("x", maxName)}}, "(other)"},
		{"what_is_too_long_in_quotes", `{key: a, value_to_metric: true, LIMITED}`,
			[]Entry{{"a", strings.Repeat("\x01", maxName/2)}}, "(other)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newParser()
			d := load(t, p, "domain: d\ndescriptors:\n- "+strings.ReplaceAll(c.descriptors, "LIMITED", limited)+"\n")
			rule := d.Match(c.entries)
			require.NotNil(t, rule)
			rule.CountersOf(c.entries).TotalHits.Add(7)
			hits := shown(t, p.Stats)
			require.Equal(t, 7.0, hits[c.want], "%v", hits)
			require.Equal(t, map[string]any{"a": "b"}, rule.Metadata.AsMap(), "names do not take it away")
		})
	}
}

func TestANameThatARequestAndARuleMakeIsOne(t *testing.T) {
	p := newParser()
	p.Stats.MaxNames = 1
	const detailed = "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n"
	d := load(t, p, detailed)
	d.Match([]Entry{{"a", "b"}}).CountersOf([]Entry{{"a", "b"}}).TotalHits.Add(1)
	d = load(t, p, detailed+"- {key: a, value: b, rate_limit: {unlimited: true}}\n")
	d.Rules[1].CountersOf(nil).TotalHits.Add(1)
	require.Equal(t, map[string]float64{"a_b": 2}, shown(t, p.Stats))
	d.Rules[0].CountersOf([]Entry{{"a", "c"}}).TotalHits.Add(1)
	require.Equal(t, 1.0, shown(t, p.Stats)["a_c"], "the rule's name leaves its place to another")
}

func TestPatternsInValuesLeaveTheRuleItsCounters(t *testing.T) {
	p := newParser()
	p.Stats.MaxNames = 1
	// Two read a.b_c*, and count under their own names in quotes.
	d := load(t, p, `domain: d
descriptors:
- {key: a, value: b*, rate_limit: {unit: hour, requests_per_unit: 1}}
- {key: a.b, value: c*, rate_limit: {unit: hour, requests_per_unit: 1}}
- {key: a, descriptors: [{key: b, value: c*, rate_limit: {unit: hour, requests_per_unit: 1}}]}
- {key: k*, rate_limit: {unit: hour, requests_per_unit: 1}}
`)
	for _, entries := range [][]Entry{{{"a", "bb"}}, {{"a.b", "cc"}}, {{"a", ""}, {"b", "cc"}}} {
		rule := d.Match(entries)
		require.Same(t, rule.counters, rule.CountersOf(entries))
	}
	require.Zero(t, p.Stats.names.Load())
	require.NoError(t, testutil.CollectAndCompare(p.Stats, strings.NewReader(`
# HELP ratelimit_service_rate_limit_requests_per_unit Requests that the rule grants per unit of time.
# TYPE ratelimit_service_rate_limit_requests_per_unit gauge
ratelimit_service_rate_limit_requests_per_unit{domain="d",rule="k*",unit="HOUR"} 1
`), "ratelimit_service_rate_limit_requests_per_unit"), "of the others no request has met one")
}

func TestKeysThatPatternsTakeAreBounded(t *testing.T) {
	p := newParser()
	p.Stats.MaxNames = 2
	d := load(t, p, "domain: d\ndescriptors:\n- {key: k*, rate_limit: {unlimited: true}}\n")
	for i := range 5 {
		entries := []Entry{{fmt.Sprintf("k%d", i), ""}}
		d.Match(entries).CountersOf(entries).TotalHits.Add(1)
	}
	require.Equal(t, map[string]float64{"k0_k*": 1, "k1_k*": 1, "(other)": 3}, shown(t, p.Stats))
}

func TestNamesThatRequestsMakeAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParser()
		p.Stats.MaxNames, p.Stats.IdleNames = 2, time.Hour
		d := load(t, p, "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n")
		hit := func(value string) { d.Rules[0].CountersOf([]Entry{{"a", value}}).TotalHits.Add(1) }
		hit("1")
		hit("2")
		hit("3")
		require.Equal(t, map[string]float64{"(other)": 1, "a_1": 1, "a_2": 1}, shown(t, p.Stats))
		for range 10 { // only a_1 goes on
			time.Sleep(10 * time.Minute)
			hit("1")
			shown(t, p.Stats)
		}
		hit("3")
		require.Equal(t, map[string]float64{"(other)": 1, "a_1": 11, "a_3": 1}, shown(t, p.Stats))

		// Without a look at the metrics, idle names make room as well.
		hit("1")
		hit("3")
		time.Sleep(2 * time.Hour)
		hit("4") // finds that the others were in use since the last time
		time.Sleep(2 * time.Hour)
		hit("5")
		require.Equal(t, map[string]float64{"(other)": 2, "a_5": 1}, shown(t, p.Stats))
	})
}

func TestCountersOfAKnownNameDoesNotAllocate(t *testing.T) {
	p := newParser()
	d := load(t, p, "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n- {key: b, rate_limit: {unlimited: true}}\n"+
		"- {key: p, value: x*, rate_limit: {unlimited: true}}\n- {key: k*, rate_limit: {unlimited: true}}\n")
	for _, c := range []struct {
		name    string
		entries []Entry
	}{
		{"the_rules_own", []Entry{{"b", "x"}}},
		{"the_rules_own_with_a_pattern", []Entry{{"p", "xyz"}}},
		{"one_with_the_requests_key", []Entry{{"kx", "xyz"}}},
		{"a_requests", []Entry{{"a", strings.Repeat("x", 200)}}},
		{"too_long", []Entry{{"a", strings.Repeat("x", 2000)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule := d.Match(c.entries)
			rule.CountersOf(c.entries)
			servicetest.Allocations(t, 0, func() {
				if rule.CountersOf(c.entries) == nil {
					t.Error("no counters")
				}
			})
		})
	}
}

// unknown lists the domains without rules that metrics show.
func unknown(t *testing.T, s *Stats) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s)
	families, err := reg.Gather()
	require.NoError(t, err)
	descriptors := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "ratelimit_service_rate_limit_domain_not_found" {
			continue
		}
		for _, m := range f.GetMetric() {
			require.Len(t, m.GetLabel(), 1)
			descriptors[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return descriptors
}

func TestDomainsWithoutRulesAreCountedByName(t *testing.T) {
	p := newParser()
	require.Equal(t, map[string]float64{"(other)": 0}, unknown(t, p.Stats))
	p.Stats.DomainNotFound("a", 1)
	p.Stats.DomainNotFound("a", 4)
	p.Stats.DomainNotFound("b\n", 2)
	p.Stats.DomainNotFound("(other)", 8)
	p.Stats.DomainNotFound("\xff", 16)
	p.Stats.DomainNotFound(strings.Repeat("x", maxName+1), 32)
	want := map[string]float64{"a": 5, "b\n": 2, "(other)": 56}
	require.Equal(t, want, unknown(t, p.Stats))
	load(t, p, "domain: d\n")
	require.Equal(t, want, unknown(t, p.Stats), "a change of rules takes nothing away")
	require.Empty(t, shown(t, p.Stats), "they are no rules")
}

func TestDomainsWithoutRulesShareTheBoundOfNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParser()
		p.Stats.MaxNames, p.Stats.IdleNames = 2, time.Hour
		d := load(t, p, "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n")
		p.Stats.DomainNotFound("x", 1)
		d.Rules[0].CountersOf([]Entry{{"a", "1"}}).TotalHits.Add(1)
		p.Stats.DomainNotFound("y", 1)
		d.Rules[0].CountersOf([]Entry{{"a", "2"}}).TotalHits.Add(1)
		require.Equal(t, map[string]float64{"x": 1, "(other)": 1}, unknown(t, p.Stats))
		require.Equal(t, map[string]float64{"(other)": 1, "a_1": 1}, shown(t, p.Stats))

		time.Sleep(2 * time.Hour)
		p.Stats.DomainNotFound("z", 1)
		require.Equal(t, map[string]float64{"z": 1, "(other)": 1}, unknown(t, p.Stats))
	})
}

func TestAKnownDomainWithoutRulesDoesNotAllocate(t *testing.T) {
	p := newParser()
	p.Stats.MaxNames = 1
	p.Stats.DomainNotFound("known", 1)
	for name, domain := range map[string]string{"known": "known", "beyond_the_bound": "other", "too_long": strings.Repeat("x", 2000)} {
		t.Run(name, func(t *testing.T) {
			p.Stats.DomainNotFound(domain, 1)
			servicetest.Allocations(t, 0, func() { p.Stats.DomainNotFound(domain, 1) })
		})
	}
}

func TestTooManyNamesDoNotAllocate(t *testing.T) {
	p := newParser()
	p.Stats.MaxNames = 1
	d := load(t, p, "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n")
	entries := []Entry{{"a", "1"}}
	d.Rules[0].CountersOf(entries)
	entries[0].Value = "2"
	servicetest.Allocations(t, 0, func() {
		if d.Rules[0].CountersOf(entries) != d.Rules[0].byRequest.others {
			t.Error("counters of its own")
		}
	})
}

func BenchmarkCountersOf(b *testing.B) {
	p := newParser()
	d := load(b, p, "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		entries := []Entry{{"a", "alice"}}
		for pb.Next() {
			d.Rules[0].CountersOf(entries)
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p := newParser()
	d := load(b, p, "domain: d\ndescriptors:\n- {key: a, detailed_metric: true, rate_limit: {unlimited: true}}\n")
	for i := range DefaultMaxNames {
		d.Rules[0].CountersOf([]Entry{{"a", fmt.Sprint(i)}})
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(p.Stats)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
