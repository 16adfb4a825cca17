package cluster

import (
	"cmp"
	"errors"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/healthcheck"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/dns"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse and
// parseAssignment read, and what they call for. Those of a load-balancing
// policy are the policy's. Buffers of a connection never grow to a limit, since bodies
// are pulled.
func Fields() strict.Fields {
	fields := strict.Fields{
		"envoy.config.cluster.v3.Cluster": {
			"name", "type", "cluster_type", "connect_timeout", "load_assignment", "eds_cluster_config",
			"lb_policy", "load_balancing_policy", "common_lb_config", "circuit_breakers", "ignore_health_on_host_removal",
			"wait_for_warm_on_init", "health_checks", "outlier_detection",
			"typed_extension_protocol_options",
			"metadata", "alt_stat_name", "per_connection_buffer_limit_bytes", "transport_socket",
			"http_protocol_options", "http2_protocol_options",
		},
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig":  {"eds_config", "service_name"},
		"envoy.config.cluster.v3.Cluster.CustomClusterType": {"name", "typed_config"},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig": {
			"healthy_panic_threshold", "locality_weighted_lb_config", "update_merge_window", "consistent_hashing_lb_config",
		},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig":  {},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig": {"use_hostname_for_hashing"},
		"envoy.config.cluster.v3.LoadBalancingPolicy":                              {"policies"},
		"envoy.config.cluster.v3.LoadBalancingPolicy.Policy":                       {"typed_extension_config"},
		"envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality":     {"endpoint_picking_policy"},
		"envoy.config.core.v3.TypedExtensionConfig":                                {"name", "typed_config"},
		"envoy.type.v3.Percent":           {"value"},
		"envoy.type.v3.FractionalPercent": {"numerator", "denominator"},

		"envoy.config.endpoint.v3.ClusterLoadAssignment":                     {"cluster_name", "endpoints", "policy"},
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy":              {"overprovisioning_factor", "drop_overloads", "endpoint_stale_after"},
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload": {"category", "drop_percentage"},
		"envoy.config.endpoint.v3.LocalityLbEndpoints":                       {"locality", "lb_endpoints", "load_balancing_weight", "priority"},
		"envoy.config.endpoint.v3.LbEndpoint":                                {"endpoint", "health_status", "load_balancing_weight", "metadata"},
		"envoy.config.endpoint.v3.Endpoint":                                  {"address", "hostname", "health_check_config"},
		"envoy.config.endpoint.v3.Endpoint.HealthCheckConfig":                {"port_value", "hostname", "address", "disable_active_health_check"},
		// Of metadata, policies that hash read hash_key of envoy.lb.
		"envoy.config.core.v3.Metadata": {"filter_metadata"},

		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":                         {"explicit_http_config", "use_downstream_protocol_config", "common_http_protocol_options"},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig":      {"http_protocol_options", "http2_protocol_options"},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": {"http_protocol_options", "http2_protocol_options"},
		"envoy.config.core.v3.HttpProtocolOptions": {
			"idle_timeout", "max_connection_duration", "max_requests_per_connection", "max_headers_count", "max_response_headers_kb",
			"max_stream_duration", "headers_with_underscores_action",
		},
	}
	for _, part := range []strict.Fields{breaker.Fields(), dns.Fields(), healthcheck.Fields(), outlier.Fields()} {
		for message, names := range part {
			fields[message] = append(fields[message], names...)
		}
	}
	return fields
}

// protocolOptions is the key of the one typed extension that a cluster has.
const protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Config is a checked cluster configuration.
type Config struct {
	// Message is what it was made of, for the config dump.
	Message *clusterv3.Cluster
	Name    string
	// ServiceName is the name of the cluster's assignment in EDS; empty for a
	// cluster of another type.
	ServiceName string
	// Source is where that comes from, of the resource itself if it is Self;
	// SourceAt is where the configuration says so.
	Source         coreconfig.Source
	SourceAt       strict.Path
	ConnectTimeout time.Duration
	// HTTP2 says that the hosts speak HTTP/2 by prior knowledge, as gRPC does.
	HTTP2 bool
	// SameProtocol says that they speak what the client does
	// (use_downstream_protocol_config).
	SameProtocol bool
	// http2 is how HTTP/2 is spoken to the hosts, nil if it never is.
	http2 *http2.Options
	// maxStreams is how many requests a connection of HTTP/2 carries at once.
	maxStreams uint32
	// idleTimeout is how long a connection waits for its next request; 0 is without
	// limit.
	idleTimeout time.Duration
	// maxConnectionDuration is how old a connection may be for a further request; 0 is
	// without limit.
	maxConnectionDuration time.Duration
	// MaxStreamDuration is how long an exchange may take from the head of its request
	// on, each attempt by itself; 0 is without limit.
	MaxStreamDuration time.Duration
	// maxRequests is how many requests a connection carries in all; 0 is any number.
	maxRequests uint32
	// headBytes and headers bound the heads of responses; no bytes are the default of
	// each version of HTTP.
	headBytes, headers int
	// HTTP1 is how HTTP/1 is spoken to the hosts.
	HTTP1 coreconfig.HTTP1
	// InitialFetchTimeout bounds the wait for the first assignment; 0 is none.
	InitialFetchTimeout time.Duration
	// Thresholds are the limits of each RoutingPriority.
	Thresholds [2]breaker.Thresholds

	balancing             Balancing
	panicThreshold        uint64 // in percent, unless the runtime has one
	mergeWindow           time.Duration
	ignoreHealthOnRemoval bool
	// healthCheck is how the hosts are checked; nil if they are not. A new host is
	// taken for failed until its first check, and one that passes stays although no
	// assignment has it any more.
	healthCheck *healthcheck.Config
	outlier     *outlier.Config // nil without outlier detection
	// assignment is that of the configuration itself; nil in a cluster of EDS.
	assignment *Assignment
	dns        *dns.Config // nil unless its endpoints are names
	// waitForNames says that the cluster is warm once all names had an answer.
	waitForNames bool
}

// Envoy's defaults of the fields that are left out.
const (
	defaultConnectTimeout = 5 * time.Second // connect_timeout
	defaultPanicThreshold = 50              // CommonLbConfig.healthy_panic_threshold
	defaultMergeWindow    = time.Second     // CommonLbConfig.update_merge_window
	defaultIdleTimeout    = time.Hour       // HttpProtocolOptions.idle_timeout
)

// Parse makes a Config of a cluster that lies at the path at. Policies are the
// load-balancing policies that ship. Faults go to report; the result is for
// use only if there are none.
func Parse(message *clusterv3.Cluster, at strict.Path, policies []Policy, report *strict.Report) *Config {
	c := &Config{
		Message: message, Name: message.GetName(), ConnectTimeout: defaultConnectTimeout,
		Thresholds:            breaker.Parse(message.GetCircuitBreakers(), at.Field("circuit_breakers"), report),
		balancing:             parsePolicy(message, at, policies, report),
		idleTimeout:           defaultIdleTimeout,
		headers:               defaultHeaders,
		panicThreshold:        defaultPanicThreshold,
		ignoreHealthOnRemoval: message.GetIgnoreHealthOnHostRemoval(),
		healthCheck:           healthcheck.Parse(message.GetHealthChecks(), at.Field("health_checks"), report),
		outlier:               outlier.Parse(message.GetOutlierDetection(), at.Field("outlier_detection"), report),
		waitForNames:          message.GetWaitForWarmOnInit() == nil || message.GetWaitForWarmOnInit().GetValue(),
	}
	if message.GetConnectTimeout() != nil {
		c.ConnectTimeout = message.GetConnectTimeout().AsDuration()
	}
	common := message.GetCommonLbConfig()
	if p := common.GetHealthyPanicThreshold(); p != nil {
		c.panicThreshold = uint64(p.GetValue())
	}
	c.mergeWindow = coreconfig.Duration(common.GetUpdateMergeWindow(), defaultMergeWindow, at.Field("common_lb_config").Field("update_merge_window"), report)
	c.parseHosts(at, report)
	c.parseProtocol(at.Field("typed_extension_protocol_options"), report)
	c.parseOldProtocol(at, report)
	if checks := message.GetHealthChecks(); len(checks) > 0 && checks[0].GetGrpcHealthCheck() != nil && c.http2 == nil {
		report.Add(at.Field("health_checks").Index(0).Field("grpc_health_check"), "%v", errNoHTTP2)
	}
	coreconfig.TransportSocket(message.GetTransportSocket(), at.Field("transport_socket"), report)
	return c
}

// statName is the cluster's name in its metrics.
func (c *Config) statName() string { return cmp.Or(c.Message.GetAltStatName(), c.Name) }

// parseHosts reads where the hosts come from.
func (c *Config) parseHosts(at strict.Path, report *strict.Report) {
	message := c.Message
	kind := message.GetType()
	switch {
	case message.GetClusterType() != nil:
		c.parseCustomType(message.GetClusterType(), at.Field("cluster_type"), report)
	case kind == clusterv3.Cluster_STRICT_DNS, kind == clusterv3.Cluster_LOGICAL_DNS:
		c.dns = dns.Parse(dns.OfCluster(message), at, report)
	case kind != clusterv3.Cluster_STATIC && kind != clusterv3.Cluster_EDS:
		report.Add(at.Field("type"), "%s is not supported: use STATIC, EDS, STRICT_DNS or LOGICAL_DNS", kind)
		return
	}
	if c.dns == nil || message.GetClusterType() != nil {
		dns.RefuseFields(message, at, report)
	}
	if c.dns == nil && message.GetWaitForWarmOnInit() != nil {
		report.Add(at.Field("wait_for_warm_on_init"), "only a cluster whose hosts DNS resolves has one")
	}
	if kind == clusterv3.Cluster_EDS && message.GetClusterType() == nil {
		if message.GetLoadAssignment() != nil {
			report.Add(at.Field("load_assignment"), "a cluster of type EDS gets its assignment from eds_cluster_config")
		}
		c.parseEDS(message.GetEdsClusterConfig(), at.Field("eds_cluster_config"), report)
		return
	}
	name, addresses := kind.String(), ipAddresses
	if message.GetClusterType() != nil {
		name = "envoy.clusters.dns"
	}
	if c.dns != nil {
		addresses = dnsNames
	}
	if message.GetEdsClusterConfig() != nil {
		report.Add(at.Field("eds_cluster_config"), "only a cluster of type EDS has one; this one is %s", name)
	}
	if message.GetLoadAssignment() == nil {
		report.Add(at, "cluster %q is %s and needs a load_assignment", c.Name, name)
	}
	at = at.Field("load_assignment")
	if message.GetLoadAssignment().GetPolicy().GetEndpointStaleAfter() != nil {
		report.Add(at.Field("policy").Field("endpoint_stale_after"), "only an assignment that EDS sends goes stale")
	}
	c.assignment = parseAssignment(message.GetLoadAssignment(), addresses, at, report)
	if n := len(c.assignment.Endpoints); c.dns != nil && c.dns.Logical && n != 1 && report.Whole(at) {
		report.Add(at, "a cluster whose addresses are one host has one endpoint, not %d", n)
	}
}

func (c *Config) parseCustomType(custom *clusterv3.Cluster_CustomClusterType, at strict.Path, report *strict.Report) {
	at = at.Field("typed_config")
	message, err := strict.Unpack(custom.GetTypedConfig())
	typed, ok := message.(*dnsv3.DnsCluster)
	if err != nil || !ok {
		report.Add(at, "only envoy.extensions.clusters.dns.v3.DnsCluster is supported")
	}
	c.dns = dns.Parse(typed, at, report)
}

func (c *Config) parseEDS(eds *clusterv3.Cluster_EdsClusterConfig, at strict.Path, report *strict.Report) {
	at = at.Field("eds_config")
	if eds.GetEdsConfig() == nil {
		report.Add(at, "cluster %q is of type EDS and needs eds_config: {ads: {}, resource_api_version: V3}", c.Name)
	}
	c.SourceAt = at
	c.Source, c.InitialFetchTimeout = coreconfig.ConfigSource(eds.GetEdsConfig(), at, report)
	if c.ServiceName = eds.GetServiceName(); c.ServiceName == "" {
		c.ServiceName = c.Name
	}
}

func (c *Config) parseProtocol(at strict.Path, report *strict.Report) {
	for key, packed := range c.Message.GetTypedExtensionProtocolOptions() {
		at := at.Key(key)
		options, err := strict.Unpack(packed)
		protocol, ok := options.(*upstreamsv3.HttpProtocolOptions)
		if key != protocolOptions || err != nil || !ok {
			report.Add(at, "only %s is supported", protocolOptions)
			continue
		}
		explicit, same := protocol.GetExplicitHttpConfig(), protocol.GetUseDownstreamProtocolConfig()
		version, versionAt := httpOptions(explicit), at.Field("explicit_http_config")
		if same != nil {
			version, versionAt = same, at.Field("use_downstream_protocol_config")
		} else if explicit == nil {
			report.Add(at, "explicit_http_config and use_downstream_protocol_config are the only supported choices")
		}
		c.parseCommon(protocol.GetCommonHttpProtocolOptions(), at.Field("common_http_protocol_options"), report)
		c.SameProtocol = same != nil
		c.HTTP2 = explicit.GetHttp2ProtocolOptions() != nil
		c.HTTP1 = coreconfig.UpstreamHTTP1(version.GetHttpProtocolOptions(), versionAt.Field("http_protocol_options"), report)
		if c.HTTP2 || c.SameProtocol {
			c.parseHTTP2(version.GetHttp2ProtocolOptions(), versionAt.Field("http2_protocol_options"), report)
		}
	}
}

// parseOldProtocol reads the fields of the cluster itself, at the path at, that
// HttpProtocolOptions took the place of.
//
//nolint:staticcheck // they are deprecated, and in wide use
func (c *Config) parseOldProtocol(at strict.Path, report *strict.Report) {
	h1, h2 := c.Message.GetHttpProtocolOptions(), c.Message.GetHttp2ProtocolOptions()
	h1At, h2At := at.Field("http_protocol_options"), at.Field("http2_protocol_options")
	if len(c.Message.GetTypedExtensionProtocolOptions()) > 0 {
		const beside = "typed_extension_protocol_options say how HTTP is spoken already"
		if h1 != nil {
			report.Add(h1At, beside)
		}
		if h2 != nil {
			report.Add(h2At, beside)
		}
		return
	}
	if h1 != nil {
		c.HTTP1 = coreconfig.UpstreamHTTP1(h1, h1At, report)
	}
	if h2 != nil {
		c.HTTP2 = true
		c.parseHTTP2(h2, h2At, report)
	}
}

// parseCommon reads what holds for connections of both versions of HTTP.
func (c *Config) parseCommon(o *corev3.HttpProtocolOptions, at strict.Path, report *strict.Report) {
	if o.GetMaxConnectionDurationJitter() != nil {
		report.Add(at.Field("max_connection_duration_jitter"), "is not supported for a cluster")
	}
	if o.GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW {
		report.Add(at.Field("headers_with_underscores_action"), "has no meaning for a cluster: it is for the connection manager")
	}
	c.idleTimeout = coreconfig.Duration(o.GetIdleTimeout(), defaultIdleTimeout, at.Field("idle_timeout"), report)
	c.maxConnectionDuration = coreconfig.Duration(o.GetMaxConnectionDuration(), 0, at.Field("max_connection_duration"), report)
	c.MaxStreamDuration = coreconfig.Duration(o.GetMaxStreamDuration(), 0, at.Field("max_stream_duration"), report)
	if n := o.GetMaxHeadersCount(); n != nil {
		c.headers = int(n.GetValue())
	}
	c.headBytes = int(o.GetMaxResponseHeadersKb().GetValue()) << 10
	c.maxRequests = o.GetMaxRequestsPerConnection().GetValue()
}

// httpOptions are settings of both versions of HTTP.
type httpOptions interface {
	GetHttpProtocolOptions() *corev3.Http1ProtocolOptions
	GetHttp2ProtocolOptions() *corev3.Http2ProtocolOptions
}

// CheckGRPC is an error unless gRPC can be spoken to the hosts.
func (c *Config) CheckGRPC() error {
	if !c.HTTP2 {
		return errNoHTTP2
	}
	return nil
}

var errNoHTTP2 = errors.New("the cluster has no http2_protocol_options, which gRPC needs")

// parseHTTP2 reads what concerns HTTP/2 alone. With allow_connect and without, a server
// gets an extended CONNECT if it has said that it takes one.
func (c *Config) parseHTTP2(o *corev3.Http2ProtocolOptions, at strict.Path, report *strict.Report) {
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"stream_reset_burst", o.GetStreamResetBurst() != nil},
		{"stream_reset_rate", o.GetStreamResetRate() != nil},
	} {
		if field.set {
			report.Add(at.Field(field.name), "has no meaning for a cluster: it is for the connection manager")
		}
	}
	options := coreconfig.HTTP2(o, at, report)
	own := o.GetOverrideStreamErrorOnInvalidHttpMessage()
	options.MalformedEndsConnection = own != nil && !own.GetValue()
	if c.headBytes > 0 { // else Envoy does not compare them either
		coreconfig.FieldSize(o, c.headBytes>>10, "max_response_headers_kb", at, report)
	}
	c.maxStreams = options.MaxConcurrentStreams
	options.MaxHeaderBytes, options.MaxHeaders = uint32(cmp.Or(c.headBytes, defaultHTTP2HeadBytes)), c.headers
	c.http2 = &options
}
