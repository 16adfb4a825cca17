package resourcefiles

import "github.com/prometheus/client_golang/prometheus"

// metrics is how many files there are in each state.
type metrics struct{ files map[State]prometheus.Gauge }

func newMetrics(registerer prometheus.Registerer) *metrics {
	vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "discovery_xds_files",
		Help: "Files of resources: good; bad, with what it gave before kept; bad.",
	}, []string{"state"})
	registerer.MustRegister(vector)
	m := &metrics{files: map[State]prometheus.Gauge{}}
	for _, state := range []State{Good, Kept, Bad} {
		m.files[state] = vector.WithLabelValues(string(state))
	}
	return m
}

func (m *metrics) set(files []FileStatus) {
	counts := map[State]float64{}
	for i := range files {
		counts[files[i].State]++
	}
	for state, gauge := range m.files {
		gauge.Set(counts[state])
	}
}
