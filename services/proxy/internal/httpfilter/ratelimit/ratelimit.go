// Package ratelimit is the HTTP filter that asks a rate-limit service whether a
// request may pass (envoy.extensions.filters.http.ratelimit.v3.RateLimit). The
// chain runs it on the descriptors that the request's route makes. It counts
// nothing but its own answers: the limits are the service's.
package ratelimit

import (
	"context"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// filter is the filter of one stream.
type filter struct {
	config      *config
	descriptors descriptor.List
	request     rlsclient.Request
	response    rlsclient.Response
	// onResponse are the headers for the response to a request that passed.
	onResponse []rlsclient.Header
}

// RequestHead implements httpfilter.RequestHead. Steps:
//
//  1. a request without a route or without its cluster passes;
//  2. the route's policies make descriptors; if none comes of them, it passes;
//  3. the service is asked, which blocks up to the timeout;
//  4. its answer lets the request pass, or ends it with 429; without an answer
//     failure_mode_deny decides.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	if s.Route == nil || s.Cluster == nil || len(s.Route.RateLimits) == 0 {
		return nil
	}
	input := descriptor.Input{Request: &s.Request, ClientAddress: s.ClientAddress, Cluster: s.Cluster.Config.Name}
	for i := range s.Route.RateLimits {
		s.Route.RateLimits[i].Append(&f.descriptors, &input)
	}
	if f.descriptors.Len() == 0 {
		return nil
	}
	err := f.ask(s.Context)
	stats := countersOf(s.Cluster)
	switch {
	case err == nil && f.response.Code == rlsv3.RateLimitResponse_OK:
		stats.ok.Inc()
		for _, h := range f.response.RequestHeaders {
			s.Request.Headers.Add(h.Name, h.Value)
		}
		f.onResponse = f.response.ResponseHeaders
		return nil
	case err == nil && f.response.Code == rlsv3.RateLimitResponse_OVER_LIMIT:
		stats.overLimit.Inc()
		s.Cluster.Stats.CountStatus(429)
		s.Facts.Details, s.Facts.Flags = "request_rate_limited", s.Facts.Flags|format.RateLimited
		return overLimit(&f.response)
	}
	// No answer, or a code that this version doesn't know. A stream that was
	// broken off meanwhile says nothing about the service.
	if s.Context.Err() == nil {
		stats.failed.Inc()
	}
	if f.config.deny {
		s.Facts.Details, s.Facts.Flags = "rate_limiter_error", s.Facts.Flags|format.RateLimitServiceError
		return &httpfilter.Reply{Status: 500}
	}
	if s.Context.Err() == nil {
		stats.failureModeAllowed.Inc()
	}
	return nil
}

// ask calls the service with what descriptors holds.
func (f *filter) ask(ctx context.Context) error {
	if f.config.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.config.timeout)
		defer cancel()
	}
	f.request = rlsclient.Request{Domain: f.config.domain, Descriptors: &f.descriptors}
	return f.config.services.ShouldRateLimit(ctx, f.config.cluster, &f.request, &f.response)
}

// overLimit makes the reply to a request over its limit.
func overLimit(response *rlsclient.Response) *httpfilter.Reply {
	headers := make([]httpfilter.Header, 0, 1+len(response.ResponseHeaders))
	headers = append(headers, httpfilter.Header{Name: "x-envoy-ratelimited", Value: "true"})
	for _, h := range response.ResponseHeaders {
		headers = append(headers, httpfilter.Header(h))
	}
	return &httpfilter.Reply{Status: 429, Headers: headers, Body: response.Body}
}

// ResponseHead implements httpfilter.ResponseHead.
func (f *filter) ResponseHead(s *stream.Stream) {
	for _, h := range f.onResponse {
		s.Response.Headers.Add(h.Name, h.Value)
	}
}

// Done implements httpfilter.Done: nothing uses the filter any more.
func (f *filter) Done(*stream.Stream) {
	f.descriptors.Reset()
	f.onResponse = nil
	f.config.spare.Put(f)
}
