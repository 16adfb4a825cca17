// Package storetest is the suite that every store passes. A store's own test
// calls Run with a way to open it; it checks what limiter.Store promises, and
// that counting agrees with the algorithm's Go rule.
package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

var (
	fixed = fixedwindow.Algorithm{}
	// minute is the suite's usual limit.
	minute = algorithm.Limit{Requests: 5, Window: time.Minute}
)

// Run checks the stores that open returns; each is empty, and open closes it
// when its test ends.
func Run(t *testing.T, open func(t *testing.T) limiter.Store) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s limiter.Store, now time.Time)
	}{
		{"answers_a_ping", func(t *testing.T, s limiter.Store, _ time.Time) {
			require.NoError(t, s.Ping(t.Context()))
		}},
		{"counts_up_to_the_limit_and_refuses_beyond", countsUp},
		{"a_look_counts_nothing", looks},
		{"operations_of_one_call_stand_for_themselves", standAlone},
		{"one_counter_twice_in_a_call_counts_twice", twice},
		{"keys_of_any_bytes_are_counters_of_their_own", anyBytes},
		{"the_next_window_begins_at_none", nextWindow},
		{"the_largest_hits_do_not_overflow", largest},
		{"concurrent_hits_are_all_counted", concurrent},
		{"random_hits_agree_with_the_rule", random},
		{"no_operation_is_no_error", func(t *testing.T, s limiter.Store, now time.Time) {
			require.NoError(t, s.Apply(t.Context(), &limiter.Call{Now: now}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t), begin()) })
	}
}

// begin is now, or a moment into the next minute if this one is about to end: a
// store may forget a counter once its window has ended by the real clock.
func begin() time.Time {
	now := time.Now()
	if end := fixed.WindowEnd(minute, now); end.Sub(now) < 15*time.Second {
		return end
	}
	return now
}

func op(key string, limit algorithm.Limit, hits uint64) limiter.Op {
	return limiter.Op{Key: []byte(key), Algorithm: fixed, Limit: limit, Hits: hits}
}

// apply returns the decisions of one call.
func apply(t *testing.T, s limiter.Store, now time.Time, ops ...limiter.Op) []algorithm.Decision {
	t.Helper()
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	list := make([]algorithm.Decision, len(ops))
	for i := range ops {
		list[i] = ops[i].Decision
	}
	return list
}

func countsUp(t *testing.T, s limiter.Store, now time.Time) {
	for after := uint64(1); after <= 8; after++ {
		d := apply(t, s, now, op("k", minute, 1))[0]
		require.Equal(t, fixed.Decide(minute, after, now), d)
		require.Equal(t, after > 5, d.Over)
	}
}

func looks(t *testing.T, s limiter.Store, now time.Time) {
	require.Equal(t, uint32(5), apply(t, s, now, op("k", minute, 0))[0].Remaining)
	apply(t, s, now, op("k", minute, 2))
	for range 3 {
		require.Equal(t, uint32(3), apply(t, s, now, op("k", minute, 0))[0].Remaining)
	}
}

func standAlone(t *testing.T, s limiter.Store, now time.Time) {
	d := apply(t, s, now, op("a", minute, 1), op("b", minute, 6), op("c", minute, 5))
	require.Equal(t, []bool{false, true, false}, []bool{d[0].Over, d[1].Over, d[2].Over})
	d = apply(t, s, now, op("a", minute, 0), op("b", minute, 0), op("c", minute, 0))
	require.Equal(t, []uint64{1, 6, 5}, []uint64{d[0].After, d[1].After, d[2].After})
}

func twice(t *testing.T, s limiter.Store, now time.Time) {
	d := apply(t, s, now, op("k", minute, 3), op("k", minute, 3))
	require.ElementsMatch(t, []uint64{3, 6}, []uint64{d[0].After, d[1].After})
}

func anyBytes(t *testing.T, s limiter.Store, now time.Time) {
	keys := []string{" ", "a b", "a\nb", "a\r\nb", "\x00", "\xff\xfe", "{a}b", "ключ", "a@1", strings.Repeat("long", 1000)}
	for _, k := range keys {
		require.Equal(t, uint64(1), apply(t, s, now, op(k, minute, 1))[0].After, "%q", k)
	}
	for _, k := range keys {
		require.Equal(t, uint64(2), apply(t, s, now, op(k, minute, 1))[0].After, "%q", k)
	}
}

func nextWindow(t *testing.T, s limiter.Store, now time.Time) {
	require.True(t, apply(t, s, now, op("k", minute, 6))[0].Over)
	later := fixed.WindowEnd(minute, now)
	require.Equal(t, fixed.Decide(minute, 1, later), apply(t, s, later, op("k", minute, 1))[0])
}

func largest(t *testing.T, s limiter.Store, now time.Time) {
	for range 3 {
		require.True(t, apply(t, s, now, op("k", minute, limiter.MaxHits))[0].Over)
	}
	require.True(t, apply(t, s, now, op("k", minute, 1))[0].Over)
}

func concurrent(t *testing.T, s limiter.Store, now time.Time) {
	const callers, calls = 8, 50
	limit := algorithm.Limit{Requests: 100, Window: time.Hour}
	var granted [callers]int
	var wait sync.WaitGroup
	for i := range callers {
		// Ends after its calls; the test waits for it below.
		wait.Go(func() {
			for range calls {
				ops := []limiter.Op{op("k", limit, 1), op(fmt.Sprint(i), limit, 1)}
				if s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}) != nil {
					return
				}
				if !ops[0].Decision.Over {
					granted[i]++
				}
			}
		})
	}
	wait.Wait()
	sum := 0
	for i := range callers {
		sum += granted[i]
		require.Equal(t, uint64(calls), apply(t, s, now, op(fmt.Sprint(i), limit, 0))[0].After)
	}
	require.Equal(t, 100, sum, "hits granted")
	require.Equal(t, uint64(callers*calls), apply(t, s, now, op("k", limit, 0))[0].After)
}

// random compares the store with the algorithm on states of its own.
func random(t *testing.T, s limiter.Store, now time.Time) {
	r := rand.New(rand.NewPCG(5, 5))
	states := map[string]algorithm.State{}
	for range 300 {
		ops := make([]limiter.Op, 1+r.IntN(4))
		want := make([]algorithm.Decision, len(ops))
		for i := range ops {
			key := fmt.Sprint("k", i, r.IntN(3))
			ops[i] = op(key, minute, uint64(r.IntN(3)))
			states[key], want[i] = fixed.Apply(minute, states[key], ops[i].Hits, now)
		}
		require.Equal(t, want, apply(t, s, now, ops...))
		now = now.Add(time.Duration(r.Int64N(int64(3 * time.Second))))
	}
}

// Benchmark measures one call with one operation, from many goroutines.
func Benchmark(b *testing.B, s limiter.Store) {
	limit := algorithm.Limit{Requests: 1 << 30, Window: time.Hour}
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		ops := []limiter.Op{op(fmt.Sprint("key", rand.IntN(1000)), limit, 1)}
		for p.Next() {
			if err := s.Apply(context.Background(), &limiter.Call{Ops: ops, Now: now}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
