package hcm

import (
	"math/rand/v2"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// renew makes s that of the next request, which may take as long, and as much memory, as
// the manager lets it unless its route says otherwise.
func (m *manager) renew(s *stream.Stream) {
	s.Reset()
	s.IdleTimeout, s.FlushTimeout, s.MaxDuration = m.streamIdleTimeout, m.streamFlushTimeout, m.maxStreamDuration
	s.BodyBufferLimit = m.bufferLimit.Load()
}

// admit finds the way of a request that filters and an upstream may see: its route and
// cluster, and the filters, which are the usual ones unless it asks for an upgrade. It may
// be refused even so. Access logs hear of it that are to while it goes on, of which lines
// are those at intervals.
func (m *manager) admit(s *stream.Stream, usual *httpfilter.Chain, lines *accesslog.Periodic) (*httpfilter.Chain, *refusal) {
	m.route(s)
	tellRoute(s)
	chain, refused := m.upgraded(s, usual)
	m.begun(&s.Facts)
	follow(lines, s)
	return chain, refused
}

// route finds the route of a request, and the cluster that it goes to, and decides
// whether it is traced. What the router answers by itself has no cluster. Without a
// table, which RDS owes us, there is no route.
func (m *manager) route(s *stream.Stream) {
	s.Random, s.Runtime = rand.Uint64(), m.runtime.Snapshot()
	if table := m.routes.Load(); table != nil {
		table.DropInternalOnly(&s.Request)
		s.Route = table.Match(route.Input{Request: &s.Request, ClientAddress: s.ClientAddress, Random: s.Random, Runtime: s.Runtime})
	}
	m.trace(s)
	switch {
	case s.Route == nil:
		m.stats.noRoute.Inc()
		return
	case s.Route.Redirect != nil || s.Route.DirectResponse != nil:
		m.stats.directResponses.Inc()
		return
	}
	if s.Route.IdleTimeout >= 0 {
		s.IdleTimeout = s.Route.IdleTimeout
	}
	if s.Route.FlushTimeout >= 0 {
		s.FlushTimeout = s.Route.FlushTimeout
	}
	if s.Route.BodyBufferLimit >= 0 {
		s.BodyBufferLimit = uint64(s.Route.BodyBufferLimit)
	}
	if limit, ok := s.Route.MaxStreamDuration(&s.Request); ok {
		s.MaxDuration = limit
	}
	if s.Cluster = m.clusters.Get(s.Route.ClusterName(&s.Request)); s.Cluster == nil {
		m.stats.noCluster.Inc()
	}
}

// trace decides whether a request whose route is known, if it has one, is traced.
func (m *manager) trace(s *stream.Stream) {
	if m.tracing == nil {
		return
	}
	sampling := m.tracing
	if s.Route != nil && s.Route.Tracing != nil {
		sampling = s.Route.Tracing
	}
	reason := sampling.Decide(&s.Request.Headers, m.identity.MarkRequestID, s.Runtime)
	s.Facts.ForcedTrace = reason == requestid.ByService
	m.stats.traced[reason].Inc()
}

// Routes is the present route table, for those who explain it; nil if its routes
// come by RDS and have not yet.
func (m *manager) Routes() *route.Table { return m.routes.Load() }
