package hcm

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// watch ends streams that run out of time, or whose client left: one at a time,
// for as long as its owner lives. It belongs to no codec. Its timer runs past the
// end of a stream and is set again only if it must go off earlier, so that a
// short stream costs no timer.
type watch struct {
	manager *manager
	// cut lets go of whoever waits for the client of an expired stream, within the
	// response or before it.
	cut func(responding bool)
	// received says whether the client's whole request is here.
	received func() bool
	// peerClosed says whether the client has closed. It is asked only once the request
	// is received, when nobody reads from the client.
	peerClosed func() bool
	base       time.Time
	// last is when anything moved, since base.
	last atomic.Int64

	mu     sync.Mutex
	timer  *time.Timer
	wake   time.Time      // when timer goes off, zero if it does not
	stream *stream.Stream // nil between streams
	cuts   bool           // every stream, from its start
	// The limits of stream, zero for none.
	start                   time.Time
	idle, duration, request time.Duration
	// flushing says that what is left of the response is the client's to take, which
	// may take as long as flushes; negative is idle.
	flushing bool
	flushes  time.Duration
	oneWay   bool // the client has no more to say than its request, and has left if it closes
}

// deadlineExceeded is DEADLINE_EXCEEDED of gRPC.
const deadlineExceeded = 4

// The ends of streams, by what the request was like: not yet whole, or whole.
var (
	idleRequest      = &stream.Expiry{Status: 408, Text: "stream timeout", Details: "stream_idle_timeout", Flags: format.StreamIdleTimeout}
	idleResponse     = &stream.Expiry{Status: 504, Text: "stream timeout", Details: "stream_idle_timeout", Flags: format.StreamIdleTimeout}
	durationRequest  = &stream.Expiry{Status: 408, Text: "downstream duration timeout", Details: "max_duration_timeout", GRPCStatus: deadlineExceeded} // as in Envoy
	durationResponse = &stream.Expiry{Status: 504, Text: "downstream duration timeout", Details: "max_duration_timeout", GRPCStatus: deadlineExceeded}
	headerTime       = &stream.Expiry{Status: 408, Text: "request header timeout", Details: "request_header_timeout"}
	requestTime      = &stream.Expiry{Status: 408, Text: "request timeout", Details: "request_overall_timeout"}

	// That nobody is told: the client closed its connection, or reset its stream.
	clientClosed = &stream.Expiry{Details: "downstream_remote_disconnect", Flags: format.DownstreamConnectionTermination}
	clientReset  = &stream.Expiry{Details: "http2.remote_reset", Flags: format.DownstreamRemoteReset}
	// Or the proxy closed it, as the time for its end was up.
	proxyClosed = &stream.Expiry{Details: "downstream_local_disconnect", Flags: format.DownstreamConnectionTermination}
)

// lastWords is how long the client may take over the answer of a stream that is out of
// time.
const lastWords = time.Second

// errLeft is what breaks off the response to a client that left.
var errLeft = errors.New("the client left")

// abandon leaves a stream without a response, which nobody gets.
func abandon(s *stream.Stream) error {
	s.Response.Headers.Reset()
	s.Response.Status, s.Facts.ResponseCode = 0, 0
	return errLeft
}

// leaving is how the client left whose stream ended with err, or was left.
func leaving(err error) *stream.Expiry {
	if errors.Is(err, http2.ErrClosed) || errors.Is(err, net.ErrClosed) {
		return proxyClosed
	}
	if reset, ok := errors.AsType[*http2.StreamError](err); ok && reset.Remote {
		return clientReset
	}
	return clientClosed
}

// headLimit is the first of the limits that run from the first byte of a request on,
// which are all that can end it within its head; after is 0 if there is none.
type headLimit struct {
	after time.Duration
	why   *stream.Expiry
}

// lookInterval is how often a client is looked after while it waits.
const lookInterval = time.Second

// begin watches s, which has its limits and whose head has just been read, until end.
func (w *watch) begin(s *stream.Stream, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream, w.start = s, s.Start
	w.idle, w.duration, w.request = s.IdleTimeout, s.MaxDuration, w.manager.requestTimeout
	w.flushes, w.flushing = s.FlushTimeout, false
	if w.oneWay = len(s.Request.Upgrade) == 0; !w.oneWay {
		w.request = 0 // it never ends
	}
	w.touch(now)
	w.arm(now)
	if w.cuts {
		s.Expire(proxyClosed)
	}
}

// flush notes that the client alone holds up the rest of the response.
func (w *watch) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushing = true
	if w.flushes >= 0 {
		w.idle = w.flushes
		w.arm(time.Now())
	}
}

// cutOff lets go of whoever waits for an upstream, now and in streams to come.
func (w *watch) cutOff() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts = true
	if w.stream != nil {
		w.stream.Expire(proxyClosed)
	}
}

// end stops watching.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream = nil
}

// stop ends the watch for good.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

// touch notes that something moved: a head or a chunk, in either direction.
func (w *watch) touch(now time.Time) { w.last.Store(int64(now.Sub(w.base))) }

// arm sees to it that the timer goes off no later than the first limit.
func (w *watch) arm(now time.Time) {
	var next time.Time
	limit := func(at time.Time, timeout time.Duration) {
		if at = at.Add(timeout); timeout > 0 && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	limit(w.moved(), w.idle)
	limit(w.start, w.duration)
	if w.request > 0 && !w.received() {
		limit(w.start, w.request)
	}
	limit(now, lookInterval)
	if !w.wake.IsZero() && !w.wake.After(next) {
		return
	}
	w.wake = next
	if w.timer == nil {
		w.timer = time.AfterFunc(next.Sub(now), w.fire)
		return
	}
	w.timer.Reset(next.Sub(now))
}

func (w *watch) moved() time.Time { return w.base.Add(time.Duration(w.last.Load())) }

// fire looks which limit is reached, and waits for the next one if none is.
func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake = time.Time{}
	if w.stream == nil {
		return
	}
	now := time.Now()
	reached := func(at time.Time, timeout time.Duration) bool { return timeout > 0 && now.Sub(at) >= timeout }
	received := w.received()
	var why *stream.Expiry
	switch {
	case reached(w.start, w.duration):
		why = durationResponse
		if !received {
			why = durationRequest
		}
	case !received && reached(w.start, w.request):
		why = requestTime
	case reached(w.moved(), w.idle):
		why = idleResponse
		if !received {
			why = idleRequest
		}
	case received && w.oneWay && w.peerClosed():
		why = clientClosed
	default:
		w.arm(now)
		return
	}
	if stats := w.manager.stats; w.flushing && (why == idleRequest || why == idleResponse) {
		stats.http2.flushTimeouts.Inc()
	} else {
		stats.countExpiry(why)
	}
	w.cut(w.stream.Expire(why))
}
