// Package ratelimit is the HTTP filter that asks a rate-limit service whether a
// request may pass (envoy.extensions.filters.http.ratelimit.v3.RateLimit, on
// routes RateLimitPerRoute). The chain runs it on the descriptors that the
// request's route makes, or the filter's own. It counts nothing but its own
// answers: the limits are the service's.
package ratelimit

import (
	"errors"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// filter is the filter of one stream.
type filter struct {
	config      *config
	route       *routeConfig
	concerned   bool // the request is one that there may be limits for
	descriptors descriptor.List
	request     rlsclient.Request
	response    rlsclient.Response
	outcome     outcome
}

// outcome is what came of asking.
type outcome int

const (
	unasked outcome = iota // or without an answer
	passed                 // with the service's headers for the response
	refused
)

// RequestHead implements httpfilter.RequestHead. Steps:
//
//  1. a request that there are no limits for passes: one without a route or
//     its cluster, of another request_type, or not of filter_enabled;
//  2. policies make descriptors; if none comes of them, it passes;
//  3. the service is asked, which blocks up to the timeout;
//  4. its answer lets the request pass, or ends it, if filter_enforced says so;
//     without an answer failure_mode_deny decides.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	if f.concerned = f.config.concerns(s); !f.concerned {
		return nil
	}
	f.describe(s, false)
	if f.descriptors.Len() == 0 {
		return nil
	}
	answered, givenUp := f.ask(s)
	switch {
	case answered && f.response.Code == rlsv3.RateLimitResponse_OK:
		return f.pass(s)
	case answered && f.response.Code == rlsv3.RateLimitResponse_OVER_LIMIT:
		return f.overLimit(s)
	}
	// No answer, or a code that this version doesn't know.
	return f.unanswered(s, givenUp)
}

// concerns says whether there may be limits for the request.
func (c *config) concerns(s *stream.Stream) bool {
	if s.Route == nil || s.Cluster == nil || !c.enabled.Has(c.random(), s.Runtime) {
		return false
	}
	if c.requests == "" || c.requests == "both" {
		return true
	}
	internal, _ := s.Request.Headers.Get("x-envoy-internal")
	return (string(internal) == "true") == (c.requests == "internal")
}

// describe makes the descriptors of the first of these that has policies: what
// the route configures, the filter, the route and its virtual host.
func (f *filter) describe(s *stream.Stream, onStreamDone bool) {
	in := descriptor.Input{
		Request: &s.Request, ClientAddress: s.ClientAddress, Service: f.config.service, Cluster: s.Cluster.Config.Name,
		Facts: &s.Facts, RouteMetadata: s.Route.Metadata, Runtime: s.Runtime,
	}
	switch {
	case len(f.route.own) > 0:
		descriptor.AppendAll(f.route.own, descriptor.AnyStage, onStreamDone, &f.descriptors, &in)
	case len(f.config.own) > 0:
		descriptor.AppendAll(f.config.own, descriptor.AnyStage, onStreamDone, &f.descriptors, &in)
	default:
		s.Route.AppendDescriptors(f.route.host, f.config.stage, onStreamDone, &f.descriptors, &in)
	}
}

// domain is that of the service's rules.
func (f *filter) domain() string {
	if f.route.domain != "" {
		return f.route.domain
	}
	return f.config.domain
}

// ask calls the service with what descriptors holds. GivenUp says that nobody
// waited for the answer any more, which says nothing of the service.
func (f *filter) ask(s *stream.Stream) (answered, givenUp bool) {
	f.request = rlsclient.Request{Domain: f.domain(), Descriptors: &f.descriptors}
	err := f.config.services.ShouldRateLimit(s.Context, s, f.config.asked, &f.request, &f.response)
	return err == nil, errors.Is(err, rlsclient.ErrGivenUp)
}

// pass lets the request go on, with what the service says.
func (f *filter) pass(s *stream.Stream) *httpfilter.Reply {
	f.count(s).ok.Inc()
	f.accept(s)
	return nil
}

func (f *filter) accept(s *stream.Stream) {
	f.outcome = passed
	f.store(s)
	for _, h := range f.response.RequestHeaders {
		s.Request.Headers.Add(h.Name, h.Value)
	}
}

// overLimit ends the request, unless limits are not enforced on it.
func (f *filter) overLimit(s *stream.Stream) *httpfilter.Reply {
	c, stats := f.config, f.count(s)
	stats.overLimit.Inc()
	s.Cluster.Stats.CountResponse(c.status, cluster.Response{Internal: true}) // as in Envoy, whoever asks
	if !c.enforced.Has(c.random(), s.Runtime) {
		stats.notEnforced.Inc()
		f.accept(s)
		return nil
	}
	f.outcome = refused
	f.store(s)
	s.Facts.Details, s.Facts.Flags = "request_rate_limited", s.Facts.Flags|format.RateLimited
	return c.refusal(&f.response, httpfilter.IsGRPC(&s.Request))
}

// unanswered lets the request pass, or ends it, by failure_mode_deny.
func (f *filter) unanswered(s *stream.Stream, givenUp bool) *httpfilter.Reply {
	c, stats := f.config, f.count(s)
	if !givenUp {
		stats.failed.Inc()
	}
	if c.deny.Has(c.random(), s.Runtime) {
		s.Facts.Details, s.Facts.Flags = "rate_limiter_error", s.Facts.Flags|format.RateLimitServiceError
		if httpfilter.IsGRPC(&s.Request) {
			return grpcReply(int(grpcwire.OfHTTP(c.onError)), "")
		}
		return &httpfilter.Reply{Status: c.onError}
	}
	if !givenUp {
		stats.failureModeAllowed.Inc()
	}
	return nil
}

// Done implements httpfilter.Done: what is to be counted at the end is sent, and
// nothing uses the filter any more.
func (f *filter) Done(s *stream.Stream) {
	f.descriptors.Reset()
	if f.concerned && s.Route != nil && s.Cluster != nil {
		f.describe(s, true)
		if f.descriptors.Len() > 0 {
			f.config.services.Report(f.config.asked, &rlsclient.Request{Domain: f.domain(), Descriptors: f.descriptors.Copy()})
			f.descriptors.Reset()
		}
	}
	f.route, f.concerned, f.outcome = nil, false, unasked
	f.response = rlsclient.Response{Statuses: f.response.Statuses[:0]}
	f.config.spare.Put(f)
}
