package v1

import "github.com/prometheus/client_golang/prometheus"

// requests counts calls by route and class of status.
type requests struct{ *prometheus.CounterVec }

func newRequests(registerer prometheus.Registerer) requests {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discovery_rest_v1_requests_total",
		Help: "Calls of the v1 REST face by route and class of status.",
	}, []string{"route", "status"})
	registerer.MustRegister(counter)
	return requests{counter}
}

// requestCounters are one route's counters, by the first digit of the status.
type requestCounters struct{ done, refused, unavailable prometheus.Counter }

func (r requests) of(route string) requestCounters {
	return requestCounters{
		done:        r.WithLabelValues(route, "2xx"),
		refused:     r.WithLabelValues(route, "4xx"),
		unavailable: r.WithLabelValues(route, "5xx"),
	}
}

// count counts a call by its status.
func (c requestCounters) count(status int) {
	switch {
	case status < 400:
		c.done.Inc()
	case status < 500:
		c.refused.Inc()
	default:
		c.unavailable.Inc()
	}
}
