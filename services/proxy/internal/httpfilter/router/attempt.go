package router

import (
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// attempt is one host that the request goes to, and what became of it there.
type attempt struct {
	router *router
	host   *cluster.Host // nil if there is none that may be burdened
	// acquired is released when the attempt is over; nil if there is nothing to.
	acquired *breaker.Resource
	conn     *connpool.Conn // nil once given back or discarded
	// uploading is set while upload runs; it ends by sending on uploaded
	// whether the whole request went out.
	uploading bool
	uploaded  chan bool
	// brokenOff is how the client's body failed within upload.
	brokenOff atomic.Pointer[clientError]
	keepAlive bool
	interim   int  // responses so far
	tunnel    bool // the server switched protocols
}

// run sends the request to a host and fills in the head of s.Response. Steps:
//
//  1. pick a host, if the cluster can be burdened, and take a connection to it;
//  2. send the head and what is here of the body; the rest is sent beside what
//     follows;
//  3. read the head of the response, on a new connection once more if the
//     server had closed the old one unseen.
//
// The error is errNoHost, errOverflow, or how the connect or the exchange
// failed. Whatever it is, end must follow.
func (a *attempt) run(s *stream.Stream) error {
	up := s.Cluster
	if a.host = up.Pick(&cluster.PickContext{Hash: s.Hash, Hashed: s.Hashed}); a.host == nil {
		up.Stats.NoHealthyHost.Inc()
		return errNoHost
	}
	requests := &up.Breakers(s.Route.Priority).Requests
	if !requests.Acquire() {
		a.host = nil
		up.Stats.ActiveOverflow.Inc()
		return errOverflow
	}
	a.acquired = requests
	a.host.Stats.RequestsTotal.Add(1)
	a.host.Stats.RequestsActive.Add(1)
	s.Facts.UpstreamHost = a.host.Address
	s.Facts.Attempts++
	conn, err := a.host.Connections.Get(s.Context)
	if err != nil {
		return err
	}
	err = a.exchange(s, conn)
	if !a.resendable(s, err) {
		return err
	}
	up.Stats.RequestResends.Inc()
	a.discard()
	if conn, err = a.host.Connections.Connect(s.Context); err != nil {
		return err
	}
	return a.exchange(s, conn)
}

// exchange sends the request on conn and reads the head of the response.
func (a *attempt) exchange(s *stream.Stream, conn *connpool.Conn) (err error) {
	a.conn = conn
	s.Hold(conn.Conn)
	a.tell(&s.Facts, conn, time.Now())
	conn.Writer.WriteRequest(&s.Request)
	ended, err := a.sendReady(s)
	if err != nil {
		return err
	}
	if ended {
		a.await(conn, s)
	} else {
		a.uploading = true
		_ = conn.SetReadDeadline(time.Time{})
		// Done waits for it, after it made sure that it ends: the client's body
		// and the connection are both cut off.
		go a.upload(s, conn)
	}
	return a.readHead(s, conn)
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
		if s.Interim == nil {
			continue
		}
		if err := s.Interim(&s.Response); err != nil {
			return &clientError{err}
		}
	}
}

// tell notes what is known of a connection as the request begins to go out on it.
func (a *attempt) tell(f *format.Facts, conn *connpool.Conn, now time.Time) {
	f.UpstreamProtocol = "HTTP/1.1"
	f.UpstreamLocal, f.UpstreamConnection = conn.Local, conn.ID
	f.Mark(format.UpstreamConnectBegin, conn.Began)
	f.Mark(format.UpstreamConnectEnd, conn.Connected)
	f.Mark(format.UpstreamRequestBegin, now)
}

// release gives the connection back if its server keeps it open and the whole
// request went out on it.
func (a *attempt) release() {
	if a.conn == nil || a.tunnel { // whose other direction may go on
		return
	}
	sent := true
	if a.uploading {
		select {
		case sent = <-a.uploaded:
			a.uploading = false
		default:
			sent = false
		}
	}
	if !a.keepAlive || !sent {
		a.discard()
		return
	}
	a.router.stream.Hold(nil)
	a.conn.Release()
	a.conn = nil
}

func (a *attempt) discard() {
	if a.conn != nil {
		a.router.stream.Hold(nil)
		a.conn.Discard()
		a.conn = nil
	}
}

// end lets go of everything. The client's body is at its end or cut off by now,
// so that an upload ends as soon as its connection does.
func (a *attempt) end() {
	if a.tunnel && a.uploading {
		<-a.uploaded // until the client's direction is at its end, or cut off
		a.uploading = false
	}
	a.discard()
	if a.uploading {
		<-a.uploaded
	}
	if a.host != nil {
		a.host.Stats.RequestsActive.Add(-1)
	}
	if a.acquired != nil {
		a.acquired.Release()
	}
	a.host, a.acquired = nil, nil
	a.uploading, a.keepAlive, a.tunnel, a.interim = false, false, false, 0
	a.brokenOff.Store(nil)
}
