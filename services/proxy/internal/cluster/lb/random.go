package lb

import (
	"math/rand/v2"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Random picks any host, whatever its weight (RANDOM).
func Random() cluster.Policy {
	return cluster.Policy{
		Name:   clusterv3.Cluster_RANDOM,
		Config: "envoy.extensions.load_balancing_policies.random.v3.Random",
		Fields: with(strict.Fields{
			"envoy.extensions.load_balancing_policies.random.v3.Random": {"locality_lb_config"},
		}),
		FromCluster: func(*clusterv3.Cluster) proto.Message { return &randomv3.Random{} },
		Parse: func(config proto.Message, _ strict.Path, _ *strict.Report) cluster.Balancing {
			c := config.(*randomv3.Random)
			return cluster.Balancing{New: newRandom, LocalityWeighted: weighsLocalities(c.GetLocalityLbConfig())}
		},
	}
}

func newRandom(hosts []cluster.WeightedHost, _ *stats.Scope, _ *layeredruntime.Runtime) cluster.Balancer {
	return anyOf(hosts)
}

// anyOf are hosts of which any is as good.
type anyOf []cluster.WeightedHost

// Pick implements cluster.Balancer.
func (a anyOf) Pick(uint64, int) *cluster.Host { return a[rand.IntN(len(a))].Host }
