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
	"github.com/weirproxy/weir/services/proxy/internal/fixedheader"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// filter is the filter of one stream.
type filter struct {
	config      *config
	descriptors descriptor.List
	matches     []match
	scratch     []byte
	// limit is the bucket that refused the request or, if none did, the one that
	// stands for those that it was held against; nil if it was held against none.
	limit   *bucket
	refused bool
}

// refusalText is the body of a refusal, and the message of one of gRPC.
const refusalText = "local_rate_limited"

// RequestHead implements httpfilter.RequestHead. Steps:
//
//  1. a share of requests is looked at, by filter_enabled;
//  2. the buckets of its descriptors and the common one each give a token;
//  3. a request without one is refused, or passes marked, by filter_enforced.
//
// It never blocks.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	c := f.config
	if c.bucket == nil || !c.enabled.Has(c.random()) {
		return nil
	}
	c.stats.enabled.Inc()
	f.findMatches(s)
	if f.take(time.Now()) {
		c.stats.ok.Inc()
		return nil
	}
	c.stats.limited.Inc()
	if !c.enforced.Has(c.random()) {
		fixedheader.Apply(c.onPassed, &s.Request.Headers)
		return nil
	}
	c.stats.enforced.Inc()
	f.refused = true
	if httpfilter.IsGRPC(&s.Request) {
		return httpfilter.GRPCReply(c.grpcStatus, refusalText)
	}
	return &httpfilter.Reply{Status: c.status, Body: refusalText}
}

// findMatches finds the buckets of the request's descriptors, the slowest
// first.
func (f *filter) findMatches(s *stream.Stream) {
	c := f.config
	if len(c.rules.exact) == 0 && len(c.rules.wildcards) == 0 {
		return
	}
	policies, cluster := c.policies, ""
	if s.Route != nil {
		cluster = s.Route.Cluster
		if len(policies) == 0 {
			policies = s.Route.RateLimits
		}
	}
	input := descriptor.Input{Request: &s.Request, ClientAddress: s.ClientAddress, Cluster: cluster}
	for i := range policies {
		policies[i].Append(&f.descriptors, &input)
	}
	for i := range f.descriptors.Len() {
		f.matches, f.scratch = c.rules.find(f.matches, f.descriptors.At(i), f.scratch)
	}
	slices.SortStableFunc(f.matches, func(a, b match) int { return cmp.Compare(a.bucket.rate, b.bucket.rate) })
}

// take takes a token of each bucket until one has none. Tokens that were taken
// before that are gone.
func (f *filter) take(now time.Time) bool {
	c := f.config
	for _, m := range f.matches {
		switch {
		case m.bucket.take(now):
		case m.shadow:
			c.stats.shadow.Inc()
		default:
			f.limit = m.bucket
			return false
		}
	}
	f.limit = c.bucket
	if len(f.matches) > 0 {
		f.limit = f.matches[0].bucket
		if !c.alwaysDefault {
			return true
		}
	}
	if c.bucket.take(now) {
		return true
	}
	f.limit = c.bucket
	return false
}

// ResponseHead implements httpfilter.ResponseHead.
func (f *filter) ResponseHead(s *stream.Stream) {
	c := f.config
	if f.limit == nil || !c.showLimits && !f.refused {
		return
	}
	now, h := time.Now(), &s.Response.Headers
	if c.showLimits {
		var text [20]byte
		remaining := f.limit.remaining(now)
		h.AddBytes("x-ratelimit-limit", strconv.AppendUint(text[:0], uint64(f.limit.most), 10))
		h.AddBytes("x-ratelimit-remaining", strconv.AppendUint(text[:0], remaining, 10))
		h.AddBytes("x-ratelimit-reset", strconv.AppendInt(text[:0], seconds(f.limit.next(now)), 10))
	}
	if !f.refused {
		return
	}
	fixedheader.Apply(c.onRefused, h)
	if c.retryAfter && s.Response.Status == 429 && !h.Has("retry-after") {
		h.Add("retry-after", strconv.FormatInt(max(1, seconds(f.limit.next(now))), 10))
	}
}

// seconds rounds up to whole ones.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Done implements httpfilter.Done.
func (f *filter) Done(*stream.Stream) {
	f.descriptors.Reset()
	clear(f.matches)
	f.matches, f.limit, f.refused = f.matches[:0], nil, false
	f.config.spare.Put(f)
}
