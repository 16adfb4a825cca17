package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// ManagerOptions says what a Manager works with. Every field is required but
// ConnectionLimit and TotalLimit.
type ManagerOptions struct {
	// Filters are those that ship.
	Filters Filters
	// Schema holds what is supported of the resources that xDS sends.
	Schema *strict.Schema
	// Stats is the root of all metrics.
	Stats *stats.Registry
	Log   *slog.Logger
	// DrainTime is how long idle connections of a listener, or of a filter chain,
	// that is not there any more are kept.
	DrainTime time.Duration
	// DrainGradually says that connections of what goes are drained one by one within
	// DrainTime, and not all at once (--drain-strategy).
	DrainGradually bool
	// ConnectionLimit makes, of a listener's name, how many connections it has at once
	// at most, which is asked for each one; nil is no bound.
	ConnectionLimit func(name string) func() int64
	// TotalLimit is the same for the connections of all listeners together.
	TotalLimit func() int64
}

// Manager holds all listeners (Envoy's listener manager). Those of the bootstrap
// stay; those of LDS come, change and go. A listener that comes, and one that
// changes, waits until its filters can serve, as for routes of RDS; until then
// what was there serves on.
type Manager struct {
	options ManagerOptions
	stats   *managerStats
	// base ends what drains.
	base   context.Context
	cancel context.CancelFunc

	// connections are those of all listeners.
	connections atomic.Int64

	mu        sync.Mutex
	listeners map[string]*entry
	order     []string // of the names of static ones
	draining  map[*Listener]bool
	open      bool // accepting has begun
	awaiting  bool // the start waits for the first answer of LDS
	started   chan struct{}
	stopped   chan struct{}
	stopping  bool
	running   sync.WaitGroup
	// drains says that Drain was called last, not Undrain.
	drains bool
	// drained are the listeners that DrainListeners drains, whatever drains says.
	drained directions
	// closed are the listeners whose sockets DrainListeners closed: also those of
	// their kind that come later accept nothing.
	closed directions
}

// entry is a listener by its name.
type entry struct {
	static  bool
	active  *Listener // nil until it is warm for the first time
	updated time.Time // of the active configuration
	version string
	warming *warming
	refused *Refusal // why the newest update was, nil if it was not
	// passedOver is what LDS has of the name of a static one, as the log was told of it.
	passedOver *listenerv3.Listener
}

// warming is a configuration that waits for its filters.
type warming struct {
	config   *Config
	listener *Listener // that will use it: the active one or a new one
	source   coreconfig.Source
	version  string
	began    time.Time
	fresh    []*chain // that no other configuration has
	left     int      // filters that are not ready
}

// NewManager makes a Manager without listeners. WaitForLDS says whether the start
// waits for the first list of listeners.
func NewManager(options ManagerOptions, waitForLDS bool) *Manager {
	base, cancel := context.WithCancel(context.Background())
	return &Manager{
		options: options, stats: newManagerStats(options.Stats), base: base, cancel: cancel,
		listeners: map[string]*entry{}, draining: map[*Listener]bool{},
		awaiting: waitForLDS, started: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// AddStatic binds the listeners of the bootstrap. It is called once, before the
// others. The error is that of the first that can't be bound; Stop closes those
// that were.
func (m *Manager) AddStatic(configs []*Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, config := range configs {
		l, err := m.bind(config)
		if err != nil {
			return fmt.Errorf("listener %q: %w", config.Name, err)
		}
		m.listeners[config.Name] = &entry{static: true, warming: &warming{config: config, listener: l, fresh: config.all(), began: time.Now()}}
		m.order = append(m.order, config.Name)
		m.stats.added.Inc()
		m.stats.created.Inc()
	}
	return nil
}

func (m *Manager) bind(config *Config) (*Listener, error) {
	l, err := Open(config, m.options.Stats, m.options.Log)
	if err != nil {
		return nil, err
	}
	if m.options.ConnectionLimit != nil {
		l.limit = m.options.ConnectionLimit(config.Name)
	}
	l.connections, l.totalLimit = &m.connections, m.options.TotalLimit
	l.draining = m.isToDrain(config)
	if m.closed.has(config) {
		m.closeSocket(l)
	}
	return l, nil
}

// Start lets the filters of the static listeners fetch what they need. LDS is to
// be asked after it.
func (m *Manager) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.order {
		m.warm(name, m.listeners[name])
	}
	m.settle()
}

// Started closes when all listeners that the start waits for are warm.
func (m *Manager) Started() <-chan struct{} { return m.started }

// StopWaiting makes the start wait no longer for the first list of listeners.
func (m *Manager) StopWaiting() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.awaiting = false
	m.settle()
}

// Accept lets all listeners accept, those that come later as soon as they are
// warm. What is not warm yet serves as well as it can.
func (m *Manager) Accept() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open || m.stopping {
		return
	}
	m.open = true
	m.stats.accepting.Set(1)
	for name, e := range m.listeners {
		if e.active != nil {
			m.serve(e.active)
		} else {
			m.activate(name, e, e.warming)
		}
	}
	m.settle()
}

// Apply takes listeners from LDS, as xds.Sink has it. Good ones take effect, bad
// ones keep what was there; the error names each bad one.
func (m *Manager) Apply(resources []xds.Resource, all bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return nil
	}
	named := map[string]bool{}
	for _, r := range resources {
		named[r.Name] = r.Message != nil
	}
	// Those that are gone first: one that comes may want the address.
	for _, name := range slices.Sorted(maps.Keys(m.listeners)) {
		if stays, told := named[name]; !stays && (told || all) {
			m.remove(name)
		}
	}
	var refused []error
	for _, r := range resources {
		if r.Message == nil {
			continue
		}
		if err := m.apply(r); err != nil {
			refused = append(refused, fmt.Errorf("listener %q: %w", r.Name, err))
			m.stats.refused.Inc()
		}
	}
	m.awaiting = false
	m.settle()
	return errors.Join(refused...)
}

func (m *Manager) apply(r xds.Resource) error {
	message, ok := r.Message.(*listenerv3.Listener)
	if !ok {
		return fmt.Errorf("is a %T", r.Message)
	}
	e := m.listeners[r.Name]
	switch {
	case e == nil:
		e = &entry{}
	case e.static:
		m.passOver(e, r, message)
		return nil
	case proto.Equal(e.newest().Message, message):
		e.refused = nil
		return nil
	}
	w, err := m.prepare(e, message, r)
	if err != nil {
		e.refused = &Refusal{message, err.Error(), time.Now()}
		return err
	}
	e.refused = nil
	if e.active == nil && e.warming == nil {
		m.listeners[r.Name] = e
		m.stats.added.Inc()
	} else {
		m.stats.modified.Inc()
	}
	m.stats.created.Inc()
	m.abandon(e, w)
	m.warm(r.Name, e)
	return nil
}

// passOver leaves a listener of the bootstrap as it is, whatever LDS has of that name, as
// Envoy does, and warns of it once for each change.
func (m *Manager) passOver(e *entry, r xds.Resource, message *listenerv3.Listener) {
	if proto.Equal(e.passedOver, message) {
		return
	}
	e.passedOver = message
	m.options.Log.Warn("ignored a listener of the control plane: one of the bootstrap has its name", "listener", r.Name, "version", r.Version)
}

// newest is the configuration that was accepted last.
func (e *entry) newest() *Config {
	if e.warming != nil {
		return e.warming.config
	}
	return e.active.Config()
}

// prepare makes a configuration of a resource, on the socket of the active
// listener if it is at the same address.
func (m *Manager) prepare(e *entry, message *listenerv3.Listener, r xds.Resource) (*warming, error) {
	report := r.Report()
	strict.Check(message, r.At, m.options.Schema, report)
	config := Parse(message, r.At, m.options.Filters, report)
	for _, name := range slices.Sorted(maps.Keys(m.listeners)) {
		if m.listeners[name] != e && config.Address.Port() != 0 && m.listeners[name].newest().Address == config.Address {
			report.Add(r.At.Field("address"), "%s is that of listener %q", config.Address, name)
		}
	}
	if e.active != nil && e.active.Config().Address == config.Address && e.active.Config().network() != config.network() {
		report.Add(r.At.Field("address").Field("socket_address").Field("ipv4_compat"), "an open socket stays as it is: use another address or port")
	}
	if err := report.Err(); err != nil {
		return nil, err
	}
	strict.LogWarnings(m.options.Log, report)
	w := &warming{config: config, listener: e.active, source: r.Source, version: r.Version, began: time.Now()}
	w.fresh = config.all()
	if e.active != nil && e.active.Config().Address == config.Address {
		config.adopt(e.active.Config())
		w.fresh = config.without(e.active.Config())
		return w, nil
	}
	// One at this address that still warms leaves its socket to this one.
	if p := e.warming; p != nil && p.listener != e.active && p.config.Address == config.Address {
		w.listener = p.listener
		w.listener.forget(m.use(w.listener, config))
		p.listener = nil
		return w, nil
	}
	var err error
	w.listener, err = m.bind(config)
	return w, err
}

// warm starts the filters of what waits, and takes it into use once they are
// ready.
func (m *Manager) warm(name string, e *entry) {
	w := e.warming
	w.left = 1 // until all are started
	for _, chain := range w.fresh {
		starter, ok := chain.filter.(networkfilter.Starter)
		if !ok {
			continue
		}
		chain.stop = starter.Start(w.source, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.ready(name, e, w)
			m.settle()
		})
		if chain.stop != nil {
			w.left++
		}
	}
	m.ready(name, e, w)
}

// ready notes that one more filter of a configuration is.
func (m *Manager) ready(name string, e *entry, w *warming) {
	if w.left--; w.left > 0 || e.warming != w || m.stopping {
		return
	}
	m.activate(name, e, w)
}

// activate takes a configuration into use that is warm.
func (m *Manager) activate(name string, e *entry, w *warming) {
	e.warming = nil
	old := e.active
	w.config.place(m.options.Stats)
	e.active, e.updated, e.version = w.listener, time.Now(), w.version
	switch {
	case old == w.listener:
		if w.config.sharesFilters(old.Config()) {
			m.stats.inPlace.Inc()
		}
		if !old.closed {
			if err := old.setBacklog(w.config.backlog); err != nil {
				m.options.Log.Warn("backlog stays as it is", "listener", name, "error", err)
			}
		}
		m.drainChains(old, m.use(old, w.config))
	case old != nil:
		m.drain(old)
	}
	if old != w.listener && m.open {
		m.serve(w.listener)
	}
}

// use makes a configuration a listener's, as its use does.
func (m *Manager) use(l *Listener, config *Config) (gone []*chain) {
	before := l.scope()
	gone = l.use(config)
	m.dropScope(before)
	return gone
}

// dropScope removes the metrics of a listener that has them no more, unless another
// has: one of the same stat_prefix, or address.
func (m *Manager) dropScope(scope *stats.Scope) {
	has := func(l *Listener) bool { return l.scope() == scope }
	if slices.ContainsFunc(m.atWork(), has) {
		return
	}
	for l := range m.draining {
		if has(l) {
			return
		}
	}
	scope.Remove()
}

// serve accepts on a listener until it is closed.
func (m *Manager) serve(l *Listener) {
	if l.closed {
		return
	}
	m.options.Log.Info("listening", "listener", l.Config().Name, "address", l.Addr().String())
	m.running.Go(func() { _ = l.Serve() }) // ends with the listener's Close; Stop waits for it
}

// remove ends a listener of LDS.
func (m *Manager) remove(name string) {
	e := m.listeners[name]
	if e.static {
		e.passedOver = nil
		return
	}
	m.abandon(e, nil)
	delete(m.listeners, name)
	m.stats.removed.Inc()
	if e.active != nil {
		m.options.Log.Info("listener is gone", "listener", name, "address", e.active.Addr())
		m.drain(e.active)
	}
}

// abandon ends the warming of a configuration that is not wanted any more. Next is
// what warms in its place, or nil.
func (m *Manager) abandon(e *entry, next *warming) {
	w := e.warming
	e.warming = next
	if w == nil {
		return
	}
	stopChains(w.fresh)
	if w.listener != nil && w.listener != e.active {
		_ = w.listener.Stop(context.Background()) // it has served nothing
		m.dropScope(w.listener.scope())
	}
}

func stopChains(chains []*chain) {
	for _, chain := range chains {
		if chain.stop != nil {
			chain.stop()
			chain.stop = nil
		}
	}
}

// settle counts what there is, and tells when the start has what it waits for.
func (m *Manager) settle() {
	active, warm := 0, 0
	for _, e := range m.listeners {
		if e.active != nil {
			active++
		}
		if e.warming != nil {
			warm++
		}
	}
	m.stats.active.Set(int64(active))
	m.stats.warming.Set(int64(warm))
	m.stats.draining.Set(int64(len(m.draining)))
	if m.awaiting || warm > 0 {
		return
	}
	select {
	case <-m.started:
	default:
		close(m.started)
	}
}

// Stop closes all sockets, lets each connection end when it has nothing in
// flight, and waits for them; those that are left when ctx ends are cut off, and
// the log tells how many.
func (m *Manager) Stop(ctx context.Context) error {
	m.mu.Lock()
	if !m.stopping {
		close(m.stopped)
	}
	m.stopping = true
	for _, e := range m.listeners {
		if e.active != nil {
			stopChains(e.active.Config().all())
		}
		if e.warming != nil {
			stopChains(e.warming.fresh)
		}
	}
	all := m.atWork()
	m.mu.Unlock()
	defer m.cancel()
	over, cut := context.WithCancel(context.Background())
	defer cut()
	defer context.AfterFunc(ctx, func() {
		if n := m.Connections(); n > 0 {
			m.options.Log.Warn("cut off connections that had requests in flight as the time to drain was over", "connections", n)
		}
		cut()
		m.cancel() // for what drains already
	})()
	var each sync.WaitGroup
	errs := make([]error, len(all))
	for i, l := range all {
		each.Go(func() { errs[i] = l.Stop(over) })
	}
	each.Wait()
	m.running.Wait()
	return errors.Join(errs...)
}

// Run returns nil once Stop is called.
func (m *Manager) Run() error {
	<-m.stopped
	return nil
}

// atWork are the listeners that were bound, and are not gone.
func (m *Manager) atWork() []*Listener {
	var all []*Listener
	for _, e := range m.listeners {
		if e.active != nil {
			all = append(all, e.active)
		}
		if e.warming != nil && e.warming.listener != e.active {
			all = append(all, e.warming.listener)
		}
	}
	return all
}

// Connections is how many connections filter chains have now, those that drain among
// them.
func (m *Manager) Connections() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range slices.AppendSeq(m.atWork(), maps.Keys(m.draining)) {
		n += l.served()
	}
	return n
}

// Addr is the bound address of a listener, nil if there is none of that name.
func (m *Manager) Addr(name string) net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e := m.listeners[name]; {
	case e == nil:
		return nil
	case e.active != nil:
		return e.active.Addr()
	default:
		return e.warming.listener.Addr()
	}
}
