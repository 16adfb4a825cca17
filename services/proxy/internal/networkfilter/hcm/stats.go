package hcm

import (
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// managerStats are the metrics under http.<stat_prefix>., by Envoy's names.
type managerStats struct {
	connectionsTotal                        *stats.Counter
	connectionsHTTP1, connectionsHTTP2      *stats.Counter
	connectionsActive                       *stats.Gauge
	connectionsActiveH1                     *stats.Gauge
	connectionsActiveH2                     *stats.Gauge
	destroyed, destroyedLocal               *stats.Counter
	destroyedRemote, destroyedActive        *stats.Counter
	destroyedLocalActive                    *stats.Counter
	destroyedRemoteActive                   *stats.Counter
	protocolErrors                          *stats.Counter
	connectionIdleTimeouts                  *stats.Counter
	connectionDurations, connectionsFull    *stats.Counter
	drainCloses, delayedCloseTimeouts       *stats.Counter
	upgradesTotal                           *stats.Counter
	upgradesActive                          *stats.Gauge
	received, sent                          *stats.Counter
	requestsTotal                           *stats.Counter
	requestsHTTP1, requestsHTTP2            *stats.Counter
	requestsActive                          *stats.Gauge
	headerTimeouts, requestTimeouts         *stats.Counter
	requestIdleTimeouts, requestDurations   *stats.Counter
	tooLarge, notRelative                   *stats.Counter
	badPaths, redirectedPaths               *stats.Counter
	earlyResponses, clientResets, ownResets *stats.Counter
	prematureResets                         *stats.Counter // connections with too many
	upgradesRefused                         *stats.Counter
	droppedUnderscores, rejectedUnderscores *stats.Counter
	noRoute, noCluster                      *stats.Counter
	directResponses                         *stats.Counter // redirects too
	requestTime, connectionLength           *stats.Histogram

	// traced count requests where something is traced, by why they are, or are not.
	traced map[requestid.TraceReason]*stats.Counter

	http2 *http2Stats

	answers *answerStats
	// ofListener are those of the listener alone; nil where that is not known.
	ofListener atomic.Pointer[answerStats]
}

// answerStats count answers.
type answerStats struct {
	completed *stats.Counter
	classes   [6]*stats.Counter // by the first digit of the status
}

func newAnswerStats(scope *stats.Scope) *answerStats {
	s := &answerStats{completed: scope.Counter("downstream_rq_completed")}
	for class := 1; class < len(s.classes); class++ {
		digit := string(rune('0' + class))
		s.classes[class] = scope.CounterAs("downstream_rq_"+digit+"xx", "downstream_rq_xx", stats.Label{Name: "envoy_response_code_class", Value: digit})
	}
	return s
}

func (s *answerStats) count(status int) {
	s.classes[status/100].Inc()
	s.completed.Inc()
}

// newStats makes those of scope, and those of the codecs, which are of the whole
// process, as in Envoy.
func newStats(scope, codec, codec2 *stats.Scope) *managerStats {
	s := &managerStats{
		http2:                  newHTTP2Stats(codec2),
		connectionsTotal:       scope.Counter("downstream_cx_total"),
		connectionsHTTP1:       scope.Counter("downstream_cx_http1_total"),
		connectionsHTTP2:       scope.Counter("downstream_cx_http2_total"),
		connectionsActiveH2:    scope.Gauge("downstream_cx_http2_active"),
		connectionsActive:      scope.Gauge("downstream_cx_active"),
		connectionsActiveH1:    scope.Gauge("downstream_cx_http1_active"),
		destroyed:              scope.Counter("downstream_cx_destroy"),
		destroyedLocal:         scope.Counter("downstream_cx_destroy_local"),
		destroyedRemote:        scope.Counter("downstream_cx_destroy_remote"),
		destroyedActive:        scope.Counter("downstream_cx_destroy_active_rq"),
		destroyedLocalActive:   scope.Counter("downstream_cx_destroy_local_active_rq"),
		destroyedRemoteActive:  scope.Counter("downstream_cx_destroy_remote_active_rq"),
		protocolErrors:         scope.Counter("downstream_cx_protocol_error"),
		connectionIdleTimeouts: scope.Counter("downstream_cx_idle_timeout"),
		connectionDurations:    scope.Counter("downstream_cx_max_duration_reached"),
		connectionsFull:        scope.Counter("downstream_cx_max_requests_reached"),
		drainCloses:            scope.Counter("downstream_cx_drain_close"),
		delayedCloseTimeouts:   scope.Counter("downstream_cx_delayed_close_timeout"),
		upgradesTotal:          scope.Counter("downstream_cx_upgrades_total"),
		upgradesActive:         scope.Gauge("downstream_cx_upgrades_active"),
		received:               scope.Counter("downstream_cx_rx_bytes_total"),
		sent:                   scope.Counter("downstream_cx_tx_bytes_total"),
		requestsTotal:          scope.Counter("downstream_rq_total"),
		requestsHTTP1:          scope.Counter("downstream_rq_http1_total"),
		requestsHTTP2:          scope.Counter("downstream_rq_http2_total"),
		requestsActive:         scope.Gauge("downstream_rq_active"),
		headerTimeouts:         scope.Counter("downstream_rq_header_timeout"),
		requestTimeouts:        scope.Counter("downstream_rq_timeout"),
		requestIdleTimeouts:    scope.Counter("downstream_rq_idle_timeout"),
		requestDurations:       scope.Counter("downstream_rq_max_duration_reached"),
		tooLarge:               scope.Counter("downstream_rq_too_large"),
		notRelative:            scope.Counter("downstream_rq_non_relative_path"),
		badPaths:               scope.Counter("downstream_rq_failed_path_normalization"),
		redirectedPaths:        scope.Counter("downstream_rq_redirected_with_normalized_path"),
		earlyResponses:         scope.Counter("downstream_rq_response_before_rq_complete"),
		clientResets:           scope.Counter("downstream_rq_rx_reset"),
		ownResets:              scope.Counter("downstream_rq_tx_reset"),
		prematureResets:        scope.Counter("downstream_rq_too_many_premature_resets"),
		upgradesRefused:        scope.Counter("downstream_rq_ws_on_non_ws_route"),
		droppedUnderscores:     codec.Counter("dropped_headers_with_underscores"),
		rejectedUnderscores:    codec.Counter("requests_rejected_with_underscores_in_headers"),
		noRoute:                scope.Counter("no_route"),
		noCluster:              scope.Counter("no_cluster"),
		requestTime:            scope.Histogram("downstream_rq_time"),
		connectionLength:       scope.Histogram("downstream_cx_length_ms"),
		directResponses:        scope.Counter("rq_direct_response"),
		traced: map[requestid.TraceReason]*stats.Counter{
			requestid.NotTraced: scope.Counter("tracing.not_traceable"),
			requestid.Sampled:   scope.Counter("tracing.random_sampling"),
			requestid.ByService: scope.Counter("tracing.service_forced"),
			requestid.ByClient:  scope.Counter("tracing.client_enabled"),
		},
	}
	s.answers = newAnswerStats(scope)
	return s
}

// countAnswer counts the answer to a request that ends now. Of one to a health check only
// the time counts, as in Envoy.
func (s *managerStats) countAnswer(of *stream.Stream, now time.Time) {
	s.requestTime.Record(now.Sub(of.Start))
	if of.Facts.HealthCheck {
		return
	}
	s.answers.count(of.Response.Status)
	if l := s.ofListener.Load(); l != nil {
		l.count(of.Response.Status)
	}
	if of.Facts.Details == httpfilter.DetailsTooLarge {
		s.tooLarge.Inc()
	}
}

// countExpiry counts the limit that a stream has reached.
func (s *managerStats) countExpiry(why *stream.Expiry) {
	switch why {
	case headerTime:
		s.headerTimeouts.Inc()
	case requestTime:
		s.requestTimeouts.Inc()
	case durationRequest, durationResponse:
		s.requestDurations.Inc()
	case idleRequest, idleResponse:
		s.requestIdleTimeouts.Inc()
	}
}

// countOutcome counts how an exchange ended: why it was out of time, if it was;
// whether that is its client's doing; whether the request was whole; and what broke it
// off.
func (s *managerStats) countOutcome(why *stream.Expiry, byClient, whole bool, err error) {
	switch {
	case why != nil && !why.ClientLeft(): // counted as that was found
	case byClient:
		s.clientResets.Inc()
	case err != nil:
		s.ownResets.Inc()
	case !whole:
		s.earlyResponses.Inc()
	}
}

// countEnd counts the end of a connection that began at a time: by the client or by
// us, with a request in flight or without.
func (s *managerStats) countEnd(began time.Time, remote, active bool) {
	s.connectionLength.Record(time.Since(began))
	s.connectionsActive.Add(-1)
	s.destroyed.Inc()
	if active {
		s.destroyedActive.Inc()
	}
	switch {
	case remote && active:
		s.destroyedRemote.Inc()
		s.destroyedRemoteActive.Inc()
	case remote:
		s.destroyedRemote.Inc()
	case active:
		s.destroyedLocal.Inc()
		s.destroyedLocalActive.Inc()
	default:
		s.destroyedLocal.Inc()
	}
}
