package ratelimit

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	ratelimitconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// Envoy's defaults of the fields that are left out.
const (
	defaultTimeout   = 20 * time.Millisecond
	defaultNamespace = "envoy.filters.http.ratelimit"
)

// The statuses of gRPC that a refused call gets.
const (
	resourceExhausted = 8
	unavailable       = 14
)

// Services asks rate-limit services.
type Services interface {
	// ShouldRateLimit asks a service, whose cluster need not exist, and fills in
	// response. It returns an error if there was no answer within the service's
	// timeout, rlsclient.ErrGivenUp if nobody waits for it any more: ctx ended, or
	// caller closed what it holds. It keeps nothing of the request.
	ShouldRateLimit(ctx context.Context, caller upstream.Caller, service rlsclient.Service, request *rlsclient.Request, response *rlsclient.Response) error
	// Report asks a service whose answer nobody waits for, without blocking. The
	// request is its own from now on.
	Report(service rlsclient.Service, request *rlsclient.Request)
}

// Factory makes rate-limit filters, which routes can configure by a
// RateLimitPerRoute. It implements httpfilter.RouteFactory.
type Factory struct {
	// Services answers the filters' calls.
	Services Services
	// CheckCluster reports what is wrong with the cluster of that name as one
	// that gRPC is spoken to; nil checks nothing.
	CheckCluster func(name string, at strict.Path, report *strict.Report)
	// ServiceName is the cluster of the proxy's node.
	ServiceName string
	// Random is the source of all chances; nil is a good one.
	Random func() uint64
}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&ratelimitv3.RateLimit{}).ProtoReflect().Descriptor().FullName()
}

// RouteConfigType implements httpfilter.RouteFactory.
func (Factory) RouteConfigType() protoreflect.FullName {
	return (&ratelimitv3.RateLimitPerRoute{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {
			"domain", "stage", "request_type", "timeout", "failure_mode_deny", "failure_mode_deny_percent", "rate_limit_service",
			"rate_limited_as_resource_exhausted", "enable_x_ratelimit_headers", "disable_x_envoy_ratelimited_header",
			"rate_limited_status", "status_on_error", "response_headers_to_add", "stat_prefix", "filter_enabled", "filter_enforced",
			"rate_limits", "metadata_namespace", "enable_retry_after_header",
		},
		f.RouteConfigType(): {"vh_rate_limits", "rate_limits", "domain"},
		"envoy.config.ratelimit.v3.RateLimitServiceConfig": {"grpc_service", "transport_api_version"},
		"envoy.type.v3.HttpStatus":                         {"code"},
	}
}

// Parse implements httpfilter.Factory. That the domain and the service are
// there, and the stage and the request_type are some, is held by the messages'
// own rules.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	m, ok := message.(*ratelimitv3.RateLimit)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &config{
		services: f.Services, random: f.Random, service: f.ServiceName,
		domain: m.GetDomain(), stage: int(m.GetStage()), requests: m.GetRequestType(),
		own:        policiesOf(m.GetRateLimits(), at.Field("rate_limits"), report),
		deny:       matcher.Always(m.GetFailureModeDeny()).Under(""),
		enabled:    matcher.Always(true).Under("ratelimit.http_filter_enabled"),
		enforced:   matcher.Always(true).Under("ratelimit.http_filter_enforcing"),
		status:     429,
		onError:    500,
		grpcStatus: unavailable,
		unmarked:   m.GetDisableXEnvoyRatelimitedHeader(),
		showLimits: m.GetEnableXRatelimitHeaders() == ratelimitv3.RateLimit_DRAFT_VERSION_03,
		retryAfter: m.GetEnableRetryAfterHeader(),
		onRefused:  headermutation.Parse(m.GetResponseHeadersToAdd(), at.Field("response_headers_to_add"), nil, "", report),
		namespace:  m.GetMetadataNamespace(),
		counters:   countersKey{m.GetStatPrefix()},
	}
	if c.random == nil {
		c.random = rand.Uint64
	}
	if c.namespace == "" {
		c.namespace = defaultNamespace
	}
	if m.GetFailureModeDenyPercent() != nil {
		c.deny = matcher.ParseRuntimeFraction(m.GetFailureModeDenyPercent())
	}
	if m.GetFilterEnabled() != nil {
		c.enabled = matcher.ParseRuntimeFraction(m.GetFilterEnabled())
	}
	if m.GetFilterEnforced() != nil {
		c.enforced = matcher.ParseRuntimeFraction(m.GetFilterEnforced())
	}
	if code := int(m.GetRateLimitedStatus().GetCode()); code >= 400 {
		c.status = code
	}
	if m.GetStatusOnError() != nil {
		c.onError = int(m.GetStatusOnError().GetCode())
	}
	if m.GetRateLimitedAsResourceExhausted() {
		c.grpcStatus = resourceExhausted
	}
	timeout := coreconfig.Duration(m.GetTimeout(), defaultTimeout, at.Field("timeout"), report)
	c.asked = f.parseService(m.GetRateLimitService(), timeout, at.Field("rate_limit_service"), report)
	return c
}

// parseService returns the service to ask, each time up to a timeout.
func (f Factory) parseService(service *ratelimitconfigv3.RateLimitServiceConfig, timeout time.Duration, at strict.Path, report *strict.Report) rlsclient.Service {
	if service != nil {
		coreconfig.WantV3(service.GetTransportApiVersion(), at.Field("transport_api_version"), report)
	}
	grpc := service.GetGrpcService().GetEnvoyGrpc()
	at = at.Field("grpc_service")
	metadata := coreconfig.InitialMetadata(service.GetGrpcService().GetInitialMetadata(), at.Field("initial_metadata"), report)
	at = at.Field("envoy_grpc")
	if grpc.GetRetryPolicy() != nil {
		report.Add(at.Field("retry_policy"), "it is for streams of xDS, and says nothing here")
	}
	asked := rlsclient.Service{
		Cluster: grpc.GetClusterName(), Authority: grpc.GetAuthority(), MaxMessage: grpc.GetMaxReceiveMessageLength().GetValue(),
		Timeout: timeout, SkipEnvoyHeaders: grpc.GetSkipEnvoyHeaders(), Metadata: metadata,
	}
	if f.CheckCluster != nil && asked.Cluster != "" {
		f.CheckCluster(asked.Cluster, at.Field("cluster_name"), report)
	}
	return asked
}

// ParseRoute implements httpfilter.RouteFactory.
func (f Factory) ParseRoute(message proto.Message, at strict.Path, report *strict.Report) any {
	m, ok := message.(*ratelimitv3.RateLimitPerRoute)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.RouteConfigType())
		return nil
	}
	return &routeConfig{
		domain: m.GetDomain(),
		host: map[ratelimitv3.RateLimitPerRoute_VhRateLimitsOptions]route.HostLimits{
			ratelimitv3.RateLimitPerRoute_OVERRIDE: route.OverrideHostLimits,
			ratelimitv3.RateLimitPerRoute_INCLUDE:  route.IncludeHostLimits,
			ratelimitv3.RateLimitPerRoute_IGNORE:   route.IgnoreHostLimits,
		}[m.GetVhRateLimits()],
		own: policiesOf(m.GetRateLimits(), at.Field("rate_limits"), report),
	}
}

// policies are those of a rate_limits that is in the place of the routes' own.
type policies []descriptor.Policy

func policiesOf(limits []*routev3.RateLimit, at strict.Path, report *strict.Report) policies {
	return descriptor.ParseOfFilter(limits, at, report)
}

// routeConfig is what a route configures.
type routeConfig struct {
	domain string // empty: the filter's
	host   route.HostLimits
	own    policies
}

// config is the filter's configuration for one chain. It makes the filters of
// streams, and uses them again.
type config struct {
	services Services
	random   func() uint64
	service  string // the proxy's own cluster
	asked    rlsclient.Service
	domain   string
	stage    int
	requests string // request_type: which there are limits for; empty is both
	own      policies

	enabled, enforced, deny matcher.RuntimeFraction
	status, onError         int // of a refusal, and where there is no answer
	grpcStatus              int
	unmarked                bool // without x-envoy-ratelimited
	showLimits, retryAfter  bool
	onRefused               *headermutation.Mutations
	namespace               string // of the metadata
	counters                any    // a countersKey
	spare                   sync.Pool
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter { return c.newFilter(&plainRoute) }

// NewRouteFilter implements httpfilter.RouteConfigured.
func (c *config) NewRouteFilter(route any) httpfilter.Filter {
	if own, ok := route.(*routeConfig); ok {
		return c.newFilter(own)
	}
	return c.NewFilter()
}

// plainRoute is a route that configures nothing.
var plainRoute routeConfig

func (c *config) newFilter(route *routeConfig) *filter {
	f, ok := c.spare.Get().(*filter)
	if !ok {
		f = &filter{config: c}
	}
	f.route = route
	return f
}
