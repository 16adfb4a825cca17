package fault

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes fault filters, which routes can configure by the same message.
// It implements httpfilter.RouteFactory.
type Factory struct {
	// Random is the source of all chances; nil is a good one.
	Random func() uint64
}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&faultv3.HTTPFault{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	const common = "envoy.extensions.filters.common.fault.v3."
	return strict.Fields{
		f.ConfigType(): {
			"delay", "abort", "response_rate_limit", "upstream_cluster", "headers", "downstream_nodes", "max_active_faults",
			"disable_downstream_cluster_stats",
			"delay_percent_runtime", "delay_duration_runtime", "abort_percent_runtime", "abort_http_status_runtime",
			"abort_grpc_status_runtime", "max_active_faults_runtime", "response_rate_limit_percent_runtime",
		},
		"envoy.extensions.filters.http.fault.v3.FaultAbort":             {"http_status", "grpc_status", "header_abort", "percentage"},
		"envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort": {},
		common + "FaultDelay":                 {"fixed_delay", "header_delay", "percentage"},
		common + "FaultDelay.HeaderDelay":     {},
		common + "FaultRateLimit":             {"fixed_limit", "header_limit", "percentage"},
		common + "FaultRateLimit.FixedLimit":  {"limit_kbps"},
		common + "FaultRateLimit.HeaderLimit": {},
	}
}

// RouteConfigType implements httpfilter.RouteFactory.
func (f Factory) RouteConfigType() protoreflect.FullName { return f.ConfigType() }

// Parse implements httpfilter.Factory.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	faults := f.parse(message, at, report)
	if faults == nil {
		return nil
	}
	return &config{faults: faults}
}

// ParseRoute implements httpfilter.RouteFactory.
func (f Factory) ParseRoute(message proto.Message, at strict.Path, report *strict.Report) any {
	return f.parse(message, at, report)
}

// parse reads the faults of a chain or of a route. That statuses and limits are
// in their ranges is held by the messages' own rules.
func (f Factory) parse(message proto.Message, at strict.Path, report *strict.Report) *faults {
	m, ok := message.(*faultv3.HTTPFault)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &faults{
		random:          f.Random,
		upstreamCluster: m.GetUpstreamCluster(),
		headers:         matcher.ParseHeaders(m.GetHeaders(), at.Field("headers"), report),
		downstreamNodes: m.GetDownstreamNodes(),
		most:            math.MaxInt64,
		mostKey:         or(m.GetMaxActiveFaultsRuntime(), "fault.http.max_active_faults"),
		perDownstream:   !m.GetDisableDownstreamClusterStats(),
	}
	if c.random == nil {
		c.random = rand.Uint64
	}
	if m.GetMaxActiveFaults() != nil {
		c.most = uint64(m.GetMaxActiveFaults().GetValue())
	}
	if m.GetDelay() != nil {
		c.delay = &delay{
			chance: chance{layeredruntime.ShareOf(m.GetDelay().GetPercentage()), or(m.GetDelayPercentRuntime(), "fault.http.delay.fixed_delay_percent")},
			fixed:  m.GetDelay().GetFixedDelay().AsDuration(),
			key:    or(m.GetDelayDurationRuntime(), "fault.http.delay.fixed_duration_ms"),
		}
		_, c.delay.byHeader = m.GetDelay().GetFaultDelaySecifier().(*commonfaultv3.FaultDelay_HeaderDelay_)
	}
	if m.GetAbort() != nil {
		c.abort = &abort{
			chance:  chance{layeredruntime.ShareOf(m.GetAbort().GetPercentage()), or(m.GetAbortPercentRuntime(), "fault.http.abort.abort_percent")},
			httpKey: or(m.GetAbortHttpStatusRuntime(), "fault.http.abort.http_status"),
			grpcKey: or(m.GetAbortGrpcStatusRuntime(), "fault.http.abort.grpc_status"),
		}
		switch kind := m.GetAbort().GetErrorType().(type) {
		case *faultv3.FaultAbort_HttpStatus:
			c.abort.fixed = httpRefusal(int(kind.HttpStatus))
		case *faultv3.FaultAbort_GrpcStatus:
			c.abort.fixed = grpcRefusal(int(kind.GrpcStatus))
			if kind.GrpcStatus > 16 {
				report.Add(at.Field("abort").Field("grpc_status"), "%d is no gRPC status: those are 0 to 16", kind.GrpcStatus)
			}
		default:
			c.abort.byHeader = true
		}
	}
	if m.GetResponseRateLimit() != nil {
		c.limit = &limit{
			chance: chance{layeredruntime.ShareOf(m.GetResponseRateLimit().GetPercentage()), or(m.GetResponseRateLimitPercentRuntime(), "fault.http.rate_limit.response_percent")},
			fixed:  m.GetResponseRateLimit().GetFixedLimit().GetLimitKbps(),
		}
		c.limit.byHeader = m.GetResponseRateLimit().GetHeaderLimit() != nil
	}
	return c
}

// config is the filter's configuration for one chain. It makes the filters of
// streams, and counts them together.
type config struct {
	faults *faults
	stats  *faultStats
	spare  sync.Pool // of *filter
}

// faults are those of a chain, or those of a route in their place.
type faults struct {
	random func() uint64

	// Which requests faults are for; empty is any.
	upstreamCluster string
	headers         []matcher.Header
	downstreamNodes []string

	// The faults, nil for none.
	delay *delay
	abort *abort
	limit *limit

	most          uint64 // max_active_faults, unless the runtime has mostKey
	mostKey       string
	perDownstream bool
}

// delay holds a request back.
type delay struct {
	chance
	byHeader bool
	fixed    time.Duration
	key      string // of the runtime, for milliseconds in the place of either
}

// abort answers a request in the place of its upstream.
type abort struct {
	chance
	byHeader bool
	fixed    refusal
	// httpKey and grpcKey are of the runtime, for a status in the place of either.
	httpKey, grpcKey string
}

// refusal is what an abort answers: a status of HTTP, or one of gRPC to a
// request of gRPC.
type refusal struct {
	http, grpc int
	ofGRPC     bool // it was said as a status of gRPC
}

func httpRefusal(status int) refusal { return refusal{status, int(grpcwire.OfHTTP(status)), false} }

// grpcRefusal is 200 to a request of HTTP, as in Envoy.
func grpcRefusal(status int) refusal { return refusal{200, status, true} }

// present is r, or another one of its kind that the runtime says. What is no status
// there has no effect.
func (a *abort) present(r refusal, values *layeredruntime.Snapshot) refusal {
	if r.ofGRPC {
		if status := values.Integer(a.grpcKey, uint64(r.grpc)); status <= 16 {
			return grpcRefusal(int(status))
		}
		return r
	}
	if status := values.Integer(a.httpKey, uint64(r.http)); status >= 200 && status <= 599 {
		return httpRefusal(int(status))
	}
	return r
}

// limit slows a response down.
type limit struct {
	chance
	byHeader bool
	fixed    uint64 // KiB per second
}

// chance is a share of requests that a header of the request can lower, and the
// runtime set.
type chance struct {
	layeredruntime.Share
	key string
}

// or is a key of the runtime, or the one that is there without.
func or(key, other string) string {
	if key == "" {
		return other
	}
	return key
}

// Measure implements httpfilter.Measured.
func (c *config) Measure(scope *stats.Scope) { c.stats = newStats(scope.Scope("fault")) }

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter { return c.newFilter(c.faults) }

// NewRouteFilter implements httpfilter.RouteConfigured.
func (c *config) NewRouteFilter(route any) httpfilter.Filter {
	if own, ok := route.(*faults); ok {
		return c.newFilter(own)
	}
	return c.NewFilter()
}

func (c *config) newFilter(faults *faults) *filter {
	f, ok := c.spare.Get().(*filter)
	if !ok {
		f = &filter{config: c}
	}
	f.faults = faults
	return f
}
