package file

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of one snapshot file.
type metrics struct {
	errors  prometheus.Counter
	written prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_snapshot_errors_total", Help: "Times that the snapshot file could not be written."}),
		written: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_snapshot_timestamp_seconds", Help: "When the snapshot file was last written, in Unix time; 0 if not since the start."}),
	}
	registerer.MustRegister(m.errors, m.written)
	return m
}
