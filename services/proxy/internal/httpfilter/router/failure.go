package router

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// resendable says whether the request, which failed, is to be sent once more at once: it
// has no body, which may be used up, its host has not processed it (upstream.Stale), and
// it was not sent again before. A stream that its host refuses is left to the retry
// policy, if that has retries for it, so that the two do not multiply.
func (a *attempt) resendable(s *stream.Stream, err error) bool {
	r := a.router
	switch {
	case err == nil, r.resent, s.Request.Body != nil, s.Expired() != nil, a.interim > 0:
		return false
	case a.Why(err) == upstream.Refused:
		return a.Conn.Sent() == 0 || !r.retry.state.WantsAfterReset(retry.RefusedStream, true)
	}
	return a.Stale(s.Request.Method, a.bounds.began, err)
}

// result is what an attempt came to.
type result int

// The results.
const (
	answered      result = iota // there is the head of a response
	noHost                      // the cluster has none for the request
	overflow                    // a circuit breaker of the cluster was open
	unconnected                 // no connection came to be
	malformed                   // the response broke the protocol
	terminated                  // the connection ended before the response
	refused                     // the host has not processed the request, and said so
	reset                       // the host reset the stream before the response
	late                        // the route's timeout passed
	lateTry                     // the attempt's own timeout passed
	idleTry                     // nothing moved for too long
	outlived                    // the stream took longer than the cluster lets it
	clientBroke                 // the client's body broke off, or is malformed
	streamExpired               // the stream is out of time
	streamCut                   // nobody waits for the stream
)

// ending is what is told of a result that is the last one.
type ending struct {
	status int
	flag   format.Flags
	// reason is why the stream was reset, in Envoy's words, and detail the same for
	// RESPONSE_CODE_DETAILS, which are both empty for what is none.
	reason, detail string
	// reset is what retries are decided by, if there is a reason.
	reset retry.Reset
	// counted is what the result is counted and reported as.
	counted upstream.Failure
}

var endings = [...]ending{
	overflow:    {503, format.UpstreamOverflow, "overflow", "overflow", retry.Overflow, upstream.Overflow},
	unconnected: {503, format.UpstreamConnectionFailure, "remote connection failure", "remote_connection_failure|", retry.ConnectFailure, upstream.Unconnected},
	malformed:   {502, format.UpstreamProtocolError, "protocol error", "protocol_error", retry.Broken, upstream.Malformed},
	terminated:  {503, format.UpstreamConnectionTermination, "connection termination", "connection_termination", retry.Broken, upstream.Terminated},
	refused:     {503, format.UpstreamRemoteReset, "remote refused stream reset", "remote_refused_stream_reset", retry.RefusedStream, upstream.Refused},
	reset:       {503, format.UpstreamRemoteReset, "remote reset", "remote_reset", retry.Broken, upstream.Reset},
	lateTry:     {504, format.UpstreamRequestTimeout, "", "upstream_per_try_timeout", retry.TimedOut, upstream.None},
	idleTry:     {504, format.UpstreamRequestTimeout, "", "upstream_per_try_idle_timeout", retry.TimedOut, upstream.None},
	outlived:    {504, format.UpstreamMaxStreamDurationReached, "", "upstream_max_stream_duration_reached", retry.Broken, upstream.None},
	late:        {504, format.UpstreamRequestTimeout, "", "response_timeout", retry.TimedOut, upstream.TimedOut},
	streamCut:   {status: 503},
}

// failures are the results that failures are; of those in time there is more to be said.
var failures = [...]result{
	upstream.Overflow: overflow, upstream.NoPool: noHost, upstream.Unconnected: unconnected, upstream.Malformed: malformed,
	upstream.Terminated: terminated, upstream.Refused: refused, upstream.Reset: reset, upstream.TimedOut: late,
}

// resets are the results that another attempt may follow.
func (res result) resets() bool {
	switch res {
	case unconnected, malformed, terminated, refused, reset, lateTry, idleTry, outlived:
		return true
	}
	return false
}

// failed tells how the attempt failed, and counts and reports it.
func (a *attempt) failed(err error) result {
	a.err = err
	res := a.classify(err)
	a.router.log.failed(res, a.err)
	a.report(res, err)
	return res
}

// report counts a result, and reports it to the host.
func (a *attempt) report(res result, err error) {
	a.Count(endings[res].counted, err)
	stats := a.Cluster.Stats
	switch res {
	case late:
		a.router.byRoute.note(routeTimeout)
	case lateTry:
		stats.PerTryTimeouts.Inc()
		a.Host.Stats.RequestTimeouts.Add(1)
		a.Host.Outlier.ReportLocal(outlier.Timeout)
	case idleTry:
		stats.PerTryIdleTimeouts.Inc()
		a.Host.Stats.RequestTimeouts.Add(1)
		a.Host.Outlier.ReportLocal(outlier.Timeout)
	case outlived: // which says nothing of the host
		stats.StreamsOutlived.Inc()
	}
}

func (a *attempt) classify(err error) result {
	r := a.router
	client := a.brokenOff.Load()
	if client == nil {
		errors.As(err, &client)
	}
	switch {
	case r.stream.Expired() != nil:
		return streamExpired
	case client != nil:
		a.err = client.error
		return clientBroke
	}
	if why := a.Why(err); why != upstream.TimedOut {
		return failures[why]
	}
	now, try := time.Now(), a.tryDeadline()
	switch {
	case a.Conn != nil && a.outlived(now):
		return outlived
	case r.isLate(now):
		return late
	case a.Conn == nil:
		return unconnected
	case !try.IsZero() && !now.Before(try):
		return lateTry
	}
	return idleTry
}

// refuse makes the reply for the last attempt, which got no response, and closes
// its connection.
func (r *router) refuse(res result) *httpfilter.Reply {
	r.log.end(r.stream)
	r.attempt.Discard()
	reply := r.replyTo(res)
	if r.stream.Route.Attempts.Response && res != streamExpired {
		reply.Headers = append(reply.Headers, httpfilter.Header{Name: attemptHeader, Value: strconv.Itoa(r.attempts)})
	}
	return reply
}

// replyTo is the reply for a result, with Envoy's statuses and texts.
func (r *router) replyTo(res result) *httpfilter.Reply {
	f := &r.stream.Facts
	switch res {
	case streamExpired:
		return httpfilter.Expired(r.stream, r.stream.Expired())
	case clientBroke:
		return httpfilter.BodyFailed(r.stream, r.attempt.err) // for which the cluster is not to blame
	case noHost:
		f.Details, f.Flags = "no_healthy_upstream", f.Flags|format.NoHealthyUpstream
		return r.reply(503, "no healthy upstream")
	}
	end := endings[res]
	f.Flags |= end.flag
	if res == outlived {
		return r.replyOutlived(end)
	}
	if end.reason == "" {
		f.Details = end.detail
		return r.outOfTime(end.status)
	}
	detail := end.detail
	if res == unconnected {
		f.UpstreamFailure = connectFailure(r.attempt.err)
		detail += f.UpstreamFailure
	}
	f.Details = "upstream_reset_before_response_started{" + detail + "}"
	text := "upstream connect error or disconnect/reset before headers. "
	if r.attempts > 1 {
		text += "retried and the latest "
	}
	reply := r.reply(end.status, text+"reset reason: "+end.reason)
	if res == overflow && !r.config.suppress {
		reply.Headers = append(reply.Headers, httpfilter.Header{Name: "x-envoy-overloaded", Value: "true"})
	}
	return reply
}

// outOfTime makes the reply for an upstream that took longer than it may, which
// is what the request asked for, if it did (x-envoy-upstream-rq-timeout-alt-response).
func (r *router) outOfTime(status int) *httpfilter.Reply {
	if status == 504 && r.limits.alternative {
		return r.reply(204, "")
	}
	if status == 504 {
		return r.reply(status, "upstream request timeout")
	}
	return r.reply(status, "")
}

// replyOutlived makes the reply for an upstream whose stream lasted for longer than its
// cluster lets it. It counts as no response of the cluster.
func (r *router) replyOutlived(end ending) *httpfilter.Reply {
	r.stream.Facts.Details = end.detail
	status := end.status
	if r.whole().IsZero() { // it was for the client to end
		status = 408
	}
	return &httpfilter.Reply{Status: status, Body: "upstream max stream duration reached"}
}

// maintained makes the reply for a request to a cluster in maintenance mode.
func (r *router) maintained() *httpfilter.Reply {
	return r.turnAway("maintenance mode", "maintenance_mode", format.UpstreamOverflow, "x-envoy-overloaded")
}

// dropped makes the reply for a request that its cluster's drop_overloads
// stopped, which stop all requests or some.
func (r *router) dropped(all bool) *httpfilter.Reply {
	if all {
		return r.turnAway("unconditional drop overload", "unconditional_drop_overload", format.UnconditionalDropOverload, "x-envoy-unconditional-drop-overload")
	}
	return r.turnAway("drop overload", "drop_overload", format.DropOverload, "x-envoy-drop-overload")
}

// turnAway makes the reply for a request that is kept from its cluster, with a header
// that says so.
func (r *router) turnAway(text, details string, flag format.Flags, header string) *httpfilter.Reply {
	f := &r.stream.Facts
	f.Details, f.Flags = details, f.Flags|flag
	reply := r.reply(503, text)
	if !r.config.suppress {
		reply.Headers = []httpfilter.Header{{Name: header, Value: "true"}}
	}
	return reply
}

// brokeOff counts and notes what failed within the response: the upstream, unless
// the client's body did first, or the stream was out of time.
func (r *router) brokeOff(err error) {
	client := r.attempt.brokenOff.Load()
	switch {
	case r.stream.Expired() != nil:
		return
	case client != nil:
		httpfilter.BodyFailed(r.stream, client.error) // whose reply comes too late
		return
	}
	res := r.attempt.brokenBy(err)
	r.attempt.report(res, err)
	if r.undecided && res != late && res != outlived { // as in Envoy
		r.undecided = false
		r.config.brokenOff.Inc()
		r.judge(false)
	}
	f, end := &r.stream.Facts, &endings[res]
	f.Flags |= end.flag
	if end.reason == "" {
		f.Details = end.detail
		return
	}
	r.log.brokeOff(end.flag)
	f.Details = "upstream_reset_after_response_started{" + end.detail + "}"
}

// brokenBy is what broke the response off behind its head.
func (a *attempt) brokenBy(err error) result {
	switch why, now := a.Why(err), time.Now(); {
	case a.cutShort(err):
		return malformed
	case why != upstream.TimedOut:
		return failures[why]
	case a.outlived(now):
		return outlived
	case a.router.limits.tryIdle > 0 && !a.tunnel && !a.router.isLate(now):
		return idleTry
	}
	return late
}

// cutShort says whether a body of HTTP/1 ended before its length was there, or its last
// chunk, which breaks the protocol, in whatever way its connection ended.
func (a *attempt) cutShort(err error) bool {
	return a.Conn != nil && !a.Conn.HTTP2() && !a.tunnel && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET))
}

// connectFailure is why a connect failed, in Envoy's words.
func connectFailure(err error) string {
	text := err.Error()
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		text = number.Error()
		text = strings.ToUpper(text[:1]) + text[1:]
	} else if upstream.IsTimeout(err) {
		text = "connect timeout"
	}
	return "delayed_connect_error:_" + strings.ReplaceAll(text, " ", "_")
}
