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
	"time"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/format"
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
	r := &router{config: c}
	r.attempt.router, r.attempt.uploaded = r, make(chan bool, 1)
	return r
}

// router forwards one request.
type router struct {
	config  *config
	stream  *stream.Stream
	cluster *cluster.Cluster
	began   time.Time // of the first attempt
	attempt attempt
	inner   message.Body // of the response, as the codec reads it
}

// Forward implements httpfilter.Terminal. Steps:
//
//  1. answer what is not forwarded; do what the route says about path, host
//     and hash;
//  2. attempt to get a response of one of the cluster's hosts;
//  3. answer what came of no avail, or hand the response on.
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
	if timeout := s.Route.Timeout; timeout > 0 {
		setMilliseconds(&s.Request.Headers, "x-envoy-expected-rq-timeout-ms", timeout)
	}
	r.began = time.Now()
	if err := r.attempt.run(s); err != nil {
		return r.failed(err)
	}
	r.respond(s, setCookies)
	return nil
}

// respond hands on the response whose head the attempt got.
func (r *router) respond(s *stream.Stream, setCookies []string) {
	host := r.attempt.host
	r.count(s.Response.Status)
	host.Outlier.ReportStatus(s.Response.Status)
	if s.Response.Headers.Has("x-envoy-immediate-health-check-fail") {
		r.cluster.FailPassively(host)
	}
	now := time.Now()
	s.Facts.Mark(format.ResponseBegin, now)
	s.Facts.ResponseCode, s.Facts.Details = s.Response.Status, "via_upstream"
	if !r.attempt.tunnel {
		setMilliseconds(&s.Response.Headers, "x-envoy-upstream-service-time", now.Sub(r.began))
	}
	for _, cookie := range setCookies {
		s.Response.Headers.Add("set-cookie", cookie)
	}
	if r.inner = s.Response.Body; r.inner == nil {
		s.Facts.Mark(format.UpstreamResponseEnd, now)
		r.attempt.release()
		return
	}
	s.Response.Body = r
	if r.attempt.tunnel {
		r.attempt.startTunnel(s)
	}
}

func (r *router) reply(status int, body string) *httpfilter.Reply {
	r.count(status)
	return &httpfilter.Reply{Status: status, Body: body}
}

func (r *router) count(status int) {
	r.cluster.Stats.CountStatus(status)
	host := r.attempt.host
	switch {
	case host == nil:
	case status < 500:
		host.Stats.RequestsSucceeded.Add(1)
	default:
		host.Stats.RequestErrors.Add(1)
	}
}

// Next implements message.Body: the upstream's, which gives the connection
// back at its end.
func (r *router) Next() ([]byte, error) {
	chunk, err := r.inner.Next()
	if errors.Is(err, io.EOF) {
		r.stream.Facts.Mark(format.UpstreamResponseEnd, time.Now())
		r.attempt.release()
	} else if err != nil {
		r.brokeOff(err)
		r.attempt.discard()
	}
	return chunk, err
}

// Ready implements message.Body.
func (r *router) Ready() bool { return r.inner.Ready() }

// Done implements httpfilter.Done. The client's body is at its end or cut off
// by now, so that an upload ends as soon as its connection does.
func (r *router) Done(*stream.Stream) {
	r.attempt.end()
	if r.cluster != nil {
		r.cluster.Stats.RequestsActive.Add(-1)
	}
	r.stream, r.cluster, r.inner = nil, nil, nil
	r.config.spare.Put(r)
}

// setMilliseconds sets a header to a duration in whole milliseconds.
func setMilliseconds(h *message.Headers, name string, d time.Duration) {
	var text [20]byte
	h.Remove(name)
	h.AddBytes(name, strconv.AppendInt(text[:0], d.Milliseconds(), 10))
}
