package limits

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Counters count the hits that one rule decided. A rule holds its Counters
// from the time when its tree is built, so that a request costs atomic adds
// and no look-up, unless its values are part of the name.
type Counters struct {
	// TotalHits is every hit, Within those granted, Over those refused, Near
	// those granted above the near threshold. OverWithLocalCache is those of
	// Over that no store was asked about, Shadow those that a rule in shadow
	// mode would have refused, Refunded those that were given back.
	TotalHits, Within, Over, Near, OverWithLocalCache, Shadow, Refunded atomic.Uint64
}

// met says whether there were hits. Rules that no request has met have no
// metrics yet: there may be tens of thousands of them.
func (c *Counters) met() bool { return c.TotalHits.Load() > 0 || c.Refunded.Load() > 0 }

// Stats keeps the Counters of all rules by name, so that they survive a
// reload, and shows them as metrics. It is safe for use by many goroutines.
type Stats struct {
	// MaxNames is how many names of requests' own values have counters at most;
	// what is beyond counts under "(other)" of its domain, and of the domains
	// without rules as domain "(other)". IdleNames is for how long such a name
	// must not have been used to be forgotten. Both must be above 0, and not
	// change any more once there are requests.
	MaxNames  int
	IdleNames time.Duration

	mu     sync.RWMutex
	series map[seriesName]*series
	names  atomic.Int64 // how many of series requests made; written under mu
	// nextSweep is when idle names are looked for again, in Unix nanoseconds.
	nextSweep atomic.Int64
	rules     *Set // those in force

	families []family
	limit    *prometheus.Desc
	notFound *prometheus.Desc
	// otherDomains is for when there are too many domains without rules.
	otherDomains *Counters
}

// The usual bounds of names that requests make.
const (
	DefaultMaxNames  = 10_000
	DefaultIdleNames = time.Hour
)

// seriesName is what a series counts, and the labels of its metrics.
type seriesName struct {
	kind         kind
	domain, rule string // rule is that of ruleHits
}

// kind is what a series counts.
type kind uint8

const (
	ruleHits       kind = iota // the hits that a rule decided
	domainNotFound             // in TotalHits, descriptors that asked for a domain without rules
)

// series is the counters of one name.
type series struct {
	Counters
	// held says that a rule, or the Stats, holds the counters. Requests made the
	// others.
	held bool
	// used is set at each use of a name that requests made, and seen is when a
	// sweep last found it so.
	used atomic.Bool
	seen time.Time
}

// family is one metric of every series.
type family struct {
	desc  *prometheus.Desc
	value func(*Counters) *atomic.Uint64
}

// NewStats makes a Stats with the usual bounds and registers it at reg.
func NewStats(reg prometheus.Registerer) *Stats {
	s := &Stats{
		MaxNames:  DefaultMaxNames,
		IdleNames: DefaultIdleNames,
		series:    map[seriesName]*series{},
		rules:     &Set{},
	}
	add := func(name, help string, value func(*Counters) *atomic.Uint64) {
		desc := prometheus.NewDesc("ratelimit_service_rate_limit_"+name, help, []string{"domain", "rule"}, nil)
		s.families = append(s.families, family{desc, value})
	}
	add("total_hits", "Hits that met the rule.", func(c *Counters) *atomic.Uint64 { return &c.TotalHits })
	add("within_limit", "Hits that the rule granted.", func(c *Counters) *atomic.Uint64 { return &c.Within })
	add("over_limit", "Hits that the rule refused.", func(c *Counters) *atomic.Uint64 { return &c.Over })
	add("near_limit", "Hits granted above the near-limit ratio.", func(c *Counters) *atomic.Uint64 { return &c.Near })
	add("over_limit_with_local_cache", "Hits that the rule refused without asking the store.",
		func(c *Counters) *atomic.Uint64 { return &c.OverWithLocalCache })
	add("shadow_mode", "Hits that the rule would have refused, were it not in shadow mode.",
		func(c *Counters) *atomic.Uint64 { return &c.Shadow })
	add("total_negative_hits", "Hits that were given back.", func(c *Counters) *atomic.Uint64 { return &c.Refunded })
	s.limit = prometheus.NewDesc("ratelimit_service_rate_limit_requests_per_unit",
		"Requests that the rule grants per unit of time.", []string{"domain", "rule", "unit"}, nil)
	s.notFound = prometheus.NewDesc("ratelimit_service_rate_limit_domain_not_found",
		"Descriptors of requests for a domain that has no rules.", []string{"domain"}, nil)
	s.otherDomains = s.hold(seriesName{domainNotFound, others, ""})
	reg.MustRegister(s)
	return s
}

// Rule returns the Counters of a rule, the same for the same names.
func (s *Stats) Rule(domain, rule string) *Counters {
	return s.hold(seriesName{ruleHits, domain, rule})
}

// hold returns the Counters of a name that lasts.
func (s *Stats) hold(name seriesName) *Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.series[name]
	switch {
	case found == nil:
		found = &series{held: true}
		s.series[name] = found
	case !found.held:
		found.held = true
		s.names.Add(-1)
	}
	return &found.Counters
}

// DomainNotFound counts n descriptors of a request for a domain that has no
// rules. Of a domain that is known from before it does not allocate, and it
// keeps no part of the request.
func (s *Stats) DomainNotFound(domain string, n uint64) {
	counters := s.otherDomains
	if len(domain) <= maxName && utf8.ValidString(domain) {
		counters = s.ofRequest(domainNotFound, domain, nil, counters)
	}
	counters.TotalHits.Add(n)
}

// ofRequest returns the Counters of a name that a request makes, or others where
// there are too many names.
func (s *Stats) ofRequest(kind kind, domain string, rule []byte, others *Counters) *Counters {
	s.mu.RLock()
	found := s.series[seriesName{kind, domain, string(rule)}] // no allocation
	if found != nil && !found.used.Load() {
		found.used.Store(true)
	}
	s.mu.RUnlock()
	if found != nil {
		return &found.Counters
	}
	if s.names.Load() >= int64(s.MaxNames) && time.Now().UnixNano() < s.nextSweep.Load() {
		return others
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	name := seriesName{kind, domain, string(rule)}
	if found = s.series[name]; found != nil {
		found.used.Store(true)
		return &found.Counters
	}
	if s.names.Load() >= int64(s.MaxNames) {
		s.sweep(now)
	}
	if s.names.Load() >= int64(s.MaxNames) {
		return others
	}
	found = &series{seen: now}
	name.domain = strings.Clone(domain) // which may be a part of a long message
	s.series[name] = found
	s.names.Add(1)
	return &found.Counters
}

// sweep forgets the names of requests that were not used for IdleNames. It
// does so a few times in that time at most, however often it is called with mu
// held.
func (s *Stats) sweep(now time.Time) {
	if now.UnixNano() < s.nextSweep.Load() {
		return
	}
	s.nextSweep.Store(now.Add(s.IdleNames / 8).UnixNano())
	for name, found := range s.series {
		switch {
		case found.held:
		case found.used.Swap(false):
			found.seen = now
		case now.Sub(found.seen) >= s.IdleNames:
			delete(s.series, name)
			s.names.Add(-1)
		}
	}
}

// Retain takes set as the rules in force: it drops the Counters that no rule of
// it holds, so that the metrics of rules that are gone do not pile up, and shows
// its limits.
func (s *Stats) Retain(set *Set) {
	held := map[*Counters]bool{}
	for d := range set.Domains() {
		held[d.Overrides] = true
		for _, r := range d.Rules {
			held[r.counters] = true
			if r.byRequest != nil {
				held[r.byRequest.others] = true
			}
		}
	}
	held[s.otherDomains] = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = set
	for name, found := range s.series {
		if found.held && !held[&found.Counters] {
			delete(s.series, name)
		}
	}
}

// Describe is part of prometheus.Collector.
func (s *Stats) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range s.families {
		ch <- f.desc
	}
	ch <- s.limit
	ch <- s.notFound
}

// Collect is part of prometheus.Collector. It holds no lock while it waits for
// the reader of ch.
func (s *Stats) Collect(ch chan<- prometheus.Metric) {
	type named struct {
		seriesName
		counters *Counters
	}
	s.mu.Lock()
	s.sweep(time.Now())
	s.mu.Unlock()
	s.mu.RLock()
	rules := s.rules
	all := make([]named, 0, len(s.series))
	for name, found := range s.series {
		if found.met() || name.kind == domainNotFound { // which has one domain at first
			all = append(all, named{name, &found.Counters})
		}
	}
	s.mu.RUnlock()
	domain, rule := "domain", "rule"
	for _, n := range all {
		if n.kind == domainNotFound {
			labels := []*dto.LabelPair{{Name: &domain, Value: &n.domain}}
			ch <- &sample{s.notFound, labels, float64(n.counters.TotalHits.Load())}
			continue
		}
		labels := []*dto.LabelPair{{Name: &domain, Value: &n.domain}, {Name: &rule, Value: &n.rule}}
		for _, f := range s.families {
			ch <- &sample{f.desc, labels, float64(f.value(n.counters).Load())}
		}
	}
	for d := range rules.Domains() {
		for _, r := range d.Rules {
			if !r.Unlimited && (r.namedByRequests() || r.counters.met()) {
				ch <- prometheus.MustNewConstMetric(s.limit, prometheus.GaugeValue, float64(r.Rate.Requests),
					r.Domain, r.Key, r.Rate.per())
			}
		}
	}
}

// sample is one counter at the time of a Collect. Making it costs far less than
// by the library's own means, which matters when there are many names.
type sample struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

// Desc is part of prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write is part of prometheus.Metric.
func (s *sample) Write(m *dto.Metric) error {
	m.Label = s.labels
	m.Counter = &dto.Counter{Value: &s.value}
	return nil
}

// per is the rate's unit of time, "HOUR" or "3 HOUR".
func (r Rate) per() string {
	if r.Multiplier > 1 {
		return fmt.Sprintf("%d %s", r.Multiplier, r.Unit)
	}
	return r.Unit.String()
}
