package stats

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// identity is what a handle is called.
type identity struct {
	flat       string // "cluster.echo.upstream_rq_total"
	prometheus string // "cluster.upstream_rq_total", not yet escaped
	labels     []Label
}

// Counter counts events; it only grows.
type Counter struct {
	value atomic.Uint64
	// shownFrom is the value at the last reset.
	shownFrom atomic.Uint64
	identity
}

// Inc counts one event.
func (c *Counter) Inc() { c.value.Add(1) }

// Add counts n events.
func (c *Counter) Add(n uint64) { c.value.Add(n) }

// Value is the count since start, whatever ResetCounters did.
func (c *Counter) Value() uint64 { return c.value.Load() }

// Gauge is a level that goes up and down, or a number that names something, such as a
// hash. It is shown without a sign, as Envoy's are.
type Gauge struct {
	value atomic.Int64
	used  atomic.Bool
	identity
}

// Set puts the level to v.
func (g *Gauge) Set(v int64) {
	g.value.Store(v)
	g.use()
}

// Add moves the level by delta.
func (g *Gauge) Add(delta int64) {
	g.value.Add(delta)
	g.use()
}

// Value is the level now.
func (g *Gauge) Value() int64 { return g.value.Load() }

// use notes that the gauge was written; after the first time it only reads.
func (g *Gauge) use() {
	if !g.used.Load() {
		g.used.Store(true)
	}
}

// Text says something in words (Envoy's text readout), nothing at first.
type Text struct {
	value atomic.Pointer[string]
	identity
}

// Set puts it to v.
func (t *Text) Set(v string) { t.value.Store(&v) }

// Kind tells counters, gauges, texts and histograms apart.
type Kind int

// The kinds of metrics.
const (
	KindCounter Kind = iota
	KindGauge
	KindText
	KindHistogram
)

// Metric is one metric as it was when Each read it.
type Metric struct {
	// Name is the flat name: "cluster.echo.upstream_rq_total".
	Name string
	Kind Kind
	// Value of a counter is that since the last reset, and never negative; of a
	// histogram and a text it is 0.
	Value int64
	// Text is that of a text.
	Text string
	// Distribution is what a histogram counted; nil for any other.
	Distribution *Distribution
	// Used says that it was written since start.
	Used bool
	// Prometheus is the escaped name without tags: "envoy_cluster_upstream_rq_total".
	Prometheus string
	// Labels are the tags in the order of the name. They are the registry's:
	// read only.
	Labels []Label
}

// Unsigned is the value as it is shown: without a sign.
func (m Metric) Unsigned() uint64 { return uint64(m.Value) }

// ResetCounters makes all counters begin at 0 again, for those who read metrics.
// Who holds one still sees the count since start.
func (r *Registry) ResetCounters() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.root.reset()
}

func (s *Scope) reset() {
	for _, c := range s.counters {
		c.shownFrom.Store(c.Value())
	}
	for _, child := range s.children {
		child.reset()
	}
}

// BeforeRead has f called before each time that the metrics are read, so that it can
// set those that show what is. It may be called by several readers at once.
func (r *Registry) BeforeRead(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh = append(slices.Clip(r.refresh), f)
}

// Each calls f for every metric, sorted by flat name. No lock is held
// meanwhile, so f may use the registry.
func (r *Registry) Each(f func(Metric)) {
	for _, m := range r.metrics() {
		f(m)
	}
}

func (r *Registry) metrics() []Metric {
	r.mu.Lock()
	refresh := r.refresh
	r.mu.Unlock()
	for _, f := range refresh {
		f()
	}
	var all []Metric
	r.mu.Lock()
	r.root.collect("", &all)
	r.mu.Unlock()
	slices.SortStableFunc(all, func(a, b Metric) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Prometheus, b.Prometheus))
	})
	return all
}

// collect adds the metrics of s and below. Pattern is the dotted name of s with a * for
// the value of each tag.
func (s *Scope) collect(pattern string, all *[]Metric) {
	s.collectAbsent(pattern, all)
	for _, c := range s.counters {
		from, n := c.shownFrom.Load(), c.Value()
		*all = append(*all, c.metric(KindCounter, int64(n-from), n != 0))
	}
	for _, g := range s.gauges {
		*all = append(*all, g.metric(KindGauge, g.Value(), g.used.Load()))
	}
	for _, t := range s.texts {
		m := t.metric(KindText, 0, false)
		if v := t.value.Load(); v != nil {
			m.Text, m.Used = *v, true
		}
		*all = append(*all, m)
	}
	for _, h := range s.histograms {
		d := h.Distribution()
		m := h.metric(KindHistogram, 0, d.Count > 0)
		m.Distribution = d
		*all = append(*all, m)
	}
	for key, child := range s.children {
		step := key.value
		if key.tag != "" {
			step = "*"
		}
		child.collect(join(pattern, step), all)
	}
}

func (i *identity) metric(kind Kind, value int64, used bool) Metric {
	return Metric{
		Name: i.flat, Kind: kind, Value: value, Used: used,
		Prometheus: "envoy_" + escape(i.prometheus), Labels: i.labels,
	}
}
