package http2

import (
	"math/rand/v2"
	"time"
)

// keepalive sends PINGs and ends a connection whose peer is silent.
type keepalive struct {
	timer  *time.Timer // nil if it is off
	heard  bool        // something came since the timer was set
	asking bool        // a PING is out, and the timer set for KeepaliveTimeout
}

// startKeepalive begins. With mu held.
func (c *Conn) startKeepalive() {
	if c.options.KeepaliveInterval > 0 {
		c.keepalive.timer = time.AfterFunc(c.keepaliveInterval(), c.keepaliveTick)
	}
}

// keepaliveInterval is how long from now on the next PING is sent.
func (c *Conn) keepaliveInterval() time.Duration {
	interval := c.options.KeepaliveInterval
	return interval + time.Duration(rand.Float64()*c.options.KeepaliveJitter*float64(interval))
}

func (c *Conn) stopKeepalive() {
	if c.keepalive.timer != nil {
		c.keepalive.timer.Stop()
	}
}

// keepaliveTick asks, or finds that nobody answered.
func (c *Conn) keepaliveTick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.keepalive
	switch {
	case c.err != nil:
		return
	case k.asking && !k.heard:
		c.end(ErrKeepalive)
		_ = c.net.Close() // ends the goroutine that reads
		return
	case k.asking:
		k.asking = false
		k.timer.Reset(c.keepaliveInterval())
	default:
		k.asking = true
		k.timer.Reset(c.options.KeepaliveTimeout)
		c.w.buf = appendPing(c.writing(), 0, [8]byte{})
		c.w.frames++
		c.flush()
	}
	k.heard = false
}

// heard notes that the peer is there.
func (c *Conn) heard() {
	if c.options.KeepaliveInterval > 0 {
		c.mu.Lock()
		c.keepalive.heard = true
		c.mu.Unlock()
	}
}
