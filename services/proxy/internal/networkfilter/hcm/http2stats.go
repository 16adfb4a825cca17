package hcm

import (
	"github.com/weirproxy/weir/services/proxy/internal/codecstats"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// http2Stats are the metrics under http2., by Envoy's names. They are of the whole
// process.
type http2Stats struct {
	*codecstats.HTTP2
	droppedUnderscores, rejectedUnderscores *stats.Counter
	goAways, trailers                       *stats.Counter
	// What the codec's own have for it, of which streams are counted with their
	// exchanges.
	keepaliveTimeouts *stats.Counter
	streamsActive     *stats.Gauge
}

func newHTTP2Stats(scope *stats.Scope) *http2Stats {
	codec := codecstats.NewHTTP2(scope)
	return &http2Stats{
		HTTP2:               codec,
		droppedUnderscores:  scope.Counter("dropped_headers_with_underscores"),
		rejectedUnderscores: scope.Counter("requests_rejected_with_underscores_in_headers"),
		goAways:             scope.Counter("goaway_sent"),
		trailers:            scope.Counter("trailers"),
		keepaliveTimeouts:   codec.KeepaliveTimeouts,
		streamsActive:       codec.StreamsActive,
	}
}
