package router

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// resendable says whether the request failed on a connection that its server
// had closed for being idle, and may be sent again: nothing came back, and
// doing it twice does no more than doing it once.
func (a *attempt) resendable(s *stream.Stream, err error) bool {
	if err == nil || a.conn == nil || !a.conn.Reused || s.Request.Body != nil || a.conn.Reader.Buffered() {
		return false
	}
	if a.interim > 0 || s.Expired() != nil {
		return false
	}
	var protocol *http1.ProtocolError
	if errors.As(err, &protocol) || timedOut(err) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	switch string(s.Request.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// What an attempt may come to before there is a connection to be had.
var (
	errNoHost   = errors.New("the cluster has no healthy host")
	errOverflow = errors.New("a circuit breaker of the cluster is open")
)

// failed makes the reply for an attempt that ended before the response's head,
// with Envoy's statuses and texts. An upload that still runs ends with the
// connection, or when the client's body is cut off; Done waits for it.
func (r *router) failed(err error) *httpfilter.Reply {
	switch {
	case errors.Is(err, errNoHost):
		r.stream.Facts.Details, r.stream.Facts.Flags = "no_healthy_upstream", r.stream.Facts.Flags|format.NoHealthyUpstream
		return r.reply(503, "no healthy upstream")
	case errors.Is(err, errOverflow):
		return r.overflowed()
	}
	connected, host := r.attempt.conn != nil, r.attempt.host
	r.attempt.discard()
	if why := r.stream.Expired(); why != nil {
		return &httpfilter.Reply{Status: why.Status, Body: why.Text}
	}
	client := r.attempt.brokenOff.Load()
	if client == nil {
		errors.As(err, &client)
	}
	if client != nil {
		return r.clientFailed(client.error)
	}
	const reset = "upstream connect error or disconnect/reset before headers. reset reason: "
	f := &r.stream.Facts
	var protocol *http1.ProtocolError
	switch {
	case !connected:
		f.UpstreamFailure = connectFailure(err)
		f.Details, f.Flags = beforeResponse("remote_connection_failure|"+f.UpstreamFailure), f.Flags|format.UpstreamConnectionFailure
		r.cluster.Stats.ConnectFailures.Inc()
		host.Stats.ConnectFailures.Add(1)
		if !errors.Is(err, context.Canceled) {
			host.Outlier.ReportLocal(outlier.ConnectFailed)
		}
		return r.reply(503, reset+"remote connection failure")
	case errors.As(err, &protocol):
		r.cluster.Stats.ProtocolErrors.Inc()
		f.Details, f.Flags = beforeResponse("protocol_error"), f.Flags|format.UpstreamProtocolError
		host.Outlier.ReportLocal(outlier.Reset)
		return r.reply(502, reset+"protocol error")
	case timedOut(err):
		r.cluster.Stats.RequestTimeouts.Inc()
		host.Outlier.ReportLocal(outlier.Timeout)
		r.late()
		return r.reply(504, "upstream request timeout")
	default:
		r.cluster.Stats.RequestResets.Inc()
		f.Details, f.Flags = beforeResponse("connection_termination"), f.Flags|format.UpstreamConnectionTermination
		r.reportReset(err)
		return r.reply(503, reset+"connection termination")
	}
}

// reportReset reports a connection that broke before the end of the response,
// unless the proxy closed it itself since its client went or time was up.
func (r *router) reportReset(err error) {
	if !errors.Is(err, net.ErrClosed) {
		r.attempt.host.Outlier.ReportLocal(outlier.Reset)
	}
}

// overflowed makes the reply for a request that a circuit breaker of its
// cluster stopped.
func (r *router) overflowed() *httpfilter.Reply {
	reply := r.reply(503, "upstream connect error or disconnect/reset before headers. reset reason: overflow")
	reply.Headers = []httpfilter.Header{{Name: "x-envoy-overloaded", Value: "true"}}
	return reply
}

// dropped makes the reply for a request that its cluster's drop_overloads
// stopped, which stop all requests or some.
func dropped(all bool) *httpfilter.Reply {
	if all {
		return &httpfilter.Reply{
			Status: 503, Body: "unconditional drop overload",
			Headers: []httpfilter.Header{{Name: "x-envoy-unconditional-drop-overload", Value: "true"}},
		}
	}
	return &httpfilter.Reply{
		Status: 503, Body: "drop overload", Headers: []httpfilter.Header{{Name: "x-envoy-drop-overload", Value: "true"}},
	}
}

// clientFailed makes the reply for a request whose body failed.
func (r *router) clientFailed(err error) *httpfilter.Reply {
	f := &r.stream.Facts
	var protocol *http1.ProtocolError
	switch {
	case errors.As(err, &protocol):
		f.Details, f.Flags = "http1.codec_error", f.Flags|format.DownstreamProtocolError
		return r.reply(protocol.Status, protocol.Detail)
	case timedOut(err):
		f.Details, f.Flags = "stream_idle_timeout", f.Flags|format.StreamIdleTimeout
		return r.reply(408, "stream timeout")
	default:
		f.Details, f.Flags = "downstream_remote_disconnect", f.Flags|format.DownstreamConnectionTermination
		return r.reply(400, "the request's body ended early")
	}
}

// brokeOff counts and notes an upstream that failed within its response.
func (r *router) brokeOff(err error) {
	f := &r.stream.Facts
	var protocol *http1.ProtocolError
	switch {
	case timedOut(err):
		r.cluster.Stats.RequestTimeouts.Inc()
		r.attempt.host.Outlier.ReportLocal(outlier.Timeout)
		r.late()
		return
	case errors.As(err, &protocol):
		f.Details, f.Flags = "upstream_reset_after_response_started{protocol_error}", f.Flags|format.UpstreamProtocolError
	default:
		f.Details, f.Flags = "upstream_reset_after_response_started{connection_termination}", f.Flags|format.UpstreamConnectionTermination
	}
	r.cluster.Stats.RequestResets.Inc()
	r.reportReset(err)
}

// late notes an upstream that took longer than it may.
func (r *router) late() {
	f := &r.stream.Facts
	if r.stream.Route.Timeout == 0 {
		f.Details, f.Flags = "stream_idle_timeout", f.Flags|format.StreamIdleTimeout
		return
	}
	f.Details, f.Flags = "upstream_response_timeout", f.Flags|format.UpstreamRequestTimeout
}

func beforeResponse(reason string) string {
	return "upstream_reset_before_response_started{" + reason + "}"
}

// connectFailure is why a connect failed, in Envoy's words.
func connectFailure(err error) string {
	text := err.Error()
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		text = number.Error()
		text = strings.ToUpper(text[:1]) + text[1:]
	} else if timedOut(err) {
		text = "connect timeout"
	}
	return "delayed_connect_error:_" + strings.ReplaceAll(text, " ", "_")
}

func timedOut(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}
