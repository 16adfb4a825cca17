// Package codecstats counts what connections of HTTP/2 come to, by Envoy's names: those
// of clients under http2. of the whole process, those of a cluster's hosts under
// cluster.<name>.http2. The connection manager and the clusters have connections tell
// it. It counts nothing of requests.
package codecstats

import (
	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// HTTP2 are the metrics of connections of HTTP/2.
type HTTP2 struct {
	// KeepaliveTimeouts counts connections whose peers answered no PING.
	KeepaliveTimeouts *stats.Counter
	// StreamsActive is how many streams are open.
	StreamsActive *stats.Gauge

	resetsReceived, resetsSent *stats.Counter
	messagingErrors, tooLarge  *stats.Counter
	refused                    *stats.Counter // streams, by us
	goAwaysSent                *stats.Counter

	floods map[http2.Flood]*stats.Counter
}

// NewHTTP2 makes metrics in a scope of the name http2.
func NewHTTP2(scope *stats.Scope) *HTTP2 {
	return &HTTP2{
		KeepaliveTimeouts: scope.Counter("keepalive_timeout"),
		StreamsActive:     scope.Gauge("streams_active"),
		resetsReceived:    scope.Counter("rx_reset"),
		resetsSent:        scope.Counter("tx_reset"),
		messagingErrors:   scope.Counter("rx_messaging_error"),
		tooLarge:          scope.Counter("header_overflow"),
		refused:           scope.Counter("stream_refused_errors"),
		goAwaysSent:       scope.Counter("goaway_sent"),
		floods: map[http2.Flood]*stats.Counter{
			http2.OutboundFlood:        scope.Counter("outbound_flood"),
			http2.OutboundControlFlood: scope.Counter("outbound_control_flood"),
			http2.EmptyFrameFlood:      scope.Counter("inbound_empty_frames_flood"),
			http2.PriorityFlood:        scope.Counter("inbound_priority_frames_flood"),
			http2.WindowUpdateFlood:    scope.Counter("inbound_window_update_frames_flood"),
		},
	}
}

// CountFlood counts why a connection is ended, as http2.Options.OnFlood.
func (s *HTTP2) CountFlood(f http2.Flood) {
	if counter := s.floods[f]; counter != nil {
		counter.Inc()
	}
	if f == http2.HeaderFlood {
		s.CountTooLarge()
	}
}

// CountTooLarge counts a head over the limits, as http2.Options.OnTooLarge.
func (s *HTTP2) CountTooLarge() { s.tooLarge.Inc() }

// CountGoAway counts a GOAWAY of ours.
func (s *HTTP2) CountGoAway() { s.goAwaysSent.Inc() }

// CountStreamError is http2.Options.OnStreamError.
func (s *HTTP2) CountStreamError(e *http2.StreamError) {
	switch {
	case e.Remote:
		s.resetsReceived.Inc()
		return
	case e.Code == http2.ProtocolError:
		s.messagingErrors.Inc()
	case e.Code == http2.RefusedStream:
		s.refused.Inc()
	}
	s.resetsSent.Inc()
}

// CountStreams is http2.Options.OnStreams.
func (s *HTTP2) CountStreams(more int) { s.StreamsActive.Add(int64(more)) }
