package connpool

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Reader reads the response of an exchange, as http1.Reader does, which is one.
type Reader interface {
	// ReadHead reads the next head, interim or final.
	ReadHead(m *message.Response, method []byte) (keepAlive bool, err error)
	// Tunnel is what follows the head of a 101.
	Tunnel() message.Body
	// Buffered says whether anything came that no one has read.
	Buffered() bool
}

// Writer writes the request of an exchange, as http1.Writer does, which is one.
type Writer interface {
	WriteRequest(m *message.Request)
	WriteChunk(chunk []byte) error
	Finish(trailers *message.Headers)
	Flush() error
}

// transport is what cuts an exchange off: a connection of HTTP/1, or a stream.
type transport interface {
	// Close lets go of whoever reads or writes. It may be called by anyone.
	Close() error
	// SetReadDeadline bounds what is read from now on, and, of HTTP/2, what is
	// written.
	SetReadDeadline(at time.Time) error
}

// UnprocessedError says that the server has done nothing of a request, so that it
// is safe to send again, whatever it asks for: its connection took no more
// streams, or the server refused it (RFC 9113 §8.7). A body may be used up.
type UnprocessedError struct{ Err error }

func (e *UnprocessedError) Error() string { return e.Err.Error() }

// Unwrap returns what HTTP/2 has said.
func (e *UnprocessedError) Unwrap() error { return e.Err }

// ResetError says that the server has reset an exchange of HTTP/2.
type ResetError struct{ Err error }

func (e *ResetError) Error() string { return e.Err.Error() }

// Unwrap returns what HTTP/2 has said.
func (e *ResetError) Unwrap() error { return e.Err }

// connection is what connections of both versions of HTTP have in common.
type connection struct {
	// ID numbers the connections of a pool from 1.
	ID uint64
	// Local is our end.
	Local netip.AddrPort
	// Began and Connected are when the connect did and ended.
	Began, Connected time.Time

	pool   *Pool
	limits *breaker.Set // where it counts; may be nil

	// The pool's mutex guards what follows, but that of one of HTTP/1 in use, which is
	// its user's.

	// requests is how many have taken it so far.
	requests uint32
	since    time.Time // when it became idle; the zero time while it is in use
}

// take has the connection carry another request, and says whether it carried one
// before.
func (c *connection) take() (reused bool) {
	c.requests++
	c.since = time.Time{}
	return c.requests > 1
}

// worn says whether the connection carries no further request.
func (c *connection) worn() bool { return c.requests > 0 && c.requests == c.pool.options.MaxRequests }

// gone counts that the connection has ended, by its server or not, and how many
// requests that broke off, and makes room for another one.
func (c *connection) gone(remote bool, active int) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.worn() {
		p.options.Stats.Met(MaxRequests)
	}
	p.options.Stats.Closed(End{Age: time.Since(c.Connected), Remote: remote, Active: active, Requests: c.requests})
	p.leave(c.limits)
}

// Conn is a connection in use by one exchange, or a stream of one.
type Conn struct {
	*connection
	transport
	Reader Reader
	Writer Writer
	// Reused says that the connection carried a request before, so that its
	// server may be closing it just now.
	Reused bool

	exchange *exchange // of HTTP/2, else nil

	// Of HTTP/1.
	raw  syscall.RawConn
	peek func(fd uintptr)
	// quiet is what peek found: the server neither sent nor closed anything.
	quiet bool
	// answered and lost are what Answered and Lost have told.
	answered, lost bool
	// closed says that somebody has let go of its user by Close, be it only as the
	// response was whole already.
	closed         atomic.Bool
	received, sent uint64 // bytes, as far as they are counted
	// before is the connection's traffic when the exchange began.
	before struct{ received, sent message.Traffic }
}

// Traffic is how many bytes of the exchange have come from the server, and how many went
// out. Others may ask meanwhile.
func (c *Conn) Traffic() (received, sent message.Traffic) {
	if c.exchange != nil {
		return c.exchange.traffic()
	}
	received, sent = c.moved()
	return received.Minus(c.before.received), sent.Minus(c.before.sent)
}

// moved is the traffic of a connection of HTTP/1 in its whole life.
func (c *Conn) moved() (received, sent message.Traffic) {
	return c.Reader.(*http1.Reader).Traffic(), c.Writer.(*http1.Writer).Traffic()
}

// Sent grows with what has gone out, be it bytes or streams.
func (c *Conn) Sent() uint64 {
	if c.exchange != nil {
		return c.exchange.sent
	}
	return c.Writer.(*http1.Writer).Sent()
}

// ErrStale is that a connection was of no use any more before anything went out.
var ErrStale = errors.New("the server had closed the connection, or spoke unasked")

// Ask has write send a whole request, and may read what comes first of the answer. It
// is for HTTP/1 alone. Errors are those of write and of reading, and ErrStale, of a
// connection that carried a request before, for which this one does not count.
func (c *Conn) Ask(write func() error) error {
	err := c.Reader.(*http1.Reader).ReadAfter(write)
	if !errors.Is(err, http1.ErrUnasked) {
		return err
	}
	if c.Reused {
		c.requests--
		c.answered, c.lost = true, true // it was idle still
		return ErrStale
	}
	return write() // and the next read sees what it says
}

// AwaitTunnels waits until the server has said whether it takes a request with an
// Upgrade: one of HTTP/2 does at the begin of its connection (RFC 8441 §3). The
// error is that of ctx, or, if the connection ended, an *UnprocessedError.
func (c *Conn) AwaitTunnels(ctx context.Context) error {
	if c.exchange == nil {
		return nil
	}
	err := c.exchange.shared.client.AwaitSettings(ctx)
	if err != nil && !errors.Is(err, ctx.Err()) {
		return &UnprocessedError{err}
	}
	return err
}

// HTTP2 says whether the exchange is one of HTTP/2.
func (c *Conn) HTTP2() bool { return c.exchange != nil }

// Close cuts the exchange off: whoever reads or writes meets an error. It may be called
// by anyone, until the connection is given back or discarded.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.transport.Close()
}

// Answered says that the whole response is here, so that Discard breaks no request off.
func (c *Conn) Answered() { c.answered = true }

// Lost says that the server has ended the connection, as far as writing to it has shown:
// what was read shows it by itself.
func (c *Conn) Lost() { c.lost = true }

// CloseAnnounced says whether the server has announced, with the response whose head was
// read last, that it closes the connection. One of HTTP/2 does by GOAWAY, of which the
// codec tells.
func (c *Conn) CloseAnnounced() bool {
	return c.exchange == nil && c.Reader.(*http1.Reader).Closes()
}

// CloseWrite tells the server that nothing more comes, for a protocol that is not
// HTTP: of HTTP/2 the Writer's Finish has.
func (c *Conn) CloseWrite() {
	if half, ok := c.transport.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails only once closed
	}
}

// take has the connection, which is of HTTP/1, carry another request.
func (c *Conn) take() *Conn {
	c.Reused, c.answered = c.connection.take(), false
	c.before.received, c.before.sent = c.moved()
	return c
}

// Release gives the connection back for the next exchange, of whoever waits for one,
// or else comes next. The last one must have been read to its end; what the server sent
// beyond it costs it the connection, and so do MaxRequests, MaxDuration, and a Close that
// came too late to break the exchange off.
func (c *Conn) Release() {
	p := c.pool
	if x := c.exchange; x != nil {
		x.end()
		p.put(x.shared)
		x.reset()
		c.connection = nil
		p.spare.Put(c)
		return
	}
	c.since = time.Now()
	c.count()
	if c.closed.Load() || c.Reader.Buffered() || c.worn() || c.expire(c.since) {
		c.Discard()
		return
	}
	p.mu.Lock()
	waited, closed := len(p.queue) > 0, p.closed
	switch {
	case waited:
		p.grantFirst(grant{conn: c.take()})
		if len(p.queue) > 0 { // which wait on, and are counted again, as in Envoy
			p.options.Stats.Met(MaxConnections)
		}
	case !closed:
		p.idle = append(p.idle, c)
		p.awaitExpiry(c.connection)
	}
	p.mu.Unlock()
	if !waited && closed {
		c.Discard()
	}
}

// Return is Release for a connection on which nothing went out, so that it counts as
// no request.
func (c *Conn) Return() {
	if x := c.exchange; x != nil {
		c.pool.forgo(x.shared)
	} else {
		c.requests--
	}
	c.Release()
}

// Discard closes the connection; of HTTP/2 it resets the stream. Who writes beside
// it meets an error.
func (c *Conn) Discard() {
	if x := c.exchange; x != nil {
		x.end()
		c.pool.put(x.shared)
		return
	}
	// Nothing waits for what a close could report.
	_ = c.Close()
	c.count()
	active := 0
	if c.since.IsZero() && !c.answered {
		active = 1
	}
	c.gone(c.lost || c.Reader.(*http1.Reader).Ended(), active)
}

// dismiss closes a connection, of HTTP/1, that is idle. Its server may have been first.
func (c *Conn) dismiss() {
	if !c.usable() {
		c.Lost()
	}
	c.Discard()
}

// count tells of the bytes that a connection of HTTP/1 has moved since the last time.
// Another goroutine may write meanwhile, but none read.
func (c *Conn) count() {
	received, sent := c.Reader.(*http1.Reader).Received(), c.Sent()
	c.pool.options.Stats.Moved(received-c.received, sent-c.sent)
	c.received, c.sent = received, sent
}

// usable looks, without blocking, whether the server sent or closed anything
// since the last exchange. That catches most of the connections which a server
// closed for being idle before a request is lost on them.
func (c *Conn) usable() bool {
	return c.raw.Control(c.peek) == nil && c.quiet
}

func (c *Conn) peekSocket(fd uintptr) { c.quiet = http1.Quiet(fd) }
