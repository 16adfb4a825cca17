package connpool

import (
	"context"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
)

// shared is a connection of HTTP/2, which many exchanges use at once. With the last
// request that it may carry it is no longer among the pool's, and ends with its users.
type shared struct {
	*connection
	client *http2.Client

	// Guarded by the pool's mutex.
	users    int  // exchanges that have taken it, and may have opened a stream
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
					p.options.Stats.Met(MaxConnections)
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
			c.users++
			reused = c.take()
			if c.worn() {
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
	conn, made, err := p.dial(context.Background(), limits)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connecting = nil
	if err != nil {
		wait.err = err
		p.leave(limits)
		return
	}
	made.since = made.Connected // who waits for it may be gone
	c := &shared{connection: made, client: http2.NewClient(conn, p.options.HTTP2)}
	p.shared, wait.made = append(p.shared, c), c
	p.awaitExpiry(made)
	p.options.Stats.Opened(c.Connected.Sub(c.Began))
	// Ends with the connection.
	go func() {
		<-c.client.Done()
		p.mu.Lock()
		if i := slices.Index(p.shared, c); i >= 0 {
			p.shared = slices.Delete(p.shared, i, i+1)
		}
		p.mu.Unlock()
		c.gone()
	}()
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
	if c.users--; c.users == 0 {
		c.since = time.Now()
		if p.closed || c.worn() {
			c.finish()
		} else {
			p.awaitExpiry(c.connection)
		}
	}
	p.grantFirst(grant{})
}

// finish ends a connection that no exchange uses any more, or with the last one that
// does. The lock is held.
func (c *shared) finish() {
	c.finished = true
	c.client.Finish()
}

// forgo takes back that an exchange has taken a connection for its request, which
// it does not send: another one may. It is still to be put.
func (p *Pool) forgo(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.worn() {
		p.shared = append(p.shared, c) // even if it has ended: takeShared looks
	}
	c.requests--
}
