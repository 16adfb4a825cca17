package strict

import (
	"log/slog"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// instead says what to use in the place of deprecated fields, by their full names,
// whether they are supported or not.
var instead = map[protoreflect.FullName]string{
	"envoy.config.bootstrap.v3.Admin.access_log_path":                "access_log",
	"envoy.config.bootstrap.v3.Bootstrap.dns_resolution_config":      "typed_dns_resolver_config",
	"envoy.config.bootstrap.v3.Bootstrap.tracing":                    "tracing of the http_connection_manager",
	"envoy.config.bootstrap.v3.Bootstrap.use_tcp_for_dns_lookups":    "typed_dns_resolver_config",
	"envoy.config.bootstrap.v3.Bootstrap.watchdog":                   "watchdogs",
	"envoy.config.cluster.v3.Cluster.common_http_protocol_options":   "common_http_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.dns_failure_refresh_rate":       "the dns_failure_refresh_rate of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.dns_jitter":                     "the dns_jitter of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.dns_refresh_rate":               "the dns_refresh_rate of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.dns_resolution_config":          "the typed_dns_resolver_config of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.dns_resolvers":                  "the typed_dns_resolver_config of a DnsCluster",
	"envoy.config.cluster.v3.Cluster.http2_protocol_options":         "http2_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.http_protocol_options":          "http_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.max_requests_per_connection":    "max_requests_per_connection of the common_http_protocol_options in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.protocol_selection":             "the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.track_timeout_budgets":          "track_cluster_stats",
	"envoy.config.cluster.v3.Cluster.upstream_http_protocol_options": "upstream_http_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options",
	"envoy.config.cluster.v3.Cluster.use_tcp_for_dns_lookups":        "the typed_dns_resolver_config of a DnsCluster",
	"envoy.config.core.v3.ConfigSource.path":                         "path_config_source",
	"envoy.config.core.v3.HeaderValueOption.append":                  "append_action",
	"envoy.config.core.v3.SubstitutionFormatString.text_format":      "text_format_source",
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
	"envoy.config.route.v3.RouteAction.include_vh_rate_limits":       "vh_rate_limits of a RateLimitPerRoute in typed_per_filter_config",
	"envoy.config.route.v3.RouteAction.internal_redirect_action":     "internal_redirect_policy",
	"envoy.config.route.v3.RouteAction.max_grpc_timeout":             "max_stream_duration.grpc_timeout_header_max",
	"envoy.config.route.v3.RouteAction.max_internal_redirects":       "internal_redirect_policy.max_internal_redirects",
	"envoy.config.route.v3.VirtualHost.cors":                         "typed_per_filter_config",
	"envoy.config.route.v3.WeightedCluster.total_weight":             "weights of any sum",
	"envoy.type.matcher.v3.RegexMatcher.google_re2":                  "regex alone, which is read by RE2's rules",

	"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash.use_hostname_for_hashing": "consistent_hashing_lb_config.use_hostname_for_hashing",
}

// WhyNot is what is wrong with a field that is not supported. It implements
// protoyaml.Explainer.
func (s *Schema) WhyNot(fd protoreflect.FieldDescriptor) string {
	if replacement := instead[fd.FullName()]; replacement != "" {
		return "deprecated: use " + replacement
	}
	return "not supported"
}

// Warning is what there is to say of a field that is supported: that it is
// deprecated. It implements protoyaml.Warner.
func (s *Schema) Warning(fd protoreflect.FieldDescriptor) string {
	options, ok := fd.Options().(*descriptorpb.FieldOptions)
	switch {
	case !ok || !options.GetDeprecated():
		return ""
	case instead[fd.FullName()] == "":
		return "deprecated"
	}
	return s.WhyNot(fd)
}

// LogWarnings tells a log of what is taken although there is something to say of it, a
// line for each.
func LogWarnings(log *slog.Logger, report *Report) {
	for _, warning := range report.Warnings() {
		log.Warn("taken into the configuration", "warning", warning.String())
	}
}
