package layeredruntime

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Runtime is the values that hold now.
type Runtime struct {
	current atomic.Pointer[Snapshot]
	stats   runtimeStats

	mu    sync.Mutex // held while the admin_layer changes
	admin int        // the number of the admin_layer; −1 for none
}

// runtimeStats are below runtime., by Envoy's names.
type runtimeStats struct {
	loaded, failed                  *stats.Counter
	undirected                      *stats.Counter // loads without a directory
	keys, layers, overridesByAdmins *stats.Gauge
}

// New makes the runtime of a configuration, with its metrics in scope.
func New(c *Config, scope *stats.Scope) *Runtime {
	r := &Runtime{admin: c.admin, stats: runtimeStats{
		loaded: scope.Counter("load_success"), failed: scope.Counter("load_error"), undirected: scope.Counter("override_dir_not_exists"),
		keys: scope.Gauge("num_keys"), layers: scope.Gauge("num_layers"), overridesByAdmins: scope.Gauge("admin_overrides_active"),
	}}
	r.stats.layers.Set(int64(len(c.layers)))
	r.stats.overridesByAdmins.Set(0)
	r.load(c.layers)
	return r
}

// load makes layers those that hold.
func (r *Runtime) load(layers []layer) {
	s := &Snapshot{layers: layers, values: map[string]value{}}
	for _, l := range layers {
		maps.Copy(s.values, l.values)
	}
	r.current.Store(s)
	r.stats.loaded.Inc()
	r.stats.undirected.Inc()
	r.stats.keys.Set(int64(len(s.values)))
}

// Snapshot is the values of now, which stay as they are. It may be called from any
// goroutine, costs a load of a pointer, and is nil for a nil Runtime.
func (r *Runtime) Snapshot() *Snapshot {
	if r == nil {
		return nil
	}
	return r.current.Load()
}

// ErrNoAdminLayer is that of a runtime without an admin_layer.
var ErrNoAdminLayer = errors.New("No admin layer specified") //nolint:staticcheck // Envoy's words

// Modify sets keys of the admin_layer, all of them or, where there is an error, none:
// ErrNoAdminLayer, or what is wrong with a key or a value. An empty value takes a
// key out of the layer, so that those of other layers hold.
func (r *Runtime) Modify(changes map[string]string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.admin < 0 {
		return ErrNoAdminLayer
	}
	layers := slices.Clone(r.current.Load().layers)
	changed := layer{name: layers[r.admin].name, values: maps.Clone(layers[r.admin].values)}
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		text := changes[key]
		if text == "" {
			delete(changed.values, key)
			continue
		}
		v, err := givenValue(text)
		if err == nil {
			err = check(key, v)
		}
		if err != nil {
			r.stats.failed.Inc()
			return fmt.Errorf("runtime key %q: %w", key, err)
		}
		changed.values[key] = v
	}
	layers[r.admin] = changed
	r.stats.overridesByAdmins.Set(int64(min(len(changed.values), 1)))
	r.load(layers)
	return nil
}

// Snapshot is the values of one moment. It is immutable, and nil is one without
// values. A look-up neither blocks nor allocates.
type Snapshot struct {
	layers []layer
	values map[string]value // of all layers
}

// Integer is the value of a key as a number of 0 or more, its fraction cut off;
// fallback if the key is not set, or to something else.
func (s *Snapshot) Integer(key string, fallback uint64) uint64 {
	if v := s.value(key); v.isInteger {
		return v.integer
	}
	return fallback
}

// Number is the value of a key as a number; fallback if the key is not set, or to
// something else.
func (s *Snapshot) Number(key string, fallback float64) float64 {
	if v := s.value(key); v.isNumber {
		return v.number
	}
	return fallback
}

// Boolean is the value of a key as a truth value, a whole number as whether it is not 0;
// fallback if the key is not set, or to something else.
func (s *Snapshot) Boolean(key string, fallback bool) bool {
	if v := s.value(key); v.isBoolean {
		return v.boolean
	}
	return fallback
}

// Share is the value of a key as a part of all requests, a number as so many in a
// hundred; fallback if the key is not set, or to something else.
func (s *Snapshot) Share(key string, fallback Share) Share {
	switch v := s.value(key); {
	case v.isShare:
		return v.share
	case v.isInteger:
		return Share{uint32(min(v.integer, 100)), 100}
	}
	return fallback
}

// Among says whether a request with that random number is among the Share of a key.
func (s *Snapshot) Among(key string, fallback Share, random uint64) bool {
	return s.Share(key, fallback).Has(random)
}

func (s *Snapshot) value(key string) value {
	if s == nil || key == "" {
		return value{}
	}
	return s.values[key]
}

// Layers are the names of the layers; each lies over those before it.
func (s *Snapshot) Layers() []string {
	names := []string{}
	if s == nil {
		return names
	}
	for _, l := range s.layers {
		names = append(names, l.name)
	}
	return names
}

// Entry is a key that some layer sets.
type Entry struct {
	// Layers has the text of each layer's value, "" where it has none.
	Layers []string
	// Final is that of the value that holds.
	Final string
}

// Entries are all keys that are set.
func (s *Snapshot) Entries() map[string]Entry {
	entries := map[string]Entry{}
	if s == nil {
		return entries
	}
	for key, v := range s.values {
		e := Entry{Final: v.text}
		for _, l := range s.layers {
			e.Layers = append(e.Layers, l.values[key].text)
		}
		entries[key] = e
	}
	return entries
}
