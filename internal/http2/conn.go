package http2

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is one connection, as its side sees it: Server.Conn makes one, a Client
// is one. All methods may be called from any goroutine.
type Conn struct {
	net     net.Conn
	raw     syscall.RawConn // nil unless the socket itself can be asked
	options *config
	client  bool
	server  *Server // nil on a client
	handler Handler // of a server's streams

	// What the goroutine that reads works with, and nobody else.
	r reader

	// mu guards all that follows, and the streams.
	mu         sync.Mutex
	w          writer
	encoder    encoder
	peer       peerSettings
	streams    map[uint32]*Stream
	closed     closedStreams
	lastPeer   uint32 // the highest stream that the client opened; a server's
	nextID     uint32 // of the next stream to open; a client's
	running    int    // handlers
	answered   int    // of them, those whose answer is whole
	idleSince  time.Time
	sendWindow int32 // bytes that may be sent on all streams
	recvWindow int32 // bytes that may still come on all streams
	credit     int32 // bytes that were taken and not told to the peer yet
	blocked    blockedStreams
	floods     floods
	settled    bool // the peer has acknowledged our SETTINGS
	keepalive  keepalive

	draining   bool             // nothing new is opened, or should be
	asked      bool             // the PING of Shutdown is out, or was answered
	finishing  bool             // with its last stream the connection ends
	lastTaken  uint32           // the highest stream that we serve, once finishing
	peerReason *ConnectionError // of a GOAWAY with an error
	err        error            // why the connection ended, nil while it goes on
	done       chan struct{}    // closed when serve ended; a client's
	known      chan struct{}    // closed when the server's first SETTINGS came; a client's
	warned     bool             // a GOAWAY of the peer came
	broken     int              // streams whose response the end of the connection broke off

	// Bytes that came from, and were given to, the socket.
	received, sent atomic.Uint64
}

// init sets up what both sides have.
func (c *Conn) init(conn net.Conn, options *config, client bool) {
	c.net, c.raw, c.options, c.client = conn, rawConn(conn), options, client
	c.r.init(c)
	c.w.idle.L = &c.mu
	c.encoder = newEncoder(uint32(options.EncoderTableSize), options.NoHuffman)
	c.peer = defaultPeer
	c.streams = make(map[uint32]*Stream)
	c.nextID = 1
	c.idleSince = time.Now()
	c.sendWindow = defaultWindow
	c.recvWindow = int32(options.ConnectionWindow)
	c.lastTaken = maxStreamID
}

// begin gathers our side of the preface (RFC 9113 §3.4).
func (c *Conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.writing()
	if c.client {
		b = append(b, preface...)
	}
	b = c.appendSettings(b)
	if more := c.options.ConnectionWindow - defaultWindow; more > 0 {
		b = appendWindowUpdate(b, 0, more)
	}
	c.w.buf = b
	c.startKeepalive()
}

// Streams is how many streams are open, and, if there are none, since when.
func (c *Conn) Streams() (open int, idleSince time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams), c.idleSince
}

// Bytes is how many bytes came from the peer and how many were written to it.
func (c *Conn) Bytes() (received, sent uint64) { return c.received.Load(), c.sent.Load() }

// Broken is how many streams the end of the connection broke off: those whose response
// was not whole yet, be the request whole or not.
func (c *Conn) Broken() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// Err is why the connection ended; nil while it goes on. It is ErrClosed after
// Close and after a drain that came to its end, a *ConnectionError, io.EOF if
// the peer closed, or what the socket said.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and its streams at once.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.end(ErrClosed)
	c.mu.Unlock()
	return c.net.Close()
}

// end ends the connection for a reason, unless it has ended: what waits for a
// stream gets it. With mu held.
func (c *Conn) end(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.draining = true
	c.stopKeepalive()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // for a stream it is no end
	}
	for _, s := range c.streams {
		if !s.responded() {
			c.broken++
		}
		s.breakOff(err)
	}
	c.countStreams(-len(c.streams))
	clear(c.streams)
}

// countStreams tells who counts. With mu held.
func (c *Conn) countStreams(more int) {
	if c.options.OnStreams != nil && more != 0 {
		c.options.OnStreams(more)
	}
}

// fail ends the connection with what went wrong, and tells the peer if it was
// the peer. With mu held.
func (c *Conn) fail(err error) {
	if c.err != nil {
		return
	}
	if e, ok := errors.AsType[*ConnectionError](err); ok && !e.Remote {
		c.w.buf = appendGoAway(c.writing(), min(c.lastPeer, c.lastTaken), e.Code, e.Reason)
		c.w.frames++
	}
	c.end(err)
	_ = c.net.SetReadDeadline(longAgo) // has the goroutine that reads see it
	c.flush()
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// forget takes a stream out of those that are open. With mu held.
func (c *Conn) forget(s *Stream, reset bool) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.countStreams(-1)
	c.closed.add(s.id, reset)
	if len(c.streams) == 0 {
		c.idleSince = time.Now()
	}
}

// closedStreams remembers how the last streams ended: what a peer sends on one
// that we reset is on its way legitimately, and ignored.
type closedStreams struct {
	ids     []uint32 // the last ones; the top bit says that we reset it
	next    int      // the oldest, once there are rememberClosed
	horizon uint32   // the highest that was forgotten
}

const rememberClosed = 64

const resetBit = 1 << 31

func (r *closedStreams) add(id uint32, reset bool) {
	if reset {
		id |= resetBit
	}
	if len(r.ids) < rememberClosed {
		r.ids = append(r.ids, id)
		return
	}
	r.horizon = max(r.horizon, r.ids[r.next]&^resetBit)
	r.ids[r.next] = id
	r.next = (r.next + 1) % rememberClosed
}

// find says what is known of a stream that is not open.
func (r *closedStreams) find(id uint32) (known, reset bool) {
	for _, closed := range r.ids {
		if closed&^resetBit == id {
			return true, closed&resetBit != 0
		}
	}
	return false, id <= r.horizon
}
