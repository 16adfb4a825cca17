package connpool

import (
	"context"
	"errors"
	"slices"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
)

// ErrOverflow is that as many requests wait for a connection as may
// (Thresholds.max_pending_requests).
var ErrOverflow = errors.New("too many requests wait for a connection")

// ErrPools is that as many pools of the cluster have connections as may
// (Thresholds.max_connection_pools), and that this one has none.
var ErrPools = errors.New("too many pools have connections")

// waiter is a request that waits for a connection.
type waiter struct {
	limits  *breaker.Set // where one that is made for it counts; may be nil
	granted chan grant   // receives once
}

// grant is a connection, which was taken, or why there will be none, or, if it is
// empty, that it is time to try again.
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
		w, err := p.admit(limits)
		if err != nil {
			return nil, err
		}
		if w == nil {
			return p.connect(ctx, limits)
		}
		if !overflowed {
			p.options.Stats.Met(MaxConnections)
		}
		if g, err := p.await(ctx, w); g.conn != nil || err != nil {
			return g.conn, err
		}
		if c := p.Idle(); c != nil {
			return c, nil
		}
	}
}

// admit makes room for one more connection and returns nil, or puts a waiter
// into the queue. The error is ErrPools.
func (p *Pool) admit(limits *breaker.Set) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.count(limits); err != nil {
		return nil, err
	}
	if p.mayOpen(limits) {
		return nil, nil
	}
	w := p.enqueue(limits)
	if len(p.idle) > 0 { // one was given back just now
		p.grantFirst(grant{})
	}
	return w, nil
}

// count counts a pool that has no connection yet, which its first one is to follow. The
// error is ErrPools. The lock is held.
func (p *Pool) count(limits *breaker.Set) error {
	if p.counted != nil || limits == nil {
		return nil
	}
	if !limits.Pools.Acquire() {
		p.options.Stats.Met(MaxPools)
		return ErrPools
	}
	p.counted = limits
	return nil
}

// mayOpen makes room for one more connection, if the limits allow. The lock is held.
func (p *Pool) mayOpen(limits *breaker.Set) bool {
	switch {
	case limits == nil, p.options.Open.Load() < limits.HostConnections && limits.Connections.Acquire():
	case p.open == 0:
		p.options.Stats.Met(MaxConnections)
		limits.Connections.Take()
	default:
		return false
	}
	p.enter(limits)
	return true
}

// enter notes that there is a connection more. The lock is held.
func (p *Pool) enter(limits *breaker.Set) {
	if p.counted == nil && limits != nil {
		limits.Pools.Take()
		p.counted = limits
	}
	p.open++
	p.options.Open.Add(1)
}

// enqueue puts a waiter into the queue. The lock is held.
func (p *Pool) enqueue(limits *breaker.Set) *waiter {
	w := &waiter{limits, make(chan grant, 1)}
	p.queue = append(p.queue, w)
	return w
}

// await waits for what the waiter is granted, whose error, or that of ctx, it returns.
func (p *Pool) await(ctx context.Context, w *waiter) (grant, error) {
	select {
	case g := <-w.granted:
		return g, g.err
	case <-ctx.Done():
		p.options.Stats.Cancelled()
		p.withdraw(w)
		return grant{}, ctx.Err()
	}
}

// withdraw takes a waiter out of the queue; what it was granted meanwhile goes to
// another one.
func (p *Pool) withdraw(w *waiter) {
	p.mu.Lock()
	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	if g := <-w.granted; g.conn != nil {
		g.conn.Return()
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
	p.queue = slices.Delete(p.queue, 0, 1)
	first.granted <- g
	return true
}

// connectFailed notes that a connect for which there was room failed, of which so many
// who wait expected a stream, and lets all know who wait.
func (p *Pool) connectFailed(cause error, limits *breaker.Set, expected int) {
	p.options.Stats.Failed(cause)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected -= expected
	p.eject(cause)
	p.leave(limits)
}

// eject has all who wait do so in vain. The lock is held.
func (p *Pool) eject(cause error) {
	for p.grantFirst(grant{err: cause}) {
	}
}

// leave notes that a connection is gone, or did not come to be. The lock is held.
func (p *Pool) leave(limits *breaker.Set) {
	p.open--
	p.options.Open.Add(-1)
	if limits != nil {
		limits.Connections.Release()
	}
	if p.open == 0 && p.counted != nil {
		p.counted.Pools.Release()
		p.counted = nil
	}
	if p.options.HTTP2 != nil {
		p.serveQueue()
	} else {
		p.grantFirst(grant{})
	}
}
