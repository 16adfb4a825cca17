// Package router is the HTTP filter at the end of every chain
// (envoy.filters.http.router): it picks a host of the route's cluster, takes a
// connection to it, sends the request and gets the response. The body goes to
// the upstream as the client sends it, and back as the upstream does, each
// only as fast as the other side takes it. It chooses no route.
package router

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes routers. It implements httpfilter.Factory.
type Factory struct{}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&routerv3.Router{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields { return strict.Fields{f.ConfigType(): {}} }

// Parse implements httpfilter.Factory.
func (Factory) Parse(proto.Message, strict.Path, *strict.Report) httpfilter.Config {
	return &config{}
}

// config makes the routers of streams, and uses them again.
type config struct {
	spare sync.Pool
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter {
	if r, ok := c.spare.Get().(*router); ok {
		return r
	}
	return &router{config: c, uploaded: make(chan bool, 1)}
}

// router forwards one request.
type router struct {
	config  *config
	stream  *stream.Stream
	cluster *cluster.Cluster
	host    *cluster.Host
	// acquired is released when the request is done; nil if there is nothing to.
	acquired *breaker.Resource
	conn     *connpool.Conn // nil once given back or discarded
	started  time.Time
	// uploading is set while upload runs; it ends by sending on uploaded
	// whether the whole request went out.
	uploading bool
	uploaded  chan bool
	// brokenOff is how the client's body failed within upload.
	brokenOff atomic.Pointer[clientError]
	keepAlive bool
	interim   int          // responses so far
	tunnel    bool         // the server switched protocols
	inner     message.Body // of the response, as the codec reads it
}

// Forward implements httpfilter.Terminal. Steps:
//
//  1. answer what is not forwarded; do what the route says about path, host
//     and hash;
//  2. pick a host, if the cluster can be burdened, and take a connection to it;
//  3. send the head and what is here of the body; the rest is sent beside what
//     follows;
//  4. read the head of the response, on a new connection once more if the
//     server had closed the old one unseen.
//
// It blocks on the connect and on the upstream; the route's timeout bounds it
// from the end of the request, and whoever made the stream may Expire it.
func (r *router) Forward(s *stream.Stream) *httpfilter.Reply {
	if reply := answer(s); reply != nil {
		return reply
	}
	if drop, all := s.Cluster.DropOverload(); drop {
		s.Cluster.Stats.CountStatus(503)
		return dropped(all)
	}
	setCookies := carryOut(s)
	r.stream, r.cluster = s, s.Cluster
	r.cluster.Stats.RequestsTotal.Inc()
	r.cluster.Stats.RequestsActive.Add(1)
	if r.host = r.cluster.Pick(&cluster.PickContext{Hash: s.Hash, Hashed: s.Hashed}); r.host == nil {
		r.cluster.Stats.NoHealthyHost.Inc()
		s.Facts.Details, s.Facts.Flags = "no_healthy_upstream", s.Facts.Flags|format.NoHealthyUpstream
		return r.reply(503, "no healthy upstream")
	}
	if requests := &r.cluster.Breakers(s.Route.Priority).Requests; requests.Acquire() {
		r.acquired = requests
	} else {
		r.host = nil
		r.cluster.Stats.ActiveOverflow.Inc()
		return r.overflowed()
	}
	r.host.Stats.RequestsTotal.Add(1)
	r.host.Stats.RequestsActive.Add(1)

	if timeout := s.Route.Timeout; timeout > 0 {
		setMilliseconds(&s.Request.Headers, "x-envoy-expected-rq-timeout-ms", timeout)
	}
	s.Facts.UpstreamHost = r.host.Address
	s.Facts.Attempts++
	r.started = time.Now()
	conn, err := r.host.Connections.Get(s.Context)
	if err == nil {
		err = r.exchange(s, conn)
		if r.resendable(s, err) {
			r.cluster.Stats.RequestResends.Inc()
			r.discard()
			if conn, err = r.host.Connections.Connect(s.Context); err == nil {
				err = r.exchange(s, conn)
			}
		}
	}
	if err != nil {
		return r.failed(err)
	}
	r.count(s.Response.Status)
	r.host.Outlier.ReportStatus(s.Response.Status)
	if s.Response.Headers.Has("x-envoy-immediate-health-check-fail") {
		r.cluster.FailPassively(r.host)
	}
	now := time.Now()
	s.Facts.Mark(format.ResponseBegin, now)
	s.Facts.ResponseCode, s.Facts.Details = s.Response.Status, "via_upstream"
	if !r.tunnel {
		setMilliseconds(&s.Response.Headers, "x-envoy-upstream-service-time", now.Sub(r.started))
	}
	for _, cookie := range setCookies {
		s.Response.Headers.Add("set-cookie", cookie)
	}
	if r.inner = s.Response.Body; r.inner == nil {
		s.Facts.Mark(format.UpstreamResponseEnd, now)
		r.release()
		return nil
	}
	s.Response.Body = r
	if r.tunnel {
		r.startTunnel(s)
	}
	return nil
}

// exchange sends the request on conn and reads the head of the response.
func (r *router) exchange(s *stream.Stream, conn *connpool.Conn) (err error) {
	r.conn = conn
	s.Hold(conn.Conn)
	r.tell(&s.Facts, conn, time.Now())
	conn.Writer.WriteRequest(&s.Request)
	ended, err := r.sendReady(s)
	if err != nil {
		return err
	}
	if ended {
		r.await(conn, s)
	} else {
		r.uploading = true
		_ = conn.SetReadDeadline(time.Time{})
		// Done waits for it, after it made sure that it ends: the client's body
		// and the connection are both cut off.
		go r.upload(s, conn)
	}
	return r.readHead(s, conn)
}

// readHead reads the head of the response. Interim ones are passed on to a
// client that wants them; a 101 is the response of a request for an upgrade
// alone.
func (r *router) readHead(s *stream.Stream, conn *connpool.Conn) (err error) {
	for {
		if r.keepAlive, err = conn.Reader.ReadHead(&s.Response, s.Request.Method); err != nil {
			return err
		}
		switch {
		case s.Response.Status >= 200:
			return nil
		case s.Response.Status == 101 && len(s.Request.Upgrade) > 0:
			r.tunnel = true
			s.Response.Body, s.Response.BodyLength, s.Response.Bodiless = conn.Reader.Tunnel(), message.Unknown, false
			return nil
		case s.Response.Status == 101:
			return http1.ErrSwitched
		case r.interim == http1.InterimLimit:
			return http1.ErrInterim
		}
		r.interim++
		if s.Interim == nil {
			continue
		}
		if err := s.Interim(&s.Response); err != nil {
			return &clientError{err}
		}
	}
}

// tell notes what is known of a connection as the request begins to go out on it.
func (r *router) tell(f *format.Facts, conn *connpool.Conn, now time.Time) {
	f.UpstreamProtocol = "HTTP/1.1"
	f.UpstreamLocal, f.UpstreamConnection = conn.Local, conn.ID
	f.Mark(format.UpstreamConnectBegin, conn.Began)
	f.Mark(format.UpstreamConnectEnd, conn.Connected)
	f.Mark(format.UpstreamRequestBegin, now)
}

func (r *router) reply(status int, body string) *httpfilter.Reply {
	r.count(status)
	return &httpfilter.Reply{Status: status, Body: body}
}

func (r *router) count(status int) {
	r.cluster.Stats.CountStatus(status)
	if r.host == nil {
		return
	}
	if status < 500 {
		r.host.Stats.RequestsSucceeded.Add(1)
	} else {
		r.host.Stats.RequestErrors.Add(1)
	}
}

// Next implements message.Body: the upstream's, which gives the connection
// back at its end.
func (r *router) Next() ([]byte, error) {
	chunk, err := r.inner.Next()
	if errors.Is(err, io.EOF) {
		r.stream.Facts.Mark(format.UpstreamResponseEnd, time.Now())
		r.release()
	} else if err != nil {
		r.brokeOff(err)
		r.discard()
	}
	return chunk, err
}

// Ready implements message.Body.
func (r *router) Ready() bool { return r.inner.Ready() }

// release gives the connection back if its server keeps it open and the whole
// request went out on it.
func (r *router) release() {
	if r.conn == nil || r.tunnel { // whose other direction may go on
		return
	}
	sent := true
	if r.uploading {
		select {
		case sent = <-r.uploaded:
			r.uploading = false
		default:
			sent = false
		}
	}
	if !r.keepAlive || !sent {
		r.discard()
		return
	}
	r.stream.Hold(nil)
	r.conn.Release()
	r.conn = nil
}

func (r *router) discard() {
	if r.conn != nil {
		r.stream.Hold(nil)
		r.conn.Discard()
		r.conn = nil
	}
}

// Done implements httpfilter.Done. The client's body is at its end or cut off
// by now, so that an upload ends as soon as its connection does.
func (r *router) Done(*stream.Stream) {
	if r.tunnel && r.uploading {
		<-r.uploaded // until the client's direction is at its end, or cut off
		r.uploading = false
	}
	r.discard()
	if r.uploading {
		<-r.uploaded
	}
	if r.cluster != nil {
		r.cluster.Stats.RequestsActive.Add(-1)
	}
	if r.host != nil {
		r.host.Stats.RequestsActive.Add(-1)
	}
	if r.acquired != nil {
		r.acquired.Release()
	}
	spare := r.config
	r.reset()
	spare.spare.Put(r)
}

// reset makes the router fit for another stream.
func (r *router) reset() {
	r.stream, r.cluster, r.host, r.acquired, r.inner = nil, nil, nil, nil, nil
	r.uploading, r.keepAlive, r.tunnel, r.interim = false, false, false, 0
	r.brokenOff.Store(nil)
}

// setMilliseconds sets a header to a duration in whole milliseconds.
func setMilliseconds(h *message.Headers, name string, d time.Duration) {
	var text [20]byte
	h.Remove(name)
	h.AddBytes(name, strconv.AppendInt(text[:0], d.Milliseconds(), 10))
}
