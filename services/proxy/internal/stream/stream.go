// Package stream is the state of one request on its way through the proxy:
// its heads and bodies, the client, and what routing decided. The connection
// manager makes it, each filter reads and changes it, the router completes
// it. It does nothing by itself.
package stream

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/hold"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
)

// Stream is one request and its response. The connection manager uses it again
// for the next request of the same connection: nothing may keep it, or a view
// of its bytes, beyond the filters' last step. Fields are set in their order.
//
// Whoever blocks for it holds what ends that. Other than the rest of a Stream, Cut may be
// called from any goroutine. The Holder's Traffic is what came from hosts, and what went
// to them, in all attempts.
type Stream struct {
	hold.Holder
	// Context ends when the process gives up waiting for the stream; what
	// blocks must heed it, or be held by Hold. It has no deadline, and does not
	// end when the client leaves.
	Context context.Context
	// Start is when the first byte of the request came.
	Start time.Time
	// IdleTimeout is how long nothing may move in either direction before the
	// stream is given up; 0 is as long as it takes.
	IdleTimeout time.Duration
	// FlushTimeout is how long a client of HTTP/2 may take nothing of what is left of
	// the response, once that is all that is to come; 0 is as long as it takes, and a
	// negative one is IdleTimeout.
	FlushTimeout time.Duration
	// MaxDuration is how long the stream may take as a whole; 0 is as long as it
	// takes.
	MaxDuration time.Duration
	// BodyBufferLimit is how many bytes of the request's body may be kept for it to be
	// sent again.
	BodyBufferLimit uint64
	// ClientAddress is the client that is trusted to be the one: the peer, or
	// what x-forwarded-for says of it, by the rules of use_remote_address.
	ClientAddress netip.Addr
	// Random is a number of this stream alone, by which shares and weights are
	// held.
	Random uint64
	// Runtime has the values that hold for the stream; nil is none.
	Runtime *layeredruntime.Snapshot
	// Request is what the client sent, as the filters so far left it.
	Request message.Request

	// Route is nil if none matched.
	Route *route.Route
	// Cluster is the one that Route, or the header that it says, names; nil if
	// there is none of that name now, and if the route answers by itself.
	Cluster *cluster.Cluster
	// Hash binds the request to a host of the cluster, if Hashed is set.
	Hash   uint64
	Hashed bool
	// Scratch is memory for bytes that are made while the stream lives, such as
	// a rewritten path. It is appended to, and emptied by Reset.
	Scratch []byte

	// Response is what goes to the client: the upstream's, or a local reply.
	Response message.Response
	// Interim sends an interim response (1xx) to the client, before Response; its
	// headers must be those of one that has none of another hop. Nil where such
	// are not wanted. The error is that of the client's connection.
	Interim func(*message.Response) error
	// Progress is called by who forwards the request when Facts has more to tell and may
	// then stay as it is for long; nil where nobody listens.
	Progress func()
	// Facts is what access logs and header formats tell of the stream. Who
	// makes a fact notes it here; who replies in place of the upstream says
	// why in Details and Flags.
	Facts format.Facts

	mu sync.Mutex
	// expiry is why the stream is out of time, nil while it is not.
	expiry *Expiry
	// responding says that the response goes to the client.
	responding bool
}

// Expiry is a limit in time that a stream has reached, or that its client left; what the
// client is told if the response has not begun, and what access logs are.
type Expiry struct {
	// Status is 0 if the client left: there is nobody to tell.
	Status  int
	Text    string
	Details string
	Flags   format.Flags
	// GRPCStatus is what a client of gRPC is told; 0 is what Status stands for.
	GRPCStatus int
}

// ClientLeft says that the stream ended since its client left, or was left as the proxy
// ends, so that nobody waits for a response. Nil is a stream that goes on.
func (e *Expiry) ClientLeft() bool { return e != nil && e.Status == 0 }

// Tell notes why the stream is out of time.
func (e *Expiry) Tell(f *format.Facts) { f.Details, f.Flags = e.Details, f.Flags|e.Flags }

// Expire ends the stream for want of time, and cuts it. The first reason stays. It says
// whether the response has begun, so that only what writes to the client can break it off.
// It may be called from any goroutine.
func (s *Stream) Expire(why *Expiry) (responding bool) {
	s.mu.Lock()
	if s.expiry == nil {
		s.expiry = why
	}
	responding = s.responding
	s.mu.Unlock()
	s.Cut()
	return responding
}

// ExpireUnanswered is Expire as long as the response has not begun. It may be called from
// any goroutine.
func (s *Stream) ExpireUnanswered(why *Expiry) {
	s.mu.Lock()
	if !s.responding && s.expiry == nil {
		s.expiry = why
	}
	expired := s.expiry != nil
	s.mu.Unlock()
	if expired {
		s.Cut()
	}
}

// BeginResponse says that the response goes to the client from now on, and returns why
// the stream is out of time before, nil if it is not: whoever makes it Expire is either
// told that the response has begun, or heard of here.
func (s *Stream) BeginResponse() *Expiry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responding = true
	return s.expiry
}

// Expired is why the stream is out of time, nil while it is not.
func (s *Stream) Expired() *Expiry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry
}

// MutateRequest changes the request's headers as the route wants it. The router
// calls it before it rewrites host or path.
func (s *Stream) MutateRequest() {
	if s.Route != nil {
		s.Route.MutateRequest(&s.Request.Headers, &s.Facts)
	}
}

// MutateResponse changes the response's headers as the route wants it, be the
// response the upstream's or ours. The chain calls it before the filters see
// the response.
func (s *Stream) MutateResponse() {
	if s.Route != nil {
		s.Route.MutateResponse(&s.Response.Headers, &s.Facts)
	}
}

// Reset empties the stream for the next request of the same connection and
// keeps its memory, and what is known of the connection.
func (s *Stream) Reset() {
	s.Route, s.Cluster, s.Interim, s.Progress, s.Runtime = nil, nil, nil, nil, nil
	s.Hash, s.Hashed, s.Scratch = 0, false, s.Scratch[:0]
	s.Request.Method, s.Request.Path, s.Request.Authority, s.Request.Scheme = nil, nil, nil, nil
	s.Request.Body, s.Response.Body = nil, nil
	s.Request.Upgrade = nil
	s.Request.Headers.Reset()
	s.Request.Trailers.Reset()
	s.Response.Headers.Reset()
	s.Response.Trailers.Reset()
	s.Response.Status = 0
	s.mu.Lock()
	s.expiry, s.responding = nil, false
	s.mu.Unlock()
	s.Renew()
	s.Facts.Reset(&s.Request, &s.Response, s.Facts.Connection)
	s.Facts.Upstream = s
}
