package limiter_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/localcache"
)

const moreRules = `
domain: d
descriptors:
  - {key: none, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: two, rate_limit: {unit: hour, requests_per_unit: 2, name: two}}
  - {key: ten, rate_limit: {unit: hour, requests_per_unit: 10, name: ten}}
  - {key: free, rate_limit: {unlimited: true, name: free, replaces: [{name: two}]}}
  - {key: vip, rate_limit: {unit: hour, requests_per_unit: 100, replaces: [{name: ten}, {name: free}]}}
  - {key: mutual, value: a, rate_limit: {unit: hour, requests_per_unit: 0, name: a, replaces: [{name: b}]}}
  - {key: mutual, value: b, rate_limit: {unit: hour, requests_per_unit: 0, name: b, replaces: [{name: a}]}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: empty-quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: open, rate_limit: {unit: hour, requests_per_unit: 2, failure_mode_deny: false}}
  - {key: shut, rate_limit: {unit: hour, requests_per_unit: 2, failure_mode_deny: true}}
  - {key: ip, value: "10.*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 2}}
`

// with makes a limiter of moreRules.
func with(t testing.TB, change func(*limiter.Options)) *limiter.Limiter {
	o := limiter.Options{
		Store: newMemory(), Algorithm: fixedwindow.Algorithm{}, NearLimitRatio: 0.8, Metrics: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&o)
	}
	l := limiter.New(o)
	l.SetRules(parse(t, moreRules))
	return l
}

// refund gives hits back.
func refund(d limiter.Descriptor) limiter.Descriptor {
	d.Refund = true
	return d
}

// counters are those of the rule of that key.
func counters(t testing.TB, l *limiter.Limiter, key string) *limits.Counters {
	for _, r := range l.Rules().Domain("d").Rules {
		if r.Key == key {
			return r.CountersOf(nil)
		}
	}
	t.Fatalf("no rule %s", key)
	return nil
}

func TestRulesMakeOneAnswerTogether(t *testing.T) {
	one := func(keys ...string) []limiter.Descriptor {
		var list []limiter.Descriptor
		for _, key := range keys {
			list = append(list, of(key, "x", 1))
		}
		return list
	}
	for _, c := range []struct {
		name        string
		change      func(*limiter.Options)
		descriptors []limiter.Descriptor
		over        bool
		statuses    []bool // over
		tightest    int
	}{
		{"nothing_is_limited", nil, one("unknown", "free"), false, []bool{false, false}, -1},
		{"within", nil, one("ten", "two"), false, []bool{false, false}, 1},
		{"the_first_of_two_that_are_as_tight", nil, one("two", "open"), false, []bool{false, false}, 0},
		{"over", nil, one("ten", "none", "two"), true, []bool{false, true, false}, 1},
		{"the_last_that_is_over", nil, one("none", "ten", "none"), true, []bool{true, false, true}, 2},
		{"shadow_mode_is_ok_with_nothing_left", nil, one("two", "shadow"), false, []bool{false, false}, 1},
		{"one_quota_that_is_left_is_enough", nil, one("quota", "empty-quota"), false, []bool{false, true}, 0},
		{"all_quotas_are_over", nil, one("empty-quota", "empty-quota"), true, []bool{true, true}, 0},
		{"quotas_do_not_help_other_limits", nil, one("quota", "none"), true, []bool{false, true}, 1},
		{"other_limits_do_not_help_quotas", nil, one("ten", "empty-quota"), true, []bool{false, true}, 1},
		{"global_quota_mode_needs_one_that_is_left", func(o *limiter.Options) { o.QuotaMode = true }, one("none", "ten"), false, []bool{true, false}, 0},
		{"global_quota_mode_counts_what_has_no_rule", func(o *limiter.Options) { o.QuotaMode = true }, one("none", "unknown"), false, []bool{true, false}, 0},
		{"global_quota_mode_leaves_out_unlimited", func(o *limiter.Options) { o.QuotaMode = true }, one("none", "free"), true, []bool{true, false}, 0},
		{"global_shadow_mode_keeps_the_statuses", func(o *limiter.Options) { o.ShadowMode = true }, one("none", "ten"), false, []bool{true, false}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := check(t, with(t, c.change), "d", c.descriptors...)
			require.Equal(t, c.over, a.Over)
			var statuses []bool
			for _, s := range a.Statuses {
				statuses = append(statuses, s.Over)
			}
			require.Equal(t, c.statuses, statuses)
			require.Equal(t, c.tightest, a.Tightest)
		})
	}
}

func TestARuleReplacesOthersByName(t *testing.T) {
	for _, c := range []struct {
		name    string
		keys    []string
		limited []bool
	}{
		{"by_a_limited_rule", []string{"ten", "vip"}, []bool{false, true}},
		{"wherever_it_stands", []string{"vip", "two", "ten"}, []bool{true, true, false}},
		{"by_an_unlimited_rule", []string{"two", "free"}, []bool{false, false}},
		{"not_an_unlimited_rule", []string{"free", "vip"}, []bool{false, true}},
		{"nothing_without_the_one_that_replaces", []string{"two", "ten"}, []bool{true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := with(t, nil)
			var list []limiter.Descriptor
			for _, key := range c.keys {
				list = append(list, of(key, "x", 1))
			}
			a := check(t, l, "d", list...)
			for i, s := range a.Statuses {
				require.Equal(t, c.limited[i], s.Limited, "%s", c.keys[i])
				if !s.Limited && c.keys[i] != "free" {
					require.Equal(t, limiter.Status{}, s)
					require.Zero(t, counters(t, l, c.keys[i]).TotalHits.Load(), "what is replaced counts nothing")
				}
			}
		})
	}
	t.Run("and_two_replace_each_other", func(t *testing.T) {
		a := check(t, with(t, nil), "d", of("mutual", "a", 1), of("mutual", "b", 1))
		require.False(t, a.Over)
		require.Equal(t, []limiter.Status{{}, {}}, a.Statuses)
	})
}

func TestRefundsAreOKAndFlooredAtNone(t *testing.T) {
	l := with(t, nil)
	require.True(t, check(t, l, "d", of("two", "x", 5)).Over)
	a := check(t, l, "d", refund(of("two", "x", 2)))
	require.False(t, a.Over, "though the counter is still above the limit")
	require.Zero(t, a.Statuses[0].Remaining)
	require.Equal(t, uint32(2), check(t, l, "d", refund(of("two", "x", 100))).Statuses[0].Remaining)
	require.Equal(t, uint32(0), check(t, l, "d", of("two", "x", 2)).Statuses[0].Remaining)
	c := counters(t, l, "two")
	require.Equal(t, uint64(102), c.Refunded.Load())
	require.Equal(t, uint64(7), c.TotalHits.Load())
}

func TestShadowsAreCountedAsWhatTheyWouldHaveBeen(t *testing.T) {
	l := with(t, nil)
	check(t, l, "d", of("shadow", "x", 3))
	c := counters(t, l, "shadow")
	require.Equal(t, uint64(3), c.Over.Load())
	require.Equal(t, uint64(3), c.Shadow.Load())
}

func TestValuesThatAPatternSharesAreOneCounter(t *testing.T) {
	l := with(t, nil)
	require.False(t, check(t, l, "d", of("ip", "10.0.0.1", 1)).Over)
	require.False(t, check(t, l, "d", of("ip", "10.0.0.2", 1)).Over)
	require.True(t, check(t, l, "d", of("ip", "10.0.0.3", 1)).Over)
	pattern := overriding(of("ip", "10.*", 1), limits.Rate{Requests: 1, Unit: limits.Hour, Multiplier: 1})
	require.False(t, check(t, l, "d", pattern).Over, "a request's own text is not the pattern's")
}

func TestStopWhenOverCountsWhatIsOverAlone(t *testing.T) {
	l := with(t, func(o *limiter.Options) { o.StopWhenOver = true })
	a := check(t, l, "d", of("ten", "x", 1), of("none", "x", 1))
	require.True(t, a.Over)
	require.Equal(t, uint32(10), a.Statuses[0].Remaining)
	require.Equal(t, uint32(9), check(t, l, "d", of("ten", "x", 1)).Statuses[0].Remaining)
	c := counters(t, l, "ten")
	require.Equal(t, uint64(2), c.TotalHits.Load(), "what was asked for is counted all the same")
}

func TestTheLocalCacheRefusesWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &counting{Store: newMemory()}
		l := with(t, func(o *limiter.Options) {
			o.Store, o.LocalCache = store, localcache.New(1<<20, prometheus.NewRegistry())
		})
		hour := limits.Rate{Requests: 2, Unit: limits.Hour, Multiplier: 1}
		time.Sleep(15 * time.Minute)
		require.True(t, check(t, l, "d", of("two", "x", 3)).Over)
		require.Equal(t, 1, store.applied)
		a := check(t, l, "d", of("two", "x", 1))
		require.Equal(t, 1, store.applied)
		require.True(t, a.Over)
		require.Equal(t, hour, a.Statuses[0].Rate)
		require.Equal(t, 45*time.Minute, a.Statuses[0].ResetIn)
		c := counters(t, l, "two")
		require.Equal(t, uint64(1), c.OverWithLocalCache.Load())
		require.Equal(t, uint64(4), c.TotalHits.Load())
		require.Equal(t, uint64(2), c.Over.Load())

		// The counter is over, but not every limit on it.
		hour.Requests = 100
		require.False(t, check(t, l, "d", overriding(of("two", "x", 1), hour)).Over)
		require.Equal(t, 2, store.applied)

		check(t, l, "d", refund(of("two", "x", 4)))
		require.False(t, check(t, l, "d", of("two", "x", 1)).Over, "a refund is known at once")

		require.True(t, check(t, l, "d", of("two", "x", 3)).Over)
		time.Sleep(45 * time.Minute)
		require.False(t, check(t, l, "d", of("two", "x", 1)).Over, "the next window begins at none")
	})
}

func TestARefundMakesRoomInItsRequestUnlessTheLocalCacheKnowsTheCounter(t *testing.T) {
	for name, c := range map[string]struct {
		size int // of the local cache
		over bool
	}{
		"without_a_local_cache": {0, false},
		"with_one":              {1 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := with(t, func(o *limiter.Options) {
				if c.size > 0 {
					o.LocalCache = localcache.New(c.size, prometheus.NewRegistry())
				}
			})
			require.True(t, check(t, l, "d", of("two", "x", 3)).Over)
			a := check(t, l, "d", refund(of("two", "x", 3)), of("two", "x", 1))
			require.Equal(t, []bool{false, c.over}, []bool{a.Statuses[0].Over, a.Statuses[1].Over})
			require.False(t, check(t, l, "d", of("two", "x", 1)).Over, "the next request finds room")
		})
	}
}

func TestARefundThatMayHaveBeenCarriedOutIsForgotten(t *testing.T) {
	store := &failing{Store: newMemory()}
	l := with(t, func(o *limiter.Options) {
		o.Store, o.LocalCache = store, localcache.New(1<<20, prometheus.NewRegistry())
	})
	require.True(t, check(t, l, "d", of("two", "x", 3)).Over)
	store.err = errors.New("no answer in time")
	req := &limiter.Request{Domain: "d", Descriptors: []limiter.Descriptor{refund(of("two", "x", 3))}}
	require.Error(t, l.Check(t.Context(), req, &limiter.Answer{}))
	store.err = nil
	require.False(t, check(t, l, "d", of("two", "x", 1)).Over)
}

// failing carries calls out, and may say that it did not.
type failing struct {
	limiter.Store
	err error
}

func (s *failing) Apply(ctx context.Context, call *limiter.Call) error {
	if err := s.Store.Apply(ctx, call); err != nil {
		return err
	}
	if s.err != nil {
		return call.Fail(s.err)
	}
	return nil
}

func TestWhatTheLocalCacheRefusesStopsTheOthers(t *testing.T) {
	l := with(t, func(o *limiter.Options) {
		o.StopWhenOver, o.LocalCache = true, localcache.New(1<<20, prometheus.NewRegistry())
	})
	require.True(t, check(t, l, "d", of("two", "x", 3)).Over)
	for range 3 {
		a := check(t, l, "d", of("two", "x", 1), of("ten", "x", 1))
		require.True(t, a.Over)
		require.Equal(t, uint32(10), a.Statuses[1].Remaining)
	}
}

// counting counts the calls of a store.
type counting struct {
	limiter.Store
	applied int
}

func (s *counting) Apply(ctx context.Context, call *limiter.Call) error {
	s.applied++
	return s.Store.Apply(ctx, call)
}

func TestRulesSayWhatIsAnsweredWithoutTheStore(t *testing.T) {
	away := errors.New("away")
	for _, c := range []struct {
		name string
		keys []string
		over bool
		err  error
	}{
		{"allow", []string{"open"}, false, nil},
		{"deny", []string{"shut"}, true, nil},
		{"one_that_denies", []string{"open", "shut"}, true, nil},
		{"one_that_does_not_say", []string{"open", "two"}, false, away},
		{"one_that_needs_no_store", []string{"open", "free"}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := with(t, func(o *limiter.Options) { o.Store = broken{away} })
			req := &limiter.Request{Domain: "d"}
			for _, key := range c.keys {
				req.Descriptors = append(req.Descriptors, of(key, "x", 1))
			}
			var a limiter.Answer
			err := l.Check(t.Context(), req, &a)
			require.ErrorIs(t, err, c.err)
			if err == nil {
				require.Equal(t, c.over, a.Over)
			}
			require.Zero(t, counters(t, l, c.keys[0]).TotalHits.Load(), "what the store did not count is not shown as counted")

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, l.Check(ctx, req, &a), away, "nobody waits for an answer")
		})
	}
	t.Run("until_the_window_ends_and_never_of_a_refund", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := with(t, func(o *limiter.Options) { o.Store = broken{away} })
			time.Sleep(15 * time.Minute)
			a := check(t, l, "d", of("shut", "x", 1), refund(of("shut", "x", 1)))
			require.Equal(t, []bool{true, false}, []bool{a.Statuses[0].Over, a.Statuses[1].Over})
			require.Equal(t, 45*time.Minute, a.Statuses[0].ResetIn)
		})
	})
	t.Run("only_of_what_the_store_did_not_decide", func(t *testing.T) {
		l := with(t, func(o *limiter.Options) { o.Store = &half{newMemory(), away} })
		a := limiter.Answer{}
		req := &limiter.Request{Domain: "d", Descriptors: []limiter.Descriptor{of("none", "x", 1), of("open", "x", 1)}}
		require.NoError(t, l.Check(t.Context(), req, &a))
		require.True(t, a.Over)
		require.Equal(t, []bool{true, false}, []bool{a.Statuses[0].Over, a.Statuses[1].Over})
		require.Equal(t, uint64(1), counters(t, l, "none").Over.Load())
	})
	t.Run("an_override_does_not", func(t *testing.T) {
		l := with(t, func(o *limiter.Options) { o.Store = broken{away} })
		var a limiter.Answer
		req := &limiter.Request{Domain: "d", Descriptors: []limiter.Descriptor{
			overriding(of("open", "x", 1), limits.Rate{Requests: 1, Unit: limits.Hour, Multiplier: 1}),
		}}
		require.ErrorIs(t, l.Check(t.Context(), req, &a), away)
	})
}

// half is a store that decides the first operation of a call alone.
type half struct {
	limiter.Store
	err error
}

func (s *half) Apply(ctx context.Context, call *limiter.Call) error {
	first := limiter.Call{Ops: call.Ops[:1], Now: call.Now, Domain: call.Domain}
	if err := s.Store.Apply(ctx, &first); err != nil {
		return err
	}
	for i := range call.Ops[1:] {
		call.Ops[i+1].Err = s.err
	}
	return s.err
}

func TestACounterThatIsOverWithHitsThatWereSparedIsNotRemembered(t *testing.T) {
	l := with(t, func(o *limiter.Options) {
		o.StopWhenOver, o.LocalCache = true, localcache.New(1<<20, prometheus.NewRegistry())
	})
	require.True(t, check(t, l, "d", of("ten", "x", 6), of("ten", "x", 6)).Over)
	require.False(t, check(t, l, "d", of("ten", "x", 1)).Over, "six of twelve hits were counted")
}

// BenchmarkCheckManyReplaced is a request of 10,000 descriptors, half of which
// replace the other half.
func BenchmarkCheckManyReplaced(b *testing.B) {
	l := with(b, nil)
	req := &limiter.Request{Domain: "d"}
	for range 5000 {
		req.Descriptors = append(req.Descriptors, of("vip", "x", 0), of("ten", "x", 0))
	}
	var a limiter.Answer
	for b.Loop() {
		if err := l.Check(b.Context(), req, &a); err != nil {
			b.Error(err)
		}
	}
}

func TestWhatIsOverInARequestThatIsRefusedIsTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*limiter.Options)
		keys   []string
		told   []string
	}{
		{"what_is_over", nil, []string{"none", "ten", "shadow", "free", "unknown", "empty-quota"}, []string{"d none", "d empty-quota"}},
		{"nothing_of_a_request_that_quotas_let_pass", nil, []string{"empty-quota", "quota"}, nil},
		{"nothing_in_global_shadow_mode", func(o *limiter.Options) { o.ShadowMode = true }, []string{"none", "ten"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told []string
			l := with(t, func(o *limiter.Options) {
				o.Refused = func(domain string, entries []limits.Entry, hits uint64) {
					told = append(told, domain+" "+entries[0].Key)
					require.Equal(t, uint64(1), hits)
				}
				if c.change != nil {
					c.change(o)
				}
			})
			var list []limiter.Descriptor
			for _, key := range c.keys {
				list = append(list, of(key, "x", 1))
			}
			check(t, l, "d", list...)
			require.Equal(t, c.told, told)
		})
	}
}

func TestUnlimitedRemainsUnlimited(t *testing.T) {
	a := check(t, with(t, nil), "d", of("free", "x", 1))
	require.Equal(t, uint32(math.MaxUint32), a.Statuses[0].Remaining)
	require.Equal(t, "free", a.Statuses[0].Rule.Key)
}

func TestCheckWithTheLocalCacheAndReplacementsDoesNotAllocate(t *testing.T) {
	l := with(t, func(o *limiter.Options) {
		o.StopWhenOver, o.LocalCache = true, localcache.New(1<<20, prometheus.NewRegistry())
	})
	req := &limiter.Request{Domain: "d", Descriptors: []limiter.Descriptor{
		of("none", "x", 1), of("ten", "x", 1), of("vip", "x", 1), of("ip", "10.0.0.1", 1),
	}}
	var a limiter.Answer
	servicetest.Allocations(t, 0, func() {
		if err := l.Check(context.Background(), req, &a); err != nil {
			t.Error(err)
		}
	})
}
