package lb

import (
	"math/rand/v2"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/edf"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// RoundRobin hands out hosts in turn, from a random start (ROUND_ROBIN). Hosts
// of unequal weight get their shares evenly spread, by earliest deadline first.
func RoundRobin() cluster.Policy {
	return cluster.Policy{
		Name:   clusterv3.Cluster_ROUND_ROBIN,
		Config: "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
		Field:  "round_robin_lb_config",
		Fields: with(strict.Fields{
			"envoy.config.cluster.v3.Cluster":                                    {"round_robin_lb_config"},
			"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig":                 {},
			"envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin": {"locality_lb_config"},
		}),
		FromCluster: func(*clusterv3.Cluster) proto.Message { return &roundrobinv3.RoundRobin{} },
		Parse: func(config proto.Message, _ strict.Path, _ *strict.Report) cluster.Balancing {
			c := config.(*roundrobinv3.RoundRobin)
			return cluster.Balancing{New: newRoundRobin, LocalityWeighted: weighsLocalities(c.GetLocalityLbConfig())}
		},
	}
}

func newRoundRobin(hosts []cluster.WeightedHost, _ *stats.Scope, _ *layeredruntime.Runtime) cluster.Balancer {
	if !equal(hosts) {
		return scheduled{edf.New(hosts, func(h cluster.WeightedHost) float64 { return h.Weight })}
	}
	r := &rotation{hosts: hosts}
	r.next.Store(rand.Uint64N(uint64(len(hosts))))
	return r
}

// rotation is round robin over hosts of equal weight.
type rotation struct {
	hosts []cluster.WeightedHost
	next  atomic.Uint64
}

// Pick implements cluster.Balancer.
func (r *rotation) Pick(uint64, int) *cluster.Host {
	return r.hosts[r.next.Add(1)%uint64(len(r.hosts))].Host
}
