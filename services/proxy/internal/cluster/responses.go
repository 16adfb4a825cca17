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
}

// canary says whether the response is one of a canary, by its own word or as its
// host is one.
func (r *Response) canary() bool { return r.Canary || r.Host != nil && r.Host.Canary() }

// CountResponse counts a response of the cluster, and once more under each of the
// prefixes that it belongs to: internal or external, canary, and zone.<from>.<to>
// where both zones are known.
func (s *Stats) CountResponse(status int, r Response) {
	s.statuses.count(status)
	s.origin(r.Internal).in(s.Scope).count(status)
	if r.canary() {
		s.canary.in(s.Scope).count(status)
	}
	if zone := r.zone(); zone != nil {
		zone.in(s.Scope).count(status)
	}
}

// RecordTime counts how long a response took, from the end of the client's request
// to its own, under the same prefixes.
func (s *Stats) RecordTime(d time.Duration, r Response) {
	s.RequestTime.Record(d)
	s.origin(r.Internal).in(s.Scope).time.Record(d)
	if r.canary() {
		s.canary.in(s.Scope).time.Record(d)
	}
	if zone := r.zone(); zone != nil {
		zone.in(s.Scope).time.Record(d)
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
}

func (g *groups) init(zone string) {
	g.internal.prefix, g.external.prefix, g.canary.prefix = "internal", "external", "canary"
	g.from, g.to = zone, map[string]*group{}
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

// group is one part of the responses. Its metrics come to be with the first.
type group struct {
	prefix string
	made   atomic.Pointer[responses]
}

// responses are the metrics of a group.
type responses struct {
	statusCounters
	time *stats.Histogram
}

// in is the metrics of the group below the cluster's scope.
func (g *group) in(scope *stats.Scope) *responses {
	if r := g.made.Load(); r != nil {
		return r
	}
	scope = scope.Scope(g.prefix)
	r := &responses{time: scope.Histogram("upstream_rq_time")}
	r.init(scope)
	g.made.Store(r) // of two that come here at once both have the same metrics
	return r
}
