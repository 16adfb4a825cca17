package limitsource

import "github.com/prometheus/client_golang/prometheus"

// stats counts the loads of rules and what they could not read, and shows what
// the last one had.
type stats struct {
	loadSuccess, loadError, unread prometheus.Counter
	sources                        prometheus.Gauge
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
		unread: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_config_unread",
			Help: "Files, directories and resources that loads could not read.",
		}),
		sources: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ratelimit_service_config_sources",
			Help: "Rule files or resources that the last load read, good or not.",
		}),
	}
	reg.MustRegister(s.loadSuccess, s.loadError, s.unread, s.sources)
	return s
}
