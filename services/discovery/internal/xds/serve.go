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

	"github.com/weirproxy/weir/services/discovery/internal/hello"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// serve answers one stream until the client or the server ends it. It waits for
// the end in this goroutine; another receives, and a third sends for as long as
// there is something to send. So a client that does not read holds up nobody and
// can be dropped, and a stream at rest is two goroutines. One that waited for
// both would take no less memory: gRPC's frames below it and those of receiving
// fit into stacks of 4 KiB each, but not both into one.
func (s *Server) serve(wire grpc.ServerStream, only resources.Type, delta bool) error {
	st := s.newStream(wire.Context(), peerOf(wire.Context()), only, delta)
	st.number, st.until = s.lastStream.Add(1), s.limits.until(st.since)
	st.wake = (&sender{server: s, stream: st, wire: wire}).wake
	if err := s.hub.join(st); err != nil {
		return err
	}
	s.metrics.opened(only, delta, 1)
	defer s.metrics.opened(only, delta, -1)
	s.log.Info("stream opened", "stream", st.number, "peer", st.peer)
	defer func() {
		st.close() // after which no request changes anything
		s.log.Info("stream closed", "stream", st.number, "peer", st.peer, "node", st.node.id)
	}()

	// Ends when the stream does, which is when serve returns; nobody waits.
	go func() { st.end(s.receive(wire, st)) }()
	select {
	case err := <-st.ended:
		return err
	case <-s.stopping:
		return status.Error(codes.Unavailable, "this server is stopping")
	}
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

// receive takes in requests until the stream ends. It returns nil if the client
// ended it.
func (s *Server) receive(wire grpc.ServerStream, st *stream) error {
	came := hello.Expect(func(err error) {
		s.metrics.dropped.Inc()
		st.end(err)
	})
	defer came()
	pace := newBucket(s.limits.RequestRate)
	r := request{delta: st.delta}
	for {
		err := wire.RecvMsg(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.metrics.requests.Inc()
		came()
		err = st.request(&r)
		r.free()
		if err != nil {
			return err
		}
		// Who asks too often is read more slowly, and in the end held up by the
		// flow control of its connection.
		if !pace.wait(st.ctx) {
			return status.FromContextError(st.ctx.Err()).Err()
		}
	}
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
