package hcm

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// firstRequestTime is how long a connection without a request so far stays
// open after Finish: its client has hardly connected for nothing, and would take
// a close for a failure, as it has nothing to try again.
const firstRequestTime = time.Second

// outlive drains the connection when it has reached its greatest age
// (max_connection_duration), and closes it drain_timeout later unless a request
// is in flight. It returns what ends this.
func (c *connection) outlive() (stop func()) {
	m := c.manager
	if c.aged.IsZero() {
		return func() {}
	}
	last := make(chan *time.Timer, 1)
	first := time.AfterFunc(time.Until(c.aged), func() {
		m.stats.connectionDurations.Inc()
		c.Drain()
		last <- time.AfterFunc(m.drainTimeout, c.Finish)
	})
	return func() {
		if first.Stop() {
			return
		}
		(<-last).Stop()
	}
}

// Drain implements networkfilter.Connection.
func (c *connection) Drain() { c.draining.Store(true) }

// Finish implements networkfilter.Connection.
func (c *connection) Finish() {
	c.draining.Store(true)
	c.finishing.Store(true)
	if c.phase.CompareAndSwap(idle, finished) {
		_ = c.conn.Close()
		return
	}
	if c.phase.Load() == fresh {
		time.AfterFunc(firstRequestTime, func() {
			if c.phase.CompareAndSwap(fresh, finished) {
				_ = c.conn.Close()
			}
		})
	}
}

// Cut implements networkfilter.Connection: it lets go of what waits for the client,
// and of what waits for the upstream.
func (c *connection) Cut() {
	c.over.Store(true)
	_ = c.conn.Close()
	c.watch.cutOff()
}

// cut lets go of whoever waits for the client, whose stream expired. It is
// called from the watch's timer. Unless the response has begun there is one to write yet.
func (c *connection) cut(responding bool) {
	c.body.cutOff()
	if responding {
		c.writes.Cut()
	}
}

// peerClosed says, without waiting, whether the client has closed its connection. One
// that sent more, the next request perhaps, counts as there.
func (c *connection) peerClosed() (closed bool) {
	conn, ok := c.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return closed || err != nil
}

// countOutcome counts how an exchange ended, why being its ending and err what broke it
// off, and notes what that makes of the connection.
func (c *connection) countOutcome(why *stream.Expiry, err error) {
	byClient := why.ClientLeft() || c.writer.Err() != nil || c.body.broken.Load()
	whole := c.body.finished() || c.stream.Response.Status == 101
	switch {
	case why != nil && !why.ClientLeft():
		c.broken = err != nil || !c.body.finished()
	case byClient:
		c.remote, c.broken = !c.over.Load(), true
	case err != nil:
		c.broken = true
	}
	if c.body.malformed.Load() { // both, as in Envoy
		c.manager.stats.earlyResponses.Inc()
		byClient = true
	}
	c.manager.stats.countOutcome(why, byClient, whole, err)
}

// countBytes counts what came and went since the last time.
func (c *connection) countBytes() {
	received, sent := c.reader.Received(), c.writer.Sent()
	c.manager.stats.received.Add(received - c.received)
	c.manager.stats.sent.Add(sent - c.sent)
	c.received, c.sent = received, sent
}

// timedOut says whether an error is that a deadline of ours passed, and not that the
// kernel hears nothing of the client any more (ETIMEDOUT), which is lost.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// linger gives the client time to close after we did (delayed_close_timeout):
// closing while it still sends would make its kernel throw our response away.
func (c *connection) linger() {
	timeout := c.manager.delayedClose
	half, ok := c.conn.(interface{ CloseWrite() error })
	if timeout == 0 || !ok || half.CloseWrite() != nil {
		return
	}
	c.reads.Set(time.Now().Add(timeout))
	if _, err := io.Copy(io.Discard, c.conn); err != nil && timedOut(err) {
		c.manager.stats.delayedCloseTimeouts.Inc()
	}
}
