package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/memory"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

const rules = `
domain: d
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: path, value: /x, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: none, value: x, rate_limit: {unit: second, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
`

// parse reads a rule file that is good.
func parse(t testing.TB, text string) *limits.Set {
	t.Helper()
	p := &limits.Parser{
		Algorithms:     []algorithm.Algorithm{fixedwindow.Algorithm{}},
		NearLimitRatio: 0.8,
		Stats:          limits.NewStats(prometheus.NewRegistry()),
	}
	d, err := p.Parse("rules.yaml", []byte(text))
	require.NoError(t, err)
	return limits.NewSet([]*limits.Domain{d})
}

// open makes a limiter with the rules above over store.
func open(t testing.TB, store limiter.Store) *limiter.Limiter {
	l := limiter.New(limiter.Options{
		Store:          store,
		Algorithm:      fixedwindow.Algorithm{},
		NearLimitRatio: 0.8,
		Metrics:        prometheus.NewRegistry(),
	})
	l.SetRules(parse(t, rules))
	return l
}

func newMemory() limiter.Store { return memory.New(10000, prometheus.NewRegistry()) }

// check asks l and wants no error.
func check(t testing.TB, l *limiter.Limiter, domain string, descriptors ...limiter.Descriptor) limiter.Answer {
	t.Helper()
	var a limiter.Answer
	require.NoError(t, l.Check(context.Background(), &limiter.Request{Domain: domain, Descriptors: descriptors}, &a))
	require.Len(t, a.Statuses, len(descriptors))
	return a
}

// of is a descriptor of one entry.
func of(key, value string, hits uint64) limiter.Descriptor {
	return limiter.Descriptor{Entries: []limits.Entry{{Key: key, Value: value}}, Hits: hits}
}

// overriding is of with a limit of its own.
func overriding(d limiter.Descriptor, rate limits.Rate) limiter.Descriptor {
	d.Override, d.HasOverride = rate, true
	return d
}

func TestCheckAnswersEachDescriptorByItself(t *testing.T) {
	// The time inside begins at midnight.
	synctest.Test(t, func(t *testing.T) {
		l := open(t, newMemory())
		time.Sleep(15500 * time.Millisecond)
		minute := limits.Rate{Requests: 10, Unit: limits.Minute, Multiplier: 1}
		second := limits.Rate{Requests: 0, Unit: limits.Second, Multiplier: 1}
		a := check(t, l, "d",
			of("user", "alice", 4), of("none", "x", 1), of("free", "x", 1), of("unknown", "x", 1), limiter.Descriptor{Hits: 1})
		require.True(t, a.Over)
		require.Equal(t, 1, a.Tightest)
		for i, key := range []string{"user", "none_x", "free"} {
			require.Equal(t, key, a.Statuses[i].Rule.Key)
			a.Statuses[i].Rule = nil
		}
		require.Equal(t, []limiter.Status{
			{Limited: true, Rate: minute, Remaining: 6, ResetIn: 44500 * time.Millisecond},
			{Limited: true, Rate: second, Over: true, ResetIn: 500 * time.Millisecond},
			{Remaining: math.MaxUint32},
			{},
			{},
		}, a.Statuses)
	})
}

func TestCheckCountsRefusedHitsUntilTheWindowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, newMemory())
		for i := range 15 {
			require.Equal(t, i >= 10, check(t, l, "d", of("user", "alice", 1)).Over, "hit %d", i)
		}
		require.False(t, check(t, l, "d", of("user", "bob", 1)).Over, "another value has a counter of its own")
		time.Sleep(time.Minute)
		a := check(t, l, "d", of("user", "alice", 1))
		require.Equal(t, uint32(9), a.Statuses[0].Remaining)
	})
}

func TestCheckTellsOfADomainWithoutRules(t *testing.T) {
	var told []string
	l := limiter.New(limiter.Options{
		Store: newMemory(), Algorithm: fixedwindow.Algorithm{}, Metrics: prometheus.NewRegistry(),
		DomainNotFound: func(domain string, descriptors uint64) { told = append(told, fmt.Sprint(domain, descriptors)) },
	})
	l.SetRules(parse(t, rules))
	check(t, l, "d", of("user", "alice", 1), of("unknown", "x", 1))
	require.Empty(t, told)
	check(t, l, "elsewhere", of("user", "alice", 5), of("user", "bob", 0))
	require.Equal(t, []string{"elsewhere2"}, told)
}

func TestCheckCountsADescriptorThoughAnotherIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, newMemory())
		check(t, l, "d", of("user", "alice", 1), of("none", "x", 1))
		require.Equal(t, uint32(9), check(t, l, "d", of("user", "alice", 0)).Statuses[0].Remaining)
	})
}

func TestCheckHonoursOverrides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, newMemory())
		threeDays := limits.Rate{Requests: 5, Unit: limits.Day, Multiplier: 3}
		for _, d := range []limiter.Descriptor{of("unknown", "x", 5), of("free", "x", 5), {Hits: 5}} {
			a := check(t, l, "d", overriding(d, threeDays))
			require.False(t, a.Over)
			require.Equal(t, threeDays, a.Statuses[0].Rate)
			require.Positive(t, a.Statuses[0].ResetIn)
			require.LessOrEqual(t, a.Statuses[0].ResetIn, 72*time.Hour)
			require.True(t, check(t, l, "d", overriding(d, threeDays)).Over)
		}
		require.False(t, check(t, l, "elsewhere", overriding(of("x", "y", 9), threeDays)).Over,
			"a domain without rules has no limits")
	})
}

func TestCountersAreNotSharedByWhatLooksAlike(t *testing.T) {
	rate := limits.Rate{Requests: 1, Unit: limits.Hour, Multiplier: 1}
	entries := func(kv ...string) limiter.Descriptor {
		d := limiter.Descriptor{Hits: 1, Override: rate, HasOverride: true}
		for i := 0; i < len(kv); i += 2 {
			d.Entries = append(d.Entries, limits.Entry{Key: kv[i], Value: kv[i+1]})
		}
		return d
	}
	minute := entries("a", "b_c")
	minute.Override.Unit = limits.Minute
	long := fmt.Sprintf("%01000d", 1)
	synctest.Test(t, func(t *testing.T) {
		l := open(t, newMemory())
		for _, d := range []limiter.Descriptor{
			entries("a", "b_c"), entries("a_b", "c"), entries("a", "b", "c", ""), entries("a", "", "b", "c"),
			entries("a", "b1:c"), entries("a1:b", "c"), entries("", "", "", ""), entries("", ""), entries(), minute,
			entries("long", long), entries("long", long+"0"), entries("long"+long, ""),
		} {
			require.False(t, check(t, l, "d", d).Over, "%v", d)
			require.True(t, check(t, l, "d", d).Over, "%v", d)
		}
	})
}

// asked notes the keys of the operations that it is asked for.
type asked struct{ keys []string }

func (s *asked) Ping(context.Context) error { return nil }
func (s *asked) Close() error               { return nil }
func (s *asked) Apply(_ context.Context, call *limiter.Call) error {
	for _, op := range call.Ops {
		s.keys = append(s.keys, string(op.Key))
	}
	return nil
}

func TestCounterKeyIsTheOneThatCheckCountsIn(t *testing.T) {
	store := &asked{}
	l := limiter.New(limiter.Options{
		Store: store, Algorithm: fixedwindow.Algorithm{}, KeyPrefix: "p:", Metrics: prometheus.NewRegistry(),
	})
	l.SetRules(parse(t, rules))
	d := of("user", "alice", 1)
	check(t, l, "d", d)
	rule := l.Rules().Domain("d").Match(d.Entries)
	require.Equal(t, []string{string(limiter.CounterKey("p:", rule, d.Entries))}, store.keys)
	require.Equal(t, "p:fixed_window:60:1:d4:user5:alice", store.keys[0])
}

func TestHitsAreCountedByWhatBecameOfThem(t *testing.T) {
	type counts struct{ total, within, near, over uint64 }
	for _, c := range []struct {
		name string
		hits []uint64 // of a limit of 10, near above 8
		want counts
	}{
		{"far_below", []uint64{3}, counts{3, 3, 0, 0}},
		{"up_to_the_near_threshold", []uint64{8}, counts{8, 8, 0, 0}},
		{"across_the_near_threshold", []uint64{7, 3}, counts{10, 10, 2, 0}},
		{"above_the_near_threshold", []uint64{8, 1, 1}, counts{10, 10, 2, 0}},
		{"over_from_the_start", []uint64{12}, counts{12, 0, 2, 2}},
		{"across_the_limit", []uint64{9, 4}, counts{13, 9, 2, 3}},
		{"over_again", []uint64{10, 2, 5}, counts{17, 10, 2, 7}},
		{"looks", []uint64{0, 10, 0, 1, 0}, counts{11, 10, 2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := open(t, newMemory())
				for _, hits := range c.hits {
					check(t, l, "d", of("user", "alice", hits))
				}
				got := l.Rules().Domain("d").Rules[0].CountersOf(nil)
				require.Equal(t, c.want, counts{got.TotalHits.Load(), got.Within.Load(), got.Near.Load(), got.Over.Load()})
			})
		})
	}
}

func TestUnlimitedRulesCount(t *testing.T) {
	l := open(t, newMemory())
	check(t, l, "d", of("free", "x", 3))
	c := l.Rules().Domain("d").Rules[3].CountersOf(nil)
	require.Equal(t, uint64(3), c.TotalHits.Load())
	require.Equal(t, uint64(3), c.Within.Load())
}

func TestNewRulesApplyToTheNextRequest(t *testing.T) {
	l := open(t, newMemory())
	require.True(t, check(t, l, "d", of("none", "x", 1)).Over)
	l.SetRules(parse(t, "domain: d"))
	require.False(t, check(t, l, "d", of("none", "x", 1)).Over)
	l.SetRules(limits.NewSet(nil))
	require.False(t, check(t, l, "d", of("none", "x", 1)).Over)
}

// broken is a store that is away.
type broken struct{ err error }

func (s broken) Apply(_ context.Context, call *limiter.Call) error { return call.Fail(s.err) }
func (s broken) Ping(context.Context) error                        { return s.err }
func (s broken) Close() error                                      { return nil }

func TestAStoreThatIsAwayFailsOnlyWhatNeedsIt(t *testing.T) {
	away := errors.New("away")
	l := open(t, broken{away})
	var a limiter.Answer
	ask := func(d limiter.Descriptor) error {
		return l.Check(t.Context(), &limiter.Request{Domain: "d", Descriptors: []limiter.Descriptor{d}}, &a)
	}
	require.ErrorIs(t, ask(of("user", "alice", 1)), away)
	require.NoError(t, ask(of("free", "x", 1)))
	require.NoError(t, ask(of("unknown", "x", 1)))
}

// usual is a request of two descriptors, one of them limited by a rule of one
// entry and one not.
func usual() *limiter.Request {
	return &limiter.Request{Domain: "d", Descriptors: []limiter.Descriptor{of("user", "alice", 1), of("path", "/x", 1)}}
}

func TestCheckOnTheMemoryStoreDoesNotAllocate(t *testing.T) {
	l := open(t, newMemory())
	req, a := usual(), limiter.Answer{}
	servicetest.Allocations(t, 0, func() {
		if err := l.Check(context.Background(), req, &a); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	l := open(b, newMemory())
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		req, a := usual(), limiter.Answer{}
		for p.Next() {
			if err := l.Check(context.Background(), req, &a); err != nil {
				b.Error(err)
			}
		}
	})
}
