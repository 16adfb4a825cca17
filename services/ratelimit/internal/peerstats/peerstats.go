// Package peerstats tells what our metrics are called by envoyproxy/ratelimit,
// whose statistics are flat names such as
//
//	ratelimit.service.rate_limit.mongo_cps.database_users.over_limit
//
// and reads them from a prometheus.Gatherer as what has grown since the last
// reading. statsd sends them, prommap maps them to Prometheus' names, and check
// tells a rule's. It never sends anything itself, and what counts the hits knows
// nothing of it.
package peerstats

import (
	"math"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Kind is what a statistic is.
type Kind int

// The kinds of statistics.
const (
	Counter Kind = iota // a number of events
	Gauge               // a value that rises and falls
	Timer               // durations of events
)

// Stat is one statistic, as it was read.
type Stat struct {
	// Name is the flat name, sanitised: without colon, pipe, control
	// characters, and dots in IPv4 addresses.
	Name string
	Kind Kind
	// Value is for a Counter what was added since the last reading, 0 or more;
	// for a Gauge its value.
	Value float64
	// Buckets are the durations of a Timer since the last reading, in the order
	// of their bounds; Sum is all of them in milliseconds. The slice is the
	// caller's.
	Buckets []Bucket
	Sum     float64
}

// Bucket counts the durations of a Timer above the bound of the bucket before
// it, or 0, and up to its own.
type Bucket struct {
	Upper float64 // in milliseconds; the last one's is +Inf
	Count uint64
}

// Reader reads statistics. It remembers how far each metric had come, and is
// for one goroutine at a time; each Reader has a memory of its own.
type Reader struct {
	from    prometheus.Gatherer
	series  map[string]*series
	reading uint64 // the number of this reading, to find series that are gone
	id      []byte // reused
}

// series is what is remembered of one metric.
type series struct {
	names   []string // beside the rows of its family
	seen    uint64   // the reading that met it last
	value   float64
	sum     float64
	buckets []uint64
}

// NewReader makes a Reader. What was counted before its first reading belongs
// to that.
func NewReader(from prometheus.Gatherer) *Reader {
	return &Reader{from: from, series: map[string]*series{}}
}

// Read returns the statistics, and beside them the families that have no flat
// name or are not the service's own, such as go_goroutines. Metrics that have
// the same flat name are one statistic, the sum of them; it is there for as
// long as one of the metrics is, grown or not. An error is the Gatherer's, and
// what could be read is returned beside it.
func (r *Reader) Read() ([]Stat, []*dto.MetricFamily, error) {
	families, err := r.from.Gather()
	r.reading++
	var stats []Stat
	var others []*dto.MetricFamily
	found := map[string]int{}
	for _, family := range families {
		rows := rows[family.GetName()]
		if rows == nil || !strings.HasPrefix(family.GetName(), "ratelimit_") {
			others = append(others, family)
		}
		if rows == nil {
			continue
		}
		for _, m := range family.GetMetric() {
			s := r.remembered(family.GetName(), rows, m)
			grown := s.grow(m)
			for i, row := range rows {
				at, ok := found[s.names[i]]
				if !ok {
					at = len(stats)
					found[s.names[i]] = at
					stats = append(stats, Stat{Name: s.names[i], Kind: row.kind})
				}
				stats[at].add(row, grown)
			}
		}
	}
	for id, s := range r.series {
		// What a reading that failed did not meet may be there all the same.
		if err == nil && s.seen != r.reading {
			delete(r.series, id)
		}
	}
	return stats, others, err
}

// remembered is what r knows of m, marked as seen.
func (r *Reader) remembered(family string, rows []row, m *dto.Metric) *series {
	r.id = append(r.id[:0], family...)
	for _, l := range m.GetLabel() {
		r.id = append(append(r.id, 0xff), l.GetName()...) // a byte that no label has
		r.id = append(append(r.id, 0xff), l.GetValue()...)
	}
	s := r.series[string(r.id)]
	if s == nil {
		s = &series{}
		for _, row := range rows {
			s.names = append(s.names, Sanitize(row.name(labels{m})))
		}
		r.series[string(r.id)] = s
	}
	s.seen = r.reading
	return s
}

// growth is one metric at a reading: its value, and by how much it grew.
type growth struct {
	value, by float64
	sum       float64  // by how much a summary's or a histogram's sum grew
	buckets   []Bucket // in the family's own unit
}

// grow brings s to the state of m and returns what is new in it. A metric that
// went back was begun anew, so that all of it is new.
func (s *series) grow(m *dto.Metric) growth {
	if h := m.GetHistogram(); h != nil {
		return s.growHistogram(h)
	}
	var g growth
	sum := 0.0
	switch {
	case m.GetCounter() != nil:
		g.value = m.GetCounter().GetValue()
	case m.GetSummary() != nil:
		g.value, sum = float64(m.GetSummary().GetSampleCount()), m.GetSummary().GetSampleSum()
	default:
		g.value = m.GetGauge().GetValue()
	}
	if g.by, g.sum = g.value-s.value, sum-s.sum; g.by < 0 {
		g.by, g.sum = g.value, sum
	}
	s.value, s.sum = g.value, sum
	return g
}

func (s *series) growHistogram(h *dto.Histogram) growth {
	if float64(h.GetSampleCount()) < s.value || len(h.GetBucket())+1 != len(s.buckets) {
		*s = series{names: s.names, seen: s.seen, buckets: make([]uint64, len(h.GetBucket())+1)}
	}
	g := growth{value: float64(h.GetSampleCount()), sum: h.GetSampleSum() - s.sum}
	g.by = g.value - s.value
	s.value, s.sum = g.value, h.GetSampleSum()
	below := uint64(0)
	count := func(i int, upper float64, upTo uint64) {
		here := upTo - min(below, upTo)
		below = upTo
		g.buckets = append(g.buckets, Bucket{upper, here - min(s.buckets[i], here)})
		s.buckets[i] = here
	}
	for i, b := range h.GetBucket() {
		count(i, b.GetUpperBound(), b.GetCumulativeCount())
	}
	count(len(h.GetBucket()), math.Inf(1), h.GetSampleCount())
	return g
}

// add puts one more metric into s.
func (s *Stat) add(row row, g growth) {
	switch row.kind {
	case Counter:
		if row.ofSum {
			s.Value += math.Round(g.sum * row.scaled())
			return
		}
		s.Value += g.by * row.scaled()
	case Gauge:
		s.Value += g.value * row.scaled()
	case Timer:
		s.Sum += g.sum * row.scaled()
		for i, b := range g.buckets {
			b.Upper = Rounded(b.Upper * row.scaled())
			if i == len(s.Buckets) {
				s.Buckets = append(s.Buckets, b)
			} else if i < len(s.Buckets) && s.Buckets[i].Upper == b.Upper {
				s.Buckets[i].Count += b.Count
			}
		}
	}
}
