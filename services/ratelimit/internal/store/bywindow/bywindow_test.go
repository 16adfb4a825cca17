package bywindow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/memory"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/storetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func store() *memory.Store { return memory.New(10000, prometheus.NewRegistry()) }

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) limiter.Store { return New(store(), store()) })
}

func op(key string, window time.Duration, hits uint64) limiter.Op {
	return limiter.Op{
		Key: []byte(key), Algorithm: fixedwindow.Algorithm{},
		Limit: algorithm.Limit{Requests: 5, Window: window}, Hits: hits,
	}
}

func TestLimitsOfASecondGoToTheirOwnStore(t *testing.T) {
	seconds, others := store(), store()
	s := New(seconds, others)
	for _, ops := range [][]limiter.Op{
		{op("a", time.Second, 1), op("b", time.Minute, 2), op("c", time.Second, 3), op("d", time.Hour, 6)},
		{op("a", time.Second, 1), op("c", time.Second, 3)},
		{op("b", time.Minute, 2), op("d", time.Hour, 6)},
	} {
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Unix(1000, 0)}))
		for i := range ops {
			require.Equal(t, ops[i].Hits > 5 || ops[i].Decision.After > 5, ops[i].Decision.Over)
			require.Positive(t, ops[i].Decision.After, "its own decision")
		}
	}
	require.Equal(t, 2, seconds.Len())
	require.Equal(t, 2, others.Len())
}

func TestWhatIsOverInOneStoreKeepsTheOtherFromCounting(t *testing.T) {
	now, decide := time.Unix(1000, 0), fixedwindow.Algorithm{}.Decide
	for _, over := range []time.Duration{time.Second, time.Minute} {
		s := New(store(), store())
		ops := []limiter.Op{op("over", over, 5), op("back", time.Second, 3)}
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
		for after := uint64(6); after <= 8; after++ {
			ops := []limiter.Op{
				op("over", over, 1), op("second", time.Second, 1), op("minute", time.Minute, 1), op("back", time.Second, 1),
			}
			ops[3].Refund = true
			require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
			require.Equal(t, decide(ops[0].Limit, after, now), ops[0].Decision)
			require.True(t, ops[0].Decision.Over)
			require.Equal(t, decide(ops[1].Limit, 0, now), ops[1].Decision, "a look")
			require.Equal(t, decide(ops[2].Limit, 0, now), ops[2].Decision, "a look")
			require.Equal(t, 8-after, ops[3].Decision.After, "given back nevertheless")
		}
	}
}

func TestWhereNothingIsOverBothStoresCount(t *testing.T) {
	s, now := New(store(), store()), time.Unix(1000, 0)
	for after := uint64(1); after <= 5; after++ {
		ops := []limiter.Op{op("a", time.Second, 1), op("b", time.Minute, 1)}
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
		for i := range ops {
			require.Equal(t, fixedwindow.Algorithm{}.Decide(ops[i].Limit, after, now), ops[i].Decision)
		}
	}
}

// One store that holds all counters is what two of them are to agree with, while
// nobody else counts.
func TestRandomStepsAgreeWithThoseOfOneStore(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	one, two := store(), New(store(), store())
	windows := map[string]time.Duration{"a": time.Second, "b": time.Second, "c": time.Minute, "d": time.Hour}
	names := slices.Sorted(maps.Keys(windows))
	for i := range 5000 {
		now := time.Unix(1000+int64(i/20), 0)
		var ops []limiter.Op
		for range 1 + r.IntN(6) {
			name := names[r.IntN(len(names))]
			o := op(name, windows[name], uint64(r.IntN(4)))
			o.Refund = r.IntN(3) == 0
			ops = append(ops, o)
		}
		want := slices.Clone(ops)
		require.NoError(t, one.Apply(t.Context(), &limiter.Call{Ops: want, Now: now, StopWhenOver: true}))
		require.NoError(t, two.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
		require.Equal(t, want, ops)
	}
}

func TestAStepThatOneStoreFailsToTakeFailsAsAWhole(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, seconds := range []limiter.Store{away{}, looksOnly{store()}} {
		ops := []limiter.Op{op("a", time.Second, 1), op("b", time.Minute, 1)}
		require.ErrorIs(t, New(seconds, store()).Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}), errAway)
		for i := range ops {
			require.ErrorIs(t, ops[i].Err, errAway)
		}
	}
	others := store()
	ops := []limiter.Op{op("a", time.Second, 1), op("b", time.Minute, 1)}
	require.Error(t, New(away{}, others).Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
	require.Zero(t, others.Len(), "nothing is counted where not all could be looked at")
	ops[1].Algorithm = uncounted{ops[1].Algorithm}
	err := New(store(), store()).Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true})
	require.EqualError(t, err, "one step over two stores cannot count for the algorithm fixed_window")
	require.Equal(t, err, ops[0].Err)
	require.Equal(t, err, ops[1].Err)
}

// uncounted hides what a Counted algorithm has beyond others.
type uncounted struct{ algorithm.Algorithm }

func TestMemoryOfVeryLargeCallsIsNotKept(t *testing.T) {
	s, now := New(store(), store()), time.Unix(1000, 0)
	for _, n := range []int{kept, kept + 1} {
		var ops []limiter.Op
		for i := range n {
			ops = append(ops, op(fmt.Sprint(i), time.Second, 1))
		}
		ops = append(ops, op("other", time.Minute, 1))
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	}
	c := s.calls.Get().(*call) // a pool may also be empty, and makes a small one then
	require.LessOrEqual(t, len(c.seconds.from), kept)
	for _, o := range c.seconds.call.Ops {
		require.Nil(t, o.Key, "keys of the caller's are let go of")
	}
}

// failing is a store that waits for the other to be asked too, then fails.
type failing struct {
	name       string
	mine, them chan struct{}
}

func (f failing) answer(ctx context.Context) error {
	close(f.mine)
	select {
	case <-f.them:
		return errors.New(f.name)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f failing) Apply(ctx context.Context, call *limiter.Call) error {
	err := f.answer(ctx)
	call.Ops[0].Err = err
	return err
}
func (f failing) Ping(ctx context.Context) error { return f.answer(ctx) }
func (f failing) Close() error                   { return errors.New(f.name) }

func TestBothStoresAreAskedAtTheSameTimeAndBothErrorsTold(t *testing.T) {
	for name, ask := range map[string]func(*Store) error{
		"Apply": func(s *Store) error {
			return s.Apply(t.Context(), &limiter.Call{Ops: []limiter.Op{op("a", time.Second, 1), op("b", time.Minute, 1)}})
		},
		"Ping":  func(s *Store) error { return s.Ping(t.Context()) },
		"Close": func(s *Store) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := make(chan struct{}), make(chan struct{})
			err := ask(New(failing{"seconds", a, b}, failing{"others", b, a}))
			require.EqualError(t, err, "others\nseconds")
		})
	}
}

// away is a store that fails.
type away struct{ limiter.Store }

var errAway = errors.New("away")

func (away) Apply(_ context.Context, call *limiter.Call) error { return call.Fail(errAway) }

// looksOnly is a store that fails to count.
type looksOnly struct{ limiter.Store }

func (s looksOnly) Apply(ctx context.Context, call *limiter.Call) error {
	for i := range call.Ops {
		if call.Ops[i].Hits > 0 {
			return away{}.Apply(ctx, call)
		}
	}
	return s.Store.Apply(ctx, call)
}

func TestOperationsKeepTheirDecisionWhereTheOtherStoreFails(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name   string
		s      *Store
		failed [3]bool
		stop   bool
	}{
		{"that_of_a_second", New(away{}, store()), [3]bool{true, false, true}, false},
		{"the_other", New(store(), away{}), [3]bool{false, true, false}, false},
		{"in_a_call_that_fails_as_a_whole", New(away{}, store()), [3]bool{true, true, true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops := []limiter.Op{op("a", time.Second, 1), op("b", time.Minute, 2), op("c", time.Second, 1)}
			require.ErrorIs(t, c.s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: c.stop}), errAway)
			for i := range ops {
				if c.failed[i] {
					require.ErrorIs(t, ops[i].Err, errAway)
					continue
				}
				require.NoError(t, ops[i].Err)
				require.Equal(t, ops[i].Hits, ops[i].Decision.After)
			}
		})
	}
}

func TestApplyAllocatesNoMoreThanItsGoroutine(t *testing.T) {
	s := New(store(), store())
	call := &limiter.Call{Ops: []limiter.Op{op("a", time.Second, 1), op("b", time.Minute, 1)}, Now: time.Unix(1000, 0)}
	servicetest.Allocations(t, 1, func() {
		if err := s.Apply(t.Context(), call); err != nil {
			t.Error(err)
		}
	})
}
