package router

import (
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// retrying is what a router knows of the retries of a request.
type retrying struct {
	state retry.State
	// held is the cluster's leave for the retry under way; nil without one.
	held  *breaker.Resource
	tried []*cluster.Host // before the present attempt
	// body and reader are the request's body for all attempts, and for the present
	// one; nil where there is none, or nothing is retried.
	body   *replay
	reader *reader
	late   bool // the attempt before took too long
}

// end lets go of everything.
func (t *retrying) end() {
	if t.held != nil {
		t.held.Release()
	}
	*t = retrying{}
}

// wantsAnother says whether another attempt is to follow the one that came to
// this, and counts that. The attempt is over then: its connection is given back
// if nothing more comes on it, else closed.
func (r *router) wantsAnother(s *stream.Stream, res result) bool {
	t, stats := &r.retry, r.cluster.Stats
	if !t.state.Enabled() || r.attempt.tunnel {
		return false
	}
	wants := res == answered && t.state.WantsAfter(&s.Response) || res.resets() && t.state.WantsAfterReset(endings[res].reset, r.sent)
	retried := t.held != nil
	if retried {
		t.held.Release()
		t.held = nil
	}
	if !wants {
		if retried && res == answered {
			stats.RetrySuccess.Inc()
			r.byRoute.note(routeRetrySuccess)
		}
		return false
	}
	if !t.state.Take() {
		stats.RetryLimitExceeded.Inc()
		r.byRoute.note(routeRetryLimitExceeded)
		s.Facts.Flags |= format.UpstreamRetryLimitExceeded
		return false
	}
	retries := &r.cluster.Breakers(s.Route.Priority).Retries
	if !retries.Acquire() {
		stats.RetryOverflow.Inc()
		r.byRoute.note(routeRetryOverflow)
		s.Facts.Flags |= format.UpstreamOverflow
		return false
	}
	if t.reader != nil && !t.reader.leave() {
		retries.Release()
		t.state.Stop()
		return false
	}
	t.held = retries
	stats.Retries.Inc()
	r.byRoute.note(routeRetry)
	t.late = res == lateTry || res == idleTry
	r.leave(s, res)
	return true
}

// leave gives the present attempt up, and makes way for another.
func (r *router) leave(s *stream.Stream, res result) {
	a := r.attempt
	r.log.end(s)
	a.Host.Stats.RequestErrors.Add(1)
	r.retry.tried = append(r.retry.tried, a.Host)
	if res == answered {
		if !r.config.uncounted {
			r.cluster.Stats.CountRetried(s.Response.Status, r.counted.Codeless)
		}
		a.drain(s.Response.Body)
	}
	s.Response.Body = nil
	s.Response.Trailers.Reset()
	a.End()
	if a.uploading {
		select {
		case <-a.uploaded:
			a.uploading = false
		default:
			r.left = append(r.left, a)
			r.attempt = newAttempt(r)
			return
		}
	}
	a.wait()
}

// pause waits for as long as the next attempt is to, and says whether it may
// begin: answered means that it may.
func (r *router) pause() result {
	wait, limited := r.retry.state.BackOff(r.stream.Runtime)
	if limited {
		r.cluster.Stats.BackoffRateLimited.Inc()
	} else {
		r.cluster.Stats.BackoffExponential.Inc()
	}
	end := late
	if deadline := r.deadline(); deadline.IsZero() || time.Until(deadline) > wait {
		end = answered
	} else {
		wait = time.Until(deadline)
	}
	slept := r.stream.Sleep(r.stream.Context, wait)
	switch {
	case !slept && r.stream.Expired() != nil:
		return streamExpired
	case !slept:
		return streamCut
	case end == late:
		r.cluster.Stats.RequestTimeouts.Inc()
		r.byRoute.note(routeTimeout)
	}
	return end
}

// pickContext is what the next attempt wants of its host.
func (r *router) pickContext(s *stream.Stream) cluster.PickContext {
	p := cluster.PickContext{Hash: s.Hash, Hashed: s.Hashed}
	if r.attempts > 1 && r.retry.state.Hosts().Any() {
		hosts := r.retry.state.Hosts()
		p.Attempts = hosts.Attempts
		p.Avoid = func(h *cluster.Host) bool { return hosts.Omit(h.Metadata(), slices.Contains(r.retry.tried, h)) }
	}
	return p
}

const attemptHeader = "x-envoy-attempt-count"

// tellUpstream sets the headers that tell the next attempt's host of it.
func (r *router) tellUpstream(s *stream.Stream) {
	h := &s.Request.Headers
	if s.Route.Attempts.Request {
		setNumber(h, attemptHeader, int64(r.attempts+1))
	}
	if s.Route.TellsGRPCTimeout() && r.attempts == 0 && r.grpc {
		// Without any limit the client's stays, whatever it says.
		if _, limited := s.Route.MaxStreamDuration(&s.Request); limited || s.MaxDuration > 0 {
			h.Remove("grpc-timeout")
		}
		if s.MaxDuration > 0 {
			h.Add("grpc-timeout", grpcwire.Timeout(s.MaxDuration))
		}
	}
	if r.attempts > 0 && s.Route.Attempts.IsTimeout {
		h.Set("x-envoy-is-timeout-retry", strconv.FormatBool(r.retry.late))
	}
	if expected := r.expected(); expected > 0 && !r.config.suppress {
		setMilliseconds(h, expectedHeader, expected)
	}
}

func setNumber(h *message.Headers, name string, n int64) {
	var text [20]byte
	h.Remove(name)
	h.AddBytes(name, strconv.AppendInt(text[:0], n, 10))
}
