// Package storetest is the suite that every store passes. A store's own test
// calls Run with a way to open it; it checks what limiter.Store promises, and
// that counting agrees with the algorithm's Go rule.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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
		{"a_refund_gives_hits_back_but_no_more_than_were_counted", refunds},
		{"a_refund_of_a_counter_that_is_not_there_makes_none", refundOfNone},
		{"hits_and_refunds_of_one_call_follow_one_another", followOneAnother},
		{"one_step_in_which_nothing_is_over_counts_all", stepCountsAll},
		{"one_step_in_which_something_is_over_counts_only_that", stepCountsOver},
		{"one_step_in_which_something_is_over_refunds_nevertheless", stepRefunds},
		{"one_step_over_one_counter_twice_adds_up", stepTwice},
		{"concurrent_steps_are_not_seen_half_done", concurrentSteps},
		{"operations_have_a_decision_or_an_error", decisionOrError},
		{"operations_of_callers_that_leave_have_a_decision_or_an_error", callersLeave},
		{"no_operation_is_no_error", func(t *testing.T, s limiter.Store, now time.Time) {
			require.NoError(t, s.Apply(t.Context(), call(now, false)))
			require.NoError(t, s.Apply(t.Context(), call(now, true)))
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

func refund(key string, limit algorithm.Limit, hits uint64) limiter.Op {
	o := op(key, limit, hits)
	o.Refund = true
	return o
}

// call is one of a domain that all calls of the suite have.
func call(now time.Time, stop bool, ops ...limiter.Op) *limiter.Call {
	return &limiter.Call{Ops: ops, Now: now, Domain: "do}ma{in", StopWhenOver: stop}
}

// apply returns the decisions of one call whose operations stand for
// themselves.
func apply(t *testing.T, s limiter.Store, now time.Time, ops ...limiter.Op) []algorithm.Decision {
	t.Helper()
	return decisions(t, s, call(now, false, ops...))
}

// step returns the decisions of one call that is one step.
func step(t *testing.T, s limiter.Store, now time.Time, ops ...limiter.Op) []algorithm.Decision {
	t.Helper()
	return decisions(t, s, call(now, true, ops...))
}

func decisions(t *testing.T, s limiter.Store, c *limiter.Call) []algorithm.Decision {
	t.Helper()
	require.NoError(t, s.Apply(t.Context(), c))
	ops := c.Ops
	list := make([]algorithm.Decision, len(ops))
	for i := range ops {
		list[i] = ops[i].Decision
		if !c.StopWhenOver || !list[i].Over {
			require.Equal(t, list[i].After, ops[i].Stands)
		}
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
	require.Equal(t, []uint64{3, 6}, []uint64{d[0].After, d[1].After})
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
				if s.Apply(t.Context(), call(now, false, ops...)) != nil {
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
	for range 500 {
		ops := make([]limiter.Op, 1+r.IntN(4))
		for i := range ops {
			ops[i] = op(fmt.Sprint("k", r.IntN(6)), minute, uint64(r.IntN(3)))
			ops[i].Refund = r.IntN(4) == 0
		}
		c := call(now, r.IntN(2) == 0, ops...)
		want, stands := model(states, c)
		require.Equal(t, want, decisions(t, s, c))
		for i := range ops {
			require.Equal(t, stands[i], ops[i].Stands)
		}
		now = now.Add(time.Duration(r.Int64N(int64(3 * time.Second))))
	}
}

// model carries out a call on states, and returns what its decisions must be, and
// what the counters stand at after each operation.
func model(states map[string]algorithm.State, c *limiter.Call) (decisions []algorithm.Decision, stands []uint64) {
	run := func(states map[string]algorithm.State, hits func(i int) uint64) []algorithm.Decision {
		list := make([]algorithm.Decision, len(c.Ops))
		for i, o := range c.Ops {
			rule := o.Algorithm.Apply
			if o.Refund {
				rule = o.Algorithm.Refund
			}
			states[string(o.Key)], list[i] = rule(o.Limit, states[string(o.Key)], hits(i), c.Now)
		}
		return list
	}
	isOver := func(d algorithm.Decision) bool { return d.Over }
	trial := run(maps.Clone(states), func(i int) uint64 { return c.Ops[i].Hits })
	stops := c.StopWhenOver && slices.ContainsFunc(trial, isOver)
	decisions = run(states, func(i int) uint64 {
		if stops && !trial[i].Over && !c.Ops[i].Refund {
			return 0
		}
		return c.Ops[i].Hits
	})
	for i := range decisions {
		stands = append(stands, decisions[i].After)
		if trial[i].Over {
			decisions[i] = trial[i]
		}
	}
	return decisions, stands
}

func refunds(t *testing.T, s limiter.Store, now time.Time) {
	apply(t, s, now, op("k", minute, 4))
	d := apply(t, s, now, refund("k", minute, 3))[0]
	require.Equal(t, fixed.Decide(minute, 1, now), d)
	d = apply(t, s, now, refund("k", minute, limiter.MaxHits))[0]
	require.Equal(t, fixed.Decide(minute, 0, now), d)
	require.Equal(t, uint64(1), apply(t, s, now, op("k", minute, 1))[0].After)

	apply(t, s, now, op("k", minute, 8))
	d = apply(t, s, now, refund("k", minute, 1))[0]
	require.False(t, d.Over, "a refund is never over, its counter may be")
	require.Equal(t, uint64(8), d.After)
}

func refundOfNone(t *testing.T, s limiter.Store, now time.Time) {
	for range 2 {
		require.Equal(t, fixed.Decide(minute, 0, now), apply(t, s, now, refund("k", minute, 3))[0])
	}
	require.Equal(t, uint64(2), apply(t, s, now, op("k", minute, 2))[0].After)
}

func followOneAnother(t *testing.T, s limiter.Store, now time.Time) {
	d := apply(t, s, now, op("k", minute, 3), refund("k", minute, 2), op("k", minute, 4), op("k", minute, 0))
	require.Equal(t, []uint64{3, 1, 5, 5}, []uint64{d[0].After, d[1].After, d[2].After, d[3].After})
}

func stepCountsAll(t *testing.T, s limiter.Store, now time.Time) {
	for after := uint64(1); after <= 2; after++ {
		d := step(t, s, now, op("a", minute, 1), op("b", minute, 2))
		require.Equal(t, fixed.Decide(minute, after, now), d[0])
		require.Equal(t, fixed.Decide(minute, 2*after, now), d[1])
	}
	require.Equal(t, uint64(3), step(t, s, now, op("a", minute, 1))[0].After, "a lone operation counts too")
}

func stepCountsOver(t *testing.T, s limiter.Store, now time.Time) {
	step(t, s, now, op("a", minute, 1), op("b", minute, 5))
	for after := uint64(6); after <= 8; after++ {
		d := step(t, s, now, op("a", minute, 1), op("b", minute, 1), op("new", minute, 1))
		require.Equal(t, fixed.Decide(minute, 1, now), d[0], "a look")
		require.Equal(t, fixed.Decide(minute, after, now), d[1])
		require.Equal(t, fixed.Decide(minute, 0, now), d[2], "a look")
	}
	require.Equal(t, uint64(1), apply(t, s, now, op("new", minute, 1))[0].After)
}

func stepRefunds(t *testing.T, s limiter.Store, now time.Time) {
	step(t, s, now, op("a", minute, 4), op("b", minute, 5), op("c", minute, 2))
	d := step(t, s, now, refund("a", minute, 3), op("b", minute, 1), op("c", minute, 1))
	require.Equal(t, []uint64{1, 6, 2}, []uint64{d[0].After, d[1].After, d[2].After})
	require.Equal(t, []bool{false, true, false}, []bool{d[0].Over, d[1].Over, d[2].Over})
	require.Equal(t, uint64(1), apply(t, s, now, op("a", minute, 0))[0].After)
}

func stepTwice(t *testing.T, s limiter.Store, now time.Time) {
	d := step(t, s, now, op("k", minute, 2), op("k", minute, 2))
	require.Equal(t, []uint64{2, 4}, []uint64{d[0].After, d[1].After})
	c := call(now, true, op("k", minute, 1), op("k", minute, 1))
	d = decisions(t, s, c)
	require.Equal(t, fixed.Decide(minute, 4, now), d[0], "a look")
	require.Equal(t, fixed.Decide(minute, 6, now), d[1], "over with the first")
	require.Equal(t, uint64(5), c.Ops[1].Stands, "which was not counted")
	require.Equal(t, uint64(5), apply(t, s, now, op("k", minute, 0))[0].After, "only the second was counted")
}

// concurrentSteps has callers name two counters in either order, so that
// locking them one by one would end in a deadlock, and counting them one by one
// in counters that differ.
func concurrentSteps(t *testing.T, s limiter.Store, now time.Time) {
	const callers, calls = 8, 50
	tight, wide := algorithm.Limit{Requests: 100, Window: time.Hour}, algorithm.Limit{Requests: 1000, Window: time.Hour}
	var granted [callers]int
	var wait sync.WaitGroup
	for i := range callers {
		// Ends after its calls; the test waits for it below.
		wait.Go(func() {
			for range calls {
				c := call(now, true, op("tight", tight, 1), op("wide", wide, 1))
				if i%2 == 0 {
					slices.Reverse(c.Ops)
				}
				if s.Apply(t.Context(), c) != nil {
					return
				}
				if !c.Ops[0].Decision.Over && !c.Ops[1].Decision.Over {
					granted[i]++
				}
			}
		})
	}
	wait.Wait()
	sum := 0
	for i := range callers {
		sum += granted[i]
	}
	require.Equal(t, 100, sum, "steps granted")
	d := apply(t, s, now, op("tight", tight, 0), op("wide", wide, 0))
	require.Equal(t, uint64(callers*calls), d[0].After, "what is over is counted")
	require.Equal(t, uint64(100), d[1].After, "what is not is counted when all is granted")
}

// errEarlier is what operations come with in the tests of their errors.
var errEarlier = errors.New("of an earlier call")

func decisionOrError(t *testing.T, s limiter.Store, now time.Time) {
	for _, stop := range []bool{false, true} {
		c := call(now, stop, op("a", minute, 1), refund("b", minute, 1), op("b", minute, 0), op("c", minute, 6))
		for i := range c.Ops {
			c.Ops[i].Err = errEarlier
		}
		require.NoError(t, s.Apply(t.Context(), c))
		for i := range c.Ops {
			require.NoError(t, c.Ops[i].Err)
		}
	}
}

// callersLeave has callers leave at any time, so that some have all decisions,
// some none, and some perhaps those of a part of the store.
func callersLeave(t *testing.T, s limiter.Store, now time.Time) {
	limit := algorithm.Limit{Requests: 1000, Window: time.Hour}
	counted := map[string]uint64{}
	for i := range 200 {
		stop := i%2 == 0
		c := call(now, stop, op("a", limit, 1), op("b", limit, 1))
		for i := range c.Ops {
			c.Ops[i].Err = errEarlier
		}
		ctx, leave := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Microsecond)
		err := s.Apply(ctx, c)
		leave()
		failed := 0
		for i := range c.Ops {
			o := &c.Ops[i]
			if o.Err != nil {
				require.NotErrorIs(t, o.Err, errEarlier)
				failed++
				continue
			}
			require.Positive(t, o.Decision.ResetIn, "decided")
			counted[string(o.Key)]++
		}
		if err == nil {
			require.Zero(t, failed)
			continue
		}
		require.Positive(t, failed)
		if stop {
			require.Equal(t, len(c.Ops), failed, "a step fails as a whole")
		}
	}
	for key, n := range counted {
		require.GreaterOrEqual(t, apply(t, s, now, op(key, limit, 0))[0].After, n, "what was decided was counted")
	}
}

// Benchmark measures one call with one operation, from many goroutines.
func Benchmark(b *testing.B, s limiter.Store) {
	limit := algorithm.Limit{Requests: 1 << 30, Window: time.Hour}
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		c := call(now, false, op(fmt.Sprint("key", rand.IntN(1000)), limit, 1))
		for p.Next() {
			if err := s.Apply(context.Background(), c); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
