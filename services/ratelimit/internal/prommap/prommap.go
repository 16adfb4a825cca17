// Package prommap shows the service's statistics to Prometheus under the names
// and labels that they have at envoyproxy/ratelimit, which maps its flat names
// by rules as statsd-exporter does:
//
//	ratelimit_service_rate_limit_over_limit{domain="mongo_cps",key1="database_users"}
//
// The app serves a Mapped on a listener of its own, so that dashboards made
// for the peer go on working; the admin listener shows the same counts under
// our own names. What has no flat name is shown as it is. Nothing is counted
// here.
//
// A flat name that no rule maps becomes a metric of its own name, with an
// underscore for each character that has no place in one, as at the peer. One
// thing is not as there: hits over the limit that the local cache knew of are
// not counted a second time in over_limit where a rule has two keys or more.
package prommap

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

// Options are the variables of the environment that stand beside them.
type Options struct {
	// Path is PROMETHEUS_PATH: where the metrics are, "/metrics".
	Path string
	// MapperYAML is PROMETHEUS_MAPPER_YAML: the file with the rules; "" for
	// the built-in ones. It has the form of statsd-exporter's, of which the
	// keys of a mapping are known that rules makes use of.
	MapperYAML string
	// Milliseconds is PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS: the built-in
	// ratelimit_service_response_time_seconds is in milliseconds, as it was in
	// old versions of the peer.
	Milliseconds bool
	// Metrics is what is shown.
	Metrics prometheus.Gatherer
}

// Mapped is a prometheus.Gatherer of the mapped statistics, for use by many
// goroutines.
type Mapped struct {
	path  string
	rules []rule

	mu      sync.Mutex
	reader  *peerstats.Reader
	reading uint64 // the number of this reading, to find what is gone
	sources map[string]*source
	targets map[string]*target
}

// source is what is remembered of one flat name.
type source struct {
	seen  uint64
	to    *target // nil if a rule drops it
	scale float64
}

// target is one metric that is shown.
type target struct {
	seen   uint64
	family string
	kind   peerstats.Kind
	help   string
	labels []*dto.LabelPair
	// value and buckets are all that was ever added, since a flat name that is
	// gone must not take from the others of its metric what it brought.
	value   float64
	buckets []peerstats.Bucket
	sum     float64
}

// New reads the rules. The error names the variable, and for the file every
// line that is wrong.
func New(o Options) (*Mapped, error) {
	m := &Mapped{
		path:    o.Path,
		rules:   builtIn(o.Milliseconds),
		reader:  peerstats.NewReader(o.Metrics),
		sources: map[string]*source{},
		targets: map[string]*target{},
	}
	var errs []error
	if !strings.HasPrefix(o.Path, "/") {
		errs = append(errs, fmt.Errorf("PROMETHEUS_PATH=%s: does not begin with /", o.Path))
	}
	if o.MapperYAML != "" {
		text, err := os.ReadFile(o.MapperYAML)
		if err == nil {
			m.rules, err = readRules(text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("PROMETHEUS_MAPPER_YAML=%s: %w", o.MapperYAML, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return m, nil
}

// Handler answers scrapes at the path, and 404 elsewhere.
func (m *Mapped) Handler() http.Handler {
	metrics := promhttp.HandlerFor(m, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != m.path {
			http.Error(w, "metrics are at "+m.path, http.StatusNotFound)
			return
		}
		metrics.ServeHTTP(w, r)
	})
}

// Gather is part of prometheus.Gatherer.
func (m *Mapped) Gather() ([]*dto.MetricFamily, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stats, others, err := m.reader.Read()
	m.reading++
	for i := range stats {
		s := m.source(&stats[i])
		s.seen = m.reading
		if s.to != nil {
			s.to.seen = m.reading
			s.to.add(&stats[i], s.scale)
		}
	}
	maps.DeleteFunc(m.sources, func(_ string, s *source) bool { return s.seen != m.reading })
	maps.DeleteFunc(m.targets, func(_ string, t *target) bool { return t.seen != m.reading })
	return m.families(others), err
}

// source is what m knows of the statistic.
func (m *Mapped) source(stat *peerstats.Stat) *source {
	if s := m.sources[stat.Name]; s != nil {
		return s
	}
	mapped := apply(m.rules, stat.Name, stat.Kind)
	s := &source{scale: mapped.scale}
	m.sources[stat.Name] = s
	if mapped.drop {
		return s
	}
	id := mapped.name
	var labels []*dto.LabelPair
	for _, l := range mapped.labels {
		id += "\xff" + l.name + "\xff" + l.value // a byte that none of them has
		labels = append(labels, &dto.LabelPair{Name: &l.name, Value: &l.value})
	}
	s.to = m.targets[id]
	if s.to == nil {
		s.to = &target{family: mapped.name, kind: stat.Kind, help: mapped.help, labels: labels}
		m.targets[id] = s.to
	}
	return s
}

// add puts a statistic into the metric. One of another kind is passed over.
func (t *target) add(s *peerstats.Stat, scale float64) {
	switch {
	case t.kind != s.Kind:
	case s.Kind == peerstats.Counter:
		t.value += s.Value * scale
	case s.Kind == peerstats.Gauge:
		t.value = s.Value * scale
	default:
		t.sum += s.Sum * scale
		for i, b := range s.Buckets {
			if i == len(t.buckets) {
				t.buckets = append(t.buckets, peerstats.Bucket{Upper: peerstats.Rounded(b.Upper * scale)})
			}
			t.buckets[i].Count += b.Count
		}
	}
}

// types is what each kind is to Prometheus.
var types = map[peerstats.Kind]dto.MetricType{
	peerstats.Counter: dto.MetricType_COUNTER,
	peerstats.Gauge:   dto.MetricType_GAUGE,
	peerstats.Timer:   dto.MetricType_HISTOGRAM,
}

// families puts the metrics and those that are shown as they are in the order
// of their names. Where a name is taken twice, the mapped one is shown.
func (m *Mapped) families(others []*dto.MetricFamily) []*dto.MetricFamily {
	byName := map[string]*dto.MetricFamily{}
	for _, id := range slices.Sorted(maps.Keys(m.targets)) {
		t := m.targets[id]
		f := byName[t.family]
		if f == nil {
			f = &dto.MetricFamily{Name: &t.family, Help: &t.help, Type: types[t.kind].Enum()}
			byName[t.family] = f
		}
		if f.GetType() == types[t.kind] { // else it cannot be in one family with the others
			f.Metric = append(f.Metric, t.metric())
		}
	}
	for _, f := range others {
		if byName[f.GetName()] == nil {
			byName[f.GetName()] = f
		}
	}
	var sorted []*dto.MetricFamily
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		sorted = append(sorted, byName[name])
	}
	return sorted
}

// metric is t as it is shown. It holds nothing that changes later.
func (t *target) metric() *dto.Metric {
	out := &dto.Metric{Label: t.labels}
	value := t.value
	switch t.kind {
	case peerstats.Counter:
		out.Counter = &dto.Counter{Value: &value}
	case peerstats.Gauge:
		out.Gauge = &dto.Gauge{Value: &value}
	case peerstats.Timer:
		count, sum := uint64(0), t.sum
		h := &dto.Histogram{SampleSum: &sum}
		for _, b := range t.buckets {
			count += b.Count
			upTo, upper := count, b.Upper
			h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: &upTo, UpperBound: &upper})
		}
		h.SampleCount = &count
		out.Histogram = h
	}
	return out
}
