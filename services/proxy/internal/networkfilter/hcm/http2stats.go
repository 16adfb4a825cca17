package hcm

import (
	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// http2Stats are the metrics under http2., by Envoy's names. They are of the whole
// process.
type http2Stats struct {
	droppedUnderscores, rejectedUnderscores *stats.Counter
	keepaliveTimeouts, goAways, trailers    *stats.Counter
	resetsReceived, resetsSent              *stats.Counter
	messagingErrors, tooLarge               *stats.Counter
	streamsActive                           *stats.Gauge

	floods map[http2.Flood]*stats.Counter
}

func newHTTP2Stats(scope *stats.Scope) *http2Stats {
	return &http2Stats{
		droppedUnderscores:  scope.Counter("dropped_headers_with_underscores"),
		rejectedUnderscores: scope.Counter("requests_rejected_with_underscores_in_headers"),
		keepaliveTimeouts:   scope.Counter("keepalive_timeout"),
		goAways:             scope.Counter("goaway_sent"),
		trailers:            scope.Counter("trailers"),
		resetsReceived:      scope.Counter("rx_reset"),
		resetsSent:          scope.Counter("tx_reset"),
		messagingErrors:     scope.Counter("rx_messaging_error"),
		tooLarge:            scope.Counter("header_overflow"),
		streamsActive:       scope.Gauge("streams_active"),
		floods: map[http2.Flood]*stats.Counter{
			http2.OutboundFlood:        scope.Counter("outbound_flood"),
			http2.OutboundControlFlood: scope.Counter("outbound_control_flood"),
			http2.EmptyFrameFlood:      scope.Counter("inbound_empty_frames_flood"),
			http2.PriorityFlood:        scope.Counter("inbound_priority_frames_flood"),
			http2.WindowUpdateFlood:    scope.Counter("inbound_window_update_frames_flood"),
		},
	}
}

// countFlood counts why a connection is ended, as http2.Options.OnFlood.
func (s *http2Stats) countFlood(f http2.Flood) {
	if counter := s.floods[f]; counter != nil {
		counter.Inc()
	}
	if f == http2.HeaderFlood {
		s.tooLarge.Inc()
	}
}

// countStreamError is http2.Options.OnStreamError.
func (s *http2Stats) countStreamError(e *http2.StreamError) {
	switch {
	case e.Remote:
		s.resetsReceived.Inc()
		return
	case e.Code == http2.ProtocolError:
		s.messagingErrors.Inc()
	}
	s.resetsSent.Inc()
}
