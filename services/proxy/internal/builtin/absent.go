package builtin

import "github.com/weirproxy/weir/services/proxy/internal/stats"

// AbsentMetrics are the names that Envoy shows in any case and that count nothing here, so
// that dashboards and alerts which read them work.
func AbsentMetrics() []stats.Absence {
	return []stats.Absence{
		absent("cluster.*", counter, "made when an assignment has a time (endpoint_stale_after), or is over it",
			"assignment_stale", "assignment_timeout_received",
		),
		absent("cluster.*", gauge, "of clusters without EDS nobody says a version", "version"),
		absent("cluster.*", counter, "no address is bound for connections to hosts", "bind_errors"),
		absent("cluster.*", counter, "a connection that can't be made has its requests fail, and is not tried again by itself",
			"upstream_cx_connect_attempts_exceeded",
		),
		absent("cluster.*", counter, "zones are not preferred",
			"lb_local_cluster_not_ok", "lb_recalculate_zone_structures", "lb_zone_cluster_too_small", "lb_zone_no_capacity_left",
			"lb_zone_routing_all_directly", "lb_zone_routing_cross_zone", "lb_zone_routing_sampled",
		),
		absent("cluster.*", gauge, "clusters have no subsets", "lb_subsets_active"),
		absent("cluster.*", counter, "clusters have no subsets",
			"lb_subsets_created", "lb_subsets_fallback", "lb_subsets_fallback_panic", "lb_subsets_removed", "lb_subsets_selected",
		),
		absent("cluster.*", counter, "no cluster is of the type ORIGINAL_DST", "original_dst_host_invalid"),
		absent("cluster.*", counter, "there is no HTTP/3",
			"upstream_cx_connect_with_0_rtt", "upstream_cx_http3_total", "upstream_http3_broken", "upstream_rq_0rtt",
		),
		absent("cluster.*", counter, "no connection is made before a request wants one", "upstream_cx_preconnect_skipped"),
		absent("cluster.*", gauge, "bytes wait in the kernel, not in buffers of connections",
			"upstream_cx_rx_bytes_buffered", "upstream_cx_tx_bytes_buffered",
		),
		absent("cluster.*", counter, "bodies are read when they are wanted, so that no reading is paused",
			"upstream_flow_control_backed_up_total", "upstream_flow_control_drained_total",
			"upstream_flow_control_paused_reading_total", "upstream_flow_control_resumed_reading_total",
		),
		absent("cluster.*", counter, "redirects are not followed",
			"upstream_internal_redirect_failed_total", "upstream_internal_redirect_succeeded_total",
		),
		absent("cluster.*", gauge, "requests that wait are limited by max_pending_requests alone", "upstream_queue_overloaded"),
		absent("cluster.*", counter, "resets with NO_ERROR are among upstream_rq_rx_reset", "upstream_rq_rx_reset_no_error"),
		absent("cluster.*", counter, "a connection of HTTP/1 has one answer at a time, no METADATA, and takes underscores of its server",
			"http1.dropped_headers_with_underscores", "http1.metadata_not_supported_error",
			"http1.requests_rejected_with_underscores_in_headers", "http1.response_flood",
		),
		absent("cluster.*.health_check", gauge, "health checks do not tell degraded hosts", "degraded"),
		absent("cluster.*.outlier_detection", counter, "outliers do not become degraded", "ejections_detected_degradation"),
		absent("cluster.*.http2", counter, "this is counted of clients' connections alone",
			"dropped_headers_with_underscores", "requests_rejected_with_underscores_in_headers", "trailers", "tx_flush_timeout",
		),

		absent("cluster.*.http2", counter, "what comes for a stream that is not there is no head of one", "headers_cb_no_stream"),
		absent("http2", counter, "what comes for a stream that is not there is no head of one", "headers_cb_no_stream"),
		absent("cluster.*.http2", counter, "METADATA frames are ignored, and a head over its limits is header_overflow, whatever is in it", ofHTTP2Heads...),
		absent("http2", counter, "METADATA frames are ignored, and a head over its limits is header_overflow, whatever is in it", ofHTTP2Heads...),
		absent("cluster.*.http2", gauge, "a stream ends at once, and what waits to be sent is bodies that are not read yet", ofHTTP2Queues...),
		absent("http2", gauge, "a stream ends at once, and what waits to be sent is bodies that are not read yet", ofHTTP2Queues...),
		absent("http1", counter, "a connection of HTTP/1 has one answer at a time, and no METADATA",
			"metadata_not_supported_error", "response_flood",
		),

		absent("http.*", counter, "there is no overload manager",
			"downstream_cx_overload_disable_keepalive", "downstream_rq_overload_close", "rq_overload_local_reply",
		),
		absent("http.*", counter, "no extension finds the client's address", "downstream_rq_rejected_via_ip_detection"),
		absent("http.*", counter, "listeners have no TLS", "downstream_cx_ssl_total"),
		absent("http.*", gauge, "listeners have no TLS", "downstream_cx_ssl_active"),
		absent("http.*", counter, "there is no HTTP/3", "downstream_cx_http3_total", "downstream_rq_http3_total"),
		absent("http.*", gauge, "there is no HTTP/3", "downstream_cx_http3_active"),
		absent("http.*", gauge, "drains of HTTP/1 end with the next answer", "downstream_cx_http1_soft_drain"),
		absent("http.*", gauge, "bytes wait in the kernel, not in buffers of connections",
			"downstream_cx_rx_bytes_buffered", "downstream_cx_tx_bytes_buffered",
		),
		absent("http.*", counter, "bodies are read when they are wanted, so that no reading is paused",
			"downstream_flow_control_paused_reading_total", "downstream_flow_control_resumed_reading_total",
		),
		absent("http.*", counter, "redirects are not followed",
			"passthrough_internal_redirect_bad_location", "passthrough_internal_redirect_no_route", "passthrough_internal_redirect_predicate",
			"passthrough_internal_redirect_too_many_redirects", "passthrough_internal_redirect_unsafe_scheme",
		),
		absent("http.*", counter, "redirects are among rq_direct_response, in Envoy too", "rq_redirect"),
		absent("http.*", counter, "nothing holds the body of a response", "rs_too_large"),
		absent("http.*", counter, "a filter that finds a health check does so once it is decided what is traced", "tracing.health_check"),

		absent("listener.*", counter, "listeners have no TLS", "downstream_cx_transport_socket_connect_timeout"),
		absent("listener.*", counter, "there is no overload manager", "downstream_cx_overload_reject"),
		absent("listener.*", counter, "filters are not discovered", "extension_config_missing", "network_extension_config_missing"),
		absent("listener_manager", gauge, "there are no workers to pin", "workers_pinned"),
		absent("runtime", counter, "no layer is a directory", "override_dir_exists"),
		absent("server", counter, "unknown fields and those that are work in progress are refused",
			"dynamic_unknown_fields", "static_unknown_fields", "wip_protos",
		),
		absent("server", counter, "there are no such assertions, and no statistics are flushed",
			"debug_assertion_failures", "dropped_stat_flushes", "envoy_bug_failures", "envoy_notifications",
		),
		absent("server", gauge, "no certificate has an answer of OCSP, and cryptography is Go's own",
			"compilation_settings.fips_mode", "seconds_until_first_ocsp_response_expiring",
		),
		absent("server", gauge, "there is no hot restart", "hot_restart_generation"),
		absent("", counter, "there is no watchdog",
			"main_thread.watchdog_mega_miss", "main_thread.watchdog_miss", "workers.watchdog_mega_miss", "workers.watchdog_miss",
			"server.main_thread.watchdog_mega_miss", "server.main_thread.watchdog_miss",
		),
		absent("", counter, "there is no overload manager", "envoy.overload_actions.reset_high_memory_stream.count"),
	}
}

// absent is names of a scope, and why they count nothing.
func absent(scope string, kind stats.Kind, why string, names ...string) stats.Absence {
	return stats.Absence{Scope: scope, Kind: kind, Why: why, Names: names}
}

const (
	counter = stats.KindCounter
	gauge   = stats.KindGauge
)

// Names of both sides of HTTP/2.
var (
	ofHTTP2Heads  = []string{"cookies_total_bytes_too_large", "header_list_size_too_large", "metadata_empty_frames"}
	ofHTTP2Queues = []string{"outbound_control_frames_active", "outbound_frames_active", "pending_send_bytes", "deferred_stream_close"}
)
