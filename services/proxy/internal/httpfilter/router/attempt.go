package router

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// attempt is one host that the request goes to, and what became of it there.
type attempt struct {
	upstream.Attempt
	router *router
	body   message.Body // of the request; nil is none
	err    error        // why there is no response
	// uploading is set while upload runs; it ends by sending on uploaded
	// whether the whole request went out.
	uploading bool
	uploaded  chan bool
	// brokenOff is how the client's body failed within upload.
	brokenOff atomic.Pointer[clientError]
	bodySent  atomic.Int64 // bytes of the body, for the log
	received  bool         // the client's whole request is here, of which some is still to be sent
	keepAlive bool
	overtaken bool         // by its response, whose connection waits for the end of the upload
	interim   int          // responses so far
	tunnel    bool         // the server switched protocols
	flush     func() error // send, once

	bounds bounds
}

// bounds are the limits in time of an attempt. Both who reads the response and
// who sends the request move them.
type bounds struct {
	mu       sync.Mutex
	began    time.Time // when there was a connection
	answered bool      // the response's head is there, so that the attempt has no time of its own any more
}

func newAttempt(r *router) *attempt {
	a := &attempt{router: r, uploaded: make(chan bool, 1)}
	a.flush = a.send
	return a
}

// run sends the request to a host and fills in the head of s.Response. Steps:
//
//  1. pick a host, wait for a connection to it, and burden the cluster with the
//     request;
//  2. send the head and what is here of the body, on another connection if the
//     server turns out to have closed this one; the rest is sent beside what
//     follows;
//  3. read the head of the response; if the server has not processed the request,
//     send that once more first.
//
// It reports to the host how it went. Whatever the result is, End must follow.
func (a *attempt) run(s *stream.Stream) result {
	s.Facts.Attempts++
	wanted := a.router.pickContext(s)
	if !a.Begin(s.Context, s, s.Cluster, s.Route.Priority, &wanted) {
		return noHost
	}
	s.Facts.UpstreamHost = a.Host.Address
	s.Facts.HostMetadata = a.Host.Metadata()
	s.Request.Authority = a.router.authority
	s.Route.RewriteHost(&s.Request, a.Host.Hostname(), !a.router.config.suppress)
	a.router.log.begin(s, a)
	conn, err := a.connect(s)
	if err == nil {
		err = a.burden(conn)
	}
	if err == nil {
		err = a.exchange(s, conn)
		for errors.Is(err, connpool.ErrStale) {
			a.Discard()
			if conn, err = a.connect(s); err == nil {
				err = a.exchange(s, conn)
			}
		}
		if a.resendable(s, err) {
			a.router.resent = true
			if conn, err = a.Replace(a.pool(s), err, a.router.deadline()); err == nil {
				err = a.exchange(s, conn)
			}
		}
	}
	if err != nil {
		return a.failed(err)
	}
	a.router.log.answered(&s.Response)
	a.Answered(&s.Response, a.router.grpc)
	a.answer()
	return answered
}

// burden burdens the cluster, and its route's metrics, with the request, for which there
// is a connection, or gives that back.
func (a *attempt) burden(conn *connpool.Conn) error {
	if err := a.Burden(conn); err != nil {
		return err
	}
	a.router.byRoute.note(routeRequest)
	return nil
}

// pool is where the host's connections are that fit the stream.
func (a *attempt) pool(s *stream.Stream) *connpool.Pool {
	return a.Host.Pool(s.Facts.Protocol == "HTTP/2")
}

// connect gets a connection: an idle one, or one that it waits for, as long as
// the route's timeout and the stream last.
func (a *attempt) connect(s *stream.Stream) (*connpool.Conn, error) {
	pool := a.pool(s)
	idle := pool.Idle
	if a.alone(s) {
		idle = pool.IdleUnseen
	}
	if conn := idle(); conn != nil {
		return conn, nil
	}
	return a.Await(pool, a.router.deadline())
}

// awaitTunnels waits until the server has said whether it takes upgrades, as long as
// it may take to answer one.
func (a *attempt) awaitTunnels(conn *connpool.Conn) error {
	ctx, cancel := a.Waiting(a.deadline(a.bounds.began))
	defer cancel()
	return conn.AwaitTunnels(ctx)
}

// exchange sends the request on conn and reads the head of the response.
func (a *attempt) exchange(s *stream.Stream, conn *connpool.Conn) error {
	a.Conn = conn
	now := time.Now()
	a.bounds.began = now
	if len(s.Request.Upgrade) > 0 {
		if err := a.awaitTunnels(conn); err != nil {
			return err
		}
		now = time.Now()
	}
	s.HoldUpstream(conn)
	a.tell(&s.Facts, conn, now)
	a.router.log.connected(a, conn, now)
	if s.Progress != nil {
		s.Progress()
	}
	before := conn.Sent()
	conn.Writer.WriteRequest(&s.Request)
	if a.alone(s) && !conn.HTTP2() { // which bounds no stream before it is open
		return a.ask(s, conn)
	}
	ended, err := a.sendReady(s)
	if conn.Sent() > before {
		a.router.sent = true
	}
	switch {
	case err != nil:
		return a.readInstead(s, conn, err)
	case ended:
		a.await(s, conn)
	default:
		a.uploading = true
		a.bound(conn, time.Now())
		// Whoever quits the attempt makes sure that it ends: the client's body, or
		// the reader of it, and the connection are both cut off.
		go a.upload(s, conn)
	}
	return a.readHead(s, conn)
}

// readInstead reads the head of the response of a server that has not taken the whole
// request, and may have answered before; cause is why it could not be sent. The
// connection carries no further request.
func (a *attempt) readInstead(s *stream.Stream, conn *connpool.Conn, cause error) error {
	if _, ofClient := errors.AsType[*clientError](cause); ofClient || a.readHead(s, conn) != nil {
		return cause
	}
	a.keepAlive = false
	return nil
}

// alone says whether the head is the whole request, for good.
func (a *attempt) alone(s *stream.Stream) bool { return a.body == nil && len(s.Request.Upgrade) == 0 }

// ask is the rest of exchange for a request that is its head alone: that goes out
// within the wait for the response.
func (a *attempt) ask(s *stream.Stream, conn *connpool.Conn) error {
	before := conn.Sent()
	a.bound(conn, a.bounds.began)
	err := conn.Ask(a.flush)
	if conn.Sent() > before {
		a.router.sent = true
	}
	if err != nil {
		return err
	}
	return a.readHead(s, conn)
}

// send sends what the connection's Writer has of a whole request.
func (a *attempt) send() error {
	err := a.Conn.Writer.Flush()
	a.router.stream.Facts.Mark(format.UpstreamRequestEnd, time.Now())
	return err
}

// readHead reads the head of the response. Interim ones are passed on to a
// client that wants them; a 101 is the response of a request for an upgrade
// alone.
func (a *attempt) readHead(s *stream.Stream, conn *connpool.Conn) (err error) {
	for {
		if a.keepAlive, err = conn.Reader.ReadHead(&s.Response, s.Request.Method); err != nil {
			return err
		}
		switch {
		case s.Response.Status >= 200:
			if !a.keepAlive && conn.CloseAnnounced() {
				a.router.cluster.Stats.ClosesAnnounced.Inc()
			}
			return nil
		case s.Response.Status == 101 && len(s.Request.Upgrade) > 0:
			a.tunnel = true
			s.Response.Body, s.Response.BodyLength, s.Response.Bodiless = conn.Reader.Tunnel(), message.Unknown, false
			return nil
		case s.Response.Status == 101:
			return http1.ErrSwitched
		case a.interim == http1.InterimLimit:
			return http1.ErrInterim
		}
		a.interim++
		if a.router.limits.tryIdle > 0 {
			a.bound(conn, time.Now())
		}
		if s.Interim == nil {
			continue
		}
		a.router.retry.state.Stop() // the client was told of this attempt
		if err := s.Interim(&s.Response); err != nil {
			return &clientError{err}
		}
	}
}

// tell notes what is known of a connection as the request begins to go out on it.
func (a *attempt) tell(f *format.Facts, conn *connpool.Conn, now time.Time) {
	f.UpstreamProtocol = "HTTP/1.1"
	if conn.HTTP2() {
		f.UpstreamProtocol = "HTTP/2"
	}
	f.UpstreamLocal, f.UpstreamConnection = conn.Local, conn.ID
	f.Mark(format.UpstreamConnectBegin, conn.Began)
	f.Mark(format.UpstreamConnectEnd, conn.Connected)
	f.Mark(format.UpstreamRequestBegin, now)
}

// bound sets the deadline of what is read from the upstream.
func (a *attempt) bound(conn *connpool.Conn, now time.Time) {
	a.bounds.mu.Lock()
	defer a.bounds.mu.Unlock()
	_ = conn.SetReadDeadline(a.deadline(now)) // fails only once closed, as the next read will
}

// deadline is the first of those of the route, of the attempt's stream, of its answer,
// and of its standing still from now on, which a tunnel may; zero is none. The lock of the
// bounds is held once there is an upload.
func (a *attempt) deadline(now time.Time) time.Time {
	deadline := first(a.router.deadline(), a.streamEnd())
	l := &a.router.limits
	if l.try > 0 && !a.bounds.answered {
		deadline = first(deadline, a.tryDeadline())
	}
	if l.tryIdle > 0 && !a.tunnel {
		deadline = first(deadline, now.Add(l.tryIdle))
	}
	return deadline
}

// streamEnd is when the attempt is to be over as a whole, be it a tunnel (the cluster's
// max_stream_duration); zero is never.
func (a *attempt) streamEnd() time.Time {
	duration := a.router.cluster.Config.MaxStreamDuration
	if duration == 0 {
		return time.Time{}
	}
	return a.bounds.began.Add(duration)
}

// outlived says whether what ended in time is the attempt's stream, not the route's
// time or that for its answer, as far as those still bind. It is for who reads the
// response.
func (a *attempt) outlived(now time.Time) bool {
	end := a.streamEnd()
	if end.IsZero() || now.Before(end) {
		return false
	}
	var other time.Time
	if !a.tunnel {
		other = a.router.deadline()
	}
	if !a.tunnel && !a.bounds.answered {
		other = first(other, a.tryDeadline())
	}
	return end.Equal(first(end, other))
}

// tryDeadline is when the attempt is to have an answer; zero is never, or not
// known before the client's request is whole.
func (a *attempt) tryDeadline() time.Time {
	whole := a.router.whole()
	if a.router.limits.try == 0 || whole.IsZero() {
		return time.Time{}
	}
	if whole.Before(a.bounds.began) {
		whole = a.bounds.began
	}
	return whole.Add(a.router.limits.try)
}

// first is the earlier of two deadlines, of which the zero time is none.
func first(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// answer takes back what bounds an attempt up to its answer, and bounds the wait for what
// follows that.
func (a *attempt) answer() {
	if a.router.limits.try == 0 && a.router.limits.tryIdle == 0 {
		return
	}
	a.bounds.mu.Lock()
	a.bounds.answered = true
	a.bounds.mu.Unlock()
	a.bound(a.Conn, time.Now())
}

// release gives the connection back if its server keeps it open and the whole
// request went out on it. The response's body is at its end. If it overtook that
// of the request, settle is to follow.
func (a *attempt) release() {
	if a.Conn == nil {
		return
	}
	a.Conn.Answered()
	if a.tunnel { // whose other direction may go on
		return
	}
	sent := true
	if a.uploading {
		select {
		case sent = <-a.uploaded:
			a.uploading = false
		default:
			a.overtaken = a.keepAlive
		}
	}
	switch {
	case a.overtaken:
	case a.keepAlive && sent:
		a.GiveBack()
	default:
		a.Discard()
	}
}

// lastBytes is how long what the client has sent may take to go out behind the
// response, before its connection counts for more than a further request on the
// upstream's.
const lastBytes = time.Second

// settle waits for the end of an upload that the response has overtaken, and gives
// the connection back if the whole request went out. The client has sent all, or
// is cut off, so that only the upstream can hold the upload up.
func (a *attempt) settle() {
	if !a.overtaken {
		return
	}
	conn := a.Conn
	timer := time.AfterFunc(lastBytes, func() { _ = conn.Close() }) // which lets the upload go
	sent := <-a.uploaded
	a.uploading = false
	if timer.Stop() && sent {
		a.GiveBack()
	}
}

// drain reads what is here of a response that nobody wants, so that its
// connection can go on if that is all.
func (a *attempt) drain(body message.Body) {
	const most = 64 << 10
	for n := 0; body != nil && n < most && body.Ready(); {
		chunk, err := body.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				a.release()
			}
			return
		}
		n += len(chunk)
	}
	if body == nil {
		a.release()
	}
}

// wait waits for the end of the upload, and makes the attempt fit for another.
func (a *attempt) wait() {
	if a.uploading {
		<-a.uploaded
	}
	a.body, a.err = nil, nil
	a.uploading, a.received, a.keepAlive, a.overtaken, a.tunnel, a.interim = false, false, false, false, false, 0
	a.bounds.answered = false
	a.brokenOff.Store(nil)
	a.bodySent.Store(0)
}
