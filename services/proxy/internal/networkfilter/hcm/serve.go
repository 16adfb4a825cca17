// Package hcm is the http_connection_manager: the network filter that reads
// HTTP requests from a connection, takes each through routing and the HTTP
// filters, and writes the responses. One goroutine serves a connection and
// runs the whole exchange, upstream included. It knows no filter by name and
// opens no upstream connection.
package hcm

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/deadline"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// connection is one client's connection.
type connection struct {
	accepted
	manager *manager
	conn    net.Conn
	reader  *http1.Reader
	writer  *http1.Writer
	peer    netip.Addr
	port    int // of the proxy's end
	facts   format.Connection

	*work   // nil between requests
	ctx     context.Context
	body    requestBody
	watch   watch
	lines   *accesslog.Periodic           // while a request goes on
	interim func(*message.Response) error // sendInterim, once

	// phase orders Finish against the start of a request.
	phase     atomic.Int32
	draining  atomic.Bool
	finishing atomic.Bool
	over      atomic.Bool // Cut was called
	// When the client must have sent, or taken, something.
	reads, writes deadline.Deadline

	requests uint32 // so far
	// start is when the first byte of the request came, zero between requests; whole
	// says that all of its head was there by then.
	start time.Time
	whole bool
	ended time.Time // of the request before
	// What is counted at the end: whether the client ended the connection, and
	// whether a request was in flight.
	remote, broken bool
	received, sent uint64 // bytes, as far as they are counted
	// before is the connection's traffic when the present request began.
	before struct{ received, sent message.Traffic }
}

// work is the memory of one request and its response, which connections that wait
// do without.
type work struct {
	stream stream.Stream
	run    httpfilter.Run
}

// takeUp gives the connection what it needs for a request, until letGo.
func (c *connection) takeUp() {
	c.work = c.manager.works.Get().(*work)
	c.stream.Facts.Connection = &c.facts
	c.stream.Context = c.ctx
}

// letGo ends the request. Nobody else knows of its memory any more, and what was cut
// off stays so.
func (c *connection) letGo() {
	c.stream.Reset()
	c.stream.Context, c.stream.Facts.Connection = nil, nil
	c.start = time.Time{}
	if c.ctx.Err() == nil {
		c.manager.works.Put(c.work)
	}
	c.work = nil
}

// The phases of a connection.
const (
	fresh    int32 = iota // no request has begun: Finish leaves it time for one
	busy                  // a request has begun
	idle                  // between requests: Finish may close it
	finished              // Finish closed it
)

// NewConnection implements networkfilter.Filter.
func (m *manager) NewConnection(conn net.Conn) networkfilter.Connection {
	m.stats.connectionsTotal.Inc()
	m.stats.connectionsActive.Add(1)
	a := m.accept()
	switch m.codec {
	case hcmv3.HttpConnectionManager_HTTP1:
		return m.newConnection(conn, a)
	case hcmv3.HttpConnectionManager_HTTP2:
		return m.newMultiplexed(conn, a)
	}
	return &undecided{http1: m.newConnection(conn, a)}
}

// accepted is what is known of a connection from its accept on, whichever version of
// HTTP its client speaks.
type accepted struct {
	id    uint64
	began time.Time
	// aged is when the connection has reached its greatest age
	// (max_connection_duration); the zero time is never.
	aged time.Time
}

// accept takes note of a connection that was just accepted.
func (m *manager) accept() accepted {
	a := accepted{id: m.ids.Add(1), began: time.Now()}
	if most := m.maxConnectionDuration; most > 0 {
		a.aged = a.began.Add(most + time.Duration(rand.Float64()*m.durationJitter*float64(most)))
	}
	return a
}

// connectionFacts are what is known of a connection for access logs.
func (m *manager) connectionFacts(conn net.Conn, a accepted) format.Connection {
	place := m.place.Load()
	return format.Connection{
		ID: a.id, Peer: address(conn.RemoteAddr()), Local: address(conn.LocalAddr()),
		FilterChain: place.GetName(), ChainMetadata: place.GetMetadata(),
	}
}

// newConnection takes over a connection whose client speaks HTTP/1.
func (m *manager) newConnection(conn net.Conn, a accepted) *connection {
	c := &connection{
		accepted: a,
		manager:  m,
		facts:    m.connectionFacts(conn, a),
		conn:     conn,
		reader:   http1.NewReader(conn, m.limits),
		writer:   http1.NewWriter(conn),
		ended:    a.began,
		reads:    deadline.Of(conn.SetReadDeadline),
		writes:   deadline.Of(conn.SetWriteDeadline),
	}
	c.reader.Options = m.http1.Options
	c.writer.Trailers, c.writer.ProperCase = m.http1.Options.Trailers, m.http1.ProperCase
	c.peer, c.port = c.facts.Peer.Addr(), int(c.facts.Local.Port())
	c.body.connection = c
	c.interim = c.sendInterim
	c.lines = m.periodic()
	c.watch.manager, c.watch.base = m, c.began
	c.watch.received, c.watch.peerClosed, c.watch.cut = c.body.finished, c.peerClosed, c.cut
	return c
}

// Serve implements networkfilter.Connection.
func (c *connection) Serve(ctx context.Context) {
	defer c.outlive()()
	c.ctx = ctx
	c.manager.stats.connectionsHTTP1.Inc()
	c.manager.stats.connectionsActiveH1.Add(1)
	for c.serveRequest() {
	}
	c.watch.stop()
	_ = c.conn.Close() // the client has closed, or will see it
	c.countBytes()
	c.manager.stats.connectionsActiveH1.Add(-1)
	c.manager.stats.countEnd(c.began, c.remote, c.broken)
}

// serveRequest serves one request and says whether the connection can carry
// another. Steps:
//
//  1. wait for a request and read its head;
//  2. hold its head to the rules for a proxy, bring it into its normal form, and
//     add our own headers;
//  3. find its route and cluster;
//  4. take it through the filters, the last of which gets the response;
//  5. write the response as it comes;
//  6. let the filters finish, count, write the access logs.
//
// It blocks on the client and, within step 4 and 5, on the upstream.
func (c *connection) serveRequest() bool {
	if !c.await() {
		return false
	}
	c.takeUp()
	defer c.letGo()
	c.before.received, c.before.sent = c.reader.Traffic(), c.writer.Traffic()
	m, s := c.manager, &c.stream
	// From its first byte on, so that what is refused counts as well.
	m.stats.requestsTotal.Inc()
	m.stats.requestsHTTP1.Inc()
	m.stats.requestsActive.Add(1)
	defer m.stats.requestsActive.Add(-1)
	m.renew(s)
	keepAlive, err := c.reader.ReadRequest(&s.Request)
	c.writer.HTTP10 = c.reader.HTTP10() && m.http1.Options.AcceptHTTP10
	if err != nil {
		s.Reset() // what was read of it is no request
	}
	s.Start = c.start
	read := c.start
	if !c.whole {
		read = time.Now()
	}
	protocol := "HTTP/1.1"
	if c.reader.HTTP10() {
		protocol = "HTTP/1.0"
	}
	beginFacts(s, protocol, c.facts.Peer, c, read)
	if err != nil {
		return c.refuse(err)
	}
	chain, refused := c.prepare()
	if s.Request.Body != nil { // else nothing is read before the next request
		c.reads.Set(time.Time{}) // it is the watch's business from now on
	}
	tellClient(s, c.peer)
	c.body.begin(&s.Request)
	if refused == nil {
		chain, refused = m.admit(s, chain, c.lines)
	}
	c.watch.begin(s, read)

	c.run.Begin(chain)
	if refused == nil {
		c.run.Exchange(s)
	} else {
		refused.fill(s)
		keepAlive = keepAlive && (!refused.malformed || !m.closeOnInvalid)
	}
	expired := s.BeginResponse()
	tellExpired(&s.Facts, expired)
	if expired.ClientLeft() {
		return c.conclude(false, expired, abandon(s))
	}
	if expired != nil {
		s.IdleTimeout = lastWords // since no other limit holds any more
	}
	keepAlive = c.keepsAlive(keepAlive)
	return c.conclude(keepAlive, expired, c.respond(!keepAlive))
}

// conclude lets the filters finish, and counts. Expired is why the stream was out
// of time before the response, err what broke that off. A connection that is of
// no use any more gets time to be closed by the client; any other keeps alive.
func (c *connection) conclude(keepAlive bool, expired *stream.Expiry, err error) bool {
	m, s := c.manager, &c.stream
	answered := err == nil && s.Response.Status != 101 // in whole
	c.countOutcome(ending(s, expired, answered), err)
	if err != nil || s.Response.Status != 101 && !c.body.finished() {
		keepAlive = false
		c.body.cutOff()
	}
	c.run.End(s)
	c.watch.end()
	if s.Response.Status == 101 {
		m.stats.upgradesActive.Add(-1)
	}
	c.countBytes()
	c.lines.End()
	c.ended = time.Now()
	m.record(s, expired, answered, c.ended)
	switch last := s.Expired(); {
	case last != expired || last.ClientLeft(): // within the response, whose connection was cut
		keepAlive = false
	case keepAlive && last != nil:
		c.reads.Set(time.Time{}) // which cut had put into the past
	}
	if !keepAlive && !c.remote && c.writer.Err() == nil {
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
		c.reads.Extend(c.ended, c.manager.idleTimeout)
		if err := c.reader.Wait(); err != nil {
			if timedOut(err) {
				c.manager.stats.connectionIdleTimeouts.Inc()
			} else {
				c.remote = !errors.Is(err, net.ErrClosed)
			}
			return false
		}
	}
	if c.start.IsZero() { // else preface has
		c.beginHead()
	}
	return c.phase.CompareAndSwap(waiting, busy)
}

// beginHead notes the first byte of a request.
func (c *connection) beginHead() {
	c.start = time.Now()
	if c.whole = c.reader.HeadReady(); !c.whole {
		c.limitHead()
	}
}

// limitHead has the head that has begun take as long as headLimit says, from its first
// byte on, and as long as it wants if there is no limit: the connection is not idle.
func (c *connection) limitHead() {
	var until time.Time
	if limit := c.manager.headLimit.after; limit > 0 {
		until = c.start.Add(limit)
	}
	c.reads.Set(until)
}

// keepsAlive says, before the response is written, whether the connection can
// carry another request after it; keepAlive is what client and request say.
func (c *connection) keepsAlive(keepAlive bool) bool {
	m, r := c.manager, &c.stream.Response
	if r.Status == 101 {
		m.stats.upgradesTotal.Inc()
		m.stats.upgradesActive.Add(1)
		return false
	}
	if c.requests++; m.maxRequests > 0 && c.requests >= m.maxRequests {
		m.stats.connectionsFull.Inc()
		keepAlive = false
	}
	if c.draining.Load() {
		m.stats.drainCloses.Inc()
		keepAlive = false
	}
	if c.writer.HTTP10 && r.BodyLength == message.Unknown && !r.Bodiless { // ended by the close
		keepAlive = false
	}
	return keepAlive && c.body.settle()
}
