package localcache

import "github.com/prometheus/client_golang/prometheus"

// stats is what the cache shows of itself.
type stats struct{ hits, misses, evicted, expired, overwritten prometheus.Counter }

func newStats(reg prometheus.Registerer, c *Cache) *stats {
	counter := func(name, help string) prometheus.Counter {
		m := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(m)
		return m
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ratelimit_localcache_entries",
		Help: "Counters known to be over their limit, expired ones included.",
	}, func() float64 { return float64(c.Len()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ratelimit_localcache_last_used_seconds",
		Help: "Mean Unix time at which these counters were noted or found last, 0 of none; in whole seconds.",
	}, func() float64 { return float64(c.lastUsed()) }))
	return &stats{
		hits:        counter("ratelimit_localcache_hits_total", "Descriptors refused without asking the store."),
		misses:      counter("ratelimit_localcache_misses_total", "Descriptors of which the local cache knew nothing."),
		evicted:     counter("ratelimit_localcache_evicted_total", "Counters forgotten before their time to make room for others."),
		expired:     counter("ratelimit_localcache_expired_total", "Counters forgotten since their window had ended, when they were asked for or room was wanted."),
		overwritten: counter("ratelimit_localcache_overwritten_total", "Counters noted that were known already."),
	}
}
