package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Response is what a response, be it the upstream's or one in its place, is counted
// by beside its status.
type Response struct {
	// Host is where its request went; nil is nowhere.
	Host *Host
	// Internal says that the request was an internal one (x-envoy-internal).
	Internal bool
	// Canary says that the response names itself one of a canary
	// (x-envoy-upstream-canary).
	Canary bool
	// Codeless says that without a prefix it counts as completed alone, and not by its
	// status (suppress_grpc_request_failure_code_stats).
	Codeless bool
	// AltName is a name under which its request wants it counted too
	// (x-envoy-upstream-alt-stat-name); empty is none.
	AltName string
}

// canary says whether the response is one of a canary, by its own word or as its
// host is one.
func (r *Response) canary() bool { return r.Canary || r.Host != nil && r.Host.Canary() }

// CountResponse counts a response of the cluster, and once more under each of the
// prefixes that it belongs to: internal or external, canary, and zone.<from>.<to>
// where both zones are known. All of them count once more below its AltName.
func (s *Stats) CountResponse(status int, r Response) {
	s.statuses.count(status, r.Codeless)
	s.origin(r.Internal).in(s.Scope).Count(status)
	if r.canary() {
		s.canary.in(s.Scope).Count(status)
	}
	if zone := r.zone(); zone != nil {
		zone.in(s.Scope).Count(status)
	}
	for i, alternative := range s.alternatives(&r) {
		alternative.statuses.count(status, r.Codeless && i == 0)
	}
}

// RecordTime counts how long a response took, from the end of the client's request
// to its own, under the same prefixes.
func (s *Stats) RecordTime(d time.Duration, r Response) {
	s.RequestTime.Record(d)
	s.origin(r.Internal).in(s.Scope).RecordTime(d)
	if r.canary() {
		s.canary.in(s.Scope).RecordTime(d)
	}
	if zone := r.zone(); zone != nil {
		zone.in(s.Scope).RecordTime(d)
	}
	for _, alternative := range s.alternatives(&r) {
		alternative.RecordTime(d)
	}
}

func (s *Stats) origin(internal bool) *group {
	if internal {
		return &s.internal
	}
	return &s.external
}

// zone is that of the host, nil if it is not known.
func (r *Response) zone() *group {
	if r.Host == nil {
		return nil
	}
	return r.Host.zone.Load()
}

// groups are the parts of all responses that are counted by themselves.
type groups struct {
	internal, external, canary group

	from string // the proxy's own zone; empty is not known
	mu   sync.Mutex
	to   map[string]*group // by the zone of the host
	// named are by AltName, and then by the prefix that comes behind it.
	named map[string]map[string]*Responses
}

func (g *groups) init(zone string) {
	g.internal.prefix, g.external.prefix, g.canary.prefix = "internal", "external", "canary"
	g.from, g.to, g.named = zone, map[string]*group{}, map[string]map[string]*Responses{}
}

// ofZone is the group of the hosts in a zone, nil if it or the proxy's is not known.
func (g *groups) ofZone(to string) *group {
	if g.from == "" || to == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	zone := g.to[to]
	if zone == nil {
		zone = &group{prefix: "zone." + g.from + "." + to}
		g.to[to] = zone
	}
	return zone
}

// Bounds of the AltNames of a cluster, which come from requests: how many there are,
// and the bytes of one. Under others nothing is counted.
const (
	mostAltNames   = 100
	longestAltName = 200
)

// alternatives are the metrics of a response under its AltName, those without a further
// prefix first.
func (s *Stats) alternatives(r *Response) []*Responses {
	if r.AltName == "" || len(r.AltName) > longestAltName {
		return nil
	}
	prefixes := []string{"", s.origin(r.Internal).prefix}
	if r.canary() {
		prefixes = append(prefixes, s.canary.prefix)
	}
	if zone := r.zone(); zone != nil {
		prefixes = append(prefixes, zone.prefix)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	under := s.named[r.AltName]
	if under == nil {
		if len(s.named) == mostAltNames {
			return nil
		}
		under = map[string]*Responses{}
		s.named[r.AltName] = under
	}
	var all []*Responses
	for _, prefix := range prefixes {
		if under[prefix] == nil {
			under[prefix] = NewResponses(s.Scope.Scope(r.AltName).Scope(prefix))
		}
		all = append(all, under[prefix])
	}
	return all
}

// group is one part of the responses. Its metrics come to be with the first.
type group struct {
	prefix string
	made   atomic.Pointer[Responses]
}

// Responses are the metrics of some responses, by Envoy's names: upstream_rq_<code>,
// upstream_rq_<n>xx, upstream_rq_completed and upstream_rq_time.
type Responses struct {
	statuses statusCounters
	time     *stats.Histogram
}

// NewResponses makes the metrics in scope.
func NewResponses(scope *stats.Scope) *Responses {
	r := &Responses{time: scope.Histogram("upstream_rq_time")}
	r.statuses.init(scope)
	return r
}

// Count counts a response.
func (r *Responses) Count(status int) { r.statuses.count(status, false) }

// RecordTime counts how long one took.
func (r *Responses) RecordTime(d time.Duration) { r.time.Record(d) }

// in is the metrics of the group below the cluster's scope.
func (g *group) in(scope *stats.Scope) *Responses {
	if r := g.made.Load(); r != nil {
		return r
	}
	r := NewResponses(scope.Scope(g.prefix))
	g.made.Store(r) // of two that come here at once both have the same metrics
	return r
}
