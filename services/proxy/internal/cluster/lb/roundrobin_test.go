package lb_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func hosts(weights ...uint32) []cluster.WeightedHost {
	var list []cluster.WeightedHost
	for i, w := range weights {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
		list = append(list, cluster.WeightedHost{Host: &cluster.Host{Address: address}, Weight: w})
	}
	return list
}

func TestRoundRobinGivesEachHostItsShare(t *testing.T) {
	for name, weights := range map[string][]uint32{
		"one host":         {1},
		"equal weights":    {7, 7, 7},
		"unequal weights":  {1, 2, 5},
		"far apart":        {1, 100},
		"two of one share": {3, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			list := hosts(weights...)
			balancer := lb.RoundRobin(list)
			sum := uint32(0)
			for _, w := range weights {
				sum += w
			}
			// One host more or less than its share is where the turn begins.
			picks := map[*cluster.Host]int{}
			const rounds = 10
			for range rounds * int(sum) {
				picks[balancer.Pick()]++
			}
			for _, h := range list {
				require.InDelta(t, rounds*h.Weight, picks[h.Host], float64(max(1, h.Weight)), "%v", h.Address)
			}
		})
	}
}

func TestRoundRobinOfEqualWeightsAlternates(t *testing.T) {
	balancer := lb.RoundRobin(hosts(1, 1))
	last := balancer.Pick()
	for range 10 {
		next := balancer.Pick()
		require.NotSame(t, last, next)
		last = next
	}
}

func TestHeavyHostIsNotPickedInOneRun(t *testing.T) {
	list := hosts(2, 1, 1)
	balancer := lb.RoundRobin(list)
	run, longest := 0, 0
	for range 100 {
		if balancer.Pick() == list[0].Host {
			run++
		} else {
			run = 0
		}
		longest = max(longest, run)
	}
	require.LessOrEqual(t, longest, 2)
}

func TestPicksFromManyGoroutinesKeepTheShares(t *testing.T) {
	list := hosts(1, 3)
	balancer := lb.RoundRobin(list)
	var mu sync.Mutex
	picks := map[*cluster.Host]int{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				h := balancer.Pick()
				mu.Lock()
				picks[h]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.InDelta(t, 300, picks[list[1].Host], 2)
}

func BenchmarkRoundRobin(b *testing.B) {
	for name, list := range map[string][]cluster.WeightedHost{"equal": hosts(1, 1, 1, 1), "weighted": hosts(1, 2, 3, 4)} {
		b.Run(name, func(b *testing.B) {
			balancer := lb.RoundRobin(list)
			b.ReportAllocs()
			for b.Loop() {
				balancer.Pick()
			}
		})
	}
}
