package hcm

import (
	"strings"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Clusters finds the cluster of a name, nil if there is none.
type Clusters interface {
	Get(name string) *cluster.Cluster
}

// Factory makes http_connection_managers. It implements networkfilter.Factory.
type Factory struct {
	// Filters are the HTTP filters that ship.
	Filters []httpfilter.Factory
	// Clusters are looked up for each request.
	Clusters Clusters
	// StaticCluster is the bootstrap's cluster of that name, nil if it has none.
	StaticCluster func(name string) *cluster.Config
	// Stats is the root of all metrics.
	Stats *stats.Registry
}

// ConfigType implements networkfilter.Factory.
func (f *Factory) ConfigType() protoreflect.FullName {
	return (&hcmv3.HttpConnectionManager{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements networkfilter.Factory.
func (f *Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {
			"codec_type", "stat_prefix", "route_config", "http_filters", "use_remote_address", "server_name",
			"max_request_headers_kb", "common_http_protocol_options", "stream_idle_timeout",
			"request_headers_timeout", "generate_request_id",
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {"name", "typed_config"},
		"envoy.config.core.v3.HttpProtocolOptions":                               {"idle_timeout", "max_headers_count"},
	}
}

// Envoy's defaults of the fields that are left out.
const (
	defaultIdleTimeout       = time.Hour       // HttpProtocolOptions.idle_timeout
	defaultStreamIdleTimeout = 5 * time.Minute // stream_idle_timeout
	defaultHeadKiB           = 60              // max_request_headers_kb
	largestHeadKiB           = 8192
	defaultHeaders           = 100 // HttpProtocolOptions.max_headers_count
)

// serverName is the server header of responses. Envoy's default would be its
// own name.
const serverName = "weir"

// manager is a checked http_connection_manager config: a networkfilter.Filter.
type manager struct {
	chain    *httpfilter.Chain
	routes   *route.Table
	clusters Clusters
	stats    *managerStats
	clock    clock

	limits            http1.Limits
	serverName        string
	idleTimeout       time.Duration // between requests; 0 is none
	streamIdleTimeout time.Duration // within one; 0 is none
	headersTimeout    time.Duration // from a head's first byte to its last; 0 is none
	useRemoteAddress  bool
	generateRequestID bool
}

// Parse implements networkfilter.Factory.
func (f *Factory) Parse(config proto.Message, at strict.Path, report *strict.Report) networkfilter.Filter {
	c := config.(*hcmv3.HttpConnectionManager)
	m := &manager{
		clusters:          f.Clusters,
		limits:            http1.Limits{HeadBytes: defaultHeadKiB << 10, Headers: defaultHeaders},
		serverName:        serverName,
		useRemoteAddress:  c.GetUseRemoteAddress().GetValue(),
		generateRequestID: c.GetGenerateRequestId() == nil || c.GetGenerateRequestId().GetValue(),
	}
	switch c.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO, hcmv3.HttpConnectionManager_HTTP1:
	default:
		report.Add(at.Field("codec_type"), "%s is not supported: use AUTO or HTTP1, which serve HTTP/1.1", c.GetCodecType())
	}
	if c.GetServerName() != "" {
		m.serverName = c.GetServerName()
	}
	if kib := c.GetMaxRequestHeadersKb(); kib != nil {
		if kib.GetValue() < 1 || kib.GetValue() > largestHeadKiB {
			report.Add(at.Field("max_request_headers_kb"), "%d is not between 1 and %d", kib.GetValue(), largestHeadKiB)
		}
		m.limits.HeadBytes = int(kib.GetValue()) << 10
	}
	common := c.GetCommonHttpProtocolOptions()
	commonAt := at.Field("common_http_protocol_options")
	if n := common.GetMaxHeadersCount(); n != nil {
		m.limits.Headers = int(n.GetValue())
	}
	m.idleTimeout = coreconfig.Duration(common.GetIdleTimeout(), defaultIdleTimeout, commonAt.Field("idle_timeout"), report)
	m.streamIdleTimeout = coreconfig.Duration(c.GetStreamIdleTimeout(), defaultStreamIdleTimeout, at.Field("stream_idle_timeout"), report)
	m.headersTimeout = coreconfig.Duration(c.GetRequestHeadersTimeout(), 0, at.Field("request_headers_timeout"), report)

	if c.GetRouteConfig() == nil {
		report.Add(at, "a route_config is needed; rds is not supported")
	}
	m.routes = route.Parse(c.GetRouteConfig(), at.Field("route_config"), report)
	validate := c.GetRouteConfig().GetValidateClusters()
	for _, r := range m.routes.References() {
		switch known := f.StaticCluster(r.Cluster); {
		case known == nil && (validate == nil || validate.GetValue()):
			report.Add(r.At, "unknown cluster %q (validate_clusters: false allows clusters that come by CDS)", r.Cluster)
		case known != nil && known.HTTP2:
			report.Add(r.At, "cluster %q has http2_protocol_options: requests are sent on as HTTP/1.1 only", r.Cluster)
		}
	}
	m.chain = f.parseChain(c.GetHttpFilters(), at, report)
	m.stats = newStats(f.Stats.Scope("http").Tagged("envoy_http_conn_manager_prefix", c.GetStatPrefix()))
	return m
}

// parseChain makes the chain of http_filters; nil if it has faults.
func (f *Factory) parseChain(filters []*hcmv3.HttpFilter, at strict.Path, report *strict.Report) *httpfilter.Chain {
	var configs []httpfilter.Config
	names := map[string]bool{}
	good := true
	fault := func(at strict.Path, format string, args ...any) {
		report.Add(at, format, args...)
		good = false
	}
	for i, filter := range filters {
		at := at.Field("http_filters").Index(i)
		if names[filter.GetName()] {
			fault(at.Field("name"), "filter %q is there twice", filter.GetName())
		}
		names[filter.GetName()] = true
		message, err := strict.Unpack(filter.GetTypedConfig())
		switch {
		case filter.GetTypedConfig() == nil:
			fault(at, "filter %q needs a typed_config", filter.GetName())
			continue
		case err != nil: // the schema's walk has said so
			good = false
			continue
		}
		factory := f.find(message)
		if factory == nil {
			fault(at.Field("typed_config"), "%s is no HTTP filter known here; those are: %s", message.ProtoReflect().Descriptor().FullName(), f.known())
			continue
		}
		config := factory.Parse(message, at.Field("typed_config"), report)
		if config == nil { // too faulty to go on with
			good = false
			continue
		}
		configs = append(configs, config)
		_, terminal := config.NewFilter().(httpfilter.Terminal)
		if last := i == len(filters)-1; terminal && !last {
			fault(at, "filter %q answers every request, so that no filter can stand behind it", filter.GetName())
		} else if !terminal && last {
			fault(at, "the last filter must be one that gets the response, as the router does; %q does not", filter.GetName())
		}
	}
	if len(filters) == 0 {
		fault(at.Field("http_filters"), "there are no filters: the router is needed at least")
	}
	if !good {
		return nil
	}
	return httpfilter.NewChain(configs)
}

func (f *Factory) find(message proto.Message) httpfilter.Factory {
	for _, factory := range f.Filters {
		if factory.ConfigType() == message.ProtoReflect().Descriptor().FullName() {
			return factory
		}
	}
	return nil
}

func (f *Factory) known() string {
	var names []string
	for _, factory := range f.Filters {
		names = append(names, string(factory.ConfigType()))
	}
	return strings.Join(names, ", ")
}
