package xds

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/services/discovery/internal/hello"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// serve begins one stream, or refuses it with a status. It goes on when serve has
// returned, until the client or the server ends it: requests are taken in on a
// goroutine of the gRPC server's, which has gone once none is left to read, and
// responses are sent on another, which is there as long as there is something to
// send. So a client that does not read holds up that one alone and can be dropped, and
// a stream at rest is no goroutine at all.
func (s *Server) serve(wire grpc.ServerStream, only resources.Type, delta bool) error {
	call, ok := grpchttp2.CallOf(wire.Context())
	if !ok {
		return status.Error(codes.Internal, "streams of xDS are served by package grpchttp2 alone")
	}
	st := s.newStream(wire.Context(), peerOf(wire.Context()), only, delta)
	st.number, st.until = s.lastStream.Add(1), s.limits.until(st.since)
	st.wake = (&sender{server: s, stream: st, wire: wire}).wake
	st.interrupt = call.Interrupt
	if err := s.hub.join(st); err != nil {
		return err
	}
	s.metrics.opened(only, delta, 1)
	s.log.Info("stream opened", "stream", st.number, "peer", st.peer)
	select {
	case <-s.stopping:
		st.end(errStopping) // Stop may have looked for streams before it came
	default:
	}
	r := &receiver{server: s, stream: st, wire: wire, pace: newBucket(s.limits.RequestRate)}
	r.came = hello.Expect(func(err error) {
		s.metrics.dropped.Inc()
		st.end(err)
	})
	call.Later(r.receive)
	return nil
}

var errStopping = status.Error(codes.Unavailable, "this server is stopping")

// close lets a stream go.
func (s *Server) close(st *stream) {
	st.close() // after which no request changes anything
	s.log.Info("stream closed", "stream", st.number, "peer", st.peer, "node", st.node.id)
	s.metrics.opened(st.only, st.delta, -1)
}

// newStream makes a stream of who opened it. Nothing wakes it yet.
func (s *Server) newStream(ctx context.Context, from string, only resources.Type, delta bool) *stream {
	return &stream{
		hub: s.hub, only: only, delta: delta, limits: &s.limits, ctx: ctx, peer: from,
		identity: s.identity(ctx), since: time.Now(), log: s.log, ended: make(chan error, 1),
	}
}

// until is when a stream is too old that was opened at a time; zero for never.
// Streams that came at once shall not go at once.
func (l *Limits) until(since time.Time) time.Time {
	if l.MaxAge <= 0 {
		return time.Time{}
	}
	return since.Add(l.MaxAge + time.Duration(rand.Int64N(int64(l.MaxAge/5)+1))) //nolint:gosec // no secret
}

// peerOf is the address of who calls over gRPC.
func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// receiver takes in the requests of a stream.
type receiver struct {
	server *Server
	stream *stream
	wire   grpc.ServerStream
	pace   *bucket
	came   func() // is called when the first request is there, or the stream ends
}

// receive takes in one request, and reports whether the stream goes on. If not, err
// is how it ends: nil if the client or the server ended it as it should.
func (r *receiver) receive() (more bool, err error) {
	err = r.one()
	if err == nil {
		return true, nil
	}
	r.came()
	r.server.close(r.stream)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	select {
	case err = <-r.stream.ended: // why it was interrupted
	default:
	}
	return false, err
}

// one is receive without what follows the end. io.EOF is the client's.
func (r *receiver) one() error {
	q := request{delta: r.stream.delta}
	if err := r.wire.RecvMsg(&q); err != nil {
		return err
	}
	r.server.metrics.requests.Inc()
	r.came()
	err := r.stream.request(&q)
	q.free()
	if err != nil {
		return err
	}
	// Who asks too often is read more slowly, and in the end held up by the
	// flow control of its stream; the others of its connection go on.
	if !r.pace.wait(r.stream.ctx) {
		return status.FromContextError(r.stream.ctx.Err()).Err()
	}
	return nil
}

// sender sends what a stream has to send, in a goroutine that is there only
// while there is something.
type sender struct {
	server   *Server
	stream   *stream
	wire     grpc.ServerStream
	admitted bool // only the sending goroutine uses it

	mu             sync.Mutex
	running, again bool
}

// wake makes sure that the stream is looked at after this call. It never waits.
func (s *sender) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		s.again = true
		return
	}
	s.running = true
	// Ends when there is nothing more to send, or with the stream, by which Send
	// fails; nobody waits.
	go s.run()
}

func (s *sender) run() {
	for {
		for s.one() {
		}
		s.mu.Lock()
		if !s.again {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.again = false
		s.mu.Unlock()
	}
}

// one sends the next response, and reports whether there was one that could be
// sent. No lock is held meanwhile.
func (s *sender) one() bool {
	if !s.admitted {
		// After a mass reconnect everybody wants a first answer, and all at once
		// when the hub becomes ready: a place taken before that would be of no use.
		if !s.stream.maySend() || !s.server.admission.wait(s.stream.ctx) {
			return false
		}
		s.admitted = true
	}
	r := s.stream.next(time.Now())
	if r == nil {
		return false
	}
	message := s.server.form.encode(r)
	s.server.metrics.bytes[r.typ].Add(float64(message.Len()))
	if err := s.wire.SendMsg(message); err != nil {
		s.stream.end(err)
		return false
	}
	if !r.since.IsZero() {
		s.server.metrics.pushed.Observe(time.Since(r.since).Seconds())
	}
	return true
}
