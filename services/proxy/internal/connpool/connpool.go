// Package connpool keeps the connections to one upstream host. Of HTTP/1 it has
// idle ones for the next request, and makes new ones when there is none; of HTTP/2
// it has one that all requests share, and more when that is full. Where there may be
// no new ones, requests queue. Package upstream takes a Conn for one exchange and gives it
// back or discards it; a host owns its pools, which end with it. A pool retries
// nothing and picks no host.
package connpool

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
)

// Options says how a pool connects.
type Options struct {
	// ConnectTimeout bounds one connect.
	ConnectTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request; 0 is
	// without limit.
	IdleTimeout time.Duration
	// MaxRequests is how many requests a connection carries in all; 0 is any number.
	MaxRequests uint32
	// MaxDuration is how old a connection may be for a further request; 0 is without
	// limit.
	MaxDuration time.Duration
	// Limits bounds the heads of responses.
	Limits http1.Limits
	// HTTP1 is what the connections' readers and writers do beyond the rules.
	HTTP1 http1.Options
	// HTTP2, if set, has the pool speak HTTP/2, by prior knowledge. Limits, HTTP1
	// and ProperCase are then of no use.
	HTTP2 *http2.ClientOptions
	// MaxStreams is how many exchanges of HTTP/2 a connection carries at once, if the
	// server does not want fewer; 0 is 1024.
	MaxStreams uint32
	// ProperCase capitalises field names of requests (http1.Writer).
	ProperCase bool
	// Stats counts.
	Stats Stats
	// Open is how many connections the host has, idle, in use and in the making, for
	// pools that share one; nil has the pool count its own alone.
	Open *atomic.Int64
}

// Stats counts what becomes of connections, and of requests that want one. Its methods
// must neither block nor call the pool.
type Stats interface {
	ConnectStats
	ConnectionStats
	// Met is told of each connection and each request that met a limit.
	Met(Limit)
	// Cancelled is told of each request that waits for a connection no longer, since its
	// context has ended.
	Cancelled()
}

// ConnectStats counts connects.
type ConnectStats interface {
	// Began is told of each connect, as it begins, and Unmade of the end of each that made
	// no connection: whether the server refused it, or it was given up.
	Began()
	Unmade(remote bool)
	// Opened is told of each connection, and of how long its connect took.
	Opened(connect time.Duration)
	// Failed is told why a connect failed, or why a connection took no request. It is
	// not told of a connect that was given up.
	Failed(cause error)
}

// ConnectionStats counts connections.
type ConnectionStats interface {
	// Moved is told of bytes that were received and sent: at the end of each exchange,
	// and of each connection.
	Moved(received, sent uint64)
	// Closed is told of the end of each connection.
	Closed(End)
}

// End is how a connection ended.
type End struct {
	// Age is how long it was there.
	Age time.Duration
	// Remote says that the server has ended it, rather than the pool or its user.
	Remote bool
	// Active is how many requests had no whole response then.
	Active int
	// Requests is how many it carried in all.
	Requests uint32
}

// Limit is what ended a connection, or has a request wait for one.
type Limit uint8

// The limits.
const (
	// MaxRequests has ended a connection that carried Options.MaxRequests.
	MaxRequests Limit = iota
	// IdleTimeout has ended one that waited for its next request for too long.
	IdleTimeout
	// MaxDuration has ended one that was old enough, at once or with its last request.
	MaxDuration
	// KeepaliveTimeout has ended one of HTTP/2 whose server answered no PING
	// (http2.Options.KeepaliveTimeout).
	KeepaliveTimeout
	// MaxConnections has a request wait, or a pool's first connection made all the same:
	// there are as many connections as may be, of the cluster or of the host
	// (Thresholds.max_connections).
	MaxConnections
	// MaxPools has a request go without a connection: as many pools of the cluster have
	// some as may (Thresholds.max_connection_pools).
	MaxPools
)

// Pool holds the connections to one address. It is safe for use by many
// goroutines.
type Pool struct {
	options Options
	address atomic.Pointer[string]

	made atomic.Uint64 // connections

	mu     sync.Mutex
	idle   []*Conn   // the one used last is at the end, and is taken first
	queue  []*waiter // in the order of their coming
	open   int       // connections, idle, in use and in the making
	closed bool
	// counted is where the pool counts as one that has connections, nil while it has
	// none.
	counted *breaker.Set
	expiry  expiry

	// Of HTTP/2.
	most    int // exchanges of a connection
	allowed int // of them, as many as a server let us have last
	shared  []*shared
	// expected is how many of those who wait the connections that are on their way
	// are expected to be enough for.
	expected int
	spare    sync.Pool // *Conn
}

// New makes an empty pool for a TCP address, "ip:port".
func New(address string, options Options) *Pool {
	most := int(cmp.Or(options.MaxStreams, 1024))
	options.Open = cmp.Or(options.Open, new(atomic.Int64))
	p := &Pool{options: options, most: most, allowed: most}
	p.Readdress(address)
	return p
}

// Readdress makes address that of the connections to come; those that are
// there stay in use.
func (p *Pool) Readdress(address string) { p.address.Store(&address) }

// Idle returns the idle connection used last, or of HTTP/2 a stream of a connection
// that has room; nil if there is none. It does not block.
func (p *Pool) Idle() *Conn { return p.takeUsable((*Conn).usable) }

// IdleUnseen is Idle without a look whether the server has closed the connection: Ask
// looks.
func (p *Pool) IdleUnseen() *Conn { return p.takeUsable(func(*Conn) bool { return true }) }

func (p *Pool) takeUsable(usable func(*Conn) bool) *Conn {
	if p.options.HTTP2 != nil {
		p.mu.Lock()
		c, reused := p.takeShared()
		p.mu.Unlock()
		if c == nil {
			return nil
		}
		return p.exchange(c, reused)
	}
	for {
		c := p.takeIdle()
		if c == nil {
			return nil
		}
		if !c.expire(time.Now()) && usable(c) {
			return c.take()
		}
		c.dismiss()
	}
}

// Get returns what Idle does, or a new connection; or, if limits has no more of
// those, the next one that is given back. Limits may be nil. The error is
// ErrOverflow, ErrPools, that of ctx or that of a connect, this request's or another's, which
// does not name the host.
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
// limits: it is for a request that had one, and counts there. Of HTTP/2 it waits as
// Get does, which uses no connection that is known to be of no use.
func (p *Pool) Connect(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	if p.options.HTTP2 != nil {
		return p.waitShared(ctx, limits)
	}
	if limits != nil {
		limits.Connections.Take()
	}
	p.mu.Lock()
	p.enter(limits)
	p.mu.Unlock()
	return p.connect(ctx, limits)
}

// connect makes a connection of HTTP/1 for which there is room.
func (p *Pool) connect(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	conn, made, err := p.dial(ctx, limits)
	var raw syscall.RawConn
	if err == nil {
		raw, err = conn.(*net.TCPConn).SyscallConn() // fails only once closed
	}
	switch {
	case err == nil:
	case over(ctx): // which says nothing of the host
		p.options.Stats.Cancelled()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leave(limits)
		return nil, err
	default:
		p.connectFailed(err, limits, 0)
		return nil, err
	}
	reader, writer := http1.NewReader(conn, p.options.Limits), http1.NewWriter(conn)
	reader.Options = p.options.HTTP1
	writer.Trailers, writer.ProperCase = p.options.HTTP1.Trailers, p.options.ProperCase
	c := &Conn{connection: made, transport: conn, Reader: reader, Writer: writer, raw: raw}
	c.peek = c.peekSocket
	p.options.Stats.Opened(c.Connected.Sub(c.Began))
	return c.take(), nil
}

// over says whether ctx has ended, or is about to: a connect has a timer of its own for
// its deadline.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// dial connects, for either version of HTTP.
func (p *Pool) dial(ctx context.Context, limits *breaker.Set) (net.Conn, *connection, error) {
	began := time.Now()
	p.options.Stats.Began()
	dialer := net.Dialer{Timeout: p.options.ConnectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", *p.address.Load())
	if err != nil {
		network, ok := errors.AsType[net.Error](err)
		p.options.Stats.Unmade(ctx.Err() == nil && (!ok || !network.Timeout()))
		return nil, nil, err
	}
	return conn, &connection{
		ID: p.made.Add(1), Local: conn.LocalAddr().(*net.TCPAddr).AddrPort(), Began: began, Connected: time.Now(), pool: p, limits: limits,
	}, nil
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
	p.expiry.stop()
	p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool {
		if c.users > 0 {
			return false
		}
		c.retire()
		return true
	})
	p.mu.Unlock()
	for _, c := range idle {
		c.dismiss()
	}
}
