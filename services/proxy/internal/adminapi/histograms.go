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
	none       = "none"    // the same
	cumulative = "cumulative"
	disjoint   = "disjoint"
	detailed   = "detailed" // by its quantiles, and by all buckets that are not empty
)

// Envoy tells of each number twice: of its last interval, and of all time. Here are
// no intervals, so that of them nothing is told: "nan" or null, and 0 for counts.

// writeHistogram writes the line of a histogram as text.
func writeHistogram(text *bytes.Buffer, m stats.Metric, form string) {
	fmt.Fprintf(text, "%s:", m.Name)
	switch {
	case m.Distribution.Count == 0 && (form == summary || form == detailed):
		text.WriteString(" No recorded values")
	case form == summary:
		text.WriteString(summaryOf(m.Distribution))
	case form == detailed:
		text.WriteString("\n  totals=")
		for i, s := range spans(m.Distribution) {
			if i > 0 {
				text.WriteString(", ")
			}
			fmt.Fprintf(text, "%g,%s:%d", s.LowerBound, s.width(), s.Count)
		}
		text.WriteString("\n  intervals=\n  summary=" + summaryOf(m.Distribution)[1:])
	default:
		for _, b := range buckets(m.Distribution, form) {
			fmt.Fprintf(text, " B%s(%d,%d)", strconv.FormatFloat(b.UpperBound, 'g', 6, 64), b.Interval, b.Cumulative)
		}
	}
	text.WriteByte('\n')
}

// summaryOf is the quantiles, a space before each.
func summaryOf(d *stats.Distribution) string {
	var text bytes.Buffer
	for _, q := range quantiles {
		fmt.Fprintf(&text, " P%g(nan,%s)", q, strconv.FormatFloat(quantile(d, q), 'g', -1, 64))
	}
	return text.String()
}

// span counts the durations from a bound, in milliseconds, up to one so much later,
// which is nil where there is none.
type span struct {
	LowerBound float64  `json:"lower_bound"`
	Width      *float64 `json:"width"`
	Count      uint64   `json:"count"`
}

func (s *span) width() string {
	if s.Width == nil {
		return "inf"
	}
	return strconv.FormatFloat(*s.Width, 'g', -1, 64)
}

// spans are the buckets of a histogram that are not empty.
func spans(d *stats.Distribution) []span {
	all, bounds, lower := []span{}, stats.Bounds(), 0.0
	for i, n := range d.Counts() {
		s := span{LowerBound: lower, Count: n}
		if i < len(bounds) {
			s.Width = new(math.Round((bounds[i]-lower)*1000) / 1000)
			lower = bounds[i]
		}
		if n > 0 {
			all = append(all, s)
		}
	}
	return all
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
	if form == cumulative || form == disjoint {
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
	values := func(d *stats.Distribution) (all []value) {
		for _, q := range quantiles {
			v := value{}
			if d.Count > 0 {
				v.Cumulative = new(quantile(d, q))
			}
			all = append(all, v)
		}
		return all
	}
	if form == detailed {
		type details struct {
			Name        string  `json:"name"`
			Totals      []span  `json:"totals"`
			Intervals   []span  `json:"intervals"`
			Percentiles []value `json:"percentiles"`
		}
		var all []details
		for _, m := range list {
			all = append(all, details{m.Name, spans(m.Distribution), []span{}, values(m.Distribution)})
		}
		return map[string]any{"histograms": map[string]any{"supported_percentiles": quantiles, "details": all}}
	}
	var all []computed
	for _, m := range list {
		all = append(all, computed{m.Name, values(m.Distribution)})
	}
	return map[string]any{"histograms": map[string]any{"supported_quantiles": quantiles, "computed_quantiles": all}}
}
