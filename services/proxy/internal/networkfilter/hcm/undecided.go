package hcm

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// undecided is a connection whose first bytes tell which version of HTTP its
// client speaks (codec_type AUTO): the preface of HTTP/2 (RFC 9113 §3.4) is no
// request of any other.
type undecided struct {
	http1 *connection // until the preface came

	mu                sync.Mutex
	http2             *multiplexed
	drained, finished bool
}

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Serve implements networkfilter.Connection.
func (u *undecided) Serve(ctx context.Context) {
	c := u.http1
	received, ok := c.preface()
	if !ok {
		c.manager.stats.countEnd(c.began, c.remote, false)
		return
	}
	if received == nil {
		c.Serve(ctx)
		return
	}
	u.mu.Lock()
	c.phase.CompareAndSwap(fresh, busy) // so that a Finish before does not close it
	u.http2 = c.manager.newMultiplexed(c.conn, c.accepted)
	u.http1 = nil // its memory is not needed any more
	if u.drained {
		u.http2.Drain()
	}
	if u.finished {
		u.http2.Finish()
	}
	u.mu.Unlock()
	u.http2.serve(ctx, received)
}

// Drain implements networkfilter.Connection.
func (u *undecided) Drain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drained = true
	if u.http2 != nil {
		u.http2.Drain()
		return
	}
	u.http1.Drain()
}

// Finish implements networkfilter.Connection.
func (u *undecided) Finish() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.finished = true
	if u.http2 != nil {
		u.http2.Finish()
		return
	}
	u.http1.Finish()
}

// Cut implements networkfilter.Connection.
func (u *undecided) Cut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.http2 != nil {
		u.http2.Cut()
		return
	}
	u.http1.Cut()
}

// preface waits for the first bytes, as await does for those of a request, and
// returns what was received if it begins as HTTP/2 does; nil is HTTP/1. Not ok is
// a client that never said anything: the connection is closed, when it has been idle
// for too long, or has got too old as it would by outlive.
func (c *connection) preface() (received []byte, ok bool) {
	c.reads.Extend(time.Now(), c.manager.idleTimeout)
	last := c.aged.Add(c.manager.drainTimeout + firstRequestTime)
	ages := !c.aged.IsZero() && (c.manager.idleTimeout == 0 || time.Until(last) < c.manager.idleTimeout)
	if ages {
		c.reads.Set(last)
	}
	if err := c.reader.Wait(); err != nil {
		switch {
		case !timedOut(err):
			c.remote = !errors.Is(err, net.ErrClosed)
		case ages:
			c.manager.stats.connectionDurations.Inc()
		default:
			c.manager.stats.connectionIdleTimeouts.Inc()
		}
		_ = c.conn.Close() // the client has closed, or will see it
		return nil, false
	}
	c.beginHead()
	c.limitHead() // since the preface is no whole head, whatever its begin looks like
	received, err := c.reader.Preface(http2Preface)
	if err != nil {
		return nil, true // who reads on meets it too
	}
	if received != nil {
		c.reads.Set(time.Time{})
	}
	return received, true
}
