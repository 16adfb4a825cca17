package lb_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// hosts are 10.0.x.y:80 with these weights.
func hosts(weights ...float64) []cluster.WeightedHost {
	var list []cluster.WeightedHost
	for i, w := range weights {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		list = append(list, cluster.WeightedHost{Host: &cluster.Host{Address: address}, Weight: w})
	}
	return list
}

// equals are n hosts of one weight.
func equals(n int) []cluster.WeightedHost {
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = 1
	}
	return hosts(weights...)
}

// builder makes balancers of a policy, configured by a cluster's fields in JSON.
type builder struct {
	t        testing.TB
	policy   cluster.Balancing
	registry *stats.Registry
	runtime  *layeredruntime.Runtime // nil for none
}

func configured(t testing.TB, p cluster.Policy, fields string) *builder {
	t.Helper()
	c := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal([]byte("{"+fields+"}"), c))
	report := &strict.Report{}
	made := &builder{t: t, policy: p.Parse(p.FromCluster(c), "", report), registry: stats.NewRegistry()}
	require.NoError(t, report.Err())
	return made
}

func (b *builder) of(list []cluster.WeightedHost) cluster.Balancer {
	return b.policy.New(list, b.registry.Scope("cluster"), b.runtime)
}

func (b *builder) gauge(name string) (value int64) {
	b.registry.Each(func(m stats.Metric) {
		if m.Name == "cluster."+name {
			value = m.Value
		}
	})
	return value
}

// spread numbers hash well, and are the same in each run.
func spread(i int) uint64 { return uint64(i+1) * 0x9e3779b97f4a7c15 }

func count(balancer cluster.Balancer, n int) map[*cluster.Host]int {
	picks := map[*cluster.Host]int{}
	for i := range n {
		picks[balancer.Pick(spread(i), 0)]++
	}
	return picks
}

// within is how far from its share of n picks a policy may leave a host.
func within(policy string, share float64) float64 {
	switch policy {
	case "round robin":
		return 2
	case "maglev":
		return 0.05*share + 60
	default:
		return 0.15*share + 60
	}
}

func TestSharesFollowWeights(t *testing.T) {
	policies := map[string]*builder{
		"round robin":   configured(t, lb.RoundRobin(), ""),
		"least request": configured(t, lb.LeastRequest(), ""),
		"ring hash":     configured(t, lb.RingHash(), `"ring_hash_lb_config": {"minimum_ring_size": 8000}`),
		"murmur ring":   configured(t, lb.RingHash(), `"ring_hash_lb_config": {"minimum_ring_size": 8000, "hash_function": "MURMUR_HASH_2"}`),
		"maglev":        configured(t, lb.Maglev(), `"maglev_lb_config": {"table_size": 10007}`),
	}
	for name, weights := range map[string][]float64{
		"one host":         {1},
		"equal weights":    {7, 7, 7},
		"unequal weights":  {1, 2, 5},
		"far apart":        {1, 100},
		"two of one share": {3, 3, 1},
		"parts":            {0.25, 0.5, 0.25},
	} {
		for policy, b := range policies {
			t.Run(policy+" "+name, func(t *testing.T) {
				list := hosts(weights...)
				sum := 0.0
				for _, w := range weights {
					sum += w
				}
				const n = 10000
				picks := count(b.of(list), n)
				for _, h := range list {
					share := n * h.Weight / sum
					require.InDelta(t, share, picks[h.Host], within(policy, share), "%v", h.Address)
				}
			})
		}
	}
}

func TestRandomDoesNotHeedWeights(t *testing.T) {
	list := hosts(1, 9)
	picks := count(configured(t, lb.Random(), "").of(list), 10000)
	require.InDelta(t, 5000, picks[list[0].Host], 400)
}

func TestRoundRobinOfEqualWeightsAlternates(t *testing.T) {
	balancer := configured(t, lb.RoundRobin(), "").of(hosts(1, 1))
	last := balancer.Pick(0, 0)
	for range 10 {
		next := balancer.Pick(0, 0)
		require.NotSame(t, last, next)
		last = next
	}
}

func TestPicksFromManyGoroutinesKeepTheShares(t *testing.T) {
	list := hosts(1, 3)
	balancer := configured(t, lb.RoundRobin(), "").of(list)
	var mu sync.Mutex
	picks := map[*cluster.Host]int{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				h := balancer.Pick(0, 0)
				mu.Lock()
				picks[h]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.InDelta(t, 300, picks[list[1].Host], 2)
}

func TestLeastRequestSparesTheBusy(t *testing.T) {
	for _, c := range []struct {
		name, fields string
		weights      []float64
		busy         int64   // requests of the first host
		want         float64 // share of the first host
	}{
		{"the less busy of two", "", []float64{1, 1}, 5, 0.25}, // only where it was offered twice
		{"the least busy of many", `"least_request_lb_config": {"choice_count": 10}`, []float64{1, 1}, 5, 0.001},
		{"by weight over requests", "", []float64{2, 1}, 3, 0.5 / 1.5},
		{"a bias of 0 is round robin", `"least_request_lb_config": {"active_request_bias": {"default_value": 0, "runtime_key": "x"}}`, []float64{3, 1}, 99, 0.75},
		{"a bias of 2", `"least_request_lb_config": {"active_request_bias": {"default_value": 2, "runtime_key": "x"}}`, []float64{4, 1}, 1, 0.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := hosts(c.weights...)
			list[0].Stats.RequestsActive.Store(c.busy)
			picks := count(configured(t, lb.LeastRequest(), c.fields).of(list), 10000)
			require.InDelta(t, c.want, float64(picks[list[0].Host])/10000, 0.03)
		})
	}
}

func TestTheRuntimeSetsTheBias(t *testing.T) {
	b := configured(t, lb.LeastRequest(), `"least_request_lb_config": {"active_request_bias": {"default_value": 1, "runtime_key": "bias"}}`)
	b.runtime = runtimetest.New(t, "{bias: 0}")
	list := hosts(2, 1)
	list[0].Stats.RequestsActive.Store(3)
	balancer := b.of(list)
	for _, c := range []struct {
		bias string
		want float64 // share of the first host
	}{
		{"0", 2.0 / 3}, {"1.0", 0.5 / 1.5}, {"2", 0.125 / 1.125}, {"-1", 0.5 / 1.5}, {"inf", 0.5 / 1.5}, {"", 2.0 / 3}, // that of the layer below
	} {
		require.NoError(t, b.runtime.Modify(map[string]string{"bias": c.bias}))
		count(balancer, 100) // what was scheduled before
		picks := count(balancer, 10000)
		require.InDelta(t, c.want, float64(picks[list[0].Host])/10000, 0.03, c.bias)
		servicetest.Allocations(t, 0, func() { balancer.Pick(0, 0) })
	}
}

func BenchmarkPick(b *testing.B) {
	for _, p := range []cluster.Policy{lb.RoundRobin(), lb.LeastRequest(), lb.Random(), lb.RingHash(), lb.Maglev()} {
		for _, n := range []int{10, 1000} {
			weights := make([]float64, n)
			for i := range weights {
				weights[i] = float64(1 + i%3)
			}
			for kind, list := range map[string][]cluster.WeightedHost{"equal": equals(n), "weighted": hosts(weights...)} {
				b.Run(fmt.Sprintf("%s/%d %s", p.Name, n, kind), func(b *testing.B) {
					balancer := configured(b, p, "").of(list)
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						balancer.Pick(spread(i), 0)
						i++
					}
				})
			}
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, p := range []cluster.Policy{lb.RoundRobin(), lb.RingHash(), lb.Maglev()} {
		b.Run(p.Name.String(), func(b *testing.B) {
			made, list := configured(b, p, ""), equals(1000)
			b.ReportAllocs()
			for b.Loop() {
				made.of(list)
			}
		})
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, p := range []cluster.Policy{lb.RoundRobin(), lb.LeastRequest(), lb.Random(), lb.RingHash(), lb.Maglev()} {
		for _, list := range [][]cluster.WeightedHost{equals(10), hosts(1, 2, 3)} {
			balancer := configured(t, p, "").of(list)
			servicetest.Allocations(t, 0, func() { balancer.Pick(42, 0) })
		}
	}
}
