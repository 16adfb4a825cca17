package ratelimit

import (
	"context"
	"sync"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// defaultTimeout bounds a call where the configuration sets no timeout
// (RateLimit.timeout).
const defaultTimeout = 20 * time.Millisecond

// Services asks rate-limit services.
type Services interface {
	// ShouldRateLimit asks the service in the cluster of that name, which need
	// not exist, and fills in response. It returns an error if there was no
	// answer before ctx ended. It keeps nothing of the request.
	ShouldRateLimit(ctx context.Context, cluster string, request *rlsclient.Request, response *rlsclient.Response) error
}

// Factory makes rate-limit filters. It implements httpfilter.Factory.
type Factory struct {
	// Services answers the filters' calls.
	Services Services
	// CheckCluster reports what is wrong with the cluster of that name as one
	// that gRPC is spoken to; nil checks nothing.
	CheckCluster func(name string, at strict.Path, report *strict.Report)
}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&ratelimitv3.RateLimit{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {"domain", "timeout", "failure_mode_deny", "rate_limit_service"},
		"envoy.config.ratelimit.v3.RateLimitServiceConfig": {"grpc_service", "transport_api_version"},
	}
}

// Parse implements httpfilter.Factory. That the domain and the service are
// there is held by the messages' own rules.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	m, ok := message.(*ratelimitv3.RateLimit)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &config{services: f.Services, domain: m.GetDomain(), deny: m.GetFailureModeDeny()}
	c.timeout = coreconfig.Duration(m.GetTimeout(), defaultTimeout, at.Field("timeout"), report)
	service := m.GetRateLimitService()
	at = at.Field("rate_limit_service")
	if service != nil {
		coreconfig.WantV3(service.GetTransportApiVersion(), at.Field("transport_api_version"), report)
	}
	c.cluster = service.GetGrpcService().GetEnvoyGrpc().GetClusterName()
	if f.CheckCluster != nil && c.cluster != "" {
		f.CheckCluster(c.cluster, at.Field("grpc_service").Field("envoy_grpc").Field("cluster_name"), report)
	}
	return c
}

// config is the filter's configuration for one chain. It makes the filters of
// streams, and uses them again.
type config struct {
	services Services
	cluster  string // of the service
	domain   string
	timeout  time.Duration // 0: none
	deny     bool          // failure_mode_deny
	spare    sync.Pool     // of *filter
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter {
	if f, ok := c.spare.Get().(*filter); ok {
		return f
	}
	return &filter{config: c}
}
