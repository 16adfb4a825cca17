package coreconfig

import (
	"log/slog"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Source is where resources come from (ConfigSource). The zero value is ADS,
// the aggregated stream of the bootstrap. Sources that are equal share what they
// open: a stream, or a watched file.
type Source struct {
	// Self is the source of the resource that names it; Of makes it that.
	Self bool
	// Path is a file with a DiscoveryResponse; empty for none. WatchedDirectory
	// is where a change of it shows, if not in the file's own directory.
	Path, WatchedDirectory string
	// GRPC is a service with a stream for the type alone; zero for none.
	GRPC GRPC
}

// GRPC is a control plane that is asked over gRPC (ApiConfigSource).
type GRPC struct {
	// Cluster is the name of the cluster that serves it.
	Cluster string
	// Delta says that its streams are incremental.
	Delta bool
	// NodeOnFirstMessageOnly leaves the node out of all but the first request
	// of a stream.
	NodeOnFirstMessageOnly bool
	// Authority is who is asked for; empty is the cluster's name.
	Authority string
	// MaxMessage bounds each response, in bytes; 0 is that the caller has a bound.
	MaxMessage uint32
	// BackOff is how long a stream that broke waits for the next; zero for the default.
	BackOff BackOff
	// Metadata is what its streams begin with.
	Metadata Metadata
}

// BackOff says that a wait is a random time below First, and below twice as much each
// further time, up to Most. Both are more than 0, unless it is the zero value.
type BackOff struct {
	First, Most time.Duration
}

// mostBackOff bounds what a BackOff may be.
const mostBackOff = 24 * time.Hour

// IsADS says whether it is the aggregated stream.
func (s Source) IsADS() bool { return s == Source{} }

// Of is the source itself, or parent where it is Self.
func (s Source) Of(parent Source) Source {
	if s.Self {
		return parent
	}
	return s
}

// String is how logs name it.
func (s Source) String() string {
	switch {
	case s.Self:
		return "self"
	case s.Path != "":
		return s.Path
	case s.GRPC.Cluster != "":
		return "cluster " + s.GRPC.Cluster
	default:
		return "ADS"
	}
}

// LogValue implements slog.LogValuer: it is String, in JSON too.
func (s Source) LogValue() slog.Value { return slog.StringValue(s.String()) }

// WantV3 holds a version to the only one that is supported.
func WantV3(version corev3.ApiVersion, at strict.Path, report *strict.Report) {
	if version != corev3.ApiVersion_V3 {
		report.Add(at, "%s is not supported: use V3", version)
	}
}

// defaultInitialFetchTimeout is Envoy's of ConfigSource.initial_fetch_timeout.
const defaultInitialFetchTimeout = 15 * time.Second

// ConfigSource reads a source of configuration at the path at. InitialFetch is
// how long the first answer is waited for; 0 is without end. That one is set at
// all is held by the messages' own rules, or by the caller, who gets ADS for nil.
func ConfigSource(source *corev3.ConfigSource, at strict.Path, report *strict.Report) (s Source, initialFetch time.Duration) {
	if source == nil {
		return Source{}, defaultInitialFetchTimeout
	}
	WantV3(source.GetResourceApiVersion(), at.Field("resource_api_version"), report)
	switch kind := source.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Self:
		s.Self = true
		if v := kind.Self.GetTransportApiVersion(); v != corev3.ApiVersion_AUTO {
			WantV3(v, at.Field("self").Field("transport_api_version"), report)
		}
	case *corev3.ConfigSource_PathConfigSource:
		s.Path = kind.PathConfigSource.GetPath()
		s.WatchedDirectory = kind.PathConfigSource.GetWatchedDirectory().GetPath()
	case *corev3.ConfigSource_ApiConfigSource:
		s.GRPC = APIConfigSource(kind.ApiConfigSource, at.Field("api_config_source"), report)
	}
	return s, Duration(source.GetInitialFetchTimeout(), defaultInitialFetchTimeout, at.Field("initial_fetch_timeout"), report)
}

// APIConfigSource reads a control plane that is asked over gRPC, at the path at.
// Whether its cluster is there is for the caller to check.
func APIConfigSource(source *corev3.ApiConfigSource, at strict.Path, report *strict.Report) GRPC {
	g := GRPC{NodeOnFirstMessageOnly: source.GetSetNodeOnFirstMessageOnly()}
	switch t := source.GetApiType(); t {
	case corev3.ApiConfigSource_GRPC:
	case corev3.ApiConfigSource_DELTA_GRPC:
		g.Delta = true
	default:
		report.Add(at.Field("api_type"), "%s is not supported: use GRPC or DELTA_GRPC", t)
	}
	WantV3(source.GetTransportApiVersion(), at.Field("transport_api_version"), report)
	at = at.Field("grpc_services")
	if n := len(source.GetGrpcServices()); n != 1 {
		report.Add(at, "want one service, got %d", n)
		return g
	}
	// That there is one is held by the message's own rules.
	service, at := source.GetGrpcServices()[0].GetEnvoyGrpc(), at.Index(0)
	g.Cluster, g.Authority, g.MaxMessage = service.GetClusterName(), service.GetAuthority(), service.GetMaxReceiveMessageLength().GetValue()
	g.BackOff = backOff(service.GetRetryPolicy().GetRetryBackOff(), at.Field("envoy_grpc").Field("retry_policy").Field("retry_back_off"), report)
	g.Metadata = InitialMetadata(source.GetGrpcServices()[0].GetInitialMetadata(), at.Field("initial_metadata"), report)
	return g
}

// backOff reads the BackOff of a message, which may be nil, at the path at. That there
// is a base_interval, of a millisecond or more, is held by the message's own rules.
func backOff(m *corev3.BackoffStrategy, at strict.Path, report *strict.Report) BackOff {
	if m == nil {
		return BackOff{}
	}
	b := BackOff{First: m.GetBaseInterval().AsDuration()}
	if b.First > mostBackOff {
		report.Add(at.Field("base_interval"), "%v is more than a day", b.First)
		return BackOff{}
	}
	switch b.Most = 10 * b.First; {
	case m.GetMaxInterval() == nil:
	case m.GetMaxInterval().AsDuration() > mostBackOff:
		report.Add(at.Field("max_interval"), "%v is more than a day", m.GetMaxInterval().AsDuration())
	case m.GetMaxInterval().AsDuration() < b.First:
		report.Add(at.Field("max_interval"), "%v is less than the base_interval of %v", m.GetMaxInterval().AsDuration(), b.First)
	default:
		b.Most = m.GetMaxInterval().AsDuration()
	}
	return b
}
