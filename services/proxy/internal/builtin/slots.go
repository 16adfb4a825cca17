package builtin

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// slots are the types that fit each supported field with an Any.
func slots() strict.Slots {
	var listener, network, http, routes strict.Types
	for _, f := range ListenerFilters(Dependencies{}) {
		listener = append(listener, f.ConfigType())
	}
	for _, f := range NetworkFilters(Dependencies{}) {
		network = append(network, f.ConfigType())
	}
	for _, f := range HTTPFilters(Dependencies{}) {
		http = append(http, f.ConfigType())
		if configured, ok := f.(httpfilter.RouteFactory); ok {
			routes = append(routes, configured.RouteConfigType())
		}
	}
	all := strict.Slots{
		"envoy.config.accesslog.v3.AccessLog.typed_config":                                            {"envoy.extensions.access_loggers."},
		"envoy.config.cluster.v3.Cluster.typed_extension_protocol_options":                            {"envoy.extensions.upstreams."},
		"envoy.config.cluster.v3.Cluster.CustomClusterType.typed_config":                              {"envoy.extensions.clusters."},
		"envoy.config.cluster.v3.LoadBalancingPolicy.Policy.typed_extension_config":                   {"envoy.extensions.load_balancing_policies."},
		"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.stateful_formatter":                {"envoy.extensions.http.header_formatters."},
		"envoy.config.core.v3.TransportSocket.typed_config":                                           {"envoy.extensions.transport_sockets."},
		"envoy.config.listener.v3.Filter.typed_config":                                                network,
		"envoy.config.listener.v3.ListenerFilter.typed_config":                                        listener,
		"envoy.config.route.v3.FilterConfig.config":                                                   routes,
		"envoy.config.route.v3.RetryPolicy.RetryHostPredicate.typed_config":                           {"envoy.extensions.retry.host."},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config":         http,
		"envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension.typed_config": {"envoy.extensions.request_id."},
	}
	for _, message := range []protoreflect.FullName{"Route", "RouteConfiguration", "VirtualHost", "WeightedCluster.ClusterWeight"} {
		all["envoy.config.route.v3."+message+".typed_per_filter_config"] = append(slices.Clip(routes), "envoy.config.route.v3.FilterConfig")
	}
	return all
}
