package limiter

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// scratch is the memory of one Check, pooled.
type scratch struct {
	targets  []target // one for each descriptor
	call     Call
	targetOf []int  // beside call.Ops: the index of its target
	keys     []byte // the bytes of all counters' keys
	// over says that the local cache knows a counter to be over.
	over bool
	// replaced is the names of the limits that are not applied.
	replaced []string
}

// Check answers req into answer. Its steps:
//
//  1. take the rules in force, ErrNoRules if there were none yet; an unknown
//     domain is not limited;
//  2. for each descriptor, find its limit, and leave out those that another
//     descriptor's rule replaces;
//  3. have the local cache decide what it knows to be over. As in
//     envoyproxy/ratelimit that comes before the store: what an earlier
//     descriptor of the request gives back makes room for later requests only;
//  4. have the store apply the rest in one call, which may block until ctx
//     ends;
//  5. write the statuses, count, put them together, and tell of what is refused.
//
// Any other error is the store's, where a rule does not say what to answer
// without it; after one, answer means nothing. Check keeps neither req nor
// answer. Over a store that does not allocate, it does not either.
func (l *Limiter) Check(ctx context.Context, req *Request, answer *Answer) error {
	answer.reset(len(req.Descriptors))
	rules := l.rules.Load()
	if rules == nil {
		return ErrNoRules
	}
	domain := rules.Domain(req.Domain)
	if domain == nil {
		if l.options.DomainNotFound != nil {
			l.options.DomainNotFound(req.Domain, uint64(len(req.Descriptors)))
		}
		return nil
	}
	s := l.scratch.Get().(*scratch)
	defer l.release(s)
	s.call.Now = time.Now()
	l.find(s, domain, req)
	l.prepare(s, req)
	if err := l.apply(ctx, s); err != nil {
		return err
	}
	for i := range s.targets {
		settle(&s.targets[i], &req.Descriptors[i], &answer.Statuses[i])
	}
	l.conclude(s, answer)
	l.tellRefused(req, answer)
	return nil
}

// keptKeys is how many bytes of keys a scratch may have room for to be used again:
// those of a request of huge values are not kept.
const keptKeys = 1 << 20

// release gives s back to the pool, and lets go of the request and of the rules
// that it met.
func (l *Limiter) release(s *scratch) {
	if cap(s.keys) > keptKeys {
		return
	}
	s.call.Domain = ""
	clear(s.targets)
	clear(s.replaced)
	l.scratch.Put(s)
}

// prepare names the counters, decides what the local cache knows, and fills
// s.call with the operations on the others, and with all that give hits back.
func (l *Limiter) prepare(s *scratch, req *Request) {
	s.keys = s.keys[:0]
	for i := range s.targets {
		if t := &s.targets[i]; t.limited {
			s.keys = l.appendKey(s.keys, t, req.Domain, req.Descriptors[i].Entries)
			t.keyEnd = len(s.keys)
		}
	}
	// Only now do the keys stay where they are.
	s.call.Ops, s.targetOf, s.over = s.call.Ops[:0], s.targetOf[:0], false
	s.call.Domain, s.call.StopWhenOver = req.Domain, l.options.StopWhenOver
	start := 0
	for i := range s.targets {
		t, d := &s.targets[i], &req.Descriptors[i]
		if !t.limited {
			continue
		}
		key := s.keys[start:t.keyEnd:t.keyEnd]
		start = t.keyEnd
		if l.options.LocalCache != nil && !d.Refund {
			until, known, at := l.options.LocalCache.Over(key, t.limit.Requests, s.call.Now)
			if t.asked = at; known {
				t.known, s.over = true, true
				t.decision = algorithm.Decision{Over: true, After: math.MaxUint64, ResetIn: until.Sub(s.call.Now)}
				continue
			}
		}
		s.call.Ops = append(s.call.Ops, Op{Key: key, Algorithm: t.algorithm, Limit: t.limit, Hits: d.Hits, Refund: d.Refund})
		s.targetOf = append(s.targetOf, i)
	}
	if s.over && s.call.StopWhenOver {
		for i := range s.call.Ops {
			if op := &s.call.Ops[i]; !op.Refund {
				op.Hits = 0
			}
		}
	}
}

// apply has the store carry out s.call, and notes the decisions. Where the
// store has none and the rules say what to answer then, that is the decision.
func (l *Limiter) apply(ctx context.Context, s *scratch) error {
	if len(s.call.Ops) == 0 {
		return nil
	}
	if err := l.options.Store.Apply(ctx, &s.call); err != nil {
		if err := l.withoutStore(ctx, s, err); err != nil {
			l.forgetRefunded(s) // they may have been carried out
			return err
		}
	}
	over := s.over
	for i := range s.call.Ops {
		over = over || s.call.Ops[i].Decision.Over
	}
	for i, at := range s.targetOf {
		op, t := &s.call.Ops[i], &s.targets[at]
		if op.Err != nil {
			continue
		}
		t.decision = op.Decision
		t.spared = s.call.StopWhenOver && over && !op.Decision.Over && !op.Refund
	}
	if l.options.LocalCache != nil {
		l.tellLocalCache(s)
	}
	return nil
}

// tellLocalCache has the local cache remember which counters stand above their
// limits, and then forget those that hits were given back to.
func (l *Limiter) tellLocalCache(s *scratch) {
	for i, at := range s.targetOf {
		if op := &s.call.Ops[i]; op.Err == nil && op.Decision.Over && op.Stands > uint64(op.Limit.Requests) {
			l.options.LocalCache.Remember(op.Key, op.Stands, s.call.Now.Add(op.Decision.ResetIn), s.call.Now, s.targets[at].asked)
		}
	}
	l.forgetRefunded(s)
}

// forgetRefunded has the local cache, if there is one, forget the counters that
// hits are given back to.
func (l *Limiter) forgetRefunded(s *scratch) {
	if l.options.LocalCache == nil {
		return
	}
	for i := range s.call.Ops {
		if op := &s.call.Ops[i]; op.Refund {
			l.options.LocalCache.Forget(op.Key)
		}
	}
}

// withoutStore decides by their rules' OnStoreError what the store did not. It
// returns err where one of these has none, or where nobody waits for an answer
// any more.
func (l *Limiter) withoutStore(ctx context.Context, s *scratch, err error) error {
	undecided := func(op Op) bool { return op.Err != nil }
	if ctx.Err() != nil || !slices.ContainsFunc(s.call.Ops, undecided) {
		return err
	}
	for i, at := range s.targetOf {
		if s.call.Ops[i].Err == nil {
			continue
		}
		if r := s.targets[at].rule; r == nil || r.OnStoreError == limits.FailRequest {
			return err
		}
	}
	l.stats.decidedWithoutStore.Inc()
	for i, at := range s.targetOf {
		if s.call.Ops[i].Err == nil {
			continue
		}
		t := &s.targets[at]
		// What is known without the counter is when its window ends.
		_, look := t.algorithm.Apply(t.limit, algorithm.State{}, 0, s.call.Now)
		t.decision = algorithm.Decision{
			Over:    t.rule.OnStoreError == limits.DenyHits && !s.call.Ops[i].Refund,
			ResetIn: look.ResetIn,
		}
		t.counters = nil // nobody knows what became of the hits
	}
	return nil
}

// settle writes the status of one descriptor and counts its hits.
func settle(t *target, d *Descriptor, status *Status) {
	switch {
	case t.limited:
		*status = Status{
			Over: t.decision.Over, Limited: true, Rule: t.rule, Rate: t.rate,
			Remaining: t.decision.Remaining, ResetIn: t.decision.ResetIn,
		}
		count(t, d)
		if t.rule != nil && t.rule.ShadowMode {
			status.Over = false
		}
	case t.rule != nil:
		*status = Status{Rule: t.rule, Remaining: math.MaxUint32}
		count(t, d)
	}
}

// conclude makes one answer of the statuses: over if any is that is no quota,
// or if there are quotas and all are over.
func (l *Limiter) conclude(s *scratch, answer *Answer) {
	quotas, overQuotas := 0, 0
	least := uint64(math.MaxUint32)
	for i := range answer.Statuses {
		status, t := &answer.Statuses[i], &s.targets[i]
		if status.Limited && uint64(status.Remaining) < least {
			answer.Tightest, least = i, uint64(status.Remaining)
		}
		unlimited := t.rule != nil && !t.limited
		switch quota := !unlimited && (l.options.QuotaMode || t.rule != nil && t.rule.QuotaMode); {
		case quota && status.Over:
			quotas, overQuotas = quotas+1, overQuotas+1
		case quota:
			quotas++
		case status.Over:
			answer.Over, answer.Tightest, least = true, i, 0
		}
	}
	if quotas > 0 && overQuotas == quotas {
		answer.Over = true
	}
	if answer.Over && l.options.ShadowMode {
		answer.Over = false
		l.stats.shadowMode.Inc()
	}
}

// tellRefused tells of the descriptors that are over, if the request is refused.
func (l *Limiter) tellRefused(req *Request, answer *Answer) {
	if l.options.Refused == nil || !answer.Over {
		return
	}
	for i := range answer.Statuses {
		if d := &req.Descriptors[i]; answer.Statuses[i].Over {
			l.options.Refused(req.Domain, d.Entries, d.Hits)
		}
	}
}
