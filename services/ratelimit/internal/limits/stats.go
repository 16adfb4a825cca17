package limits

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Counters count the hits that one rule decided. A rule holds its Counters
// from the time when its tree is built, so that a request costs atomic adds
// and no look-up.
type Counters struct {
	// TotalHits is every hit, Within those granted, Over those refused, Near
	// those granted above the near threshold. OverWithLocalCache is those of
	// Over that no store was asked about, Shadow those that a rule in shadow
	// mode would have refused, Refunded those that were given back.
	TotalHits, Within, Over, Near, OverWithLocalCache, Shadow, Refunded atomic.Uint64
}

// Stats keeps the Counters of all rules by name, so that they survive a
// reload, and shows them as metrics. It is safe for use by many goroutines.
type Stats struct {
	mu       sync.Mutex
	counters map[ruleName]*Counters

	total, within, over, near *prometheus.Desc
}

// ruleName is the labels of a rule's metrics.
type ruleName struct{ domain, rule string }

// overrides is the rule label of what requests' own limits decided.
const overrides = "(override)"

// NewStats makes a Stats and registers it at reg.
func NewStats(reg prometheus.Registerer) *Stats {
	labels := []string{"domain", "rule"}
	s := &Stats{
		counters: map[ruleName]*Counters{},
		total:    prometheus.NewDesc("ratelimit_service_rate_limit_total_hits", "Hits that met the rule.", labels, nil),
		within:   prometheus.NewDesc("ratelimit_service_rate_limit_within_limit", "Hits that the rule granted.", labels, nil),
		over:     prometheus.NewDesc("ratelimit_service_rate_limit_over_limit", "Hits that the rule refused.", labels, nil),
		near:     prometheus.NewDesc("ratelimit_service_rate_limit_near_limit", "Hits granted above the near-limit ratio.", labels, nil),
	}
	reg.MustRegister(s)
	return s
}

// Rule returns the Counters of a rule, the same for the same names.
func (s *Stats) Rule(domain, rule string) *Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ruleName{domain, rule}
	c := s.counters[name]
	if c == nil {
		c = &Counters{}
		s.counters[name] = c
	}
	return c
}

// Retain drops the Counters that no rule of set holds, so that the metrics of
// rules that are gone do not pile up.
func (s *Stats) Retain(set *Set) {
	held := map[*Counters]bool{}
	for d := range set.Domains() {
		held[d.Overrides] = true
		for _, r := range d.Rules {
			held[r.counters] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.counters {
		if !held[c] {
			delete(s.counters, name)
		}
	}
}

// Describe is part of prometheus.Collector.
func (s *Stats) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.total, s.within, s.over, s.near} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (s *Stats) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.counters {
		for _, m := range []struct {
			desc  *prometheus.Desc
			value *atomic.Uint64
		}{{s.total, &c.TotalHits}, {s.within, &c.Within}, {s.over, &c.Over}, {s.near, &c.Near}} {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.value.Load()), name.domain, name.rule)
		}
	}
}
