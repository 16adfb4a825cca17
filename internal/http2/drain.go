package http2

import (
	"encoding/binary"
	"time"
)

// How a connection ends in good order (RFC 9113 §6.8): a server says that it is
// about to stop, by a GOAWAY with the highest identifier there is; when the
// client had time to hear it, it says by another which streams it has taken;
// with the last of them the connection closes.

// Drain begins that: a server tells the client to open no more streams, and
// takes those that come all the same; a client's Open opens no more.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return
	}
	c.draining = true
	if !c.client {
		c.sayGoAway(maxStreamID)
	}
	c.flush()
}

// Shutdown does both for a server: Drain, and Finish once the client has
// answered a PING that was sent behind that GOAWAY, so has read it. From then on
// the client knows of each of its streams whether it is served. One that does not
// answer is not waited for longer than shutdownWait.
func (c *Conn) Shutdown() {
	c.Drain()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client || c.asked || c.finishing || c.err != nil {
		return
	}
	c.asked = true
	c.w.buf = appendPing(c.writing(), 0, drainPing)
	c.w.frames++
	c.flush()
	// Finds nothing to do if the answer came, or the connection has ended.
	time.AfterFunc(shutdownWait, c.Finish)
}

// shutdownWait is how long a Shutdown waits for its PING to come back.
const shutdownWait = time.Second

// drainPing is what is in the PING of Shutdown.
var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'}

// Finish goes on with it: a server takes no more streams, and the connection
// ends with the last one, or now if there is none.
func (c *Conn) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish()
}

// finish is Finish with mu held.
func (c *Conn) finish() {
	if c.finishing || c.err != nil {
		return
	}
	c.draining, c.finishing = true, true
	if !c.client {
		c.lastTaken = c.lastPeer
	}
	c.sayGoAway(c.lastPeer)
	c.flush()
}

// sayGoAway gathers a GOAWAY of good order. With mu held.
func (c *Conn) sayGoAway(last uint32) {
	c.w.buf = appendGoAway(c.writing(), last, NoError, "")
	c.w.frames++
	c.countGoAway(false)
}

// countGoAway tells who counts. With mu held.
func (c *Conn) countGoAway(remote bool) {
	if c.options.OnGoAway != nil {
		c.options.OnGoAway(remote)
	}
}

// Abort ends the connection now, and tells the peer why: by ENHANCE_YOUR_CALM,
// say, that it asks for too much.
func (c *Conn) Abort(code ErrCode, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(&ConnectionError{Code: code, Reason: reason})
}

// Draining says that no more streams are opened, or that the peer was asked to
// open no more.
func (c *Conn) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// onGoAway hears that the peer is about to end. With mu held.
func (c *Conn) onGoAway(f frame, payload []byte) error {
	if f.stream != 0 {
		return connectionError(ProtocolError, "GOAWAY on stream %d", f.stream)
	}
	if len(payload) < 8 {
		return connectionError(FrameSizeError, "GOAWAY of %d bytes", len(payload))
	}
	last := binary.BigEndian.Uint32(payload) & maxStreamID
	code := ErrCode(binary.BigEndian.Uint32(payload[4:]))
	if code != NoError {
		c.peerReason = &ConnectionError{Code: code, Reason: string(clip(payload[8:])), Remote: true}
	}
	if !c.warned {
		c.warned = true
		c.countGoAway(true)
	}
	if !c.client {
		return nil // it speaks of streams that we would push
	}
	c.draining = true
	for id, s := range c.streams {
		if id > last {
			c.forget(s, true)
			s.breakOff(&StreamError{ID: id, Code: RefusedStream, Reason: "the peer drains", Remote: true})
		}
	}
	if last < maxStreamID { // the final one
		c.finishing = true
		if len(c.streams) == 0 {
			c.flush()
		}
	}
	return nil
}
