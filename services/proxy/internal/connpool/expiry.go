package connpool

import (
	"slices"
	"time"
)

// expiry is when the pool looks next for connections whose time is up.
type expiry struct {
	timer *time.Timer // nil if it does not
	at    time.Time
}

func (e *expiry) stop() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// end is when the connection's time is up, and by which limit; the zero time is never.
func (c *connection) end() (at time.Time, by Limit) {
	o := &c.pool.options
	if o.MaxDuration > 0 {
		at, by = c.Connected.Add(o.MaxDuration), MaxDuration
	}
	if o.IdleTimeout > 0 && !c.since.IsZero() {
		if idle := c.since.Add(o.IdleTimeout); at.IsZero() || idle.Before(at) {
			at, by = idle, IdleTimeout
		}
	}
	return at, by
}

// expire says whether the connection's time is up, and counts it then: it is to carry
// no further request.
func (c *connection) expire(now time.Time) bool {
	at, by := c.end()
	if at.IsZero() || now.Before(at) {
		return false
	}
	c.pool.options.Stats.Met(by)
	return true
}

// awaitExpiry has the pool look for connections whose time is up once that of c is.
// The lock is held.
func (p *Pool) awaitExpiry(c *connection) {
	at, _ := c.end()
	if at.IsZero() || p.closed || p.expiry.timer != nil && !at.Before(p.expiry.at) {
		return
	}
	p.expiry.stop()
	p.expiry.at = at
	// Ends by itself, or with Close.
	p.expiry.timer = time.AfterFunc(time.Until(at), func() { p.closeExpired(time.Now()) })
}

// closeExpired ends the connections whose time is up by now, those of HTTP/2 that are in
// use with their last exchange, and comes again for the others. One of HTTP/1 that is
// in use is looked at when it is given back.
func (p *Pool) closeExpired(now time.Time) {
	p.mu.Lock()
	p.expiry.stop()
	p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool {
		if !c.expire(now) {
			p.awaitExpiry(c.connection)
			return false
		}
		c.retire()
		return true
	})
	var expired []*Conn
	p.idle = slices.DeleteFunc(p.idle, func(c *Conn) bool {
		if !c.expire(now) {
			p.awaitExpiry(c.connection)
			return false
		}
		expired = append(expired, c)
		return true
	})
	p.mu.Unlock()
	for _, c := range expired {
		c.dismiss()
	}
}
