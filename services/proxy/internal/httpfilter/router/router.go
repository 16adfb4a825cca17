// Package router is the HTTP filter at the end of every chain
// (envoy.filters.http.router): it picks a host of the route's cluster, takes a
// connection to it, sends the request and gets the response. The body goes to
// the upstream as the client sends it, and back as the upstream does, each
// only as fast as the other side takes it. It chooses no route.
package router

import (
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes routers. It implements httpfilter.Factory.
type Factory struct {
	// AccessLogs has the files that attempts are logged to.
	AccessLogs *accesslog.Files
}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&routerv3.Router{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{f.ConfigType(): {
		"suppress_envoy_headers", "strict_check_headers", "respect_expected_rq_timeout", "dynamic_stats", "suppress_grpc_request_failure_code_stats",
		"upstream_log", "upstream_log_options",
	}, f.ConfigType() + ".UpstreamAccessLogOptions": {"flush_upstream_log_on_upstream_stream", "upstream_log_flush_interval"}}
}

// Parse implements httpfilter.Factory.
func (f Factory) Parse(m proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	c := &config{}
	if m, ok := m.(*routerv3.Router); ok {
		c.suppress, c.checked = m.GetSuppressEnvoyHeaders(), m.GetStrictCheckHeaders()
		c.expected = m.GetRespectExpectedRqTimeout()
		c.uncounted = m.GetDynamicStats() != nil && !m.GetDynamicStats().GetValue()
		c.codelessGRPC = m.GetSuppressGrpcRequestFailureCodeStats()
		c.logs = f.AccessLogs.Parse(m.GetUpstreamLog(), at.Field("upstream_log"), report)
		c.logInterval = m.GetUpstreamLogOptions().GetUpstreamLogFlushInterval().AsDuration() // of 1 ms or more, by the message's own rules
		c.logsEarly = m.GetUpstreamLogOptions().GetFlushUpstreamLogOnUpstreamStream()
	}
	return c
}

// config makes the routers of streams, once it is measured, and uses them again.
type config struct {
	suppress bool // no x-envoy- headers of our own (suppress_envoy_headers)
	// checked are headers that a request may have only with a value that makes
	// sense (strict_check_headers).
	checked []string
	// expected says that a request's time is what a proxy before this one told of it
	// (respect_expected_rq_timeout).
	expected bool
	// uncounted says that responses are not counted by status and time (dynamic_stats
	// is false).
	uncounted bool
	// codelessGRPC says that responses to gRPC are not counted by status, but below
	// prefixes and of routes, as in Envoy (suppress_grpc_request_failure_code_stats).
	codelessGRPC bool
	logs         []*accesslog.Log // of attempts
	logsEarly    bool             // as soon as they have a connection too
	logInterval  time.Duration    // while they go on too; 0 is not
	spare        sync.Pool

	requests, brokenOff *stats.Counter
	root                *stats.Registry
	routes              sync.Map // *routeStats, by route.Route.StatName
}

// Measure implements httpfilter.Measured.
func (c *config) Measure(scope *stats.Scope) {
	c.requests, c.brokenOff = scope.Counter("rq_total"), scope.Counter("rq_reset_after_downstream_response_started")
	c.root = scope.Registry()
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter {
	if r, ok := c.spare.Get().(*router); ok {
		return r
	}
	r := &router{config: c}
	r.attempt = newAttempt(r)
	if len(c.logs) > 0 {
		r.log = newUpstreamLog(c)
	}
	return r
}

// router forwards one request.
type router struct {
	config  *config
	stream  *stream.Stream
	cluster *cluster.Cluster // nil if nothing was to be forwarded
	// authority is the request's host, unless that of the attempt has a name that it
	// gets (auto_host_rewrite).
	authority []byte
	began     time.Time // when the request was
	// wholeAfter is how long after that the client's whole request was here, in
	// nanoseconds; 0 is not yet.
	wholeAfter atomic.Int64
	limits     limits

	attempt  *attempt // the present one
	attempts int      // so far
	// left are attempts that were given up while their uploads wait for the client.
	left   []*attempt
	sent   bool // something of the request went to an upstream
	resent bool // it was sent again without a retry (RFC 9112 §9.3.1 wants no third time)
	retry  retrying

	inner   message.Body     // of the response, as the codec reads it
	over    bool             // inner is at its end
	counted cluster.Response // what the response is counted by
	grpc    bool             // the request is one of gRPC
	// undecided says that the end of the response, which has begun, tells whether the host
	// has done well.
	undecided bool
	byRoute   *routeStats  // nil if the route does not count it
	log       *upstreamLog // nil if attempts are not logged
}

// Forward implements httpfilter.Terminal. Steps:
//
//  1. answer what is not forwarded; do what the route says about path, host
//     and hash;
//  2. attempt to get a response of one of the cluster's hosts, and again for as
//     long as the retry policy wants it;
//  3. hand the response on, or answer for the upstream that has none.
//
// It blocks on the connect, on the upstream and between attempts; the route's
// timeout bounds it from the end of the request, and whoever made the stream may
// Expire it.
func (r *router) Forward(s *stream.Stream) *httpfilter.Reply {
	r.config.requests.Inc()
	if reply := answer(s); reply != nil {
		return reply
	}
	if reply := r.config.check(s); reply != nil {
		return reply
	}
	r.begin(s)
	if s.Cluster.Maintained(s.Runtime) {
		return r.maintained()
	}
	if drop, all := s.Cluster.DropOverload(); drop {
		return r.dropped(all)
	}
	setCookies := r.config.carryOut(s)
	r.authority = s.Request.Authority
	r.tellUpstream(s)
	res := r.run(s)
	for r.wantsAnother(s, res) {
		if res = r.pause(); res == answered {
			r.tellUpstream(s)
			res = r.run(s)
		}
	}
	if res != answered {
		return r.refuse(res)
	}
	r.respond(s, setCookies)
	return nil
}

// begin takes on a request.
func (r *router) begin(s *stream.Stream) {
	r.stream, r.cluster = s, s.Cluster
	r.began = time.Now()
	r.byRoute = r.config.routeStats(s.Route)
	r.grpc = httpfilter.IsGRPC(&s.Request)
	r.counted.Codeless = r.config.codelessGRPC && r.grpc
	steered := steers(&s.Request.Headers)
	r.limits = limitsOf(s, steered, r.config.expected)
	if s.Runtime.Among(layeredruntime.UseRetry, layeredruntime.Share{Numerator: 1, Denominator: 1}, rand.Uint64()) {
		r.retry.state.Begin(s.Route.Retry, &s.Request, steered)
	}
	if steered {
		name, _ := s.Request.Headers.Get(altNameHeader)
		r.counted.AltName = string(name)
		s.Request.Headers.Keep(func(name, _ []byte) bool { return !steering(name) })
	}
	if s.Request.Body == nil || len(s.Request.Upgrade) > 0 { // of which the head is all that is answered
		r.noteWhole(r.began)
	}
}

// run makes an attempt, unless nobody waits for it any more: a filter before this one, or
// what led here, may have taken its time.
func (r *router) run(s *stream.Stream) result {
	if s.Expired() != nil {
		return streamExpired
	}
	r.attempts++
	r.attempt.body = r.body(s)
	return r.attempt.run(s)
}

// body is the request's body for an attempt, nil if there is none to send before
// the response.
func (r *router) body(s *stream.Stream) message.Body {
	switch {
	case s.Request.Body == nil || len(s.Request.Upgrade) > 0: // whose body waits for a 101
		return nil
	case !r.retry.state.Enabled():
		return s.Request.Body
	case r.retry.body == nil:
		r.retry.body = newReplay(s.Request.Body, s.BodyBufferLimit,
			func() { r.noteWhole(time.Now()) }, r.cluster.Stats.RetryAbandoned.Inc)
	}
	r.retry.reader = r.retry.body.newReader()
	return r.retry.reader
}

// respond hands on the response whose head the attempt got.
func (r *router) respond(s *stream.Stream, setCookies []string) {
	r.count(s.Response.Status, isTrue(&s.Response.Headers, "x-envoy-upstream-canary"))
	now := time.Now()
	s.Facts.Mark(format.ResponseBegin, now)
	s.Facts.ResponseCode, s.Facts.Details = s.Response.Status, "via_upstream"
	if whole := r.whole(); !r.attempt.tunnel && !whole.IsZero() && !r.config.suppress {
		setMilliseconds(&s.Response.Headers, "x-envoy-upstream-service-time", now.Sub(whole))
	}
	if s.Route.Attempts.Response {
		s.Response.Headers.Set(attemptHeader, strconv.Itoa(r.attempts))
	}
	for _, cookie := range setCookies {
		s.Response.Headers.Add("set-cookie", cookie)
	}
	r.inner = s.Response.Body
	switch {
	case !r.grpc || s.Response.Status >= 500:
		r.judge(s.Response.Status < 500)
	case r.inner == nil:
		r.judge(goodGRPC(&s.Response.Headers))
	default:
		r.undecided = true
	}
	if r.inner == nil {
		r.end(now)
		return
	}
	s.Response.Body = r
	if r.attempt.tunnel {
		r.attempt.startTunnel(s)
	}
}

// end notes the end of the response, and gives its connection back, or leaves that
// to Done.
func (r *router) end(now time.Time) {
	r.stream.Facts.Mark(format.UpstreamResponseEnd, now)
	r.log.whole(&r.stream.Response, now)
	r.log.end(r.stream)
	if r.undecided {
		r.undecided = false
		r.judge(goodGRPC(&r.stream.Response.Trailers))
	}
	if whole := r.whole(); !whole.IsZero() && !r.attempt.tunnel && r.counts() {
		r.cluster.Stats.RecordTime(now.Sub(whole), r.counted)
		if r.byRoute != nil {
			r.byRoute.responses.RecordTime(now.Sub(whole))
		}
	}
	r.attempt.release()
}

func (r *router) reply(status int, body string) *httpfilter.Reply {
	r.count(status, false)
	r.judge(status < 500)
	return &httpfilter.Reply{Status: status, Body: body}
}

// counts reports whether responses count among the cluster's: those to health checks
// do not.
func (r *router) counts() bool { return !r.config.uncounted && !r.stream.Facts.HealthCheck }

// count counts a response, of which canary is what it says of itself.
func (r *router) count(status int, canary bool) {
	host := r.attempt.Host
	r.counted.Host, r.counted.Internal, r.counted.Canary = host, isTrue(&r.stream.Request.Headers, "x-envoy-internal"), canary
	if r.counts() {
		r.cluster.Stats.CountResponse(status, r.counted)
		if r.byRoute != nil {
			r.byRoute.responses.Count(status)
		}
	}
}

// judge counts whether the host of the last attempt has done well, if there is one: of a
// response of gRPC that a status of gRPC says so, at its end.
func (r *router) judge(well bool) {
	switch host := r.attempt.Host; {
	case host == nil:
	case well:
		host.Stats.RequestsSucceeded.Add(1)
	default:
		host.Stats.RequestErrors.Add(1)
	}
}

// Next implements message.Body: the upstream's, which gives the connection
// back at its end.
func (r *router) Next() ([]byte, error) {
	if r.over { // and its connection may be another stream's
		return nil, io.EOF
	}
	if a := r.attempt; r.limits.tryIdle > 0 && !a.tunnel && a.Conn != nil {
		a.bound(a.Conn, time.Now())
	}
	chunk, err := r.inner.Next()
	r.log.received(len(chunk))
	if errors.Is(err, io.EOF) {
		r.over = true
		r.end(time.Now())
	} else if err != nil {
		r.brokeOff(err)
		r.attempt.Discard()
	}
	return chunk, err
}

// Ready implements message.Body.
func (r *router) Ready() bool { return r.over || r.inner.Ready() }

// Done implements httpfilter.Done. The client's body is at its end or cut off by
// now, so that an upload ends as soon as its connection does.
func (r *router) Done(*stream.Stream) {
	a := r.attempt
	if a.tunnel && a.uploading {
		<-a.uploaded // until the client's direction is at its end, or cut off
		a.uploading = false
	}
	r.log.end(r.stream)
	a.settle()
	a.End()
	a.wait()
	for _, left := range r.left {
		left.wait()
	}
	r.retry.end()
	r.stream, r.cluster, r.authority, r.inner, r.left, r.byRoute = nil, nil, nil, nil, nil, nil
	r.attempts, r.sent, r.resent, r.over, r.undecided, r.counted = 0, false, false, false, false, cluster.Response{}
	r.wholeAfter.Store(0)
	r.config.spare.Put(r)
}

// goodGRPC says whether the fields that an answer of gRPC ends with tell that its host has
// done well.
func goodGRPC(end *message.Headers) bool {
	value, _ := end.Get("grpc-status")
	code, ok := grpcwire.Status(value)
	return ok && grpcwire.HTTP(code) < 500
}

// isTrue says whether a header is "true".
func isTrue(h *message.Headers, name string) bool {
	value, _ := h.Get(name)
	return string(value) == "true"
}

// setMilliseconds sets a header to a duration in whole milliseconds.
func setMilliseconds(h *message.Headers, name string, d time.Duration) {
	var text [20]byte
	h.Remove(name)
	h.AddBytes(name, strconv.AppendInt(text[:0], d.Milliseconds(), 10))
}
