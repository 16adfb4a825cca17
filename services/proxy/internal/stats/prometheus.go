package stats

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Describe sends nothing: metrics come and go with configuration.
func (r *Registry) Describe(chan<- *prometheus.Desc) {}

// Collect sends every metric but texts, or one of those that are one series in
// Prometheus' eyes.
func (r *Registry) Collect(out chan<- prometheus.Metric) {
	r.collectOnly(func(m Metric) bool { return m.Kind != KindText }, nil, out)
}

// Only is a collector of those metrics that keep wants. Histograms are summaries by
// the quantiles, each a share from 0 to 1, or by their buckets if those are nil. A text
// is a gauge that is 0, with the text as the label text_value.
func (r *Registry) Only(keep func(Metric) bool, quantiles []float64) prometheus.Collector {
	return selection{r, keep, quantiles}
}

// selection is a registry seen through a filter.
type selection struct {
	*Registry
	keep      func(Metric) bool
	quantiles []float64
}

// Collect implements prometheus.Collector.
func (s selection) Collect(out chan<- prometheus.Metric) { s.collectOnly(s.keep, s.quantiles, out) }

// collectOnly sends the metrics that keep wants. Where two would be the same
// series (their names differ only in characters that Prometheus does not
// allow) the first by flat name is sent, since a scrape with both would fail
// as a whole.
func (r *Registry) collectOnly(keep func(Metric) bool, quantiles []float64, out chan<- prometheus.Metric) {
	kinds := map[string]Kind{}
	sent := map[string]bool{}
	for _, m := range r.metrics() {
		if !keep(m) {
			continue
		}
		labels := m.Labels
		if m.Kind == KindText {
			labels = append(slices.Clip(labels), Label{"text_value", m.Text})
		}
		names, values := make([]string, len(labels)), make([]string, len(labels))
		series := m.Prometheus
		for i, l := range labels {
			names[i], values[i] = escape(l.Name), strings.ToValidUTF8(l.Value, "\uFFFD")
			series += "\x00" + names[i] + "\x00" + values[i]
		}
		if kind, ok := kinds[m.Prometheus]; sent[series] || ok && kind != m.Kind {
			continue
		}
		kinds[m.Prometheus], sent[series] = m.Kind, true
		metric, err := constMetric(m, quantiles, prometheus.NewDesc(m.Prometheus, "", names, nil), values)
		if err != nil {
			continue // Two tags of one name: no series can hold it.
		}
		out <- metric
	}
}

// constMetric is m as Prometheus has it.
func constMetric(m Metric, quantiles []float64, desc *prometheus.Desc, labels []string) (prometheus.Metric, error) {
	switch m.Kind {
	case KindHistogram:
		if quantiles != nil {
			values := map[float64]float64{}
			for _, q := range quantiles {
				values[q] = m.Distribution.Quantile(q)
			}
			return prometheus.NewConstSummary(desc, m.Distribution.Count, m.Distribution.Sum, values, labels...)
		}
		buckets := make(map[float64]uint64, len(m.Distribution.Buckets))
		for _, b := range m.Distribution.Buckets {
			buckets[b.UpperBound] = b.Cumulative
		}
		return prometheus.NewConstHistogram(desc, m.Distribution.Count, m.Distribution.Sum, buckets, labels...)
	case KindGauge, KindText:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, float64(m.Unsigned()), labels...)
	}
	return prometheus.NewConstMetric(desc, prometheus.CounterValue, float64(m.Unsigned()), labels...)
}

// escape turns every character that Prometheus does not allow in a name into
// an underscore.
func escape(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
			return c
		}
		return '_'
	}, name)
}
