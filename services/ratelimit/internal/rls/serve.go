package rls

import (
	"context"
	"errors"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// ShouldRateLimit answers one RateLimitRequest of version v, whose bytes are
// message: it appends the bytes of the RateLimitResponse to dst and returns the
// longer slice. Its steps:
//
//  1. read and check the request: INVALID_ARGUMENT names the field that is
//     wrong;
//  2. have the limiter answer it, which may block on the store: UNAVAILABLE if
//     the store does not answer or no rules were loaded yet, DEADLINE_EXCEEDED
//     or CANCELED if the caller did not wait for it;
//  3. write the answer.
//
// With an error, which is nil otherwise, dst comes back as it was. What the
// service holds for the time of the call is pooled: beyond message and dst it
// allocates nothing, but with dynamic metadata.
func (s *Service) ShouldRateLimit(ctx context.Context, v Version, message string, dst []byte) ([]byte, *Error) {
	begin := time.Now()
	s.stats.requests[v].Inc()
	s.stats.inFlight.Add(1)
	defer s.stats.inFlight.Add(-1)
	c := s.calls.Get().(*call)
	defer s.release(c)
	var end func(domain string, over bool, err *Error)
	if s.options.Tracer != nil {
		ctx, end = s.options.Tracer.Begin(ctx)
	}
	answer, err := s.answer(ctx, c, v, message, dst)
	s.stats.responseTime.Observe(time.Since(begin).Seconds())
	if end != nil {
		end(c.request.Domain, err == nil && c.answer.Over, err)
	}
	return answer, err
}

// answer is ShouldRateLimit in the memory of c.
func (s *Service) answer(ctx context.Context, c *call, v Version, message string, dst []byte) ([]byte, *Error) {
	err := c.decode(message, &dialects[v])
	if err == nil {
		err = c.check(s.options.MaxDescriptors)
	}
	if err != nil {
		s.stats.badRequests.Inc()
		return dst, &Error{InvalidArgument, err.Error()}
	}
	if err := s.options.Limiter.Check(ctx, &c.request, &c.answer); err != nil {
		return dst, s.unanswered(ctx, c.request.Domain, err)
	}
	out, err := s.appendAnswer(dst, c, &dialects[v])
	if err != nil {
		return dst, &Error{Internal, err.Error()}
	}
	return out, nil
}

// unanswered says why the limiter did not answer, in the same words each time: the
// log has more. A store may notice the end of the caller's time a moment before
// the caller's context does.
func (s *Service) unanswered(ctx context.Context, domain string, err error) *Error {
	if errors.Is(err, limiter.ErrNoRules) {
		s.stats.noRules.Inc()
		return &Error{Unavailable, err.Error()}
	}
	s.stats.storeErrors.Inc()
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{Canceled, "the caller left before the hits were counted"}
	}
	s.outages.add(domain, err)
	if deadline, bounded := ctx.Deadline(); ctx.Err() != nil || bounded && !time.Now().Before(deadline) {
		return &Error{DeadlineExceeded, "the hits were not counted within the time of the call"}
	}
	return &Error{Unavailable, "the hits could not be counted, since the store fails"}
}
