package quota

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// numbered is the nth of 2^32 addresses.
func numbered(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func TestASourceTakesItsBurstAndThenItsRate(t *testing.T) {
	for name, test := range map[string]struct {
		perSecond float64
		burst     int
		interval  time.Duration // after which there is one more
	}{
		"two a second, five at once":  {2, 5, 500 * time.Millisecond},
		"one in ten seconds":          {0.1, 1, 10 * time.Second},
		"a thousand, and ten at once": {1000, 10, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSources(test.perSecond, test.burst, nil)
				a, b := numbered(1), netip.MustParseAddr("fd00::1")
				time.Sleep(time.Hour) // which fills no bucket beyond its burst
				for range test.burst {
					require.NoError(t, s.Take(a))
				}
				for range 3 { // a refusal takes nothing
					err := s.Take(a)
					require.Equal(t, &denial.Error{
						Status: 429, Reason: denial.Rate, RetryAfter: test.interval,
						Text: "0.0.0.1 calls oftener than once in " + test.interval.String(),
					}, err)
				}
				require.NoError(t, s.Take(b), "another source has its own")
				time.Sleep(test.interval - 1)
				require.Error(t, s.Take(a))
				time.Sleep(time.Nanosecond)
				require.NoError(t, s.Take(a))
				require.Error(t, s.Take(a))
				time.Sleep(2 * test.interval)
				for range min(2, test.burst) {
					require.NoError(t, s.Take(a))
				}
				require.Error(t, s.Take(a))
			})
		})
	}
}

func TestCallsOfUnknownAddressShareABucket(t *testing.T) {
	s := NewSources(1, 1, nil)
	require.NoError(t, s.Take(netip.Addr{}))
	require.ErrorContains(t, s.Take(netip.Addr{}), "invalid IP calls oftener")
}

func TestARateOf0LetsEverythingPass(t *testing.T) {
	s := NewSources(0, 1, nil)
	for range 1000 {
		require.NoError(t, s.Take(numbered(1)))
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	metrics := prometheus.NewRegistry()
	s := NewSources(0.001, 2, denial.NewCounters(metrics))
	for range 5 {
		_ = s.Take(numbered(1))
	}
	require.NoError(t, testutil.GatherAndCompare(metrics, strings.NewReader(`
# HELP discovery_refusals_total What callers were refused by a rule or a limit, by reason.
# TYPE discovery_refusals_total counter
discovery_refusals_total{reason="address"} 0
discovery_refusals_total{reason="body"} 0
discovery_refusals_total{reason="hosts"} 0
discovery_refusals_total{reason="identity"} 0
discovery_refusals_total{reason="node"} 0
discovery_refusals_total{reason="rate"} 3
discovery_refusals_total{reason="services"} 0
discovery_refusals_total{reason="settings"} 0
discovery_refusals_total{reason="tags"} 0
discovery_refusals_total{reason="token"} 0
discovery_refusals_total{reason="waiters"} 0
`)))
}

func TestAFloodOfAddressesTakesNoMoreMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSources(1, 1, nil)
		held := func() (n int) {
			for i := range s.shards {
				n += len(s.shards[i].fullAt)
			}
			return n
		}
		for n := range uint32(3 * shards * perShard) {
			require.NoError(t, s.Take(numbered(n)), "an address that was never seen")
		}
		require.LessOrEqual(t, held(), shards*perShard)
		require.Greater(t, held(), shards*perShard*9/10)

		// Those whose buckets are full make room for the next, and for more.
		time.Sleep(time.Minute)
		for n := range uint32(shards * perShard) {
			require.NoError(t, s.Take(numbered(1<<30+n)))
		}
		require.LessOrEqual(t, held(), shards*perShard)
	})
}

func TestManySourcesAtOnceEachGetTheirBurst(t *testing.T) {
	s := NewSources(0.0001, 50, nil)
	taken := make([]int, 8)
	var callers sync.WaitGroup
	for i := range taken {
		callers.Go(func() {
			for range 100 {
				if s.Take(numbered(uint32(i/2))) == nil {
					taken[i]++
				}
			}
		})
	}
	callers.Wait()
	for i := 0; i < len(taken); i += 2 {
		require.Equal(t, 50, taken[i]+taken[i+1], "two callers of one address")
	}
}

func TestAKnownSourceAllocatesNothing(t *testing.T) {
	s := NewSources(1e9, 1<<20, nil)
	a := numbered(1)
	require.NoError(t, s.Take(a))
	servicetest.Allocations(t, 0, func() { _ = s.Take(a) })
}

func BenchmarkTake(b *testing.B) {
	s := NewSources(1e9, 1<<20, nil)
	sources := make([]netip.Addr, 10_000)
	for i := range sources {
		sources[i] = numbered(uint32(i))
		_ = s.Take(sources[i])
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		_ = s.Take(sources[i%len(sources)])
		i++
	}
}
