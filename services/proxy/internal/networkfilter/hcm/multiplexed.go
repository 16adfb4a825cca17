package hcm

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/format"
)

// multiplexed is a client's connection of HTTP/2: each of its streams is an
// exchange, on a goroutine of its own.
type multiplexed struct {
	accepted
	manager *manager
	conn    *http2.Conn
	server  *server
	peer    netip.Addr
	port    int // of the proxy's end
	facts   format.Connection
	ctx     context.Context // set by serve, before the first stream

	requests atomic.Uint32
	// broken says that the connection ended with exchanges at work.
	broken atomic.Bool

	mu       sync.Mutex
	draining bool // the client is to open no more streams: it is told with the first one at the latest
	drained  bool // it was told
	ended    bool
	idle     *time.Timer
	timers   []*time.Timer // of drains, stopped in the end
}

// newMultiplexed takes over a connection whose client speaks HTTP/2.
func (m *manager) newMultiplexed(conn net.Conn, a accepted) *multiplexed {
	c := &multiplexed{accepted: a, manager: m, facts: m.connectionFacts(conn, a)}
	c.peer, c.port = c.facts.Peer.Addr(), int(c.facts.Local.Port())
	c.server = m.servers.take()
	c.conn = c.server.Conn(conn, c)
	return c
}

// Serve implements networkfilter.Connection.
func (c *multiplexed) Serve(ctx context.Context) { c.serve(ctx, nil) }

// serve works until the connection ends; received is what was read of it before.
func (c *multiplexed) serve(ctx context.Context, received []byte) {
	m := c.manager
	m.stats.connectionsHTTP2.Inc()
	m.stats.connectionsActiveH2.Add(1)
	c.ctx = ctx
	if m.idleTimeout > 0 {
		c.mu.Lock()
		c.idle = time.AfterFunc(m.idleTimeout, c.lookIdle)
		c.timers = append(c.timers, c.idle)
		c.mu.Unlock()
	}
	if !c.aged.IsZero() {
		c.after(time.Until(c.aged), func() {
			m.stats.connectionDurations.Inc()
			c.drain()
		})
	}
	err := c.conn.Serve(received)
	c.mu.Lock()
	c.ended = true
	for _, timer := range c.timers {
		timer.Stop()
	}
	c.mu.Unlock()
	m.servers.release(c.server)

	in, out := c.conn.Bytes()
	m.stats.received.Add(in)
	m.stats.sent.Add(out)
	remote := !errors.Is(err, http2.ErrClosed)
	if e, ok := errors.AsType[*http2.ConnectionError](err); ok && !e.Remote {
		m.stats.protocolErrors.Inc()
		if e.Flood == http2.ResetFlood {
			m.stats.prematureResets.Inc()
		}
		remote = false
	}
	if errors.Is(err, http2.ErrKeepalive) {
		m.stats.http2.KeepaliveTimeouts.Inc()
		remote = false
	}
	m.stats.connectionsActiveH2.Add(-1)
	m.stats.countEnd(c.began, remote, c.broken.Load())
}

// Cut implements networkfilter.Connection. All streams see it, and let their
// upstreams go.
func (c *multiplexed) Cut() { _ = c.conn.Close() }

// after has f called later, unless the connection has ended by then.
func (c *multiplexed) after(d time.Duration, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.timers = append(c.timers, time.AfterFunc(d, f))
	}
}

// lookIdle drains a connection that has had no stream for idle_timeout.
func (c *multiplexed) lookIdle() {
	open, since := c.conn.Streams()
	remaining := c.manager.idleTimeout
	if open == 0 {
		remaining -= time.Since(since)
	}
	if remaining > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.idle.Reset(remaining)
		}
		return
	}
	c.manager.stats.connectionIdleTimeouts.Inc()
	c.drain()
}

// drain tells the client to open no more streams, and takes no more drain_timeout
// later (RFC 9113 §6.8).
func (c *multiplexed) drain() {
	c.mu.Lock()
	told := c.drained
	c.draining, c.drained = true, true
	c.mu.Unlock()
	if told {
		return
	}
	c.manager.stats.http2.CountGoAway()
	c.conn.Drain()
	c.after(c.manager.drainTimeout, c.conn.Finish)
}

// Drain implements networkfilter.Connection. A client that has asked nothing so
// far is told with its first request: it would else connect anew at once.
func (c *multiplexed) Drain() {
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	if c.requests.Load() > 0 {
		c.manager.stats.drainCloses.Inc()
		c.drain()
	}
}

// Finish implements networkfilter.Connection.
func (c *multiplexed) Finish() {
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	if c.requests.Load() > 0 {
		c.conn.Finish()
		return
	}
	c.after(firstRequestTime, c.conn.Finish)
}

// begins counts a request, and drains the connection if it is to be the last.
func (c *multiplexed) begins() {
	m, n := c.manager, c.requests.Add(1)
	c.mu.Lock()
	last := c.draining && !c.drained
	c.mu.Unlock()
	switch {
	case m.maxRequests > 0 && n == m.maxRequests:
		m.stats.connectionsFull.Inc()
		c.drain()
	case last:
		m.stats.drainCloses.Inc()
		c.drain()
	}
}

// ServeStream implements http2.Handler.
func (c *multiplexed) ServeStream(s *http2.Stream) {
	e := c.manager.exchanges.Get().(*exchange)
	e.serve(c, s)
	c.manager.exchanges.Put(e)
}

// servers hands out the http2.Server of a manager, of which there is one while
// there are connections, and those of connections with another window than now.
type servers struct {
	mu      sync.Mutex
	options http2.Options
	present *server // nil without a connection
}

// server is one with the number of its connections, which servers guards.
type server struct {
	*http2.Server
	users int
}

// hold has connections to come take so many bytes of a stream that nobody reads.
func (s *servers) hold(window uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.StreamWindow != window {
		s.options.StreamWindow, s.present = window, nil
	}
}

func (s *servers) take() *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.present == nil {
		s.present = &server{Server: http2.NewServer(s.options)}
	}
	s.present.users++
	return s.present
}

// release gives a server back, whose connection has ended.
func (s *servers) release(of *server) {
	s.mu.Lock()
	of.users--
	last := of.users == 0
	if last && s.present == of {
		s.present = nil
	}
	s.mu.Unlock()
	if last {
		of.Close()
	}
}

// ofConnection says whether a stream's error is that of its connection, rather than its
// own.
func ofConnection(err error) bool {
	_, ofStream := errors.AsType[*http2.StreamError](err)
	return err != nil && !ofStream && !errors.Is(err, io.EOF)
}
