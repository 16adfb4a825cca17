package limiter

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// stats counts what belongs to no rule.
type stats struct {
	domainNotFound prometheus.Counter
}

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{domainNotFound: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ratelimit_service_rate_limit_domain_not_found",
		Help: "Requests for a domain that has no rules.",
	})}
	reg.MustRegister(s.domainNotFound)
	return s
}

// count adds the hits of one decision to a rule's counters. Hits that cross a
// threshold are split: those up to the limit were within it and those above
// the near threshold near it, the rest was over. Granted hits of a refused
// operation count as near only, since the answer was a refusal.
func count(c *limits.Counters, op *Op, near uint64) {
	if op.Hits == 0 {
		return
	}
	c.TotalHits.Add(op.Hits)
	after := op.Decision.After
	before := after - min(op.Hits, after)
	if !op.Decision.Over {
		c.Within.Add(op.Hits)
		if after > near {
			c.Near.Add(after - max(before, near))
		}
		return
	}
	limit := uint64(op.Limit.Requests)
	if before >= limit {
		c.Over.Add(op.Hits)
		return
	}
	c.Over.Add(after - limit)
	c.Near.Add(limit - min(limit, max(before, near)))
}
