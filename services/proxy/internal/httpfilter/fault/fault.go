// Package fault is the HTTP filter that makes things go wrong on purpose
// (envoy.extensions.filters.http.fault.v3.HTTPFault): it delays requests,
// answers them in the place of their upstream, and slows responses down. The
// configuration says for which share of which requests, or lets headers of a
// request say so for it. It decides by chance and knows nothing of the upstream.
package fault

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// filter is the filter of one stream.
type filter struct {
	config *config
	faults *faults
	active bool   // counts as an active fault
	rate   uint64 // KiB per second of the response's body; 0 is as it comes
}

// abortText is the body of an abort, and the message of one of gRPC.
const abortText = "fault filter abort"

// RequestHead implements httpfilter.RequestHead. Steps:
//
//  1. a request that faults are not for passes;
//  2. whether its response is slowed down is decided, for later;
//  3. it is delayed, which blocks;
//  4. it is aborted.
//
// Each fault needs a place among max_active_faults; the request keeps its one
// until it is done.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	c, stats := f.faults, f.config.stats
	if !c.concerns(s) {
		return nil
	}
	r := &s.Request
	if rate := c.rate(s); rate > 0 && f.activate(s) {
		f.rate = rate
		stats.rateLimited.Inc()
	}
	if d := c.delayOf(s); d > 0 && f.activate(s) {
		stats.delayed(f.downstream(r))
		s.Facts.Flags |= format.DelayInjected
		s.Sleep(s.Context, d)
	}
	if refusal, ok := c.refusal(s); ok && f.activate(s) {
		stats.aborted(f.downstream(r))
		s.Facts.Details, s.Facts.Flags = "fault_filter_abort", s.Facts.Flags|format.FaultInjected
		if httpfilter.IsGRPC(r) {
			return httpfilter.GRPCReply(refusal.grpc, abortText)
		}
		return &httpfilter.Reply{Status: refusal.http, Body: abortText}
	}
	return nil
}

// activate takes a place among the active faults, or says that there is none.
func (f *filter) activate(s *stream.Stream) bool {
	if f.active {
		return true
	}
	if f.active = f.config.stats.begin(s.Runtime.Integer(f.faults.mostKey, f.faults.most)); !f.active {
		f.config.stats.overflow.Inc()
	}
	return f.active
}

// downstream is the cluster that the request says it is from, by which faults
// are counted too; empty if it does not say, or that is turned off.
func (f *filter) downstream(r *message.Request) []byte {
	if !f.faults.perDownstream {
		return nil
	}
	name, _ := r.Headers.Get("x-envoy-downstream-service-cluster")
	return name
}

// ResponseHead implements httpfilter.ResponseHead.
func (f *filter) ResponseHead(s *stream.Stream) {
	if f.rate > 0 && s.Response.Body != nil {
		s.Response.Body = newSlowBody(s, f.rate)
	}
}

// Done implements httpfilter.Done.
func (f *filter) Done(*stream.Stream) {
	if f.active {
		f.config.stats.active.Add(-1)
	}
	f.active, f.rate, f.faults = false, 0, nil
	f.config.spare.Put(f)
}

// concerns says whether faults are for the request.
func (c *faults) concerns(s *stream.Stream) bool {
	if c.upstreamCluster != "" && (s.Route == nil || s.Cluster == nil || s.Cluster.Config.Name != c.upstreamCluster) {
		return false
	}
	for i := range c.headers {
		if !c.headers[i].Match(&s.Request) {
			return false
		}
	}
	if len(c.downstreamNodes) == 0 {
		return true
	}
	node, _ := s.Request.Headers.Get("x-envoy-downstream-service-node")
	return slices.Contains(c.downstreamNodes, string(node))
}

// delayOf is how long the request is to be held back.
func (c *faults) delayOf(s *stream.Stream) time.Duration {
	if c.delay == nil {
		return 0
	}
	d := c.delay.fixed
	if c.delay.byHeader {
		milliseconds, ok := number(&s.Request, "x-envoy-fault-delay-request")
		if !ok || milliseconds > uint64(maxDelay/time.Millisecond) {
			return 0
		}
		d = time.Duration(milliseconds) * time.Millisecond
	}
	if !c.delay.happens(s, c.delay.byHeader, "x-envoy-fault-delay-request-percentage", c.random) {
		return 0
	}
	const unset = math.MaxUint64
	if milliseconds := s.Runtime.Integer(c.delay.key, unset); milliseconds != unset {
		return time.Duration(min(milliseconds, uint64(maxDelay/time.Millisecond))) * time.Millisecond
	}
	return d
}

// maxDelay is the longest delay that a header or the runtime can ask for: who wants
// longer ones is wrong.
const maxDelay = 24 * time.Hour

// refusal is what the request is to be aborted with, if it is to be.
func (c *faults) refusal(s *stream.Stream) (refusal, bool) {
	if c.abort == nil {
		return refusal{}, false
	}
	answer, ok := c.abort.fixed, true
	if c.abort.byHeader {
		answer, ok = headerRefusal(&s.Request)
	}
	return c.abort.present(answer, s.Runtime), ok && c.abort.happens(s, c.abort.byHeader, "x-envoy-fault-abort-request-percentage", c.random)
}

// headerRefusal is what the headers of the request ask for: a status of HTTP
// before one of gRPC, which may be one that gRPC does not know, as in Envoy: so testers
// see what their clients make of it.
func headerRefusal(r *message.Request) (refusal, bool) {
	if status, ok := number(r, "x-envoy-fault-abort-request"); ok && status >= 200 && status <= 599 {
		return httpRefusal(int(status)), true
	}
	if status, ok := number(r, "x-envoy-fault-abort-grpc-request"); ok {
		return grpcRefusal(int(status)), true
	}
	return refusal{}, false
}

// rate is what the response is to be slowed down to, in KiB per second; 0 is
// not at all.
func (c *faults) rate(s *stream.Stream) uint64 {
	if c.limit == nil {
		return 0
	}
	rate := c.limit.fixed
	if c.limit.byHeader {
		rate, _ = number(&s.Request, "x-envoy-fault-throughput-response")
	}
	if rate == 0 || !c.limit.happens(s, c.limit.byHeader, "x-envoy-fault-throughput-response-percentage", c.random) {
		return 0
	}
	return rate
}

// happens decides by chance. Where headers may say what happens, one of them
// may lower its share, in the denominator of the configuration. What the runtime
// says holds in the place of either.
func (c chance) happens(s *stream.Stream, byHeader bool, header string, random func() uint64) bool {
	share := c.Share
	if byHeader {
		if n, ok := number(&s.Request, header); ok {
			share.Numerator = min(share.Numerator, uint32(n)) // which number has bounded
		}
	}
	share = s.Runtime.Share(c.key, share)
	return share.Numerator > 0 && share.Has(random())
}

// number is the whole number, of 32 bits, that a header of the request has.
func number(r *message.Request, name string) (uint64, bool) {
	value, ok := r.Headers.Get(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(value), 10, 32)
	return n, err == nil
}
