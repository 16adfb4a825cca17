// Package hcm is the http_connection_manager: the network filter that reads
// HTTP requests from a connection, takes each through routing and the HTTP
// filters, and writes the responses. One goroutine serves a connection and
// runs the whole exchange, upstream included. It knows no filter by name and
// opens no upstream connection.
package hcm

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/deadline"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// connection is one client's connection.
type connection struct {
	manager *manager
	conn    net.Conn
	reader  *http1.Reader
	writer  *http1.Writer
	peer    netip.Addr

	stream stream.Stream
	run    httpfilter.Run
	body   requestBody

	// phase orders Finish against the start of a request.
	phase     atomic.Int32
	draining  atomic.Bool
	finishing atomic.Bool
	// When the client must have sent, or taken, something.
	reads, writes deadline.Deadline
}

// The phases of a connection.
const (
	fresh    int32 = iota // no request has begun: Finish leaves it time for one
	busy                  // a request has begun
	idle                  // between requests: Finish may close it
	finished              // Finish closed it
)

// firstRequestTime is how long a connection without a request so far stays
// open after Finish: its client has hardly connected for nothing, and would take
// a close for a failure, as it has nothing to try again.
const firstRequestTime = time.Second

// NewConnection implements networkfilter.Filter.
func (m *manager) NewConnection(conn net.Conn) networkfilter.Connection {
	m.stats.connectionsTotal.Inc()
	m.stats.connectionsActive.Add(1)
	c := &connection{
		manager: m,
		conn:    conn,
		reader:  http1.NewReader(conn, m.limits),
		writer:  http1.NewWriter(conn),
		reads:   deadline.Of(conn.SetReadDeadline),
		writes:  deadline.Of(conn.SetWriteDeadline),
	}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.peer = a.AddrPort().Addr().Unmap()
	}
	c.body.connection = c
	return c
}

// Serve implements networkfilter.Connection.
func (c *connection) Serve(ctx context.Context) {
	// Ends with ctx or with Serve; it unblocks what waits for the client, and
	// what waits for the upstream.
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.Close()
		c.stream.Cut()
	})
	defer stop()
	c.stream.Context = ctx
	for c.serveRequest() {
	}
	_ = c.conn.Close() // the client has gone, or will see it
	c.manager.stats.connectionsActive.Add(-1)
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

// serveRequest serves one request and says whether the connection can carry
// another. Steps:
//
//  1. wait for a request and read its head;
//  2. hold its headers to the rules for a proxy, and add our own;
//  3. find its route and cluster;
//  4. take it through the filters, the last of which gets the response;
//  5. write the response as it comes;
//  6. let the filters finish, count.
//
// It blocks on the client and, within step 4 and 5, on the upstream.
func (c *connection) serveRequest() bool {
	m, s := c.manager, &c.stream
	if !c.await() {
		return false
	}
	// From its first byte on, so that what is refused counts as well.
	m.stats.requestsTotal.Inc()
	m.stats.requestsActive.Add(1)
	defer m.stats.requestsActive.Add(-1)
	s.Reset()
	s.IdleTimeout = m.streamIdleTimeout
	keepAlive, err := c.reader.ReadRequest(&s.Request)
	if err != nil {
		return c.refuse(err, false)
	}
	s.Start = time.Now()
	if s.Request.Body != nil { // else nothing is read before the next request
		c.reads.Extend(s.Start, s.IdleTimeout)
	}
	if err := m.prepare(s, c.peer); err != nil {
		return c.refuse(err, string(s.Request.Method) == "HEAD")
	}
	c.body.begin(&s.Request)

	m.route(s)

	c.run.Begin(m.chain)
	c.run.Exchange(s)
	keepAlive = keepAlive && !c.draining.Load() && c.body.settle()
	err = c.respond(!keepAlive)
	if err != nil || !c.body.finished() {
		keepAlive = false
		c.body.cutOff()
	}
	c.run.End(s)
	m.stats.countStatus(s.Response.Status)
	if err == nil && !keepAlive {
		c.linger()
	}
	return keepAlive
}

// await waits for the first byte of a request, as long as an idle connection
// may, and says whether it came.
func (c *connection) await() bool {
	waiting := c.phase.Load()
	if waiting == busy {
		waiting = idle
		c.phase.Store(idle)
		if c.finishing.Load() {
			return false
		}
	}
	if !c.reader.Buffered() {
		c.reads.Extend(time.Now(), c.manager.idleTimeout)
		if c.reader.Wait() != nil {
			return false
		}
	}
	if c.manager.headersTimeout > 0 {
		c.reads.Set(time.Now().Add(c.manager.headersTimeout))
	}
	return c.phase.CompareAndSwap(waiting, busy)
}

// refuse answers a request whose head is malformed, or of a client that took
// too long over it, and gives the connection up.
func (c *connection) refuse(err error, head bool) bool {
	var status int
	var protocol *http1.ProtocolError
	var timeout net.Error
	switch {
	case errors.As(err, &protocol):
		c.manager.stats.protocolErrors.Inc()
		status = protocol.Status
	case errors.As(err, &timeout) && timeout.Timeout():
		c.manager.stats.headerTimeouts.Inc()
		status = 408
	default: // the client has gone
		return false
	}
	m := &c.stream.Response
	m.Headers.Reset()
	m.Status, m.Bodiless, m.Body = status, head, nil
	text := err.Error() + "\n"
	if status == 408 {
		text = "request headers timeout\n"
	}
	m.Headers.Add("content-type", "text/plain")
	m.BodyLength = int64(len(text))
	if !m.Bodiless {
		m.Body = message.NewBytes([]byte(text))
	}
	c.manager.stats.countStatus(status)
	if c.respond(true) == nil {
		c.linger()
	}
	return false
}

// respond writes the response. An error means that the client has gone or that
// the upstream broke off: the connection is of no use any more.
func (c *connection) respond(closes bool) error {
	response := &c.stream.Response
	c.manager.finish(response)
	c.body.refuseContinue()
	c.writes.Extend(time.Now(), c.stream.IdleTimeout)
	c.writer.WriteResponse(response, closes)
	for response.Body != nil {
		if !response.Body.Ready() {
			if err := c.writer.Flush(); err != nil {
				return err
			}
		}
		chunk, err := response.Body.Next()
		c.writes.Extend(time.Now(), c.stream.IdleTimeout)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_ = c.writer.Flush() // what came before the break is the client's
			return err
		}
		if err := c.writer.WriteChunk(chunk); err != nil {
			return err
		}
	}
	c.writer.Finish()
	return c.writer.Flush()
}

// lingerTime is how long a client may take to close after we did
// (delayed_close_timeout): closing while it still sends would make its kernel
// throw our response away.
const lingerTime = time.Second

func (c *connection) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.reads.Set(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, c.conn) // to its end or ours, either will do
}
