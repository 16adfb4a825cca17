package xds

import "github.com/prometheus/client_golang/prometheus"

// stats counts the loads of rules, and shows whether there is a stream.
type stats struct {
	loadSuccess, loadError prometheus.Counter
	connected              prometheus.Gauge
}

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{
		loadSuccess: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_config_load_success",
			Help: "Loads in which every resource was good.",
		}),
		loadError: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_config_load_error",
			Help: "Loads in which something was refused.",
		}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ratelimit_service_config_xds_connected",
			Help: "Whether there is a stream from the control plane.",
		}),
	}
	reg.MustRegister(s.loadSuccess, s.loadError, s.connected)
	return s
}
