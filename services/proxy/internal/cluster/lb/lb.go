// Package lb holds the load-balancing policies that ship, one file each. A
// policy makes a balancer for one snapshot of a cluster's hosts; it keeps no
// state beyond that snapshot and knows nothing of health, priorities and
// localities, which were settled before.
package lb

import (
	"maps"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/edf"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// with adds the supported fields that several policies' messages have to a
// policy's own.
func with(own strict.Fields) strict.Fields {
	common := strict.Fields{
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig":                          {"locality_weighted_lb_config"},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.LocalityWeightedLbConfig": {},
		"envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig":                 {"use_hostname_for_hashing"},
		"envoy.config.core.v3.RuntimeDouble":                                                           {"default_value", "runtime_key"},
	}
	maps.Copy(own, common)
	return own
}

// weighsLocalities says whether localities get requests by their weights.
func weighsLocalities(c *commonv3.LocalityLbConfig) bool {
	return c.GetLocalityWeightedLbConfig() != nil
}

// equal says whether all hosts have the same weight.
func equal(hosts []cluster.WeightedHost) bool {
	for i := range hosts {
		if hosts[i].Weight != hosts[0].Weight {
			return false
		}
	}
	return true
}

// scheduled hands out hosts by earliest deadline first.
type scheduled struct {
	*edf.Schedule[cluster.WeightedHost]
}

// Pick implements cluster.Balancer.
func (s scheduled) Pick(uint64, int) *cluster.Host { return s.Next().Host }
