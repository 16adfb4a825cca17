package limiter

import (
	"slices"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/localcache"
)

// target is what a descriptor is held to.
type target struct {
	// rule is nil if the descriptor brings an override, meets no rule, or one
	// that another replaces.
	rule      *limits.Rule
	limited   bool // neither unlimited nor without a limit
	counters  *limits.Counters
	rate      limits.Rate
	limit     algorithm.Limit
	algorithm algorithm.Algorithm
	near      uint64
	keyEnd    int // where the counter's key ends in scratch.keys
	// known says that the local cache made the decision, spared that the hits
	// were not counted because another descriptor is over.
	known, spared bool
	asked         localcache.Epoch // when the local cache was asked
	decision      algorithm.Decision
}

// find fills s.targets with what the descriptors are held to.
func (l *Limiter) find(s *scratch, domain *limits.Domain, req *Request) {
	s.targets, s.replaced = s.targets[:0], s.replaced[:0]
	for i := range req.Descriptors {
		d := &req.Descriptors[i]
		var t target
		if d.HasOverride {
			t = target{
				limited: true, counters: domain.Overrides, rate: d.Override, limit: d.Override.Limit(),
				algorithm: l.options.Algorithm, near: limits.NearThreshold(d.Override.Requests, l.options.NearLimitRatio),
			}
		} else if r := domain.Match(d.Entries); r != nil {
			t = target{
				rule: r, limited: !r.Unlimited, counters: r.CountersOf(d.Entries), rate: r.Rate, limit: r.Limit,
				algorithm: r.Algorithm, near: r.Near,
			}
			for _, name := range r.Replaces {
				if !slices.Contains(s.replaced, name) { // there are as many as rules have
					s.replaced = append(s.replaced, name)
				}
			}
		}
		s.targets = append(s.targets, t)
	}
	if len(s.replaced) > 0 {
		s.replace()
	}
}

// replace takes out the limits of s.replaced; one that is taken out itself has
// taken out others all the same. Unlimited rules cannot be taken out.
func (s *scratch) replace() {
	for i := range s.targets {
		if t := &s.targets[i]; t.rule != nil && t.limited && t.rule.Name != "" && slices.Contains(s.replaced, t.rule.Name) {
			*t = target{}
		}
	}
}
