package cluster

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse and
// parseAssignment read.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.cluster.v3.Cluster": {
			"name", "type", "connect_timeout", "lb_policy", "load_assignment", "eds_cluster_config",
			"typed_extension_protocol_options",
		},
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig": {"eds_config", "service_name"},

		"envoy.config.endpoint.v3.ClusterLoadAssignment": {"cluster_name", "endpoints"},
		"envoy.config.endpoint.v3.LocalityLbEndpoints":   {"locality", "lb_endpoints", "load_balancing_weight"},
		"envoy.config.endpoint.v3.LbEndpoint":            {"endpoint", "health_status", "load_balancing_weight", "metadata"},
		"envoy.config.endpoint.v3.Endpoint":              {"address"},
		// Remarks on hosts, for policies that choose by them, of which there is none here.
		"envoy.config.core.v3.Metadata": {"filter_metadata"},

		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":                    {"explicit_http_config"},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig": {"http_protocol_options", "http2_protocol_options"},
		"envoy.config.core.v3.Http2ProtocolOptions":                                 {},
	}
}

// protocolOptions is the key of the one typed extension that a cluster has.
const protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Config is a checked cluster configuration.
type Config struct {
	// Message is what it was made of, for the config dump.
	Message *clusterv3.Cluster
	Name    string
	// ServiceName is the name of the cluster's assignment in EDS; empty for a
	// STATIC cluster.
	ServiceName string
	// Source is where that comes from, of the resource itself if it is Self;
	// SourceAt is where the configuration says so.
	Source         coreconfig.Source
	SourceAt       strict.Path
	ConnectTimeout time.Duration
	// HTTP2 says that the hosts speak HTTP/2 by prior knowledge, as gRPC does.
	HTTP2 bool
	// HTTP1 is how HTTP/1 is spoken to the hosts.
	HTTP1 coreconfig.HTTP1
	// InitialFetchTimeout bounds the wait for the first assignment; 0 is none.
	InitialFetchTimeout time.Duration

	policy    Policy
	endpoints []Endpoint // of a STATIC cluster
}

// defaultConnectTimeout is Envoy's of Cluster.connect_timeout.
const defaultConnectTimeout = 5 * time.Second

// Parse makes a Config of a cluster that lies at the path at. Policies are the
// load-balancing policies that ship. Faults go to report; the result is for
// use only if there are none.
func Parse(message *clusterv3.Cluster, at strict.Path, policies []Policy, report *strict.Report) *Config {
	c := &Config{Message: message, Name: message.GetName(), ConnectTimeout: defaultConnectTimeout}
	if message.GetConnectTimeout() != nil {
		c.ConnectTimeout = message.GetConnectTimeout().AsDuration()
	}
	known := false
	for _, p := range policies {
		if p.Name == message.GetLbPolicy() {
			c.policy, known = p, true
		}
	}
	if !known {
		report.Add(at.Field("lb_policy"), "%s is not supported", message.GetLbPolicy())
	}
	switch message.GetType() {
	case clusterv3.Cluster_STATIC:
		if message.GetEdsClusterConfig() != nil {
			report.Add(at.Field("eds_cluster_config"), "only a cluster of type EDS has one; this one is STATIC")
		}
		if message.GetLoadAssignment() == nil {
			report.Add(at, "cluster %q is STATIC and needs a load_assignment", c.Name)
		}
		c.endpoints = parseAssignment(message.GetLoadAssignment(), at.Field("load_assignment"), report)
	case clusterv3.Cluster_EDS:
		if message.GetLoadAssignment() != nil {
			report.Add(at.Field("load_assignment"), "a cluster of type EDS gets its assignment from eds_cluster_config")
		}
		c.parseEDS(message.GetEdsClusterConfig(), at.Field("eds_cluster_config"), report)
	default:
		report.Add(at.Field("type"), "%s is not supported: use STATIC or EDS", message.GetType())
	}
	for key, packed := range message.GetTypedExtensionProtocolOptions() {
		at := at.Field("typed_extension_protocol_options").Key(key)
		options, err := strict.Unpack(packed)
		protocol, ok := options.(*upstreamsv3.HttpProtocolOptions)
		if key != protocolOptions || err != nil || !ok {
			report.Add(at, "only %s is supported", protocolOptions)
			continue
		}
		if protocol.GetExplicitHttpConfig() == nil {
			report.Add(at, "explicit_http_config is the only supported choice")
		}
		c.HTTP2 = protocol.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil
		c.HTTP1 = coreconfig.UpstreamHTTP1(protocol.GetExplicitHttpConfig().GetHttpProtocolOptions(),
			at.Field("explicit_http_config").Field("http_protocol_options"), report)
	}
	return c
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

// parseAssignment makes the endpoints of an assignment that lies at the path
// at. An address that is there twice counts once, as in Envoy.
func parseAssignment(assignment *endpointv3.ClusterLoadAssignment, at strict.Path, report *strict.Report) []Endpoint {
	var list []Endpoint
	seen := map[netip.AddrPort]bool{}
	for i, group := range assignment.GetEndpoints() {
		at := at.Field("endpoints").Index(i)
		for j, e := range group.GetLbEndpoints() {
			at := at.Field("lb_endpoints").Index(j)
			address, ok := parseAddress(e.GetEndpoint().GetAddress(), at.Field("endpoint").Field("address"), report)
			if !ok || seen[address] {
				continue
			}
			seen[address] = true
			weight := uint32(1)
			if w := e.GetLoadBalancingWeight(); w != nil {
				weight = w.GetValue()
			}
			list = append(list, Endpoint{Address: address, Weight: weight, Health: e.GetHealthStatus(), Locality: group.GetLocality()})
		}
	}
	return list
}

func parseAddress(a *corev3.Address, at strict.Path, report *strict.Report) (netip.AddrPort, bool) {
	address, ok := coreconfig.Address(a, at, report)
	if ok && address.Port() == 0 {
		report.Add(at.Field("socket_address").Field("port_value"), "0 is no port of an endpoint")
		return netip.AddrPort{}, false
	}
	return address, ok
}
