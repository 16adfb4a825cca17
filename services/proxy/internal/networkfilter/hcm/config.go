package hcm

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/identity"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/normalize"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tracing"
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
	// Routes hands out the tables that come by RDS.
	Routes *rds.Manager
	// CheckSource reports what is wrong with a source that rds names.
	CheckSource func(source coreconfig.Source, at strict.Path, report *strict.Report)
	// AccessLogs has the files that access logs are written to.
	AccessLogs *accesslog.Files
	// Runtime has the values that the configuration leaves to it; nil is none.
	Runtime *layeredruntime.Runtime
	// Stats is the root of all metrics.
	Stats *stats.Registry
	// Log is told of filters that are left out.
	Log *slog.Logger

	ids atomic.Uint64 // of connections
}

// ConfigType implements networkfilter.Factory.
func (f *Factory) ConfigType() protoreflect.FullName {
	return (&hcmv3.HttpConnectionManager{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements networkfilter.Factory.
func (f *Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {
			"codec_type", "stat_prefix", "route_config", "rds", "http_filters", "upgrade_configs",
			"http_protocol_options", "http2_protocol_options", "common_http_protocol_options", "max_request_headers_kb",
			"stream_idle_timeout", "request_timeout", "request_headers_timeout", "drain_timeout", "delayed_close_timeout",
			"server_name", "server_header_transformation", "via", "proxy_100_continue", "stream_error_on_invalid_http_message",
			"use_remote_address", "xff_num_trusted_hops", "skip_xff_append", "internal_address_config", "forward_client_cert_details",
			"generate_request_id", "preserve_external_request_id", "always_set_request_id_in_response", "request_id_extension",
			"normalize_path", "merge_slashes", "path_with_escaped_slashes_action",
			"strip_matching_host_port", "strip_any_host_port", "strip_trailing_host_dot", "access_log",
			"access_log_options", "stream_flush_timeout", "tracing",
		},
		managerMessage + ".UpgradeConfig":                                                {"upgrade_type", "filters", "enabled"},
		managerMessage + ".InternalAddressConfig":                                        {"unix_sockets", "cidr_ranges"},
		managerMessage + ".HcmAccessLogOptions":                                          {"access_log_flush_interval", "flush_access_log_on_new_request", "flush_log_on_tunnel_successfully_established"},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter":         {"name", "typed_config", "is_optional", "disabled"},
		"envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension": {"typed_config"},
		"envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig":                        {"pack_trace_reason", "use_request_id_for_trace_sampling"},
		"envoy.config.core.v3.CidrRange":                                                 {"address_prefix", "prefix_len"},
		"envoy.type.v3.Percent":                                                          {"value"},
		"envoy.config.core.v3.HttpProtocolOptions": {
			"idle_timeout", "max_connection_duration", "max_connection_duration_jitter", "max_stream_duration", "max_headers_count", "max_requests_per_connection",
			"headers_with_underscores_action", "max_response_headers_kb",
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.Rds": {"config_source", "route_config_name"},
	}
}

const managerMessage = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// Envoy's defaults of the fields that are left out.
const (
	defaultIdleTimeout       = time.Hour       // HttpProtocolOptions.idle_timeout
	defaultStreamIdleTimeout = 5 * time.Minute // stream_idle_timeout
	defaultHeadKiB           = 60              // max_request_headers_kb
	defaultHeaders           = 100             // HttpProtocolOptions.max_headers_count
	defaultDrainTimeout      = 5 * time.Second
	defaultDelayedClose      = time.Second
)

// serverName is the server header of responses. Envoy's default would be its
// own name.
const serverName = "weir"

// manager is a checked http_connection_manager config: a networkfilter.Filter.
type manager struct {
	chain    *httpfilter.Chain
	upgrades []upgrade
	// routes is the present table: that of route_config, or the newest of RDS,
	// nil until one came.
	routes   atomic.Pointer[route.Table]
	rds      *rdsConfig // nil with a route_config
	clusters Clusters
	registry *stats.Registry
	// statPrefix is its name in metrics.
	statPrefix string
	runtime    *layeredruntime.Runtime
	place      atomic.Pointer[listenerv3.FilterChain] // in which it stands; nil is unknown
	measured   sync.Once
	stats      *managerStats // nil until it is measured
	leftOut    uint64        // optional filters
	clock      clock
	logs       []*accesslog.Log
	// logStart and logTunnel say that the logs are also written when a request has
	// its route, and when a client has got its upgrade (access_log_options).
	logStart, logTunnel bool
	// logInterval is that of lines while a request goes on; 0 for none.
	logInterval time.Duration
	ids         *atomic.Uint64

	codec          hcmv3.HttpConnectionManager_CodecType
	servers        servers   // of HTTP/2
	ownWindow      bool      // their stream window is configured
	works          sync.Pool // of HTTP/1, *work
	exchanges      sync.Pool // of HTTP/2, *exchange
	limits         http1.Limits
	http1          coreconfig.HTTP1
	closeOnInvalid bool // close the connection of a request that breaks the protocol
	proxyContinue  bool // pass Expect and interim responses on

	// bufferLimit is what may be held of a body, in bytes.
	bufferLimit atomic.Uint64

	// Timeouts, 0 for none.
	idleTimeout           time.Duration // between requests
	requestTimeout        time.Duration // from a request's first byte to its last
	streamIdleTimeout     time.Duration
	streamFlushTimeout    time.Duration // negative is the idle one
	maxStreamDuration     time.Duration
	maxConnectionDuration time.Duration
	headLimit             headLimit
	// durationJitter is up to which part of that is added to it by chance.
	durationJitter float64
	drainTimeout   time.Duration // until a drained connection is closed
	delayedClose   time.Duration // until the client must have closed too
	maxRequests    uint32        // per connection; 0 is any number

	identity          identity.Config
	tracing           *tracing.Sampling // nil: nothing is traced
	paths             normalize.Paths
	hosts             normalize.Hosts
	stripListenerPort bool

	server          serverHeader
	serverName      string
	answerRequestID bool
}

// Place implements networkfilter.Placed. The first place has it make its metrics.
func (m *manager) Place(place networkfilter.Place) {
	m.measured.Do(m.measure)
	m.place.Store(place.Chain)
	m.limitBuffers(place.BufferLimit)
	scope := m.registry.Scope("listener").Tagged("envoy_listener_address", place.StatPrefix).Scope("http")
	m.stats.ofListener.Store(newAnswerStats(scope.Tagged("envoy_http_conn_manager_prefix", m.statPrefix)))
}

// limitBuffers has at most so many bytes held of a body, 0 for any number: of that of a
// request, to be sent again, and of that of a stream of HTTP/2 by its window, which is
// within Envoy's bounds of it.
func (m *manager) limitBuffers(limit uint32) {
	bytes, window := uint64(limit), min(max(limit, leastWindow), mostWindow)
	if limit == 0 {
		bytes, window = math.MaxUint64, mostWindow
	}
	m.bufferLimit.Store(bytes)
	if !m.ownWindow {
		m.servers.hold(window)
	}
}

// What initial_stream_window_size is at least, and where it is left out.
const (
	leastWindow = 1<<16 - 1
	mostWindow  = 16 << 20
)

// scope is http.<stat_prefix>.
func (m *manager) scope() *stats.Scope {
	return m.registry.Scope("http").Tagged("envoy_http_conn_manager_prefix", m.statPrefix)
}

// measure makes the metrics of the manager and of its filters. It is called once, when
// the manager is to be used: one that is refused, or never gets its turn, has none.
func (m *manager) measure() {
	scope := m.scope()
	m.stats = newStats(scope, m.registry.Scope("http1"), m.registry.Scope("http2"))
	m.http1.Options.Dropped = m.stats.droppedUnderscores.Inc
	o := &m.servers.options
	o.OnFlood, o.OnStreamError, o.OnTooLarge = m.stats.http2.CountFlood, m.stats.http2.CountStreamError, m.stats.http2.CountTooLarge
	if m.leftOut > 0 {
		m.registry.Scope("http").Counter("optional_filter_left_out").Add(m.leftOut)
	}
	m.chain.Measure(scope)
	for _, u := range m.upgrades {
		if u.chain != m.chain {
			u.chain.Measure(scope)
		}
	}
}

// Parse implements networkfilter.Factory.
func (f *Factory) Parse(config proto.Message, at strict.Path, report *strict.Report) networkfilter.Filter {
	c := config.(*hcmv3.HttpConnectionManager)
	m := &manager{clusters: f.Clusters, runtime: f.Runtime, ids: &f.ids, registry: f.Stats, statPrefix: c.GetStatPrefix()}
	if m.codec = c.GetCodecType(); m.codec == hcmv3.HttpConnectionManager_HTTP3 {
		report.Add(at.Field("codec_type"), "HTTP3 is not supported: use AUTO, HTTP1 or HTTP2")
	}
	m.parseProtocol(c, at, report)
	m.parseTimeouts(c, at, report)
	m.parseIdentity(c, at, report)
	m.parseNormalization(c, at, report)

	if c.GetRds() != nil {
		m.rds = f.parseRDS(c.GetRds(), at.Field("rds"), report)
	} else {
		table := ParseRoutes(f.Filters, c.GetRouteConfig(), at.Field("route_config"), f.StaticCluster, true, report)
		f.checkRoutes(table, c, report)
		m.routes.Store(table)
	}
	m.logs = f.AccessLogs.Parse(c.GetAccessLog(), at.Field("access_log"), report)
	m.logStart = c.GetAccessLogOptions().GetFlushAccessLogOnNewRequest()
	m.logInterval = c.GetAccessLogOptions().GetAccessLogFlushInterval().AsDuration() // of 1 ms or more, by the message's own rules
	m.logTunnel = c.GetAccessLogOptions().GetFlushLogOnTunnelSuccessfullyEstablished()
	m.chain = f.parseChain(m, c.GetHttpFilters(), at.Field("http_filters"), report)
	m.upgrades = f.parseUpgrades(m, c.GetUpgradeConfigs(), at.Field("upgrade_configs"), report)
	m.works.New = func() any { return new(work) }
	m.exchanges.New = func() any { return newExchange(m) }
	m.parseHTTP2(c, at.Field("http2_protocol_options"), report)
	return m
}
