package rls

import (
	"context"
	"errors"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// ShouldRateLimit answers one request. Its steps:
//
//  1. check the request: INVALID_ARGUMENT names the field that is wrong;
//  2. have the limiter answer it, which may block on the store: UNAVAILABLE if
//     the store does not answer or no rules were loaded yet, DEADLINE_EXCEEDED
//     or CANCELED if the caller did not wait for it;
//  3. write the answer.
func (s *Service) ShouldRateLimit(ctx context.Context, in *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	begin := time.Now()
	s.stats.requests.Inc()
	c := s.calls.Get().(*call)
	defer s.calls.Put(c)
	if err := readRequest(in, &c.request); err != nil {
		s.stats.badRequests.Inc()
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.limiter.Check(ctx, &c.request, &c.answer); err != nil {
		if errors.Is(err, limiter.ErrNoRules) {
			s.stats.noRules.Inc()
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		s.stats.storeErrors.Inc()
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Errorf(codes.Unavailable, "count hits of domain %q: %v", in.GetDomain(), err)
	}
	out := writeAnswer(&c.answer)
	s.stats.responseTime.Observe(time.Since(begin).Seconds())
	return out, nil
}
