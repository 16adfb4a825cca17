package connpool

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
)

// shared is a connection of HTTP/2, which many exchanges use at once.
type shared struct {
	*connection
	client *http2.Client

	// Guarded by the pool's mutex.
	users int // exchanges that have taken it, and may have opened a stream
	// settled is set once the server has said how many streams it takes: until then
	// there is one.
	settled  bool
	expected int  // of Pool.expected, how many are of this connection
	retired  bool // it is no longer among the pool's, and ends with its users

	received, sent uint64 // bytes, as far as they are counted
}

// waitShared returns a stream of a connection that has room, once there is one: those
// who wait have as many connections made as they need. The first one of a pool is made
// whatever the limits.
func (p *Pool) waitShared(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	p.mu.Lock()
	if c, reused := p.takeShared(); c != nil {
		p.mu.Unlock()
		return p.exchange(c, reused), nil
	}
	if err := p.count(limits); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	w := p.enqueue(limits)
	p.serveQueue()
	overflows := p.expected < len(p.queue)
	p.mu.Unlock()
	if overflows {
		p.options.Stats.Met(MaxConnections)
	}
	g, err := p.await(ctx, w)
	return g.conn, err
}

// serveQueue gives streams to those who wait, as far as there is room, and begins the
// connects that the others need, as far as the limits allow. The lock is held.
func (p *Pool) serveQueue() {
	for len(p.queue) > 0 {
		c, reused := p.takeShared()
		if c == nil {
			break
		}
		p.grantFirst(grant{conn: p.exchange(c, reused)})
	}
	for p.expected < len(p.queue) && p.mayOpen(p.queue[p.expected].limits) {
		limits, expected := p.queue[p.expected].limits, p.allowed
		if most := p.options.MaxRequests; most > 0 {
			expected = min(expected, int(most))
		}
		p.expected += expected
		// Ends with the connection; the connect is bounded in time.
		go p.runShared(limits, expected)
	}
}

// takeShared takes a stream of a connection that has room. With mu held.
func (p *Pool) takeShared() (c *shared, reused bool) {
	for i := 0; i < len(p.shared); {
		c := p.shared[i]
		capacity := min(c.client.Capacity(), p.most)
		if !c.settled {
			capacity = min(capacity, 1)
		}
		switch {
		case capacity == 0: // it takes no more
			p.shared = slices.Delete(p.shared, i, i+1)
			c.client.Finish()
			continue
		case c.users < capacity:
			c.users++
			p.expect(c, -1)
			reused = c.take()
			if c.worn() {
				p.shared = slices.Delete(p.shared, i, i+1)
				c.retire()
			}
			return c, reused
		}
		i++
	}
	return nil, false
}

// expect notes that as many more requests are expected to go out on a connection that
// is not settled. The lock is held.
func (p *Pool) expect(c *shared, more int) {
	if !c.settled {
		more = max(more, -c.expected)
		c.expected += more
		p.expected += more
	}
}

// runShared makes a connection and looks after it until it ends. It was counted in.
func (p *Pool) runShared(limits *breaker.Set, expected int) {
	conn, made, err := p.dial(context.Background(), limits)
	if err != nil {
		p.connectFailed(err, limits, expected)
		return
	}
	c := &shared{connection: made, client: http2.NewClient(conn, p.options.HTTP2), expected: expected}
	p.options.Stats.Opened(c.Connected.Sub(c.Began))
	p.mu.Lock()
	c.since = c.Connected
	p.shared = append(p.shared, c)
	p.serveQueue()
	p.awaitExpiry(c.connection) // who waited may be gone
	p.mu.Unlock()
	_ = c.client.AwaitSettings(context.Background()) // whose error is also that of the connection
	if err := p.settle(c); err != nil {
		p.options.Stats.Failed(err)
	}
	<-c.client.Done()
	err = c.client.Err()
	if errors.Is(err, http2.ErrKeepalive) {
		p.options.Stats.Met(KeepaliveTimeout)
	}
	p.mu.Lock()
	if i := slices.Index(p.shared, c); i >= 0 {
		p.shared = slices.Delete(p.shared, i, i+1)
	}
	c.count()
	p.mu.Unlock()
	c.gone(byServer(err), c.client.Broken())
}

// byServer says whether it is the server that has ended a connection, by why that did.
func byServer(err error) bool {
	if e, ok := errors.AsType[*http2.ConnectionError](err); ok {
		return e.Remote
	}
	return !errors.Is(err, http2.ErrClosed) && !errors.Is(err, http2.ErrKeepalive) && !errors.Is(err, os.ErrDeadlineExceeded)
}

// count tells of the bytes that the connection has moved since the last time. The lock
// is held.
func (c *shared) count() {
	received, sent := c.client.Bytes()
	c.pool.options.Stats.Moved(received-c.received, sent-c.sent)
	c.received, c.sent = received, sent
}

// errNoStreams is that a server takes no requests on a connection of its own.
var errNoStreams = errors.New("the server takes no streams")

// settle lets a connection carry as many requests as the server has said that it
// takes. If it carried none, and never will, settle lets those know who wait, for whom
// another one would be no better, and returns why.
func (p *Pool) settle(c *shared) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expect(c, -c.expected)
	c.settled = true
	if allowed := c.client.Capacity(); allowed > 0 {
		p.allowed = min(allowed, p.most)
	} else if c.requests == 0 && !c.retired {
		err = cmp.Or(c.client.Err(), errNoStreams)
		p.eject(err)
	}
	p.serveQueue()
	if err != nil || p.closed && c.users == 0 {
		c.retire()
	}
	return err
}

// exchange makes a Conn of a connection that was taken.
func (p *Pool) exchange(c *shared, reused bool) *Conn {
	conn, ok := p.spare.Get().(*Conn)
	if !ok {
		x := &exchange{}
		conn = &Conn{exchange: x, transport: x, Reader: x, Writer: x}
	}
	conn.connection, conn.exchange.shared, conn.Reused = c.connection, c, reused
	return conn
}

// put gives a connection back that an exchange has used.
func (p *Pool) put(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.users--
	c.count()
	p.serveQueue()
	switch {
	case c.users > 0:
	case c.retired, p.closed:
		c.retire()
	default:
		c.since = time.Now()
		p.awaitExpiry(c.connection)
	}
}

// retire has a connection carry no further request, and end with its last user. It is
// no longer among the pool's. The lock is held.
func (c *shared) retire() {
	c.retired = true
	if c.users == 0 {
		c.client.Finish()
	}
}

// forgo takes back that an exchange has taken a connection for its request, which
// it does not send: another one may. It is still to be put.
func (p *Pool) forgo(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.worn() {
		p.shared, c.retired = append(p.shared, c), false // even if it has ended: takeShared looks
	}
	c.requests--
	p.expect(c, 1)
}
