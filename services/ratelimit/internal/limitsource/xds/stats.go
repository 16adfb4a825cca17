package xds

import "github.com/prometheus/client_golang/prometheus"

// stats shows whether there is a stream.
type stats struct{ connected prometheus.Gauge }

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{connected: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ratelimit_service_config_xds_connected",
		Help: "Whether there is a stream from the control plane.",
	})}
	reg.MustRegister(s.connected)
	return s
}
