package limiter

import (
	"github.com/prometheus/client_golang/prometheus"
)

// stats counts what belongs to no rule.
type stats struct {
	shadowMode, decidedWithoutStore prometheus.Counter
}

func newStats(reg prometheus.Registerer) *stats {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	return &stats{
		shadowMode: counter("ratelimit_service_global_shadow_mode",
			"Requests over their limit that SHADOW_MODE let pass."),
		decidedWithoutStore: counter("ratelimit_service_decided_without_store",
			"Requests that failure_mode_deny of their rules answered, since the store did not."),
	}
}

// count adds the hits of a descriptor to the counters of its rule. Hits that
// cross a threshold are split: those up to the limit were within it and those
// above the near threshold near it, the rest was over. Granted hits of a
// refused operation count as near only, since the answer was a refusal.
func count(t *target, d *Descriptor) {
	c, hits := t.counters, d.Hits
	switch {
	case c == nil || hits == 0:
		return
	case d.Refund:
		c.Refunded.Add(hits)
		return
	}
	c.TotalHits.Add(hits)
	after := t.decision.After
	before := after - min(hits, after)
	if !t.decision.Over {
		c.Within.Add(hits)
		if t.limited && !t.spared && after > t.near {
			c.Near.Add(after - max(before, t.near))
		}
		return
	}
	if t.known {
		c.OverWithLocalCache.Add(hits)
	}
	if t.rule != nil && t.rule.ShadowMode {
		c.Shadow.Add(hits)
	}
	limit := uint64(t.limit.Requests)
	if before >= limit {
		c.Over.Add(hits)
		return
	}
	c.Over.Add(after - limit)
	c.Near.Add(limit - min(limit, max(before, t.near)))
}
