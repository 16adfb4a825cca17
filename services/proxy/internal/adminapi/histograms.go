package adminapi

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// quantiles are those that Envoy tells of a histogram, in percent.
var quantiles = []float64{0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100}

// Forms in which a histogram is shown (histogram_buckets).
const (
	summary    = "summary" // by its quantiles
	cumulative = "cumulative"
	disjoint   = "disjoint"
)

// Envoy tells of each number twice: of its last interval, and of all time. Here are
// no intervals, so that of them nothing is told: "nan" or null, and 0 for counts.

// writeHistogram writes the line of a histogram as text.
func writeHistogram(text *bytes.Buffer, m stats.Metric, form string) {
	fmt.Fprintf(text, "%s:", m.Name)
	switch {
	case m.Distribution.Count == 0 && form == summary:
		text.WriteString(" No recorded values")
	case form == summary:
		for _, q := range quantiles {
			fmt.Fprintf(text, " P%g(nan,%s)", q, strconv.FormatFloat(quantile(m.Distribution, q), 'g', -1, 64))
		}
	default:
		for _, b := range buckets(m.Distribution, form) {
			fmt.Fprintf(text, " B%s(%d,%d)", strconv.FormatFloat(b.UpperBound, 'g', 6, 64), b.Interval, b.Cumulative)
		}
	}
	text.WriteByte('\n')
}

// quantile is rounded to microseconds.
func quantile(d *stats.Distribution, percent float64) float64 {
	return math.Round(d.Quantile(percent/100)*1000) / 1000
}

// bucket counts the durations up to a bound, or those between it and the one before.
type bucket struct {
	UpperBound float64 `json:"upper_bound"`
	Interval   uint64  `json:"interval"`
	Cumulative uint64  `json:"cumulative"`
}

func buckets(d *stats.Distribution, form string) []bucket {
	var all []bucket
	before := uint64(0)
	for _, b := range d.Buckets {
		n := b.Cumulative
		if form == disjoint {
			n -= before
		}
		all = append(all, bucket{UpperBound: b.UpperBound, Cumulative: n})
		before = b.Cumulative
	}
	return all
}

// histogramsJSON is the element of Envoy's list of statistics that has all
// histograms.
func histogramsJSON(list []stats.Metric, form string) any {
	if form != summary {
		type histogram struct {
			Name    string   `json:"name"`
			Buckets []bucket `json:"buckets"`
		}
		var all []histogram
		for _, m := range list {
			all = append(all, histogram{m.Name, buckets(m.Distribution, form)})
		}
		return map[string]any{"histograms": all}
	}
	type value struct {
		Cumulative *float64 `json:"cumulative"`
		Interval   *float64 `json:"interval"`
	}
	type computed struct {
		Name   string  `json:"name"`
		Values []value `json:"values"`
	}
	var all []computed
	for _, m := range list {
		c := computed{Name: m.Name}
		for _, q := range quantiles {
			v := value{}
			if m.Distribution.Count > 0 {
				v.Cumulative = new(quantile(m.Distribution, q))
			}
			c.Values = append(c.Values, v)
		}
		all = append(all, c)
	}
	return map[string]any{"histograms": map[string]any{"supported_quantiles": quantiles, "computed_quantiles": all}}
}
