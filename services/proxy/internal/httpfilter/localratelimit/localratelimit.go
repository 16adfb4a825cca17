// Package localratelimit is the HTTP filter that limits requests by token
// buckets in this process
// (envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit). One bucket
// is for all requests of the filter, others are for those with certain
// descriptors. It asks nobody: limits that many proxies share are package
// ratelimit's.
package localratelimit

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
)

// filter is the filter of one stream.
type filter struct {
	config      *config
	limiter     *limiter
	descriptors descriptor.List
	matches     []match
	scratch     []byte
	// limit is the bucket that refused the request or, if none did, the one that
	// stands for those that it was held against; nil if it was held against none.
	limit   *tokenbucket.Bucket
	shown   bool // limit is told to the client
	refused bool
}

// refusalText is the body of a refusal, the message of one of gRPC, and what access logs
// have for its reason, as in Envoy.
const refusalText = "local_rate_limited"

// RequestHead implements httpfilter.RequestHead. Steps:
//
//  1. a share of requests is looked at, by filter_enabled;
//  2. the buckets of its descriptors and the common one each give a token;
//  3. a request without one is refused, or passes marked, by filter_enforced. One that
//     lacks tokens of descriptors in shadow_mode alone passes in any case.
//
// It never blocks.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	c := f.config
	if !c.enabled.Has(c.random(), s.Runtime) {
		return nil
	}
	stats := c.stats()
	stats.enabled.Inc()
	if c.limiter == nil { // there are no buckets to have too few tokens
		stats.ok.Inc()
		return nil
	}
	f.limiter = c.limiterOf(s)
	f.findMatches(s)
	switch f.take(time.Now()) {
	case within:
		stats.ok.Inc()
		return nil
	case shadowed:
		stats.limited.Inc()
		stats.shadow.Inc()
		return nil
	}
	stats.limited.Inc()
	if !c.enforced.Has(c.random(), s.Runtime) {
		c.onPassed.Apply(&s.Request.Headers, &s.Facts)
		return nil
	}
	stats.enforced.Inc()
	f.refused = true
	s.Facts.Details, s.Facts.Flags = refusalText, s.Facts.Flags|format.RateLimited
	if httpfilter.IsGRPC(&s.Request) {
		return httpfilter.GRPCReply(c.grpcStatus, refusalText)
	}
	return &httpfilter.Reply{Status: c.status, Body: refusalText}
}

// findMatches finds the buckets of the request's descriptors, the slowest
// first.
func (f *filter) findMatches(s *stream.Stream) {
	c, rules := f.config, &f.limiter.rules
	if len(rules.exact) == 0 && len(rules.wildcards) == 0 {
		return
	}
	in := descriptor.Input{Request: &s.Request, ClientAddress: s.ClientAddress, Service: c.service, Facts: &s.Facts, Runtime: s.Runtime}
	if s.Route != nil {
		in.Cluster, in.RouteMetadata = s.Route.Cluster, s.Route.Metadata
	}
	if s.Cluster != nil {
		in.Cluster = s.Cluster.Config.Name
	}
	switch {
	case len(c.policies) > 0:
		descriptor.AppendAll(c.policies, descriptor.AnyStage, false, &f.descriptors, &in)
	case s.Route != nil:
		s.Route.AppendDescriptors(c.host, c.stage, false, &f.descriptors, &in)
	}
	for i := range f.descriptors.Len() {
		f.matches, f.scratch = rules.find(f.matches, f.descriptors.At(i), f.descriptors.Details(i), f.scratch)
	}
	slices.SortStableFunc(f.matches, func(a, b match) int { return cmp.Compare(a.bucket.Rate(), b.bucket.Rate()) })
}

// outcome is how a request stands to its limits.
type outcome int

const (
	within   outcome = iota
	shadowed         // beyond those that are in shadow_mode
	beyond
)

// take takes tokens of each bucket until one has too few that is not in shadow mode,
// as many as its descriptor has hits and one of the common bucket. Tokens that were
// taken before that are gone. The client is told of a bucket that has too few, or else
// of the slowest.
func (f *filter) take(now time.Time) outcome {
	common, found := f.limiter.bucket, within
	f.show(common, descriptor.Unspecified)
	if len(f.matches) > 0 {
		f.show(f.matches[0].bucket, f.matches[0].option)
	}
	for _, m := range f.matches {
		switch {
		case m.bucket.Take(now, m.hits):
		case !m.shadow:
			f.show(m.bucket, m.option)
			return beyond
		case found == within:
			f.show(m.bucket, m.option)
			found = shadowed
		}
	}
	if (len(f.matches) == 0 || f.config.alwaysDefault) && !common.Take(now, 1) {
		f.show(common, descriptor.Unspecified)
		return beyond
	}
	return found
}

// show makes a bucket the one that the client is told of, if it is told.
func (f *filter) show(b *tokenbucket.Bucket, option descriptor.Option) {
	f.limit, f.shown = b, option == descriptor.Draft03 || option == descriptor.Unspecified && f.config.showLimits
}

// ResponseHead implements httpfilter.ResponseHead.
func (f *filter) ResponseHead(s *stream.Stream) {
	c := f.config
	if f.limit == nil || !f.shown && !f.refused {
		return
	}
	now, h := time.Now(), &s.Response.Headers
	if f.shown {
		var text [20]byte
		remaining := f.limit.Remaining(now)
		h.AddBytes("x-ratelimit-limit", strconv.AppendUint(text[:0], f.limit.Most(), 10))
		h.AddBytes("x-ratelimit-remaining", strconv.AppendUint(text[:0], remaining, 10))
		h.AddBytes("x-ratelimit-reset", strconv.AppendInt(text[:0], seconds(f.limit.Next(now)), 10))
	}
	if !f.refused {
		return
	}
	c.onRefused.Apply(h, &s.Facts)
	if c.retryAfter && s.Response.Status == 429 && !h.Has("retry-after") {
		h.Add("retry-after", strconv.FormatInt(max(1, seconds(f.limit.Next(now))), 10))
	}
}

// seconds rounds up to whole ones.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Done implements httpfilter.Done.
func (f *filter) Done(*stream.Stream) {
	f.descriptors.Reset()
	clear(f.matches)
	f.matches, f.limiter, f.limit, f.shown, f.refused = f.matches[:0], nil, nil, false, false
	f.config.spare.Put(f)
}
