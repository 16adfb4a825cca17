package healthcheck

import (
	"context"
	"fmt"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// grpcCheck is a checked GrpcHealthCheck.
type grpcCheck struct {
	service, authority string
	headers            *headermutation.Mutations // of calls; nil for none
}

func parseGRPC(m *corev3.HealthCheck_GrpcHealthCheck, at strict.Path, report *strict.Report) *grpcCheck {
	return &grpcCheck{
		service: m.GetServiceName(), authority: m.GetAuthority(),
		headers: headermutation.Parse(m.GetInitialMetadata(), at.Field("initial_metadata"), nil, "", report),
	}
}

func (c *grpcCheck) newProber(h hostConfig) prober {
	return &grpcProber{check: c, hostConfig: h, request: &healthv1.HealthCheckRequest{Service: c.service}}
}

// grpcProber checks one host by grpc.health.v1.Health.Check.
type grpcProber struct {
	hostConfig
	check   *grpcCheck
	request *healthv1.HealthCheckRequest
	facts   format.Facts
	headers message.Headers  // of a call
	channel *grpc.ClientConn // kept from one check to the next; nil if there is none
}

// probe implements prober. A channel that is kept redials by itself, also after
// a GOAWAY; one that failed is given up, since it would wait before it dials
// again.
func (p *grpcProber) probe(ctx context.Context) result {
	r := p.ask(ctx)
	if r.verdict == network || !p.reuse {
		p.close()
	}
	return r
}

// ask calls the host. Whatever it answers but SERVING counts at once, as in
// Envoy: unhealthy_threshold is for hosts that can't be reached.
func (p *grpcProber) ask(ctx context.Context) result {
	if p.channel == nil {
		channel, err := grpc.NewClient("passthrough:///"+p.address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return p.dial(ctx, address) }),
			grpc.WithAuthority(p.name(p.check.authority)),
			grpc.WithUserAgent(userAgent),
			grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0))
		if err != nil {
			return result{verdict: network, why: fmt.Sprintf("make a gRPC channel: %v", err)}
		}
		p.channel = channel
	}
	response, err := healthv1.NewHealthClient(p.channel).Check(metadata.NewOutgoingContext(ctx, p.callHeaders()), p.request)
	switch code := status.Code(err); {
	case err == nil && response.GetStatus() == healthv1.HealthCheckResponse_SERVING:
		return result{verdict: passed}
	case err == nil:
		return result{verdict: failed, why: response.GetStatus().String()}
	case code == codes.Unavailable || ctx.Err() != nil:
		return result{verdict: network, why: err.Error()}
	default:
		return result{verdict: failed, why: err.Error()}
	}
}

// callHeaders are the header fields of a call.
func (p *grpcProber) callHeaders() metadata.MD {
	p.tell(&p.facts, "HTTP/2")
	p.headers.Reset()
	p.check.headers.Apply(&p.headers, &p.facts)
	fields := metadata.MD{}
	for i := range p.headers.Len() {
		name, value := p.headers.At(i)
		fields.Append(string(name), string(value))
	}
	return fields
}

// close implements prober.
func (p *grpcProber) close() {
	if p.channel != nil {
		_ = p.channel.Close() // nobody waits for what it says
		p.channel = nil
	}
}
