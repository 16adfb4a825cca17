package hds

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
)

// take notes what a checker found of the hosts that it was given. What it says of
// others, or what makes no sense, is passed over.
func (s *Server) take(c *checker, m *healthv3.EndpointHealthResponse, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.heard = now
	s.metrics.reports.Inc()
	if clusters := m.GetClusterEndpointsHealth(); len(clusters) > 0 {
		for _, cluster := range clusters {
			for _, locality := range cluster.GetLocalityEndpointsHealth() {
				s.takeCluster(c, cluster.GetClusterName(), found(locality.GetEndpointsHealth()))
			}
		}
		return
	}
	// The older form tells of addresses alone.
	//nolint:staticcheck // deprecated, but it is what older checkers say
	unhealthy := found(m.GetEndpointsHealth())
	for service := range c.duties {
		s.takeCluster(c, service, unhealthy)
	}
}

// takeCluster notes what a checker found of a service's hosts. s.mu must be held.
func (s *Server) takeCluster(c *checker, service string, unhealthy map[netip.AddrPort]bool) {
	p := s.plans[service]
	if p == nil {
		return
	}
	for address, is := range unhealthy {
		h := p.hosts[address]
		if h == nil {
			continue
		}
		for i := range h.words {
			if w := &h.words[i]; w.checker == c && w.unhealthy != is {
				w.unhealthy = is
				s.touch(service)
			}
		}
	}
}

// touch has a service judged. s.mu must be held.
func (s *Server) touch(service string) {
	s.touched[service] = struct{}{}
	signal(s.news)
}

// found is by address whether a checker found a host unhealthy.
func found(list []*healthv3.EndpointHealth) map[netip.AddrPort]bool {
	unhealthy := make(map[netip.AddrPort]bool, len(list))
	for _, e := range list {
		if address, ok := addressOf(e.GetEndpoint()); ok {
			status := e.GetHealthStatus()
			unhealthy[address] = status == corev3.HealthStatus_UNHEALTHY || status == corev3.HealthStatus_TIMEOUT
		}
	}
	return unhealthy
}

// addressOf is the address of an endpoint, if it has one with a port.
func addressOf(e *endpointv3.Endpoint) (netip.AddrPort, bool) {
	socket := e.GetAddress().GetSocketAddress()
	ip, err := netip.ParseAddr(socket.GetAddress())
	port := socket.GetPortValue()
	return netip.AddrPortFrom(ip, uint16(port)), err == nil && port <= 65535
}
