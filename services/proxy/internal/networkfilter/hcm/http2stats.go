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
	trailers, flushTimeouts                 *stats.Counter
}

func newHTTP2Stats(scope *stats.Scope) *http2Stats {
	return &http2Stats{
		HTTP2:               codecstats.NewHTTP2(scope),
		droppedUnderscores:  scope.Counter("dropped_headers_with_underscores"),
		rejectedUnderscores: scope.Counter("requests_rejected_with_underscores_in_headers"),
		trailers:            scope.Counter("trailers"),
		flushTimeouts:       scope.Counter("tx_flush_timeout"),
	}
}
