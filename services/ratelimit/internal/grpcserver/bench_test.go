package grpcserver

import (
	"context"
	"testing"

	v3pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// constant is the service as gRPC's generated code has it, with an answer that
// costs nothing to find: what a call costs at least without this package.
type constant struct {
	v3pb.UnimplementedRateLimitServiceServer
}

func (constant) ShouldRateLimit(context.Context, *v3pb.RateLimitRequest) (*v3pb.RateLimitResponse, error) {
	return &v3pb.RateLimitResponse{OverallCode: v3pb.RateLimitResponse_OK, Statuses: []*v3pb.RateLimitResponse_DescriptorStatus{
		{Code: v3pb.RateLimitResponse_OK, CurrentLimit: &v3pb.RateLimitResponse_RateLimit{Name: "user", RequestsPerUnit: 9}, LimitRemaining: 7},
	}}, nil
}

// BenchmarkCall is a whole call over loopback, the cost of a gRPC client
// included.
func BenchmarkCall(b *testing.B) {
	for name, address := range map[string]func(b *testing.B) string{
		"bytes": func(b *testing.B) string {
			l, o := listen(b), options(echo{})
			o.StreamWorkers = 64
			start(b, l, o)
			return l.Addr().String()
		},
		"generated": func(b *testing.B) string {
			l := listen(b)
			server := grpc.NewServer(grpc.NumStreamWorkers(64))
			v3pb.RegisterRateLimitServiceServer(server, constant{})
			served := make(chan error, 1)
			// Ends with Stop; the cleanup waits for it.
			go func() { served <- server.Serve(l) }()
			b.Cleanup(func() {
				server.Stop()
				require.NoError(b, <-served)
			})
			return l.Addr().String()
		},
	} {
		b.Run(name, func(b *testing.B) {
			client := v3pb.NewRateLimitServiceClient(dial(b, address(b), insecure.NewCredentials()))
			in := request("d", "user", "alice")
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := client.ShouldRateLimit(context.Background(), in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
