package listener

import "github.com/weirproxy/weir/services/proxy/internal/stats"

// listenerStats are the metrics below listener.<address or stat_prefix>.
type listenerStats struct {
	scope                        *stats.Scope
	total, destroyed             *stats.Counter
	active                       *stats.Gauge
	noFilterChainMatch, overflow *stats.Counter
	totalOverflow                *stats.Counter
	// Of connections that listener filters look at: those of now, those that took too
	// long, and those that failed, by the client's close or otherwise.
	preActive                            *stats.Gauge
	preTimeout, remoteClose, filterError *stats.Counter
	length                               *stats.Histogram
}

func newListenerStats(registry *stats.Registry, prefix string) *listenerStats {
	scope := registry.Scope("listener").Tagged("envoy_listener_address", prefix)
	return &listenerStats{
		scope: scope, total: scope.Counter("downstream_cx_total"), destroyed: scope.Counter("downstream_cx_destroy"),
		active: scope.Gauge("downstream_cx_active"), noFilterChainMatch: scope.Counter("no_filter_chain_match"),
		overflow: scope.Counter("downstream_cx_overflow"), totalOverflow: scope.Counter("downstream_global_cx_overflow"),
		preActive: scope.Gauge("downstream_pre_cx_active"), preTimeout: scope.Counter("downstream_pre_cx_timeout"),
		remoteClose: scope.Counter("downstream_listener_filter_remote_close"), filterError: scope.Counter("downstream_listener_filter_error"),
		length: scope.Histogram("downstream_cx_length_ms"),
	}
}

// managerStats are the metrics below listener_manager.
type managerStats struct {
	added, modified, removed, stopped, inPlace *stats.Counter
	created, refused                           *stats.Counter
	active, warming, draining, drainingChains  *stats.Gauge
	accepting                                  *stats.Gauge
}

func newManagerStats(registry *stats.Registry) *managerStats {
	scope := registry.Scope("listener_manager")
	return &managerStats{
		added: scope.Counter("listener_added"), modified: scope.Counter("listener_modified"), removed: scope.Counter("listener_removed"),
		stopped: scope.Counter("listener_stopped"), inPlace: scope.Counter("listener_in_place_updated"),
		created: scope.Counter("listener_create_success"), refused: scope.Counter("listener_create_failure"),
		active: scope.Gauge("total_listeners_active"), warming: scope.Gauge("total_listeners_warming"),
		draining: scope.Gauge("total_listeners_draining"), drainingChains: scope.Gauge("total_filter_chains_draining"),
		accepting: scope.Gauge("workers_started"),
	}
}
