// Package connpool keeps the HTTP/1 connections to one upstream host: idle
// ones for the next request, new ones when there is none, and a queue of requests
// when there may be no new ones. The router takes a connection for one exchange
// and gives it back or discards it; a host owns its pool, which ends with it. The
// pool retries nothing and picks no host.
package connpool

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
)

// Options says how a pool connects.
type Options struct {
	// ConnectTimeout bounds one connect.
	ConnectTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request.
	IdleTimeout time.Duration
	// Limits bounds the heads of responses.
	Limits http1.Limits
	// HTTP1 is what the connections' readers and writers do beyond the rules.
	HTTP1 http1.Options
	// ProperCase capitalises field names of requests (http1.Writer).
	ProperCase bool
	// Opened and Closed are called for each connection, to count it. They must
	// not block.
	Opened, Closed func()
	// Overflowed, if not nil, is called for each request that waits since there are
	// as many connections as may be. It must not block.
	Overflowed func()
}

// Pool holds the connections to one address. It is safe for use by many
// goroutines.
type Pool struct {
	options Options
	address atomic.Pointer[string]

	made atomic.Uint64 // connections

	mu     sync.Mutex
	idle   []*Conn  // the one used last is at the end, and is taken first
	queue  []waiter // in the order of their coming
	open   int      // connections, idle, in use and in the making
	closed bool
}

// New makes an empty pool for a TCP address, "ip:port".
func New(address string, options Options) *Pool {
	p := &Pool{options: options}
	p.Readdress(address)
	return p
}

// Readdress makes address that of the connections to come; those that are
// there stay in use.
func (p *Pool) Readdress(address string) { p.address.Store(&address) }

// Conn is a connection in use by one exchange.
type Conn struct {
	net.Conn
	Reader *http1.Reader
	Writer *http1.Writer
	// Reused says that the connection carried a request before, so that its
	// server may be closing it just now.
	Reused bool
	// ID numbers the connections of a pool from 1.
	ID uint64
	// Local is our end.
	Local netip.AddrPort
	// Began and Connected are when the connect did and ended.
	Began, Connected time.Time

	pool   *Pool
	limits *breaker.Set // where it counts; may be nil
	raw    syscall.RawConn
	peek   func(fd uintptr)
	// quiet is what peek found: the server neither sent nor closed anything.
	quiet bool
	since time.Time // when it became idle
}

// Idle returns the idle connection used last, or nil if there is none. It does
// not block.
func (p *Pool) Idle() *Conn {
	for {
		c := p.takeIdle()
		if c == nil {
			return nil
		}
		if time.Since(c.since) < p.options.IdleTimeout && c.usable() {
			c.Reused = true
			return c
		}
		c.Discard()
	}
}

// Get returns the idle connection used last, or a new one; or, if limits has no
// more of those, the next one that is given back. Limits may be nil. The error is
// ErrOverflow, a *EjectedError, that of ctx or that of the connect, which does
// not name the host.
func (p *Pool) Get(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	if c := p.Idle(); c != nil {
		return c, nil
	}
	if limits == nil {
		return p.wait(ctx, nil)
	}
	if !limits.PendingRequests.Acquire() {
		return nil, ErrOverflow
	}
	defer limits.PendingRequests.Release()
	return p.wait(ctx, limits)
}

// Connect makes a new connection, even if there are idle ones, and whatever the
// limits: it is for a request that had one, and counts there.
func (p *Pool) Connect(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	if limits != nil {
		limits.Connections.Take()
	}
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	return p.connect(ctx, limits)
}

// connect makes a connection for which there is room.
func (p *Pool) connect(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	c, err := p.dial(ctx)
	if err != nil {
		if ctx.Err() == nil { // else it says nothing of the host
			p.eject(err)
		}
		p.leave(limits)
		return nil, err
	}
	c.limits = limits
	p.options.Opened()
	return c, nil
}

func (p *Pool) dial(ctx context.Context) (*Conn, error) {
	began := time.Now()
	dialer := net.Dialer{Timeout: p.options.ConnectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", *p.address.Load())
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := &Conn{
		Conn:   conn,
		Reader: http1.NewReader(conn, p.options.Limits),
		Writer: http1.NewWriter(conn),
		ID:     p.made.Add(1),
		Local:  conn.LocalAddr().(*net.TCPAddr).AddrPort(),
		Began:  began,
		pool:   p,
		raw:    raw,
	}
	c.Reader.Options = p.options.HTTP1
	c.Writer.Trailers, c.Writer.ProperCase = p.options.HTTP1.Trailers, p.options.ProperCase
	c.Connected = time.Now()
	c.peek = c.peekSocket
	return c, nil
}

func (p *Pool) takeIdle() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return c
}

// Close closes all idle connections; those in use are closed as they are given
// back. A closed pool still connects, for exchanges that began before.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.Discard()
	}
}

// CloseExpired closes the connections that were idle for too long.
func (p *Pool) CloseExpired(now time.Time) {
	p.mu.Lock()
	old := 0
	for old < len(p.idle) && now.Sub(p.idle[old].since) >= p.options.IdleTimeout {
		old++
	}
	expired := slices.Clone(p.idle[:old])
	p.idle = slices.Delete(p.idle, 0, old)
	p.mu.Unlock()
	for _, c := range expired {
		c.Discard()
	}
}

// Release gives the connection back for the next exchange, of whoever waits for
// one, or else comes next. The last one must
// have been read to its end; what the server sent beyond it costs it the
// connection.
func (c *Conn) Release() {
	if c.Reader.Buffered() {
		c.Discard()
		return
	}
	c.since = time.Now()
	p := c.pool
	p.mu.Lock()
	c.Reused = true
	taken := p.grantFirst(grant{conn: c})
	closed := p.closed
	if !taken && !closed {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !taken && closed {
		c.Discard()
	}
}

// Discard closes the connection.
func (c *Conn) Discard() {
	// Nothing waits for what a close could report.
	_ = c.Conn.Close()
	c.pool.options.Closed()
	c.pool.leave(c.limits)
}

// usable looks, without blocking, whether the server sent or closed anything
// since the last exchange. That catches most of the connections which a server
// closed for being idle before a request is lost on them.
func (c *Conn) usable() bool {
	return c.raw.Control(c.peek) == nil && c.quiet
}

func (c *Conn) peekSocket(fd uintptr) {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	c.quiet = err == syscall.EAGAIN
}
