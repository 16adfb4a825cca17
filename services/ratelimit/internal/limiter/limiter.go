// Package limiter answers one rate-limit request: it finds the rule of each
// descriptor, has the store count the hits of all of them in one call, and
// says what is left. rls calls it for each request that passed its checks;
// limitsource gives it new rules while it runs. It knows no protocol and no
// particular store.
package limiter

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/localcache"
)

// Options says how a limiter works. Store, Algorithm and Metrics are required.
type Options struct {
	// Store keeps the counters. The caller closes it.
	Store Store
	// Algorithm decides for limits that requests bring along.
	Algorithm algorithm.Algorithm
	// KeyPrefix stands before the key of each counter, to part services that
	// share a store.
	KeyPrefix string
	// NearLimitRatio is the share of a limit above which hits count as near,
	// for limits that requests bring along.
	NearLimitRatio float64
	// LocalCache, if set, refuses without the store what it knows to be over.
	LocalCache *localcache.Cache
	// StopWhenOver has the descriptors that are within their limit count
	// nothing in a request of which another is over.
	StopWhenOver bool
	// ShadowMode answers no request as over, QuotaMode takes every limit for
	// one of a rule in quota mode.
	ShadowMode, QuotaMode bool
	// Refused, if set, is told of each descriptor that is over its limit in a
	// request that is refused, and must not keep entries.
	Refused func(domain string, entries []limits.Entry, hits uint64)
	// DomainNotFound, if set, is told of each request for a domain that has no
	// rules, and must not keep domain.
	DomainNotFound func(domain string, descriptors uint64)
	Metrics        prometheus.Registerer
}

// ErrNoRules is the answer before rules were set for the first time. To grant
// all then would let a wrong path to the rules switch every limit off.
var ErrNoRules = errors.New("no rules are loaded")

// Limiter is safe for use by many goroutines.
type Limiter struct {
	options Options
	rules   atomic.Pointer[limits.Set] // nil before the first
	scratch sync.Pool
	stats   *stats
}

// New makes a limiter that has no rules yet.
func New(o Options) *Limiter {
	l := &Limiter{options: o, stats: newStats(o.Metrics)}
	l.scratch.New = func() any { return &scratch{} }
	return l
}

// SetRules puts other rules in force. Requests that are being answered go on
// with those that they began with.
func (l *Limiter) SetRules(rules *limits.Set) { l.rules.Store(rules) }

// Rules returns the rules in force, an empty set before the first.
func (l *Limiter) Rules() *limits.Set {
	if rules := l.rules.Load(); rules != nil {
		return rules
	}
	return &limits.Set{}
}

// Request is what is asked. It holds what the protocol's checks let through.
type Request struct {
	Domain      string
	Descriptors []Descriptor
}

// Descriptor is one thing to be limited.
type Descriptor struct {
	Entries []limits.Entry
	// Hits is the number to count; 0 only looks. At most MaxHits.
	Hits uint64
	// Refund gives the hits back instead of counting them.
	Refund bool
	// Override is used in place of the rules when HasOverride; it has passed
	// its Check.
	Override    limits.Rate
	HasOverride bool
}

// Answer is what Check found. The caller may reuse it for another Check.
type Answer struct {
	// Over is what the statuses come to; see Check.
	Over bool
	// Tightest is the index of the status that headers tell of: the last that is
	// over and no quota, else the first with the least remaining, else -1 where
	// nothing is limited.
	Tightest int
	// Statuses has one element for each descriptor, in their order.
	Statuses []Status
}

// reset makes a an answer of n statuses that say nothing.
func (a *Answer) reset(n int) {
	a.Over, a.Tightest = false, -1
	a.Statuses = a.Statuses[:0]
	for range n {
		a.Statuses = append(a.Statuses, Status{})
	}
}

// Status is the answer for one descriptor.
type Status struct {
	Over bool
	// Limited is false when no rule was met, or an unlimited one; Rate and
	// ResetIn are zero then.
	Limited bool
	// Rule is the rule that was met; nil where there is none, where another
	// replaced it, and where the request brought a limit.
	Rule *limits.Rule
	Rate limits.Rate
	// Remaining is how many more hits fit; 4294967295 where a rule says
	// unlimited, 0 where there is no rule.
	Remaining uint32
	// ResetIn is the time until the limit is whole again.
	ResetIn time.Duration
}
