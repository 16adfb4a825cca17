package connpool

import (
	"context"
	"errors"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
)

// ErrOverflow is that as many requests wait for a connection as may
// (Thresholds.max_pending_requests).
var ErrOverflow = errors.New("too many requests wait for a connection")

// EjectedError is that a request waited in vain: the connect of another one
// failed so.
type EjectedError struct{ Cause error }

// Error implements error.
func (e *EjectedError) Error() string { return "another connect failed: " + e.Cause.Error() }

// Unwrap is the cause.
func (e *EjectedError) Unwrap() error { return e.Cause }

// waiter is a request that waits for a connection. It receives once.
type waiter chan grant

// grant is a connection, or why there will be none, or, if it is empty, that it
// is time to try again.
type grant struct {
	conn *Conn
	err  error
}

// wait gets a connection for a request for which there was no idle one: a new
// one if the limits allow, or else the next one that is given back. The first
// connection of a pool is made whatever the limits.
func (p *Pool) wait(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	if p.options.HTTP2 != nil {
		return p.waitShared(ctx, limits)
	}
	for overflowed := false; ; overflowed = true {
		w := p.admit(limits)
		if w == nil {
			return p.connect(ctx, limits)
		}
		if !overflowed {
			p.options.Stats.Met(MaxConnections)
		}
		select {
		case g := <-w:
			switch {
			case g.conn != nil:
				return g.conn.take(), nil
			case g.err != nil:
				return nil, g.err
			}
		case <-ctx.Done():
			p.withdraw(w)
			return nil, ctx.Err()
		}
		if c := p.Idle(); c != nil {
			return c, nil
		}
	}
}

// admit makes room for one more connection and returns nil, or puts a waiter
// into the queue.
func (p *Pool) admit(limits *breaker.Set) waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mayOpen(limits) {
		return nil
	}
	if len(p.idle) > 0 { // one was given back just now
		w := make(waiter, 1)
		w <- grant{}
		return w
	}
	return p.enqueue()
}

// mayOpen makes room for one more connection, if the limits allow. The lock is held.
func (p *Pool) mayOpen(limits *breaker.Set) bool {
	switch {
	case limits == nil, limits.Connections.Acquire():
	case p.open == 0:
		limits.Connections.Take()
	default:
		return false
	}
	p.open++
	return true
}

// enqueue puts a waiter into the queue. The lock is held.
func (p *Pool) enqueue() waiter {
	w := make(waiter, 1)
	p.queue = append(p.queue, w)
	return w
}

// withdraw takes a waiter out of the queue; what it was granted meanwhile goes to
// another one.
func (p *Pool) withdraw(w waiter) {
	p.mu.Lock()
	for i, other := range p.queue {
		if other == w {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.mu.Unlock()
			return
		}
	}
	p.mu.Unlock()
	if g := <-w; g.conn != nil {
		g.conn.Release()
	} else if g.err == nil {
		p.wakeFirst()
	}
}

// wakeFirst lets the first waiter try again.
func (p *Pool) wakeFirst() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grantFirst(grant{})
}

// grantFirst says whether there was a waiter. The lock is held.
func (p *Pool) grantFirst(g grant) bool {
	if len(p.queue) == 0 {
		return false
	}
	first := p.queue[0]
	p.queue = append(p.queue[:0], p.queue[1:]...)
	first <- g
	return true
}

// leave notes that a connection is gone, or did not come to be. The lock is held.
func (p *Pool) leave(limits *breaker.Set) {
	p.open--
	if limits != nil {
		limits.Connections.Release()
	}
	p.grantFirst(grant{})
}

// eject lets all who wait know that a connect failed. The lock is held.
func (p *Pool) eject(cause error) {
	for p.grantFirst(grant{err: &EjectedError{cause}}) {
	}
}
