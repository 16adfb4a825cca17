package lb

import (
	"math"
	"math/rand/v2"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/edf"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// LeastRequest picks the least busy of a few hosts that chance offers
// (LEAST_REQUEST). Hosts of unequal weight get their shares by earliest
// deadline first, each the less the busier it is.
func LeastRequest() cluster.Policy {
	return cluster.Policy{
		Name:   clusterv3.Cluster_LEAST_REQUEST,
		Config: "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
		Field:  "least_request_lb_config",
		Fields: with(strict.Fields{
			"envoy.config.cluster.v3.Cluster":                      {"least_request_lb_config"},
			"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": {"choice_count", "active_request_bias"},
			"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest": {
				"choice_count", "active_request_bias", "locality_lb_config",
			},
		}),
		FromCluster: func(c *clusterv3.Cluster) proto.Message {
			return &leastrequestv3.LeastRequest{
				ChoiceCount:       c.GetLeastRequestLbConfig().GetChoiceCount(),
				ActiveRequestBias: c.GetLeastRequestLbConfig().GetActiveRequestBias(),
			}
		},
		Parse: parseLeastRequest,
	}
}

func parseLeastRequest(config proto.Message, at strict.Path, report *strict.Report) cluster.Balancing {
	c := config.(*leastrequestv3.LeastRequest)
	choices, bias := 2, 1.0
	if n := c.GetChoiceCount(); n != nil {
		choices = int(n.GetValue())
	}
	if b := c.GetActiveRequestBias(); b != nil {
		if bias = b.GetDefaultValue(); !(bias >= 0) {
			report.Add(at.Field("active_request_bias").Field("default_value"), "%v is not 0 or more", bias)
		}
	}
	return cluster.Balancing{
		New: func(hosts []cluster.WeightedHost, _ *stats.Scope, runtime *layeredruntime.Runtime) cluster.Balancer {
			if equal(hosts) {
				return &leastBusy{hosts, choices}
			}
			return scheduled{edf.New(hosts, func(h cluster.WeightedHost) float64 {
				return whileBusy(h, biasOf(runtime.Snapshot(), c.GetActiveRequestBias().GetRuntimeKey(), bias))
			})}
		},
		LocalityWeighted: weighsLocalities(c.GetLocalityLbConfig()),
	}
}

// leastBusy are hosts of equal weight.
type leastBusy struct {
	hosts   []cluster.WeightedHost
	choices int
}

// Pick implements cluster.Balancer.
func (l *leastBusy) Pick(uint64, int) *cluster.Host {
	best := l.hosts[rand.IntN(len(l.hosts))].Host
	for range l.choices - 1 {
		if h := l.hosts[rand.IntN(len(l.hosts))].Host; h.Stats.RequestsActive.Load() < best.Stats.RequestsActive.Load() {
			best = h
		}
	}
	return best
}

// biasOf is the active_request_bias by the values; what is below 0 or endless there has
// no effect.
func biasOf(values *layeredruntime.Snapshot, key string, configured float64) float64 {
	if bias := values.Number(key, configured); bias >= 0 && !math.IsInf(bias, 1) {
		return bias
	}
	return configured
}

// whileBusy is a host's weight with the requests that it has.
func whileBusy(h cluster.WeightedHost, bias float64) float64 {
	busy := float64(h.Stats.RequestsActive.Load() + 1)
	switch bias {
	case 0:
		return h.Weight
	case 1:
		return h.Weight / busy
	}
	return h.Weight / math.Pow(busy, bias)
}
