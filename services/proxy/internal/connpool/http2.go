package connpool

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
)

// shared is a connection of HTTP/2, which many exchanges use at once.
type shared struct {
	client           *http2.Client
	id               uint64
	local            netip.AddrPort
	began, connected time.Time

	// Guarded by the pool's mutex.
	users int // exchanges that have taken it, and may have opened a stream
	// requests is how many have taken it so far. With the last that may, it is no
	// longer among the pool's, and ends with its users.
	requests uint32
	finished bool // the pool ends it
}

// connecting is a connect on its way, for all who wait for it.
type connecting struct {
	done chan struct{} // closed at its end
	made *shared
	err  error
}

// waitShared returns a stream's worth of a connection: of the first that has room,
// or of a new one, for which all who come meanwhile wait too; or, if limits has no
// more connections, once there is room again. The first connection of a pool is made
// whatever the limits.
func (p *Pool) waitShared(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	for overflowed := false; ; {
		p.mu.Lock()
		if c, reused := p.takeShared(); c != nil {
			p.mu.Unlock()
			return p.exchange(c, reused), nil
		}
		wait, own := p.connecting, false
		if wait == nil {
			if own = p.mayOpen(limits); !own {
				w := p.enqueue()
				p.mu.Unlock()
				if !overflowed {
					overflowed = true
					p.overflow()
				}
				select {
				case <-w:
					continue
				case <-ctx.Done():
					p.withdraw(w)
					return nil, ctx.Err()
				}
			}
			wait = &connecting{done: make(chan struct{})}
			p.connecting = wait
			// Ends with the connect, which is bounded in time.
			go p.connectShared(wait, limits)
		}
		p.mu.Unlock()
		select {
		case <-wait.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		err := wait.err
		if err == nil {
			err = p.closedAtOnce(wait.made)
		}
		switch {
		case err == nil: // if it is used up or closed, another one is made
		case own:
			return nil, err
		default:
			return nil, &EjectedError{err}
		}
	}
}

// closedAtOnce is why a connection ended that was made, if its host is to blame: no
// exchange has taken it, and the pool has not closed it.
func (p *Pool) closedAtOnce(c *shared) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.requests > 0 || c.finished {
		return nil
	}
	return c.client.Err()
}

// takeShared takes a stream of a connection that has room. With mu held.
func (p *Pool) takeShared() (c *shared, reused bool) {
	for i := 0; i < len(p.shared); {
		c := p.shared[i]
		capacity := min(c.client.Capacity(), p.most)
		switch {
		case capacity == 0: // it takes no more
			p.shared = slices.Delete(p.shared, i, i+1)
			c.client.Finish()
			continue
		case c.users < capacity:
			reused = c.requests > 0
			c.users++
			c.requests++
			if p.isWorn(c) {
				p.shared = slices.Delete(p.shared, i, i+1)
			}
			return c, reused
		}
		i++
	}
	return nil, false
}

// connectShared makes a connection, and lets those know who wait for it.
func (p *Pool) connectShared(wait *connecting, limits *breaker.Set) {
	defer close(wait.done)
	c := &shared{began: time.Now()}
	dialer := net.Dialer{Timeout: p.options.ConnectTimeout}
	conn, err := dialer.Dial("tcp", *p.address.Load())
	c.connected = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connecting = nil
	if err != nil {
		wait.err = err
		p.leaveLocked(limits)
		return
	}
	c.id, c.local = p.made.Add(1), conn.LocalAddr().(*net.TCPAddr).AddrPort()
	c.client = http2.NewClient(conn, p.options.HTTP2)
	p.shared, wait.made = append(p.shared, c), c
	p.awaitExpiry() // who waits for it may be gone
	p.options.Opened(c.connected.Sub(c.began))
	// Ends with the connection.
	go func() {
		<-c.client.Done()
		p.mu.Lock()
		if i := slices.Index(p.shared, c); i >= 0 {
			p.shared = slices.Delete(p.shared, i, i+1)
		}
		p.mu.Unlock()
		p.options.Closed(time.Since(c.connected))
		p.leave(limits)
	}()
}

// closeShared ends the connections that had no stream since before a time, and
// returns since when that is so of another one; the zero time is of none. The lock
// is held.
func (p *Pool) closeShared(now, before time.Time) (oldest time.Time) {
	p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool {
		open, since := c.client.Streams()
		switch {
		case c.users > 0: // of whom the last one has us come again
			return false
		case open > 0: // it is about to end
			since = now
		}
		if since.After(before) {
			oldest = first(oldest, since)
			return false
		}
		p.countExpired()
		c.finish()
		return true
	})
	return oldest
}

// first is the earlier of two times, of which the zero time is none.
func first(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// exchange makes a Conn of a connection that was taken.
func (p *Pool) exchange(c *shared, reused bool) *Conn {
	conn, ok := p.spare.Get().(*Conn)
	if !ok {
		x := &exchange{}
		conn = &Conn{exchange: x, transport: x, Reader: x, Writer: x, pool: p}
	}
	conn.exchange.shared = c
	conn.Reused, conn.ID, conn.Local, conn.Began, conn.Connected = reused, c.id, c.local, c.began, c.connected
	return conn
}

// put gives a connection back that an exchange has used.
func (p *Pool) put(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.users--; c.users == 0 && (p.closed || p.isWorn(c)) {
		c.finish()
		if p.isWorn(c) {
			p.wornOut()
		}
	}
	if c.users == 0 {
		p.awaitExpiry()
	}
	p.grantFirst(grant{})
}

// finish ends a connection that no exchange uses any more, or with the last one that
// does. The lock is held.
func (c *shared) finish() {
	c.finished = true
	c.client.Finish()
}

// isWorn says whether a connection carries no further request. The lock is held.
func (p *Pool) isWorn(c *shared) bool {
	return c.requests > 0 && c.requests == p.options.MaxRequests
}

// forgo takes back that an exchange has taken a connection for its request, which
// it does not send: another one may. It is still to be put.
func (p *Pool) forgo(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isWorn(c) {
		p.shared = append(p.shared, c) // even if it has ended: takeShared looks
	}
	c.requests--
}
