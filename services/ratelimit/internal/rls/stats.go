package rls

import "github.com/prometheus/client_golang/prometheus"

// stats counts requests by their outcome.
type stats struct {
	requests     prometheus.Counter
	badRequests  prometheus.Counter
	storeErrors  prometheus.Counter
	noRules      prometheus.Counter
	responseTime prometheus.Histogram
}

func newStats(reg prometheus.Registerer) *stats {
	errors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ratelimit_service_should_rate_limit_error",
		Help: "Requests answered with an error: refused as malformed, without an answer from the store, or before rules were loaded.",
	}, []string{"err_type"})
	s := &stats{
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_total_requests",
			Help: "Requests received.",
		}),
		badRequests: errors.WithLabelValues("bad_request"),
		storeErrors: errors.WithLabelValues("store_error"),
		noRules:     errors.WithLabelValues("no_rules"),
		responseTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ratelimit_service_response_time_seconds",
			Help:    "Time from a decoded request to its answer.",
			Buckets: []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .02, .05, .1},
		}),
	}
	reg.MustRegister(errors, s.requests, s.responseTime)
	return s
}
