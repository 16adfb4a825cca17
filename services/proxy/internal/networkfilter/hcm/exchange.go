package hcm

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// exchange is one request over HTTP/2 and its response. It is used again for
// those of other streams.
type exchange struct {
	manager    *manager
	connection *multiplexed
	h2         *http2.Stream
	head       http2.Head

	stream stream.Stream
	run    httpfilter.Run
	watch  watch
	lines  *accesslog.Periodic // while the request goes on
	// What is made once for all streams.
	interim func(*message.Response) error
	onReset func(error)

	ended atomic.Bool // the request's body is at its end
	reset atomic.Bool // the client reset the stream, or left

	// writing orders a 100, which a pull of the body writes, against the heads that
	// the exchange's own goroutine writes.
	writing sync.Mutex
	expects bool // a 100, before the first byte
	tunnel  bool // the client asked for another protocol by extended CONNECT
	// switched says that it got it, so that each direction ends by itself.
	switched bool
}

func newExchange(m *manager) *exchange {
	e := &exchange{manager: m}
	e.interim, e.onReset = e.sendInterim, e.hearReset
	e.lines = m.periodic()
	e.watch.manager, e.watch.base = m, time.Now()
	e.watch.received, e.watch.cut = e.ended.Load, e.cut
	e.watch.peerClosed = func() bool { return false } // onReset tells
	return e
}

// serve serves one stream, by the same steps as connection.serveRequest. Behind
// its end nobody else knows of the exchange.
func (e *exchange) serve(c *multiplexed, h2 *http2.Stream) {
	m, s := e.manager, &e.stream
	m.stats.requestsTotal.Inc()
	m.stats.requestsHTTP2.Inc()
	m.stats.requestsActive.Add(1)
	m.stats.http2.StreamsActive.Add(1)
	defer m.stats.requestsActive.Add(-1)
	defer m.stats.http2.StreamsActive.Add(-1)
	e.connection, e.h2 = c, h2
	s.Facts.Connection = &c.facts
	m.renew(s)
	s.Context = c.ctx
	_ = h2.ReadHead(&e.head) // it is there from the start
	c.begins()
	now := time.Now()
	if s.Start = e.head.Began; s.Start.IsZero() {
		s.Start = now
	}
	e.takeHead()
	beginFacts(s, "HTTP/2", c.facts.Peer, e, now)
	if err := h2.Err(); err != nil { // the client has left since
		e.hearReset(err)
		e.run.Begin(m.chain)
		e.conclude(s.Expired(), err)
		return
	}
	chain, refused := e.prepare()
	tellClient(s, c.peer)
	if refused == nil {
		chain, refused = m.admit(s, chain, e.lines)
	}
	e.watch.begin(s, now)
	h2.OnReset(e.onReset)

	e.run.Begin(chain)
	if refused == nil {
		e.run.Exchange(s)
	} else {
		refused.fill(s)
	}
	expired := s.BeginResponse()
	tellExpired(&s.Facts, expired)
	if expired.ClientLeft() {
		e.conclude(expired, abandon(s))
		return
	}
	if expired != nil {
		e.watch.end()                             // so that cut is done with
		h2.SetDeadline(time.Now().Add(lastWords)) // which lets us write again
	}
	e.conclude(expired, e.respond())
}

// takeHead makes the stream's request of the head that was read.
func (e *exchange) takeHead() {
	r, head := &e.stream.Request, &e.head
	r.Method, r.Path, r.Authority, r.Scheme = head.Method, head.Path, head.Authority, head.Scheme
	r.Headers.Swap(&head.Fields)
	e.reset.Store(false)
	e.ended.Store(head.End)
	e.expects, e.tunnel, e.switched = false, false, false
	if host, ok := r.Headers.Get("host"); ok { // the codec has compared them
		if len(r.Authority) == 0 {
			r.Authority = host
		}
		r.Headers.Remove("host")
	}
	if r.BodyLength = head.ContentLength; head.End {
		r.BodyLength = 0
		return
	}
	if r.BodyLength <= 0 { // a body of no length may have trailers behind it
		r.BodyLength = message.Unknown
		r.Headers.Remove("content-length")
	}
	r.Body = e
	if expect, ok := r.Headers.Get("expect"); ok && string(expect) == "100-continue" {
		e.expects = true
		r.ExpectContinue = true
		r.Headers.Remove("expect")
	}
}

// Traffic implements format.Meter.
func (e *exchange) Traffic() (received, sent message.Traffic) {
	in, out := e.h2.Traffic()
	return message.Traffic(in), message.Traffic(out)
}

// prepare is connection.prepare for a head that has nothing of one hop: the codec
// has seen to that.
func (e *exchange) prepare() (*httpfilter.Chain, *refusal) {
	m, s := e.manager, &e.stream
	r := &s.Request
	s.ClientAddress = e.connection.peer
	chain := m.chain
	protocol, err := e.head.Protocol, http1.CheckAuthority(r.Authority)
	switch {
	case len(r.Authority) == 0:
		return chain, hostless()
	case err != nil:
		m.stats.protocolErrors.Inc()
		return chain, malformed("http2.violation.of.messaging.rule", err.Error())
	case string(r.Method) == "CONNECT":
		if len(protocol) == 0 {
			return chain, m.refuseUpgrade("CONNECT is not supported")
		}
		// As HTTP/1 has it (RFC 8441 §5): the response's 101 is then a 200.
		e.tunnel = true
		r.Method, r.Upgrade = methodGet, protocol
		r.Body, r.BodyLength, r.ExpectContinue, e.expects = e, message.Unknown, false, false
		if string(protocol) == "websocket" && !r.Headers.Has("sec-websocket-key") { // which HTTP/2 does without
			var key [16]byte
			_, _ = rand.Read(key[:]) // it never fails
			r.Headers.Add("sec-websocket-key", base64.StdEncoding.EncodeToString(key[:]))
			r.Headers.Set("sec-websocket-version", "13")
		}
	}
	if refused := m.underscores(r); refused != nil {
		return chain, refused
	}
	refused := m.mend(s, e.connection.peer, e.connection.port)
	if refused != nil && refused.flags != 0 {
		m.stats.protocolErrors.Inc()
	}
	if m.proxyContinue {
		e.expects = false // if the upstream wants that
		s.Interim = e.interim
	}
	return chain, refused
}

var methodGet = []byte("GET")

// underscores does what headers_with_underscores_action says, as the codec of
// HTTP/1 does by itself.
func (m *manager) underscores(r *message.Request) *refusal {
	action := m.http1.Options.Underscores
	if action == http1.AllowUnderscores {
		return nil
	}
	found := uint64(0)
	r.Headers.Keep(func(name, _ []byte) bool {
		if bytes.IndexByte(name, '_') < 0 {
			return true
		}
		found++
		return false
	})
	switch {
	case found == 0:
	case action == http1.RejectUnderscores:
		m.stats.http2.rejectedUnderscores.Inc()
		return malformed("http2.unexpected_underscore", http1.ErrUnderscore.Error())
	default:
		m.stats.http2.droppedUnderscores.Add(found)
	}
	return nil
}

// Next implements message.Body: it is the request's.
func (e *exchange) Next() ([]byte, error) {
	if err := e.sendContinue(); err != nil {
		return nil, err
	}
	chunk, err := e.h2.Next()
	now, s := time.Now(), &e.stream
	e.watch.touch(now)
	s.Facts.AddReceived(len(chunk))
	if _, whole := s.Facts.Since(format.RequestEnd); !whole && e.h2.Received() {
		s.Facts.Mark(format.RequestEnd, now)
	}
	if errors.Is(err, io.EOF) {
		var trailers http2.Fields
		if e.h2.ReadTrailers(&trailers) {
			s.Request.Trailers.Swap(&trailers)
			e.manager.stats.http2.trailers.Inc()
		}
		e.ended.Store(true)
	} else if err != nil && !errors.Is(err, errOver) && !errors.Is(err, errExpired) && !timedOut(err) {
		e.hearReset(err)
	}
	return chunk, err
}

// Ready implements message.Body.
func (e *exchange) Ready() bool { return e.h2.Ready() }

func (e *exchange) sendContinue() error {
	e.writing.Lock()
	defer e.writing.Unlock()
	if !e.expects {
		return nil
	}
	e.expects = false
	if e.h2.Ready() { // the client did not wait
		return nil
	}
	if err := e.h2.WriteHead(100, nil, false); err != nil {
		return err
	}
	return e.h2.Flush()
}

// sendInterim passes an interim response of the upstream on.
func (e *exchange) sendInterim(r *message.Response) error {
	e.watch.touch(time.Now())
	bare(r)
	e.writing.Lock()
	defer e.writing.Unlock()
	if err := e.h2.WriteHead(r.Status, &r.Headers, false); err != nil {
		return err
	}
	return e.h2.Flush()
}

// respond writes the response, its body as it comes. An error means that the
// client did not get the whole of it.
func (e *exchange) respond() error {
	s := &e.stream
	response, now := &s.Response, time.Now()
	if e.tunnel && response.Status == 101 {
		e.switched = true
		e.manager.stats.upgradesTotal.Inc()
		e.manager.stats.upgradesActive.Add(1)
		response.Headers.Remove("upgrade")
		response.Headers.Remove("sec-websocket-accept") // RFC 8441 §5
	}
	e.manager.finish(s)
	e.watch.touch(now)
	e.manager.answering(s, e.switched, e.lines, now)
	if response.BodyLength == message.Unknown && !response.Bodiless {
		response.Headers.Remove("content-length")
	}
	if err := e.writeHead(response); err != nil {
		e.tellLost(err)
		return err
	}
	if response.Body != nil {
		if err := e.writeBody(response); err != nil {
			return err
		}
	}
	e.manager.answeredWhole(&s.Facts)
	return nil
}

func (e *exchange) writeHead(r *message.Response) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	e.expects = false // no 100 follows
	status := r.Status
	if e.switched { // the client alone hears of a 200
		status = 200
	}
	return e.h2.WriteHead(status, &r.Headers, r.Body == nil)
}

func (e *exchange) writeBody(r *message.Response) error {
	facts := &e.stream.Facts
	held := e.manager.bufferLimit.Load() // of a response whose client takes nothing, if the proxy held any
	flushing := false
	for {
		if !r.Body.Ready() {
			if err := e.h2.Flush(); err != nil {
				e.tellLost(err)
				return err
			}
		}
		chunk, err := r.Body.Next()
		e.watch.touch(time.Now())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_ = e.h2.Flush() // what came before the break is the client's
			return err
		}
		if !flushing && r.BodyLength >= 0 && uint64(r.BodyLength-facts.SentBytes()) <= held {
			flushing = true
			e.watch.flush()
		}
		if err := e.h2.WriteData(chunk, false); err != nil {
			e.tellLost(err)
			return err
		}
		facts.AddSent(len(chunk))
	}
	r.Trailers.Keep(func(name, _ []byte) bool { return !hopByHop(name) })
	var err error
	if r.Trailers.Len() > 0 {
		err = e.h2.WriteTrailers(&r.Trailers)
	} else {
		err = e.h2.WriteData(nil, true)
	}
	if err != nil {
		e.tellLost(err)
	}
	return err
}

// conclude lets the filters finish, and counts. Expired is why the stream was out
// of time before the response, err what broke that off. The stream itself is reset
// by its connection, if anything of it is left open.
func (e *exchange) conclude(expired *stream.Expiry, err error) {
	m, s := e.manager, &e.stream
	if err != nil {
		e.h2.OnReset(nil) // waits until we know, if it is the client's doing
	}
	whole := e.ended.Load() || e.switched
	answered := err == nil && !e.switched // in whole
	m.stats.countOutcome(ending(s, expired, answered), e.reset.Load() && !answered, whole, err)
	if err != nil || !whole {
		e.h2.Interrupt(errOver) // lets go whoever still waits for the rest of the request
	}
	e.run.End(s)
	if e.switched {
		m.stats.upgradesActive.Add(-1)
	}
	e.watch.end()
	e.h2.OnReset(nil)
	e.lines.End()
	m.record(s, expired, answered, time.Now())
	s.Reset()
	e.connection, e.h2 = nil, nil
}

// hearReset hears that the stream has ended before its time.
func (e *exchange) hearReset(err error) {
	e.reset.Store(true)
	if ofConnection(err) {
		e.connection.broken.Store(true)
	}
	e.stream.Expire(leaving(err))
}

// cut lets go of whoever waits for the client, whose stream expired. It is called
// from the watch's timer. Unless the response has begun there is one to write yet.
func (e *exchange) cut(responding bool) {
	if responding {
		e.h2.Interrupt(errExpired)
		return
	}
	e.h2.Interrupt(os.ErrDeadlineExceeded)
}

// tellLost notes a client that takes nothing any more, unless that is our doing.
func (e *exchange) tellLost(err error) {
	if !errors.Is(err, errExpired) {
		tellLost(&e.stream.Facts, err)
	}
}

// errOver is what the rest of a request ends with that nobody wants any more.
var errOver = errors.New("the exchange is over")

// errExpired is what a client's stream ends with that is out of time.
var errExpired = errors.New("the stream is out of time")
