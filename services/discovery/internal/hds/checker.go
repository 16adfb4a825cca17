package hds

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cespare/xxhash/v2"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/hello"
)

// checker is one Envoy that checks hosts. Fields but the first ones are guarded
// by Server.mu.
type checker struct {
	// wake has a value when specifier is to be sent, ended when its stream is to end;
	// interrupt has what is sent and received return then.
	wake      chan struct{}
	ended     chan error
	interrupt func()

	caller  auth.Caller // by the rules of when it was last judged
	id      string
	cluster string
	hash    uint64 // of id
	// heard is when it last said something, or was first told what to check.
	heard time.Time
	// silent says that this was too long ago when that was looked at last; gone
	// that its stream has ended.
	silent, gone bool
	may          map[string]bool                // by service: whether it may check that; as far as it was asked
	duties       map[string]*duty               // by service
	hosts        int                            // of all duties
	changed      bool                           // specifier is to be made anew
	specifier    *healthv3.HealthCheckSpecifier // nil until the first plan
	sent         *healthv3.HealthCheckSpecifier
}

func newChecker(caller *auth.Caller) *checker {
	return &checker{
		caller: *caller, wake: make(chan struct{}, 1), ended: make(chan error, 1), interrupt: func() {},
		may: map[string]bool{}, duties: map[string]*duty{}, changed: true,
	}
}

// end makes the stream of c end with an error, if it has one, though it does not
// read. Only the first end counts. It does not wait.
func (c *checker) end(err error) {
	select {
	case c.ended <- err:
		c.interrupt()
	default:
	}
}

// counts reports whether what c says counts. Server.mu must be held.
func (c *checker) counts() bool { return !c.gone && !c.silent }

// mayCheck reports whether c may say something of a service's hosts, which takes
// what changing them takes. Server.mu must be held.
func (c *checker) mayCheck(service string) bool {
	may, asked := c.may[service]
	if !asked {
		may = c.caller.Registers(service)
		c.may[service] = may
	}
	return may
}

// wire is the gRPC stream of one checker.
type wire = grpc.BidiStreamingServer[healthv3.HealthCheckRequestOrEndpointHealthResponse, healthv3.HealthCheckSpecifier]

// StreamHealthCheck serves one checker: its first message says who it is, all
// later ones are reports. It is told what to check whenever that changes.
func (s *Server) StreamHealthCheck(w wire) error {
	caller := auth.FromContext(w.Context())
	// The gate lets it pass as a read; but its reports change what others see.
	if err := caller.MayWrite(); err != nil {
		return s.options.Refusal(err)
	}
	if !s.enter() {
		return s.tooMany()
	}
	defer s.exit()
	call, ok := grpchttp2.CallOf(w.Context())
	if !ok {
		return status.Error(codes.Internal, "health checkers are served by package grpchttp2 alone")
	}
	c := newChecker(caller)
	c.interrupt = call.Interrupt
	defer s.leave(c)
	defer context.AfterFunc(s.stopping, func() { c.end(errStopping) })()
	// Ends when the stream does, or is interrupted.
	go func() { c.end(s.receive(w, c)) }()
	for {
		select {
		case <-c.wake:
			if m := s.toSend(c, time.Now()); m != nil {
				if err := w.Send(m); err != nil {
					c.end(err) // unless it was why
				}
			}
		case err := <-c.ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

var errStopping = status.Error(codes.Unavailable, "this server is stopping")

// receive takes what a checker says until its stream ends.
func (s *Server) receive(w wire, c *checker) error {
	came := hello.Expect(c.end)
	defer came()
	m, err := w.Recv()
	if err != nil {
		return err
	}
	came()
	if err := s.join(c, m.GetHealthCheckRequest(), time.Now()); err != nil {
		return err
	}
	for {
		m, err := w.Recv()
		if err != nil {
			return err
		}
		if report := m.GetEndpointHealthResponse(); report != nil {
			s.take(c, report, time.Now())
		}
	}
}

// enter counts a stream, unless there are most of them already.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams >= s.options.MaxCheckers {
		return false
	}
	s.streams++
	return true
}

func (s *Server) exit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams--
}

func (s *Server) tooMany() error {
	s.metrics.refused.Inc()
	return status.Errorf(codes.ResourceExhausted, "%d health checkers are connected, the most that are served", s.options.MaxCheckers)
}

// longestID is how many bytes the id of a checker's node has at most.
const longestID = 1024

// join takes a checker in. One of the same node that is there already goes: it
// is an earlier connection, and two voices of one node are one. The error is a
// status.
func (s *Server) join(c *checker, m *healthv3.HealthCheckRequest, now time.Time) error {
	id := m.GetNode().GetId()
	if id == "" || len(id) > longestID {
		return status.Errorf(codes.InvalidArgument, "health_check_request.node.id: want 1 to %d bytes in the first message, got %d", longestID, len(id))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.gone {
		return status.Error(codes.Canceled, "the stream has ended")
	}
	if err := s.admit(c, id, m.GetNode().GetCluster()); err != nil {
		return err
	}
	if earlier := s.checkers[id]; earlier != nil {
		s.drop(earlier)
		earlier.end(status.Error(codes.Aborted, "another stream came with the same node id"))
	} else if len(s.checkers) >= s.options.MaxCheckers {
		return s.tooMany()
	}
	c.id, c.cluster, c.hash, c.heard = id, m.GetNode().GetCluster(), xxhash.Sum64String(id), now
	s.checkers[id] = c
	s.metrics.checkers.Set(float64(len(s.checkers)))
	s.checkersChanged()
	s.options.Log.Info("health checker connected", "node", id, "by", c.caller.Actor())
	return nil
}

// admit returns why a checker may not be a node, or say anything, by the rules that
// are in force now. The error is a status. s.mu must be held.
func (s *Server) admit(c *checker, id, cluster string) error {
	c.caller = c.caller.Now()
	clear(c.may)
	err := c.caller.MayWrite()
	if err == nil {
		err = c.caller.MayBeNode(id, cluster)
	}
	if err == nil {
		return nil
	}
	s.options.Log.Warn("health checker refused", "error", err)
	return s.options.Refusal(err)
}

// RecheckNodes lets those checkers go that may not be their nodes any more, and
// plans anew which services the others check.
func (s *Server) RecheckNodes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.checkers {
		if err := s.admit(c, c.id, c.cluster); err != nil {
			s.drop(c)
			c.end(err)
		}
	}
	s.checkersChanged()
}

// leave takes out a checker whose stream has ended, if it is in.
func (s *Server) leave(c *checker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.id != "" && !c.gone {
		s.drop(c)
		s.options.Log.Info("health checker gone", "node", c.id)
	}
	c.gone = true // its first message may just have been read
}

// drop undoes join. s.mu must be held.
func (s *Server) drop(c *checker) {
	c.gone = true
	delete(s.checkers, c.id)
	s.metrics.checkers.Set(float64(len(s.checkers)))
	s.checkersChanged()
}

// toSend returns what a checker has to be told, or nil if it was.
func (s *Server) toSend(c *checker, now time.Time) *healthv3.HealthCheckSpecifier {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.specifier == c.sent {
		return nil
	}
	if c.sent == nil {
		c.heard = now // it could not report before
	}
	c.sent = c.specifier
	s.metrics.specifiers.Inc()
	return c.sent
}
