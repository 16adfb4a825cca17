package resourcefiles

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is how many files there are in each state, and which are bad.
type metrics struct {
	files map[State]prometheus.Gauge
	bad   *prometheus.GaugeVec
}

// maxNamed is how many bad files have a metric each.
const maxNamed = 100

func newMetrics(registerer prometheus.Registerer) *metrics {
	vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "discovery_xds_files",
		Help: "Files of resources: good; bad, with what it gave before kept; bad.",
	}, []string{"state"})
	bad := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "discovery_xds_bad_file",
		Help: "1 for each file of resources that is bad; for 100 at most.",
	}, []string{"file"})
	registerer.MustRegister(vector, bad)
	m := &metrics{files: map[State]prometheus.Gauge{}, bad: bad}
	for _, state := range []State{Good, Kept, Bad} {
		m.files[state] = vector.WithLabelValues(string(state))
	}
	return m
}

func (m *metrics) set(files []FileStatus) {
	counts := map[State]float64{}
	m.bad.Reset()
	named := 0
	for i := range files {
		counts[files[i].State]++
		if files[i].State != Good && named < maxNamed {
			m.bad.WithLabelValues(strings.ToValidUTF8(files[i].Path, "\ufffd")).Set(1)
			named++
		}
	}
	for state, gauge := range m.files {
		gauge.Set(counts[state])
	}
}
