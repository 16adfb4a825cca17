package hcm

import "github.com/weirproxy/weir/services/proxy/internal/stats"

// managerStats are the metrics under http.<stat_prefix>., by Envoy's names.
type managerStats struct {
	connectionsTotal, protocolErrors *stats.Counter
	connectionsActive                *stats.Gauge
	requestsTotal, requestsCompleted *stats.Counter
	requestsActive                   *stats.Gauge
	headerTimeouts                   *stats.Counter
	noRoute, noCluster               *stats.Counter
	directResponses                  *stats.Counter // redirects too

	classes [6]*stats.Counter
}

func newStats(scope *stats.Scope) *managerStats {
	s := &managerStats{
		connectionsTotal:  scope.Counter("downstream_cx_total"),
		connectionsActive: scope.Gauge("downstream_cx_active"),
		protocolErrors:    scope.Counter("downstream_cx_protocol_error"),
		requestsTotal:     scope.Counter("downstream_rq_total"),
		requestsActive:    scope.Gauge("downstream_rq_active"),
		requestsCompleted: scope.Counter("downstream_rq_completed"),
		headerTimeouts:    scope.Counter("downstream_rq_header_timeout"),
		noRoute:           scope.Counter("no_route"),
		noCluster:         scope.Counter("no_cluster"),
		directResponses:   scope.Counter("rq_direct_response"),
	}
	for class := 1; class < len(s.classes); class++ {
		digit := string(rune('0' + class))
		s.classes[class] = scope.CounterAs("downstream_rq_"+digit+"xx", "downstream_rq_xx", stats.Label{Name: "envoy_response_code_class", Value: digit})
	}
	return s
}

func (s *managerStats) countStatus(status int) {
	s.classes[status/100].Inc()
	s.requestsCompleted.Inc()
}
