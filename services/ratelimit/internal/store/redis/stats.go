package redis

import "github.com/prometheus/client_golang/prometheus"

// stats is what the store shows of its exchanges with Redis.
type stats struct {
	errors     prometheus.Counter
	batchTime  prometheus.Histogram
	batchCalls prometheus.Histogram
}

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_redis_errors_total",
			Help: "Calls that Redis answered with an error or not in time.",
		}),
		batchTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ratelimit_redis_batch_seconds",
			Help:    "Time from sending a batch to its last reply.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1},
		}),
		batchCalls: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ratelimit_redis_batch_calls",
			Help:    "Requests whose commands were sent together.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64},
		}),
	}
	reg.MustRegister(s.errors, s.batchTime, s.batchCalls)
	return s
}
