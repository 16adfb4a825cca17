package adminapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// statsParameters are those of /stats and /stats/prometheus. text_readouts is of the
// latter alone, which else leaves texts out.
var statsParameters = []string{"filter", "invert_filter", "usedonly", "type", "format", "histogram_buckets", "text_readouts"}

// stats serves /stats.
func (a *api) stats(w http.ResponseWriter, query url.Values) error {
	format, err := choice(query, "format", "text", "json", "html", "active-html", "prometheus")
	if err != nil {
		return err
	}
	if format == "prometheus" {
		return a.prometheus(w, query)
	}
	wanted, err := selection(query)
	if err != nil {
		return err
	}
	form, err := choice(query, "histogram_buckets", summary, cumulative, disjoint, detailed, none)
	if err != nil {
		return err
	}
	if form == none {
		form = summary
	}
	var texts, list, histograms []stats.Metric
	a.Stats.Each(func(m stats.Metric) {
		switch {
		case !wanted(m):
		case m.Kind == stats.KindText:
			texts = append(texts, m)
		case m.Kind == stats.KindHistogram:
			histograms = append(histograms, m)
		default:
			list = append(list, m)
		}
	})
	list = append(texts, list...)
	switch format {
	case "json":
		answer, err := json.Marshal(map[string]any{"stats": statsJSON(list, histograms, form)})
		if err != nil {
			return err
		}
		writeJSON(w, answer)
		return nil
	case "text":
		writeText(w, statsText(list, histograms, form).Bytes())
		return nil
	}
	return writeStatsPage(w, query, format == "active-html", statsText(list, histograms, form).String())
}

// statsText has a line for each metric of a list, and histograms behind them, as in
// Envoy.
func statsText(list, histograms []stats.Metric, form string) *bytes.Buffer {
	text := new(bytes.Buffer)
	for _, m := range list {
		if m.Kind == stats.KindText {
			fmt.Fprintf(text, "%s: %q\n", m.Name, m.Text)
			continue
		}
		fmt.Fprintf(text, "%s: %d\n", m.Name, m.Unsigned())
	}
	for _, m := range histograms {
		writeHistogram(text, m, form)
	}
	return text
}

// statsJSON is Envoy's list of statistics, of which the last element has all
// histograms.
func statsJSON(list, histograms []stats.Metric, form string) []any {
	type metric struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	}
	all := []any{}
	for _, m := range list {
		if m.Kind == stats.KindText {
			all = append(all, metric{m.Name, m.Text})
			continue
		}
		all = append(all, metric{m.Name, m.Unsigned()})
	}
	if len(histograms) > 0 {
		all = append(all, histogramsJSON(histograms, form))
	}
	return all
}

// selection says which metrics the query wants.
func selection(query url.Values) (func(stats.Metric) bool, error) {
	named, err := filter(query, "filter")
	if err != nil {
		return nil, err
	}
	kind, err := choice(query, "type", "All", "Counters", "Gauges", "Histograms", "TextReadouts")
	if err != nil {
		return nil, err
	}
	usedOnly, inverted := query.Has("usedonly"), query.Has("invert_filter")
	kinds := map[stats.Kind]string{
		stats.KindCounter: "Counters", stats.KindGauge: "Gauges", stats.KindHistogram: "Histograms", stats.KindText: "TextReadouts",
	}
	return func(m stats.Metric) bool {
		if usedOnly && !m.Used || kind != "All" && kind != kinds[m.Kind] {
			return false
		}
		return named(m.Name) != inverted
	}, nil
}

// prometheus serves /stats/prometheus.
func (a *api) prometheus(w http.ResponseWriter, query url.Values) error {
	wanted, err := selection(query)
	if err != nil {
		return err
	}
	form, err := choice(query, "histogram_buckets", cumulative, summary, none)
	if err != nil {
		return err
	}
	var shares []float64
	if form != cumulative {
		for _, q := range quantiles {
			shares = append(shares, math.Round(q*10)/1000) // 0.999 and no more digits
		}
	}
	shown := func(m stats.Metric) bool {
		return wanted(m) && (m.Kind != stats.KindText || query.Has("text_readouts"))
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(a.Stats.Only(shown, shares)); err != nil {
		return err
	}
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, family := range families {
		family.Help = nil
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return err
		}
	}
	writeText(w, text.Bytes())
	return nil
}
