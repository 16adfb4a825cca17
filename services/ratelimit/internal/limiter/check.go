package limiter

import (
	"context"
	"math"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// scratch is the memory of one Check, pooled.
type scratch struct {
	ops     []Op
	targets []target // beside ops
	keys    []byte   // the bytes of all ops' keys
}

// target is what becomes of one operation's decision.
type target struct {
	status   int // index into Answer.Statuses
	rate     limits.Rate
	near     uint64
	counters *limits.Counters
	keyEnd   int // where the op's key ends in scratch.keys
}

// Check answers req into answer. Its steps:
//
//  1. take the rules in force, ErrNoRules if there were none yet; an unknown
//     domain is not limited;
//  2. for each descriptor, find its rule and prepare one operation;
//  3. have the store apply all operations in one call, which may block until
//     ctx ends;
//  4. write the statuses and count.
//
// Any other error is the store's; after one, answer means nothing. Check keeps neither
// req nor answer. Over a store that does not allocate, it does not either.
func (l *Limiter) Check(ctx context.Context, req *Request, answer *Answer) error {
	answer.Over = false
	answer.Statuses = answer.Statuses[:0]
	for range req.Descriptors {
		answer.Statuses = append(answer.Statuses, Status{})
	}
	rules := l.rules.Load()
	if rules == nil {
		return ErrNoRules
	}
	domain := rules.Domain(req.Domain)
	if domain == nil {
		l.stats.domainNotFound.Inc()
		return nil
	}

	s := l.scratch.Get().(*scratch)
	defer l.scratch.Put(s)
	l.prepare(s, domain, req, answer)
	if len(s.ops) == 0 {
		return nil
	}
	if err := l.options.Store.Apply(ctx, s.ops, time.Now()); err != nil {
		return err
	}
	for i := range s.ops {
		op, t := &s.ops[i], &s.targets[i]
		answer.Statuses[t.status] = Status{
			Over:      op.Decision.Over,
			Limited:   true,
			Rate:      t.rate,
			Remaining: op.Decision.Remaining,
			ResetIn:   op.Decision.ResetIn,
		}
		answer.Over = answer.Over || op.Decision.Over
		count(t.counters, op, t.near)
	}
	return nil
}

// prepare fills s with the operations of req's descriptors. A descriptor that
// meets an unlimited rule is answered here and needs none.
func (l *Limiter) prepare(s *scratch, domain *limits.Domain, req *Request, answer *Answer) {
	s.ops, s.targets, s.keys = s.ops[:0], s.targets[:0], s.keys[:0]
	for i := range req.Descriptors {
		d := &req.Descriptors[i]
		op := Op{Hits: d.Hits}
		t := target{status: i}
		if d.HasOverride {
			op.Algorithm, op.Limit = l.options.Algorithm, d.Override.Limit()
			t.rate, t.counters = d.Override, domain.Overrides
			t.near = limits.NearThreshold(d.Override.Requests, l.options.NearLimitRatio)
		} else {
			rule := domain.Match(d.Entries)
			if rule == nil {
				continue
			}
			if rule.Unlimited {
				rule.Counters.TotalHits.Add(d.Hits)
				rule.Counters.Within.Add(d.Hits)
				answer.Statuses[i].Remaining = math.MaxUint32
				continue
			}
			op.Algorithm, op.Limit = rule.Algorithm, rule.Limit
			t.rate, t.counters, t.near = rule.Rate, rule.Counters, rule.Near
		}
		s.keys = appendKey(s.keys, l.options.KeyPrefix, op.Algorithm, op.Limit, req.Domain, d.Entries)
		t.keyEnd = len(s.keys)
		s.ops = append(s.ops, op)
		s.targets = append(s.targets, t)
	}
	// Only now do the keys stay where they are.
	start := 0
	for i := range s.ops {
		end := s.targets[i].keyEnd
		s.ops[i].Key = s.keys[start:end:end]
		start = end
	}
}
