package localratelimit

import (
	"math/rand/v2"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
)

// Factory makes local rate-limit filters, which routes can configure by the same
// message. It implements httpfilter.RouteFactory.
type Factory struct {
	// Stats is the root of all metrics.
	Stats *stats.Registry
	// ServiceName is the cluster of the proxy's node.
	ServiceName string
	// Random is the source of all chances; nil is a good one.
	Random func() uint64
}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&localv3.LocalRateLimit{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {
			"stat_prefix", "stage", "vh_rate_limits", "local_rate_limit_per_downstream_connection", "status", "token_bucket", "filter_enabled", "filter_enforced", "descriptors", "rate_limits",
			"request_headers_to_add_when_not_enforced", "response_headers_to_add", "enable_x_ratelimit_headers",
			"always_consume_default_token_bucket", "rate_limited_as_resource_exhausted", "max_dynamic_descriptors",
			"enable_retry_after_header",
		},
		"envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor":  {"entries", "token_bucket", "shadow_mode"},
		"envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry": {"key", "value"},
		"envoy.type.v3.HttpStatus":                                       {"code"},
	}
}

// defaultDynamic is Envoy's of max_dynamic_descriptors.
const defaultDynamic = 20

// The statuses of gRPC that a refused call gets.
const (
	resourceExhausted = 8
	unavailable       = 14
)

// RouteConfigType implements httpfilter.RouteFactory.
func (f Factory) RouteConfigType() protoreflect.FullName { return f.ConfigType() }

// Parse implements httpfilter.Factory.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	if c := f.parse(message, at, report); c != nil {
		return c
	}
	return nil
}

// ParseRoute implements httpfilter.RouteFactory.
func (f Factory) ParseRoute(message proto.Message, at strict.Path, report *strict.Report) any {
	c := f.parse(message, at, report)
	if c != nil && c.limiter == nil && message.(*localv3.LocalRateLimit).GetTokenBucket() == nil {
		report.Add(at, "a token_bucket is needed where a route configures the filter")
	}
	return c
}

// parse reads the config of a chain or of a route. That the stage is one is held
// by the message's own rules.
func (f Factory) parse(message proto.Message, at strict.Path, report *strict.Report) *config {
	m, ok := message.(*localv3.LocalRateLimit)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &config{
		service: f.ServiceName,
		stage:   int(m.GetStage()),
		host: map[ratelimitv3.VhRateLimitsOptions]route.HostLimits{
			ratelimitv3.VhRateLimitsOptions_OVERRIDE: route.OverrideHostLimits,
			ratelimitv3.VhRateLimitsOptions_INCLUDE:  route.IncludeHostLimits,
			ratelimitv3.VhRateLimitsOptions_IGNORE:   route.IgnoreHostLimits,
		}[m.GetVhRateLimits()],
		perConnection: m.GetLocalRateLimitPerDownstreamConnection(),
		random:        f.Random,
		enabled:       matcher.ParseRuntimeFraction(m.GetFilterEnabled()),
		enforced:      matcher.ParseRuntimeFraction(m.GetFilterEnforced()),
		policies:      parsePolicies(m.GetRateLimits(), at.Field("rate_limits"), report),
		alwaysDefault: m.GetAlwaysConsumeDefaultTokenBucket() == nil || m.GetAlwaysConsumeDefaultTokenBucket().GetValue(),
		status:        429,
		grpcStatus:    unavailable,
		onRefused:     headermutation.Parse(m.GetResponseHeadersToAdd(), at.Field("response_headers_to_add"), nil, "", report),
		onPassed:      headermutation.Parse(m.GetRequestHeadersToAddWhenNotEnforced(), at.Field("request_headers_to_add_when_not_enforced"), nil, "", report),
		showLimits:    m.GetEnableXRatelimitHeaders() == ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		retryAfter:    m.GetEnableRetryAfterHeader(),
		stats:         sync.OnceValue(func() *limitStats { return newStats(f.Stats, m.GetStatPrefix()) }),
	}
	if c.random == nil {
		c.random = rand.Uint64
	}
	if code := int(m.GetStatus().GetCode()); code >= 400 {
		c.status = code
	}
	if m.GetRateLimitedAsResourceExhausted() {
		c.grpcStatus = resourceExhausted
	}
	base := tokenbucket.Parse(m.GetTokenBucket(), at.Field("token_bucket"), report)
	switch {
	case m.GetTokenBucket() != nil:
		if base.Interval > 0 {
			c.limiter = &limiter{size: base, bucket: tokenbucket.New(base)}
		}
	case len(m.GetDescriptors()) > 0:
		report.Add(at, "descriptors need a token_bucket beside them, for requests that match none")
	}
	most := defaultDynamic
	if m.GetMaxDynamicDescriptors() != nil {
		most = int(m.GetMaxDynamicDescriptors().GetValue())
	}
	rules := parseRules(m.GetDescriptors(), base, most, at.Field("descriptors"), report)
	if c.limiter != nil {
		c.limiter.rules = rules
	}
	return c
}

// parsePolicies reads a rate_limits, of which some fields are for services alone.
func parsePolicies(limits []*routev3.RateLimit, at strict.Path, report *strict.Report) []descriptor.Policy {
	for i, limit := range limits {
		at := at.Index(i)
		if limit.GetLimit() != nil {
			report.Add(at.Field("limit"), "is not for local limits: those stand in descriptors")
		}
		if limit.GetApplyOnStreamDone() {
			report.Add(at.Field("apply_on_stream_done"), "is not for local limits")
		}
		if limit.GetHitsAddend().GetIsNegativeHits() {
			report.Add(at.Field("hits_addend").Field("is_negative_hits"), "is not for local limits")
		}
	}
	return descriptor.ParseOfFilter(limits, at, report)
}

// limiter is the buckets that some streams share.
type limiter struct {
	size   tokenbucket.Size
	bucket *tokenbucket.Bucket
	rules  rules
}

// config is the filter's configuration for one chain or for a route, with its
// buckets. It makes the filters of streams, and uses them again.
type config struct {
	service           string // the proxy's own cluster
	random            func() uint64
	enabled, enforced matcher.RuntimeFraction
	// limiter is that of all streams or, with perConnection, what that of each
	// connection is like; nil limits nothing.
	limiter       *limiter
	perConnection bool
	policies      []descriptor.Policy // in the place of the route's, if there are any
	stage         int                 // of the route's
	host          route.HostLimits
	alwaysDefault bool

	status, grpcStatus     int
	onRefused, onPassed    *headermutation.Mutations
	showLimits, retryAfter bool
	// stats makes the metrics at its first call, as routes are not told when they
	// come into use.
	stats func() *limitStats
	spare sync.Pool // of *filter
}

// limiterOf is the limiter that a stream is held to.
func (c *config) limiterOf(s *stream.Stream) *limiter {
	if !c.perConnection || s.Facts.Connection == nil {
		return c.limiter
	}
	kept := &s.Facts.Connection.Kept
	found, ok := kept.Load(c)
	if !ok {
		// Of two streams that come here at once one is given the other's.
		found, _ = kept.LoadOrStore(c, &limiter{bucket: tokenbucket.New(c.limiter.size), rules: c.limiter.rules.fresh()})
	}
	return found.(*limiter)
}

// Measure implements httpfilter.Measured.
func (c *config) Measure(*stats.Scope) { c.stats() }

// NewRouteFilter implements httpfilter.RouteConfigured.
func (c *config) NewRouteFilter(route any) httpfilter.Filter {
	if own, ok := route.(*config); ok {
		return own.NewFilter()
	}
	return c.NewFilter()
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter {
	if f, ok := c.spare.Get().(*filter); ok {
		return f
	}
	return &filter{config: c}
}
