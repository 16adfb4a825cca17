package router

import (
	"fmt"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// limits are the times that a request has; 0 is without limit.
type limits struct {
	// whole is from the end of the request to that of the response, all attempts
	// with it.
	whole time.Duration
	// try is from the end of the request, or from an attempt's connection if that
	// is later, to the head of the response; tryIdle is how long nothing may move
	// in an attempt, while its upstream has the say.
	try, tryIdle time.Duration
	// alternative says that the client wants an empty 204 in place of a 504.
	alternative bool
}

// The headers by which internal clients set limits.
const (
	timeoutHeader     = "x-envoy-upstream-rq-timeout-ms"
	expectedHeader    = "x-envoy-expected-rq-timeout-ms"
	tryTimeoutHeader  = "x-envoy-upstream-rq-per-try-timeout-ms"
	alternativeHeader = "x-envoy-upstream-rq-timeout-alt-response"
)

// altNameHeader names metrics under which an internal client wants the response counted
// too.
const altNameHeader = "x-envoy-upstream-alt-stat-name"

// limitsOf are the limits of a request, by its route, by its headers if it has some
// that steer us, and by what a proxy before us told of its time, if that counts.
func limitsOf(s *stream.Stream, steered, expected bool) limits {
	l := limits{whole: s.Route.Timeout}
	if p := s.Route.Retry; p != nil {
		l.try, l.tryIdle = p.PerTryTimeout, p.PerTryIdleTimeout
	}
	expected = expected && s.Request.Headers.Has(expectedHeader)
	if expected {
		milliseconds(&s.Request.Headers, expectedHeader, &l.whole)
	}
	if steered {
		if !expected {
			milliseconds(&s.Request.Headers, timeoutHeader, &l.whole)
		}
		milliseconds(&s.Request.Headers, tryTimeoutHeader, &l.try)
		l.alternative = s.Request.Headers.Has(alternativeHeader)
	}
	if l.whole > 0 && l.try >= l.whole {
		l.try = 0
	}
	return l
}

// milliseconds reads a header, if there is one that makes sense.
func milliseconds(h *message.Headers, name string, into *time.Duration) {
	value, _ := h.Get(name)
	if n, err := strconv.ParseUint(string(value), 10, 32); err == nil {
		*into = time.Duration(n) * time.Millisecond
	}
}

// steers says whether a request has headers that steer retries, timeouts or metrics.
func steers(h *message.Headers) bool {
	for i := range h.Len() {
		if name, _ := h.At(i); steering(name) {
			return true
		}
	}
	return false
}

// steering says whether a header steers us, and so goes no further.
func steering(name []byte) bool {
	switch string(name) {
	case "x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-retriable-status-codes", "x-envoy-retriable-header-names",
		"x-envoy-hedge-on-per-try-timeout", altNameHeader, timeoutHeader, tryTimeoutHeader, alternativeHeader:
		return true
	}
	return false
}

// check is the reply to a request one of whose checked headers makes no sense;
// else nil.
func (c *config) check(s *stream.Stream) *httpfilter.Reply {
	for _, name := range c.checked {
		value, ok := s.Request.Headers.Get(name)
		if !ok || makesSense(name, string(value)) {
			continue
		}
		s.Facts.Details, s.Facts.Flags = "request_headers_failed_strict_check{"+name+"}", s.Facts.Flags|format.InvalidEnvoyRequestHeaders
		return &httpfilter.Reply{Status: 400, Body: fmt.Sprintf("invalid header '%s' with value '%s'", name, value)}
	}
	return nil
}

func makesSense(name, value string) bool {
	switch name {
	case "x-envoy-retry-on":
		return retry.CheckHTTP(value)
	case "x-envoy-retry-grpc-on":
		return retry.CheckGRPC(value)
	}
	_, err := strconv.ParseUint(value, 10, 32)
	return err == nil
}

// noteWhole notes that the client's whole request is here. The first time counts.
func (r *router) noteWhole(now time.Time) {
	r.wholeAfter.CompareAndSwap(0, max(1, int64(now.Sub(r.began))))
}

// whole is when the client's whole request was here; the zero time is not yet.
func (r *router) whole() time.Time {
	after := r.wholeAfter.Load()
	if after == 0 {
		return time.Time{}
	}
	return r.began.Add(time.Duration(after))
}

// deadline is the end of the whole exchange; the zero time is none, or that the
// request is not whole yet.
func (r *router) deadline() time.Time {
	whole := r.whole()
	if r.limits.whole == 0 || whole.IsZero() {
		return time.Time{}
	}
	return whole.Add(r.limits.whole)
}

func (r *router) isLate(now time.Time) bool {
	deadline := r.deadline()
	return !deadline.IsZero() && !now.Before(deadline)
}

// expected is how long the next attempt may take, to be told to its host; 0 is
// that there is no limit. Of one whose time is up it is a millisecond.
func (r *router) expected() time.Duration {
	l := &r.limits
	if l.try > 0 && l.whole == 0 {
		return l.try
	}
	left := l.whole
	if deadline := r.deadline(); r.attempts > 0 && !deadline.IsZero() {
		left = max(time.Until(deadline), time.Millisecond)
	}
	if l.try > 0 {
		left = min(left, l.try)
	}
	return left
}
