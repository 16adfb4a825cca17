package memory

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/storetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) limiter.Store { return New(10000, prometheus.NewRegistry()) })
}

// hit counts one hit of key in windows of a second, and returns the counter.
func hit(t *testing.T, s *Store, key string, now time.Time) uint64 {
	ops := []limiter.Op{{
		Key: []byte(key), Algorithm: fixedwindow.Algorithm{},
		Limit: algorithm.Limit{Requests: 1, Window: time.Second}, Hits: 1,
	}}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	return ops[0].Decision.After
}

func TestMemoryIsBoundedByForgettingTheSoonestToExpire(t *testing.T) {
	s := New(640, prometheus.NewRegistry())
	now := time.Unix(1000, 0)
	for i := range 5000 {
		hit(t, s, fmt.Sprint(i), now)
		require.LessOrEqual(t, s.Len(), 640)
	}
	require.InDelta(t, 5000-640, testutil.ToFloat64(s.shards[0].evicted), 1)
	require.Equal(t, uint64(2), hit(t, s, "4999", now), "the newest counter is still there")
}

func TestExpiredCountersMakeRoomBeforeLiveOnes(t *testing.T) {
	s := New(640, prometheus.NewRegistry())
	now := time.Unix(1000, 0)
	for i := range 5000 {
		hit(t, s, fmt.Sprint("old", i), now)
	}
	before := testutil.ToFloat64(s.shards[0].evicted)
	later := now.Add(time.Second)
	// So few that more than ten do not come to lie in one of the 64 shards.
	for i := range 64 {
		hit(t, s, fmt.Sprint("new", i), later)
	}
	require.Equal(t, before, testutil.ToFloat64(s.shards[0].evicted), "nothing live was forgotten")
	for i := range 64 {
		require.Equal(t, uint64(2), hit(t, s, fmt.Sprint("new", i), later))
	}
}

func TestExpiredCountersAreClearedAwayByThoseAdded(t *testing.T) {
	s := New(1_000_000, prometheus.NewRegistry())
	now := time.Unix(1000, 0)
	for second := range 20 {
		for i := range 1000 {
			hit(t, s, fmt.Sprint(second, "/", i), now.Add(time.Duration(second)*time.Second))
		}
	}
	require.Less(t, s.Len(), 4000, "of 20000 counters, of which 1000 are live")
}

func TestALookAtACounterThatIsNotThereMakesNone(t *testing.T) {
	s := New(640, prometheus.NewRegistry())
	ops := []limiter.Op{{Key: []byte("k"), Algorithm: fixedwindow.Algorithm{}, Limit: algorithm.Limit{Requests: 1, Window: time.Second}}}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}))
	require.Zero(t, s.Len())
}

func TestApplyDoesNotAllocateForCountersThatAreThere(t *testing.T) {
	limit := algorithm.Limit{Requests: 1, Window: time.Second}
	for _, c := range []struct {
		name string
		stop bool
		ops  []limiter.Op
	}{
		{"one", false, []limiter.Op{{Key: []byte("k"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1}}},
		{"one_step_of_several", true, []limiter.Op{
			{Key: []byte("k"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1},
			{Key: []byte("l"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1},
			{Key: []byte("l"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1, Refund: true},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(640, prometheus.NewRegistry())
			for i := range c.ops {
				hit(t, s, string(c.ops[i].Key), time.Now())
			}
			servicetest.Allocations(t, 0, func() {
				if err := s.Apply(context.Background(), &limiter.Call{Ops: c.ops, Now: time.Now(), StopWhenOver: c.stop}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A store that has room for one counter in each shard forgets one of a call's
// own counters while it applies that call.
func TestOneStepOfMoreCountersThanThereIsRoomForIsApplied(t *testing.T) {
	s := New(1, prometheus.NewRegistry())
	limit := algorithm.Limit{Requests: 5, Window: time.Minute}
	for _, over := range []uint64{1, 9} {
		ops := []limiter.Op{{Key: []byte("over"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: over}}
		for i := range 200 {
			ops = append(ops, limiter.Op{Key: fmt.Append(nil, i), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1})
		}
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now(), StopWhenOver: true}))
		require.Equal(t, over > 5, ops[0].Decision.Over)
		require.LessOrEqual(t, s.Len(), shards)
	}
}

func BenchmarkApply(b *testing.B) { storetest.Benchmark(b, New(10000, prometheus.NewRegistry())) }
