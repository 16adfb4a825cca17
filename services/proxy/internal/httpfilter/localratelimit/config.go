package localratelimit

import (
	"math/rand/v2"
	"sync"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/fixedheader"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes local rate-limit filters. It implements httpfilter.Factory.
type Factory struct {
	// Stats is the root of all metrics.
	Stats *stats.Registry
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
			"stat_prefix", "status", "token_bucket", "filter_enabled", "filter_enforced", "descriptors", "rate_limits",
			"request_headers_to_add_when_not_enforced", "response_headers_to_add", "enable_x_ratelimit_headers",
			"always_consume_default_token_bucket", "rate_limited_as_resource_exhausted", "max_dynamic_descriptors",
			"enable_retry_after_header",
		},
		"envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor":  {"entries", "token_bucket", "shadow_mode"},
		"envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry": {"key", "value"},
		"envoy.type.v3.TokenBucket":                                      {"max_tokens", "tokens_per_fill", "fill_interval"},
		"envoy.type.v3.HttpStatus":                                       {"code"},
	}
}

const (
	// leastInterval is the shortest fill_interval, as in Envoy.
	leastInterval = 50 * time.Millisecond
	// defaultDynamic is Envoy's of max_dynamic_descriptors.
	defaultDynamic = 20
)

// The statuses of gRPC that a refused call gets.
const (
	resourceExhausted = 8
	unavailable       = 14
)

// Parse implements httpfilter.Factory.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	m, ok := message.(*localv3.LocalRateLimit)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &config{
		random:        f.Random,
		enabled:       matcher.ParseRuntimeFraction(m.GetFilterEnabled()),
		enforced:      matcher.ParseRuntimeFraction(m.GetFilterEnforced()),
		policies:      descriptor.Parse(m.GetRateLimits(), at.Field("rate_limits"), report),
		alwaysDefault: m.GetAlwaysConsumeDefaultTokenBucket() == nil || m.GetAlwaysConsumeDefaultTokenBucket().GetValue(),
		status:        429,
		grpcStatus:    unavailable,
		onRefused:     fixedheader.Parse(m.GetResponseHeadersToAdd(), at.Field("response_headers_to_add"), report),
		onPassed:      fixedheader.Parse(m.GetRequestHeadersToAddWhenNotEnforced(), at.Field("request_headers_to_add_when_not_enforced"), report),
		showLimits:    m.GetEnableXRatelimitHeaders() == ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		retryAfter:    m.GetEnableRetryAfterHeader(),
		stats:         newStats(f.Stats, m.GetStatPrefix()),
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
	base := parseSize(m.GetTokenBucket())
	switch {
	case m.GetTokenBucket() != nil:
		checkSize(base, at.Field("token_bucket"), report)
		if base.interval > 0 {
			c.bucket = newBucket(base)
		}
	case len(m.GetDescriptors()) > 0:
		report.Add(at, "descriptors need a token_bucket beside them, for requests that match none")
	}
	most := defaultDynamic
	if m.GetMaxDynamicDescriptors() != nil {
		most = int(m.GetMaxDynamicDescriptors().GetValue())
	}
	c.rules = parseRules(m.GetDescriptors(), base, most, at.Field("descriptors"), report)
	return c
}

// checkSize holds a bucket to the shortest interval; that it is above 0 is held
// by the message's own rules.
func checkSize(s size, at strict.Path, report *strict.Report) {
	if s.interval > 0 && s.interval < leastInterval {
		report.Add(at.Field("fill_interval"), "%v is less than %v", s.interval, leastInterval)
	}
}

// config is the filter's configuration for one chain, with its buckets, which
// all streams share. It makes the filters of streams, and uses them again.
type config struct {
	random            func() uint64
	enabled, enforced matcher.Fraction
	bucket            *bucket // nil: nothing is limited
	rules             rules
	policies          []descriptor.Policy // in the place of the route's, if there are any
	alwaysDefault     bool

	status, grpcStatus     int
	onRefused, onPassed    []fixedheader.Header
	showLimits, retryAfter bool
	stats                  *limitStats
	spare                  sync.Pool // of *filter
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter {
	if f, ok := c.spare.Get().(*filter); ok {
		return f
	}
	return &filter{config: c}
}
