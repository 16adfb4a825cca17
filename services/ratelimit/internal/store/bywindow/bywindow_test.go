package bywindow

import (
	"context"
	"errors"
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

func TestEachStoreTakesItsHalfAsOneStep(t *testing.T) {
	s := New(store(), store())
	now := time.Unix(1000, 0)
	ops := []limiter.Op{op("over", time.Second, 6), op("beside", time.Second, 1), op("other", time.Minute, 1)}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
	require.True(t, ops[0].Decision.Over)
	require.Zero(t, ops[1].Decision.After, "kept from counting by its half")
	require.Equal(t, uint64(1), ops[2].Decision.After, "not kept by the other half")
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

func (away) Apply(_ context.Context, call *limiter.Call) error {
	for i := range call.Ops {
		call.Ops[i].Err = errAway
	}
	return errAway
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
