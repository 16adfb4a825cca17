package limitsource

import "github.com/prometheus/client_golang/prometheus"

// stats counts the loads of rules.
type stats struct {
	loadSuccess, loadError prometheus.Counter
}

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{
		loadSuccess: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_config_load_success",
			Help: "Loads in which nothing was refused.",
		}),
		loadError: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_config_load_error",
			Help: "Loads in which something was refused.",
		}),
	}
	reg.MustRegister(s.loadSuccess, s.loadError)
	return s
}
