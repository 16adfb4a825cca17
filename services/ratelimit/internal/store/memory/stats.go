package memory

import "github.com/prometheus/client_golang/prometheus"

// stats is what the store shows of itself.
type stats struct {
	evicted prometheus.Counter
}

func newStats(reg prometheus.Registerer, s *Store) *stats {
	t := &stats{evicted: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ratelimit_memory_evicted_counters_total",
		Help: "Counters forgotten before their time to make room for others.",
	})}
	reg.MustRegister(t.evicted, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ratelimit_memory_counters",
		Help: "Counters held, expired ones that are not yet cleared away included.",
	}, func() float64 { return float64(s.Len()) }))
	return t
}
