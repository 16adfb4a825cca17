package router

import (
	"unique"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// routeStats are the metrics of routes with a stat_prefix, below
// vhost.<virtual host>.route.<stat_prefix>., by Envoy's names. Nil counts nothing.
type routeStats struct {
	events    [routeEventCount]*stats.Counter
	responses *cluster.Responses
}

// routeEvent is what a route counts beside its responses.
type routeEvent int

// The events, each of which its cluster counts too.
const (
	routeRequest routeEvent = iota // an attempt went out
	routeTimeout
	routeRetry
	routeRetrySuccess
	routeRetryOverflow
	routeRetryLimitExceeded
	routeEventCount
)

var routeEventNames = [routeEventCount]string{
	routeRequest:            "upstream_rq_total",
	routeTimeout:            "upstream_rq_timeout",
	routeRetry:              "upstream_rq_retry",
	routeRetrySuccess:       "upstream_rq_retry_success",
	routeRetryOverflow:      "upstream_rq_retry_overflow",
	routeRetryLimitExceeded: "upstream_rq_retry_limit_exceeded",
}

func newRouteStats(root *stats.Registry, name route.StatName) *routeStats {
	scope := root.Scope("vhost").Tagged("envoy_virtual_host", name.VirtualHost).Scope("route").Tagged("envoy_route", name.Prefix)
	r := &routeStats{responses: cluster.NewResponses(scope)}
	for event, name := range routeEventNames {
		r.events[event] = scope.Counter(name)
	}
	return r
}

func (r *routeStats) note(event routeEvent) {
	if r != nil {
		r.events[event].Inc()
	}
}

// routeStats are those of a route, nil if it has none. They are made with its first
// request, and stay for the next table that has a route of that name.
func (c *config) routeStats(of *route.Route) *routeStats {
	if of.StatName == (unique.Handle[route.StatName]{}) {
		return nil
	}
	known, ok := c.routes.Load(of.StatName)
	if !ok { // of two that come here at once both have the same metrics
		known, _ = c.routes.LoadOrStore(of.StatName, newRouteStats(c.root, of.StatName.Value()))
	}
	return known.(*routeStats)
}
