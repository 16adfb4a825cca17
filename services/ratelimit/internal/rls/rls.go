// Package rls speaks Envoy's rate limit service, version 3, over gRPC and as
// JSON over HTTP. It checks requests, hands them to the limiter and turns what
// comes back into the protocol's answers and status codes. It decides nothing
// itself and knows no store.
package rls

import (
	"context"
	"sync"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Limiter answers checked requests; *limiter.Limiter is the one there is.
type Limiter interface {
	// Check answers req into answer. Its error is limiter.ErrNoRules, or that
	// of a store that does not answer.
	Check(ctx context.Context, req *limiter.Request, answer *limiter.Answer) error
}

// Service is the rate limit service. Register it at a gRPC server, and mount
// JSON on an HTTP server.
type Service struct {
	pb.UnimplementedRateLimitServiceServer

	limiter Limiter
	calls   sync.Pool
	stats   *stats
}

// New makes a service over l.
func New(l Limiter, reg prometheus.Registerer) *Service {
	s := &Service{limiter: l, stats: newStats(reg)}
	s.calls.New = func() any { return &call{} }
	return s
}

// call is the memory of one request, pooled.
type call struct {
	request limiter.Request
	answer  limiter.Answer
}
