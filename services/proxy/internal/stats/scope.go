package stats

import (
	"slices"
	"strings"
	"sync"
)

// Label is a tag of a metric as Prometheus shows it.
type Label struct{ Name, Value string }

// Registry is the root of all scopes. It is a prometheus.Collector.
type Registry struct {
	// mu guards the maps of the whole tree. Nothing on the path of a request
	// takes it: handles are resolved before.
	mu   sync.Mutex
	root *Scope
	// refresh is called before metrics are read.
	refresh []func()
	// absent are what ShowAbsent has shown, by scope.
	absent map[string][]Absence
}

// NewRegistry makes an empty registry.
func NewRegistry() *Registry {
	r := &Registry{}
	r.root = &Scope{registry: r}
	return r
}

// Scope is the scope of a first dotted part, such as "cluster".
func (r *Registry) Scope(name string) *Scope { return r.root.Scope(name) }

// Scope is one dotted prefix of names, with the tags met on the way. Scopes
// are shared: the same parts give the same scope, from any goroutine. Two
// scopes that differ in what is a tag stay apart, even if their flat names
// look equal.
type Scope struct {
	registry *Registry
	parent   *Scope
	key      part

	flat       string // "cluster.echo", "" at the root
	prometheus string // "cluster": the same without the values of tags
	labels     []Label

	children   map[part]*Scope
	counters   map[string]*Counter
	gauges     map[string]*Gauge
	texts      map[string]*Text
	histograms map[string]*Histogram
}

// part is one step down the tree: tag is empty for a plain name.
type part struct{ tag, value string }

// Registry is the one that s is of.
func (s *Scope) Registry() *Registry { return s.registry }

// Scope is the scope below s whose flat name has ".name" appended; a name with
// dots goes down several steps.
func (s *Scope) Scope(name string) *Scope {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.walk(name)
}

// Tagged is the scope below s for one value of a tag: ".value" is appended to
// the flat name, with ':' as '_', as Envoy does for addresses. Prometheus
// leaves the value out of the name and shows it as the label tag="value".
func (s *Scope) Tagged(tag, value string) *Scope {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.child(part{tag, value})
}

// Counter is the counter of that name in s, made at the first call. A name
// with dots lies in the scopes that it names.
func (s *Scope) Counter(name string) *Counter {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	path, name := cutLast(name)
	s = s.walk(path)
	return s.counter(name, identity{prometheus: join(s.prometheus, name), labels: s.labels})
}

// CounterAs is the counter of that name in s which Prometheus shows under
// another name with further labels. It is for names that hold a value without
// a dot: CounterAs("upstream_rq_200", "upstream_rq", Label{"envoy_response_code", "200"}).
func (s *Scope) CounterAs(name, prometheus string, labels ...Label) *Counter {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.counter(name, identity{prometheus: join(s.prometheus, prometheus), labels: slices.Concat(s.labels, labels)})
}

// Gauge is the gauge of that name in s, made at the first call. A name with
// dots lies in the scopes that it names.
func (s *Scope) Gauge(name string) *Gauge {
	return find(s, name, func(s *Scope) *map[string]*Gauge { return &s.gauges }, func(i identity) *Gauge { return &Gauge{identity: i} })
}

// Text is the text of that name in s, made at the first call. A name with dots lies in
// the scopes that it names.
func (s *Scope) Text(name string) *Text {
	return find(s, name, func(s *Scope) *map[string]*Text { return &s.texts }, func(i identity) *Text { return &Text{identity: i} })
}

// Histogram is the histogram of that name in s, made at the first call. A name
// with dots lies in the scopes that it names.
func (s *Scope) Histogram(name string) *Histogram {
	return find(s, name, func(s *Scope) *map[string]*Histogram { return &s.histograms }, func(i identity) *Histogram { return &Histogram{identity: i} })
}

// find is the handle of a dotted name in s, among those of its kind in the scope that
// the name leads to. It is made at the first call.
func find[H any](s *Scope, name string, ofKind func(*Scope) *map[string]*H, made func(identity) *H) *H {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	path, name := cutLast(name)
	s = s.walk(path)
	handles := ofKind(s)
	if h := (*handles)[name]; h != nil {
		return h
	}
	h := made(identity{flat: join(s.flat, name), prometheus: join(s.prometheus, name), labels: s.labels})
	if *handles == nil {
		*handles = map[string]*H{}
	}
	(*handles)[name] = h
	return h
}

// Remove drops s and all below it from the registry, as for a cluster that is
// gone. Handles taken from it still work, but are shown nowhere; its parent
// makes a new scope if asked for the same name again. Removing the same scope
// twice does nothing.
func (s *Scope) Remove() {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if s.parent != nil && s.parent.children[s.key] == s {
		delete(s.parent.children, s.key)
	}
}

func (s *Scope) counter(name string, id identity) *Counter {
	if c := s.counters[name]; c != nil {
		return c
	}
	id.flat = join(s.flat, name)
	c := &Counter{identity: id}
	if s.counters == nil {
		s.counters = map[string]*Counter{}
	}
	s.counters[name] = c
	return c
}

// walk goes down the dotted path, "" being s itself.
func (s *Scope) walk(path string) *Scope {
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, ".")
		if name != "" {
			s = s.child(part{value: name})
		}
	}
	return s
}

func (s *Scope) child(key part) *Scope {
	if c := s.children[key]; c != nil {
		return c
	}
	c := &Scope{registry: s.registry, parent: s, key: key, prometheus: s.prometheus, labels: s.labels}
	if key.tag == "" {
		c.flat = join(s.flat, key.value)
		c.prometheus = join(s.prometheus, key.value)
	} else {
		c.flat = join(s.flat, strings.ReplaceAll(key.value, ":", "_"))
		c.labels = append(slices.Clip(s.labels), Label{key.tag, key.value})
	}
	if s.children == nil {
		s.children = map[part]*Scope{}
	}
	s.children[key] = c
	return c
}

// join puts a dot between two parts of a name unless one is empty.
func join(prefix, name string) string {
	if prefix == "" || name == "" {
		return prefix + name
	}
	return prefix + "." + name
}

// cutLast splits "a.b.c" into "a.b" and "c".
func cutLast(name string) (path, last string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}
