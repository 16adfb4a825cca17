package adminapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// statsParameters are those of /stats and /stats/prometheus. The last two
// choose forms of histograms and of text metrics, of which there are none.
var statsParameters = []string{"filter", "usedonly", "type", "format", "histogram_buckets", "text_readouts"}

// stats serves /stats.
func (a *api) stats(w http.ResponseWriter, query url.Values) error {
	format, err := choice(query, "format", "text", "json", "prometheus")
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
	type metric struct {
		Name  string `json:"name"`
		Value int64  `json:"value"`
	}
	list := []metric{}
	var text bytes.Buffer
	a.Stats.Each(func(m stats.Metric) {
		if wanted(m) {
			list = append(list, metric{m.Name, m.Value})
			fmt.Fprintf(&text, "%s: %d\n", m.Name, m.Value)
		}
	})
	if format == "text" {
		writeText(w, text.Bytes())
		return nil
	}
	answer, err := json.Marshal(map[string]any{"stats": list})
	if err != nil {
		return err
	}
	writeJSON(w, answer)
	return nil
}

// selection says which metrics the query wants.
func selection(query url.Values) (func(stats.Metric) bool, error) {
	named, err := filter(query, "filter")
	if err != nil {
		return nil, err
	}
	kind, err := choice(query, "type", "All", "Counters", "Gauges")
	if err != nil {
		return nil, err
	}
	usedOnly := query.Has("usedonly")
	return func(m stats.Metric) bool {
		switch {
		case usedOnly && !m.Used, kind == "Counters" && m.Kind != stats.KindCounter, kind == "Gauges" && m.Kind != stats.KindGauge:
			return false
		}
		return named(m.Name)
	}, nil
}

// prometheus serves /stats/prometheus.
func (a *api) prometheus(w http.ResponseWriter, query url.Values) error {
	wanted, err := selection(query)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(a.Stats.Only(wanted)); err != nil {
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
