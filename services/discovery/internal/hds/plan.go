package hds

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// plan is who checks the hosts of one service that serve, and what they say. It
// is guarded by Server.mu.
type plan struct {
	rule  *rule
	hosts map[netip.AddrPort]*host
	// suspended says that too many are found unhealthy, and that this was told.
	suspended bool
}

// host is one address that is checked.
type host struct {
	marked map[registry.Key]bool // the hosts that are there, one as a rule, and whether the registry has them as unhealthy
	words  []word                // of different checkers, mostCheckers at most
}

// word is what one checker says of a host.
type word struct {
	checker   *checker
	since     time.Time // when it was given the host
	unhealthy bool
}

// duty is what a checker does for one service.
type duty struct {
	check *healthv3.ClusterHealthCheck
	hosts int
}

// replan plans anew who checks the services that are dirty, and has the checkers
// told for which that changes something.
func (s *Server) replan(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.dirty)) {
		s.planService(name, now)
	}
	clear(s.dirty)
	for _, c := range s.checkers {
		if !c.changed {
			continue
		}
		c.changed = false
		if m := c.specify(s.rules.interval); !proto.Equal(m, c.specifier) {
			c.specifier = m
			signal(c.wake)
		}
	}
}

// planService plans anew who checks one service. s.mu must be held.
func (s *Server) planService(name string, now time.Time) {
	old, next := s.plans[name], &plan{rule: s.rules.of(name), hosts: map[netip.AddrPort]*host{}}
	if old == nil && next.rule == nil {
		return
	}
	list, err := s.options.Registry.List(name)
	if err != nil {
		return // it is not loaded, and will tell of the service
	}
	if old != nil {
		next.suspended = old.suspended
	}
	var candidates []*checker
	for _, c := range s.checkers {
		c.hosts -= c.duties[name].size()
		if next.rule != nil && c.counts() && c.mayCheck(name) {
			candidates = append(candidates, c)
		}
	}
	checks := map[*checker]*healthv3.ClusterHealthCheck{}
	idle := map[registry.Key]bool{} // what nobody checks any more, false for each
	for i := range list.Hosts {
		v := &list.Hosts[i]
		if next.rule == nil || v.State != registry.Serving {
			if v.Unhealthy {
				idle[v.Host.Key] = false
			}
			continue
		}
		h := next.hosts[v.Host.Address]
		if h == nil {
			h = &host{marked: map[registry.Key]bool{}, words: next.give(candidates, v.Host, old, now)}
			next.hosts[v.Host.Address] = h
			addTo(checks, name, next.rule, h, v)
		}
		h.marked[v.Host.Key] = v.Unhealthy
	}
	s.mark(idle)
	if next.rule == nil || len(next.hosts) == 0 {
		delete(s.plans, name)
		for _, c := range s.checkers {
			delete(c.may, name)
		}
	} else {
		s.plans[name] = next
	}
	for _, c := range s.checkers {
		c.assign(name, checks[c])
	}
	s.touch(name)
}

// mostHosts is how many hosts one checker is given at most: it reports all of
// them twice over in one message, which may have 4 MiB.
const mostHosts = 10_000

// give chooses who of the candidates checks a host, and keeps what those say of it
// who checked it before, by old; that may be nil.
func (p *plan) give(candidates []*checker, h *registry.Host, old *plan, now time.Time) []word {
	chosen := spread(candidates, hashOf(h.Service, h.Address), p.rule.checkers)
	words := make([]word, len(chosen))
	for i, c := range chosen {
		c.hosts++
		words[i] = word{checker: c, since: now}
		if old == nil || old.hosts[h.Address] == nil || !old.rule.checksAs(p.rule) {
			continue
		}
		for _, w := range old.hosts[h.Address].words {
			if w.checker == c {
				words[i] = w
			}
		}
	}
	return words
}

// addTo adds a host to the checks of those who were given it.
func addTo(checks map[*checker]*healthv3.ClusterHealthCheck, service string, by *rule, h *host, v *registry.View) {
	if len(h.words) == 0 {
		return
	}
	endpoint := endpointOf(v.Host)
	for _, w := range h.words {
		check := checks[w.checker]
		if check == nil {
			check = &healthv3.ClusterHealthCheck{ClusterName: service, HealthChecks: by.checks}
			checks[w.checker] = check
		}
		at := localityIn(check, &v.Host.Tags)
		at.Endpoints = append(at.Endpoints, endpoint)
	}
}

// localityIn returns the locality of a host in a check, which it adds if it is
// not there.
func localityIn(check *healthv3.ClusterHealthCheck, tags *registry.Tags) *healthv3.LocalityEndpoints {
	for _, l := range check.LocalityEndpoints {
		if l.Locality.Region == tags.Region && l.Locality.Zone == tags.Zone {
			return l
		}
	}
	l := &healthv3.LocalityEndpoints{Locality: &corev3.Locality{Region: tags.Region, Zone: tags.Zone}}
	check.LocalityEndpoints = append(check.LocalityEndpoints, l)
	return l
}

// endpointOf is a host as checkers are told of it: it is asked at the port that
// it names health, if it has one.
func endpointOf(h *registry.Host) *endpointv3.Endpoint {
	e := &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       h.Address.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(h.Address.Port())},
	}}}}
	for _, p := range h.Ports {
		if p.Name == resources.HealthPort && p.Number != h.Address.Port() {
			e.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{PortValue: uint32(p.Number)}
		}
	}
	return e
}

// assign makes check what c does for a service, nothing if it is nil.
func (c *checker) assign(service string, check *healthv3.ClusterHealthCheck) {
	known := c.duties[service]
	switch {
	case check == nil && known == nil:
	case check == nil:
		delete(c.duties, service)
		c.changed = true
	case known == nil || !proto.Equal(known.check, check):
		hosts := 0
		for _, l := range check.LocalityEndpoints {
			hosts += len(l.Endpoints)
		}
		c.duties[service] = &duty{check, hosts}
		c.changed = true
	}
}

// size is how many hosts a duty has; none if it is nil.
func (d *duty) size() int {
	if d == nil {
		return 0
	}
	return d.hosts
}

// specify makes what c is told.
func (c *checker) specify(interval time.Duration) *healthv3.HealthCheckSpecifier {
	m := &healthv3.HealthCheckSpecifier{Interval: durationpb.New(interval)}
	for _, name := range slices.Sorted(maps.Keys(c.duties)) {
		m.ClusterHealthChecks = append(m.ClusterHealthChecks, c.duties[name].check)
	}
	return m
}
