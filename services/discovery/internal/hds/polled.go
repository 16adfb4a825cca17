package hds

import (
	"context"
	"time"

	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
)

// poller is who calls again and again: the address of its connection, and the identity
// that it shows, since a proxy has calls of many on one connection.
type poller struct{ address, identity string }

// FetchHealthCheck serves a checker that calls again and again. A report does not
// say whose it is, so its calls come over the one connection over which it said
// who it is, by the same identity; who is silent for a while says so again. The answer is what to check
// now, nothing in the first second.
func (s *Server) FetchHealthCheck(ctx context.Context, m *healthv3.HealthCheckRequestOrEndpointHealthResponse) (*healthv3.HealthCheckSpecifier, error) {
	caller := auth.FromContext(ctx)
	if err := caller.MayWrite(); err != nil {
		return nil, s.options.Refusal(err)
	}
	from, now := poller{identity: caller.Identity()}, time.Now()
	if p, ok := peer.FromContext(ctx); ok {
		from.address = p.Addr.String()
	}
	if request := m.GetHealthCheckRequest(); request != nil {
		c := newChecker(caller)
		if err := s.join(c, request, now); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if earlier := s.polled[from]; earlier != nil && !earlier.gone {
			s.drop(earlier)
		}
		s.polled[from] = c
		s.mu.Unlock()
		return s.toCheck(c, now), nil
	}
	s.mu.Lock()
	c := s.polled[from]
	gone := c == nil || c.gone
	s.mu.Unlock()
	if gone {
		return nil, status.Error(codes.FailedPrecondition, "a report before a health_check_request on the same connection, or long after it")
	}
	s.take(c, m.GetEndpointHealthResponse(), now)
	return s.toCheck(c, now), nil
}

// toCheck returns what a checker that calls has to check now.
func (s *Server) toCheck(c *checker, now time.Time) *healthv3.HealthCheckSpecifier {
	s.toSend(c, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.specifier == nil {
		return &healthv3.HealthCheckSpecifier{Interval: durationpb.New(s.rules.interval)}
	}
	return c.specifier
}

// forgetPolled takes out the checkers that have ceased to call. s.mu must be
// held.
func (s *Server) forgetPolled() {
	for from, c := range s.polled {
		if c.silent && !c.gone {
			s.drop(c)
		}
		if c.gone {
			delete(s.polled, from)
		}
	}
}
