// Package rds holds the route tables that come by route discovery: one for each
// name at each source, shared by all who serve by it, and there for as long as
// somebody does. An http_connection_manager subscribes and gets each new table
// put where its requests look; the package reads no request itself.
package rds

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// Options says what a Manager works with. Every field is required.
type Options struct {
	// Schema holds what is supported of the resources that come.
	Schema *strict.Schema
	// Parse makes a table of a RouteConfiguration at the path at.
	Parse func(config *routev3.RouteConfiguration, at strict.Path, report *strict.Report) *route.Table
	// SetName is told each name that is wanted from a source from now on, or not any
	// more. It must not call the Manager.
	SetName func(source coreconfig.Source, name string, wanted bool)
	Log     *slog.Logger
}

// Manager holds the tables.
type Manager struct {
	options Options

	mu     sync.Mutex
	tables map[key]*table
	users  map[*stats.Scope]int // subscriptions that count there
}

// key is a name where it comes from.
type key struct {
	source coreconfig.Source
	name   string
}

// table is what is known of one RouteConfiguration.
type table struct {
	users   map[*Subscription]bool
	current *route.Table // nil until there is one
	message *routev3.RouteConfiguration
	version string
	updated time.Time
}

// New makes a Manager without tables.
func New(o Options) *Manager {
	return &Manager{options: o, tables: map[key]*table{}, users: map[*stats.Scope]int{}}
}

// Request is what a subscription is for.
type Request struct {
	Source coreconfig.Source
	Name   string
	// InitialFetchTimeout is how long Ready waits for a table; 0 for ever.
	InitialFetchTimeout time.Duration
	// Into gets each table.
	Into *atomic.Pointer[route.Table]
	// Ready is called once, from any goroutine: when there is a table, or none in
	// time, or a bad one, or none at the source.
	Ready func()
	// Stats is where the updates are counted: http.<stat_prefix>.rds.<name>. It goes
	// with the last subscription that has it.
	Stats *stats.Scope
}

// Subscription is the wish for one table. Close ends it.
type Subscription struct {
	manager  *Manager
	request  Request
	key      key
	ready    func()
	told     bool // ready is called, or about to be
	patience *time.Timer
	counters *counters
}

// Subscribe wants a table from now on.
func (m *Manager) Subscribe(r Request) *Subscription {
	s := &Subscription{manager: m, request: r, key: key{r.Source, r.Name}, ready: sync.OnceFunc(r.Ready), counters: newCounters(r.Stats)}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tables[s.key]
	if t == nil {
		t = &table{users: map[*Subscription]bool{}}
		m.tables[s.key] = t
		m.options.SetName(r.Source, r.Name, true)
	}
	t.users[s] = true
	m.users[r.Stats]++
	s.counters.updates.Began(r.Source)
	if t.current != nil {
		s.take(t, time.Now())
		return s
	}
	if r.InitialFetchTimeout > 0 {
		// Ends with Close, or does nothing if a table came first.
		s.patience = time.AfterFunc(r.InitialFetchTimeout, s.giveUp)
	}
	return s
}

// Close lets go of the table, which stays where it was put.
func (s *Subscription) Close() {
	m := s.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.patience != nil {
		s.patience.Stop()
	}
	t := m.tables[s.key]
	if t == nil || !t.users[s] {
		return
	}
	if delete(t.users, s); len(t.users) == 0 {
		delete(m.tables, s.key)
		m.options.SetName(s.key.source, s.key.name, false)
	}
	if m.users[s.request.Stats]--; m.users[s.request.Stats] == 0 {
		delete(m.users, s.request.Stats)
		s.request.Stats.Remove()
	}
}

// take puts the table in place, which began at a time. The caller holds mu.
func (s *Subscription) take(t *table, began time.Time) {
	s.request.Into.Store(t.current)
	s.counters.updates.Took(t.version, began)
	s.begin()
}

// begin lets the user begin, once. The caller holds mu, which Ready is spared of.
func (s *Subscription) begin() {
	if s.told {
		return
	}
	s.told = true
	if s.patience != nil {
		s.patience.Stop()
	}
	go s.ready() // ends with Ready, which blocks on nothing but its own locks; nobody waits
}

func (s *Subscription) giveUp() {
	m := s.manager
	m.mu.Lock()
	t := m.tables[s.key]
	late := t != nil && t.users[s] && t.current == nil
	m.mu.Unlock()
	if late {
		s.counters.updates.GaveUp()
		m.options.Log.Warn("routes are not there within their initial fetch timeout",
			"route_config", s.key.name, "source", s.key.source, "timeout", s.request.InitialFetchTimeout)
		s.ready()
	}
}

// Apply takes what RDS sent, as xds.Sink has it. Good tables take effect at once;
// the error names each bad one, which leaves the one before. One that is gone
// stays in use, as in Envoy: it goes with the last that names it.
func (m *Manager) Apply(resources []xds.Resource, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var refused []error
	for _, r := range resources {
		t := m.tables[key{r.Source, r.Name}]
		if t == nil { // wanted no more since
			continue
		}
		if r.Message == nil {
			for s := range t.users {
				s.counters.updates.Took(r.Version, time.Now())
				s.counters.empty.Inc()
				s.begin()
			}
			continue
		}
		if err := m.update(t, r); err != nil {
			refused = append(refused, fmt.Errorf("route configuration %q: %w", r.Name, err))
			for s := range t.users {
				s.counters.updates.Failed(xds.Refused)
				s.begin() // with what is there, as in Envoy: the start must go on
			}
		}
	}
	return errors.Join(refused...)
}

// Failed counts that no tables of those names came of a source, as xds.Sink has it.
func (m *Manager) Failed(source coreconfig.Source, names []string, why xds.Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if t := m.tables[key{source, name}]; t != nil {
			for s := range t.users {
				s.counters.updates.Failed(why)
			}
		}
	}
}

// update makes a resource the table in use.
func (m *Manager) update(t *table, r xds.Resource) error {
	began := time.Now()
	message, ok := r.Message.(*routev3.RouteConfiguration)
	if !ok {
		return fmt.Errorf("is a %T", r.Message)
	}
	if t.current == nil || !proto.Equal(t.message, message) {
		report := r.Report()
		strict.Check(message, r.At, m.options.Schema, report)
		parsed := m.options.Parse(message, r.At, report)
		if err := report.Err(); err != nil {
			return err
		}
		strict.LogWarnings(m.options.Log, report)
		t.current, t.message = parsed, message
		for s := range t.users {
			s.counters.reloads.Inc()
			s.counters.reloaded.Set(time.Now().UnixMilli())
		}
	}
	t.version, t.updated = r.Version, time.Now()
	for s := range t.users {
		s.take(t, began)
	}
	return nil
}

// Table is one table as /config_dump shows it.
type Table struct {
	Message *routev3.RouteConfiguration
	Version string
	Updated time.Time
}

// Tables are those that are there, by name and source.
func (m *Manager) Tables() []Table {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(m.tables), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.source.String(), b.source.String()))
	})
	var all []Table
	for _, k := range keys {
		if t := m.tables[k]; t.current != nil {
			all = append(all, Table{t.message, t.version, t.updated})
		}
	}
	return all
}

// counters are those of one subscription, by Envoy's names.
type counters struct {
	updates        *xds.Updates
	empty, reloads *stats.Counter
	reloaded       *stats.Gauge // when, in milliseconds since 1970
}

func newCounters(scope *stats.Scope) *counters {
	return &counters{
		updates: xds.NewUpdates(scope), empty: scope.Counter("update_empty"),
		reloads: scope.Counter("config_reload"), reloaded: scope.Gauge("config_reload_time_ms"),
	}
}
