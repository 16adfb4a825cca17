package cluster

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Pick returns the host for the next request, or nil if the cluster has none.
// It never blocks.
func (c *Cluster) Pick() *Host {
	if balancer := c.hosts.Load().balancer; balancer != nil {
		return balancer.Pick()
	}
	return nil
}

// panicThreshold is the percentage of usable hosts below which all hosts get
// requests, since then the health is more likely wrong than they are
// (Cluster.CommonLbConfig.healthy_panic_threshold).
const panicThreshold = 50

// usable are the hosts that get requests: the healthy ones; the degraded ones
// where none is healthy; all of them in panic.
func (s *HostSet) usable() []WeightedHost {
	var healthy, degraded, all []WeightedHost
	for _, m := range s.Members {
		host := WeightedHost{m.Host, m.Weight}
		all = append(all, host)
		switch m.Health {
		case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
			healthy = append(healthy, host)
		case corev3.HealthStatus_DEGRADED:
			degraded = append(degraded, host)
		}
	}
	switch {
	case (len(healthy)+len(degraded))*100 < panicThreshold*len(all):
		return all
	case len(healthy) > 0:
		return healthy
	default:
		return degraded
	}
}

// Healthy says whether the member gets requests outside of panic.
func (m *Member) Healthy() bool {
	switch m.Health {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY, corev3.HealthStatus_DEGRADED:
		return true
	}
	return false
}
