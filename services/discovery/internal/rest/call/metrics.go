package call

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// requests counts calls by route and status.
type requests struct{ *prometheus.CounterVec }

func newRequests(registerer prometheus.Registerer) requests {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discovery_rest_requests_total",
		Help: "Calls of the HTTP listener by route and status code.",
	}, []string{"route", "code"})
	registerer.MustRegister(counter)
	return requests{counter}
}

// routeRequests are those of one route. The common successes are at hand.
type routeRequests struct {
	of    requests
	route string
	ok    prometheus.Counter
}

func (r requests) of(route string) routeRequests {
	return routeRequests{r, route, r.WithLabelValues(route, "200")}
}

// count counts a call by its status.
func (r routeRequests) count(status int) {
	if status == http.StatusOK {
		r.ok.Inc()
		return
	}
	r.of.WithLabelValues(r.route, strconv.Itoa(status)).Inc()
}
