package rls

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// stats counts requests by their version and outcome.
type stats struct {
	requests     [len(dialects)]prometheus.Counter // by Version
	badRequests  prometheus.Counter
	storeErrors  prometheus.Counter
	noRules      prometheus.Counter
	responseTime prometheus.Observer
	inFlight     atomic.Int64
}

// method is the grpc_method label: the service has but one.
const method = "ShouldRateLimit"

func newStats(reg prometheus.Registerer) *stats {
	errors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ratelimit_service_should_rate_limit_error",
		Help: "Requests answered with an error: refused as malformed, without an answer from the store, or before rules were loaded.",
	}, []string{"err_type"})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ratelimit_service_total_requests",
		Help: "Requests received, by version of the protocol: v3, v2, lyft or json.",
	}, []string{"grpc_method", "api"})
	responseTime := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "ratelimit_service_response_time_seconds",
		Help:    "Time from a request's message to its answer, which may be an error.",
		Buckets: []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .02, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"grpc_method"})
	s := &stats{
		badRequests:  errors.WithLabelValues("bad_request"),
		storeErrors:  errors.WithLabelValues("store_error"),
		noRules:      errors.WithLabelValues("no_rules"),
		responseTime: responseTime.WithLabelValues(method),
	}
	for v := range s.requests {
		s.requests[v] = requests.WithLabelValues(method, Version(v).String())
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ratelimit_service_in_flight",
		Help: "Requests that are being answered.",
	}, func() float64 { return float64(s.inFlight.Load()) })
	reg.MustRegister(errors, requests, responseTime, inFlight)
	return s
}
