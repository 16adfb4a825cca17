package strict

import (
	"google.golang.org/protobuf/reflect/protoreflect"
)

// instead says what to use in the place of deprecated fields, by their full names.
var instead = map[protoreflect.FullName]string{
	"envoy.config.bootstrap.v3.Bootstrap.dns_resolution_config":      "typed_dns_resolver_config",
	"envoy.config.bootstrap.v3.Bootstrap.tracing":                    "tracing of the http_connection_manager",
	"envoy.config.bootstrap.v3.Bootstrap.use_tcp_for_dns_lookups":    "typed_dns_resolver_config",
	"envoy.config.bootstrap.v3.Bootstrap.watchdog":                   "watchdogs",
	"envoy.config.cluster.v3.Cluster.common_http_protocol_options":   "common_http_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.dns_resolution_config":          "the typed_dns_resolver_config of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.dns_resolvers":                  "the typed_dns_resolver_config of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.max_requests_per_connection":    "max_requests_per_connection of the common_http_protocol_options in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.protocol_selection":             "the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.track_timeout_budgets":          "track_cluster_stats",
	"envoy.config.cluster.v3.Cluster.upstream_http_protocol_options": "upstream_http_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.use_tcp_for_dns_lookups":        "the typed_dns_resolver_config of a DnsCluster",
	"envoy.config.core.v3.ConfigSource.path":                         "path_config_source",
	"envoy.config.core.v3.HeaderValueOption.append":                  "append_action",
	"envoy.config.listener.v3.FilterChain.use_proxy_proto":           "the listener filter proxy_protocol",
	"envoy.config.listener.v3.Listener.reuse_port":                   "enable_reuse_port",
	"envoy.config.route.v3.HeaderMatcher.contains_match":             "string_match",
	"envoy.config.route.v3.HeaderMatcher.exact_match":                "string_match",
	"envoy.config.route.v3.HeaderMatcher.prefix_match":               "string_match",
	"envoy.config.route.v3.HeaderMatcher.safe_regex_match":           "string_match",
	"envoy.config.route.v3.HeaderMatcher.suffix_match":               "string_match",
	"envoy.config.route.v3.RateLimit.Action.dynamic_metadata":        "metadata",
	"envoy.config.route.v3.RouteAction.cors":                         "typed_per_filter_config",
	"envoy.config.route.v3.RouteAction.grpc_timeout_offset":          "max_stream_duration.grpc_timeout_header_offset",
	"envoy.config.route.v3.RouteAction.internal_redirect_action":     "internal_redirect_policy",
	"envoy.config.route.v3.RouteAction.max_grpc_timeout":             "max_stream_duration.grpc_timeout_header_max",
	"envoy.config.route.v3.RouteAction.max_internal_redirects":       "internal_redirect_policy.max_internal_redirects",
	"envoy.config.route.v3.VirtualHost.cors":                         "typed_per_filter_config",
	"envoy.config.route.v3.WeightedCluster.total_weight":             "weights of any sum",
}

// WhyNot is what is wrong with a field that is not supported. It implements
// protoyaml.Explainer.
func (s *Schema) WhyNot(fd protoreflect.FieldDescriptor) string {
	if replacement := instead[fd.FullName()]; replacement != "" {
		return "deprecated: use " + replacement
	}
	return "not supported"
}
