package cluster

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

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/dns"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// ManagerOptions says what a Manager works with. Every field is required,
// unless it says otherwise.
type ManagerOptions struct {
	// Policies are the load-balancing policies that ship.
	Policies []Policy
	// Schema holds what is supported of the resources that xDS sends.
	Schema *strict.Schema
	// Runtime has the values that clusters leave to it; nil is none.
	Runtime *layeredruntime.Runtime
	// Zone is that of the proxy's node; empty is none.
	Zone string
	// Stats is the root of all metrics.
	Stats *stats.Registry
	Log   *slog.Logger
	// SetServices is told the names of all assignments that are wanted from a
	// source, each time they may have changed.
	SetServices func(source coreconfig.Source, names []string)
	// CheckSource reports what is wrong with a source that a cluster of CDS
	// names; nil where nothing can be.
	CheckSource func(source coreconfig.Source, at strict.Path, report *strict.Report)
	// Resolver looks up the names of DNS clusters; nil is Go's own resolver, by
	// the machine's /etc/resolv.conf and /etc/hosts.
	Resolver dns.Resolver
}

// Manager holds all clusters (Envoy's cluster manager). Those of the bootstrap
// are there from the start and stay; those of CDS come, change and go. A
// cluster of CDS is used once it is warm: once it has its assignment, or answers
// to all of its names, and each of its hosts was checked once, if they are; or
// once it has waited for the assignment in vain.
type Manager struct {
	options ManagerOptions

	// active is what requests see: a copy of clusters, never changed, only
	// replaced, by publish.
	active atomic.Pointer[map[string]*Cluster]

	mu       sync.Mutex
	clusters map[string]*Cluster
	static   map[string]bool
	// passedOver are the clusters of CDS that have the name of one of the bootstrap, as
	// the log was told of them.
	passedOver map[string]*clusterv3.Cluster
	warming    map[string]*warming
	// users are the clusters, active and warming, of each service of EDS.
	users map[service][]*Cluster
	// scopes are how many clusters, active and warming, have their metrics there: of one
	// name, or of one alt_stat_name.
	scopes map[*stats.Scope]int
	// sources are those that were asked for services.
	sources map[coreconfig.Source]bool
	// assignments are the last good ones: a cluster that comes or changes is
	// warm at once if its assignment is known.
	assignments map[service]*Assignment
	// stale end the assignments that hold for a time only.
	stale map[service]*time.Timer
	// awaited is what the start waits for; started closes when it is empty.
	awaited map[*Cluster]bool
	listed  bool // CDS has answered, or nobody waits for it
	started chan struct{}

	added, modified, removed *stats.Counter
	activeGauge, warmGauge   *stats.Gauge
	// reloads are updates of CDS that brought new clusters or changed ones, and none
	// that is bad; reloaded is when, in milliseconds since 1970.
	reloads  *stats.Counter
	reloaded *stats.Gauge
	updates  *updateStats
}

// service is the name of an assignment where it comes from.
type service struct {
	source coreconfig.Source
	name   string
}

func (c *Config) service() service { return service{c.Source, c.ServiceName} }

// NewManager makes a Manager without clusters. Wait for CDS says whether the
// start waits for the first list of clusters.
func NewManager(options ManagerOptions, waitForCDS bool) *Manager {
	if options.Resolver == nil {
		options.Resolver = &net.Resolver{PreferGo: true}
	}
	scope := options.Stats.Scope("cluster_manager")
	m := &Manager{
		options:     options,
		clusters:    map[string]*Cluster{},
		users:       map[service][]*Cluster{},
		scopes:      map[*stats.Scope]int{},
		sources:     map[coreconfig.Source]bool{},
		static:      map[string]bool{},
		passedOver:  map[string]*clusterv3.Cluster{},
		warming:     map[string]*warming{},
		assignments: map[service]*Assignment{},
		stale:       map[service]*time.Timer{},
		awaited:     map[*Cluster]bool{},
		listed:      !waitForCDS,
		started:     make(chan struct{}),
		added:       scope.Counter("cluster_added"),
		modified:    scope.Counter("cluster_modified"),
		removed:     scope.Counter("cluster_removed"),
		activeGauge: scope.Gauge("active_clusters"),
		warmGauge:   scope.Gauge("warming_clusters"),
		reloads:     scope.Counter("cds.config_reload"),
		reloaded:    scope.Gauge("cds.config_reload_time_ms"),
		updates:     newUpdateStats(scope),
	}
	m.active.Store(&map[string]*Cluster{})
	return m
}

// Get returns the cluster of that name, or nil.
func (m *Manager) Get(name string) *Cluster { return (*m.active.Load())[name] }

// All returns the active clusters in the order of their names.
func (m *Manager) All() []*Cluster {
	active := *m.active.Load()
	all := make([]*Cluster, 0, len(active))
	for _, name := range slices.Sorted(maps.Keys(active)) {
		all = append(all, active[name])
	}
	return all
}

// IsStatic says whether the cluster of that name came from the bootstrap.
func (m *Manager) IsStatic(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.static[name]
}

// AddStatic adds the clusters of the bootstrap. It is called once, before the
// others.
func (m *Manager) AddStatic(configs []*Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, config := range configs {
		m.static[config.Name] = true
		config.Source = config.Source.Of(coreconfig.Source{})
		c := m.newCluster(config)
		m.activate(c)
		known, ready := m.start(c)
		if ready {
			continue
		}
		m.awaited[c] = true
		m.warm(c, known)
	}
	m.publish()
	m.checkStarted()
	m.subscribe()
}

// Started closes when the clusters that the start waits for are warm.
func (m *Manager) Started() <-chan struct{} { return m.started }

// StopWaiting makes the start wait no longer for the first list of clusters.
func (m *Manager) StopWaiting() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed = true
	m.checkStarted()
}

// ApplyClusters takes the full set of clusters from CDS. Good ones take
// effect, bad ones keep what was there; the error names each bad one.
func (m *Manager) ApplyClusters(resources []xds.Resource) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	named := map[string]bool{}
	for _, r := range resources {
		named[r.Name] = true
	}
	for name := range m.warming {
		if !named[name] {
			m.forget(name)
		}
	}
	for name := range m.clusters {
		if !named[name] {
			m.forget(name)
		}
	}
	return m.change(resources)
}

// ChangeClusters takes the clusters of CDS that changed, those without a message
// being gone, as ApplyClusters does.
func (m *Manager) ChangeClusters(resources []xds.Resource) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.change(resources)
}

func (m *Manager) change(resources []xds.Resource) error {
	var refused []error
	changed := false
	for _, r := range resources {
		switch message, ok := r.Message.(*clusterv3.Cluster); {
		case r.Message == nil:
			m.forget(r.Name)
		case !ok:
			refused = append(refused, fmt.Errorf("cluster %q: is a %T", r.Name, r.Message))
		case m.static[r.Name]:
			m.passOver(r, message)
		default:
			other, err := m.applyCluster(message, r)
			if err != nil {
				refused = append(refused, fmt.Errorf("cluster %q: %w", r.Name, err))
			}
			changed = changed || other
		}
	}
	if changed && len(refused) == 0 {
		m.reloads.Inc()
		m.reloaded.Set(time.Now().UnixMilli())
	}
	m.publish()
	m.listed = true
	m.checkStarted()
	m.subscribe()
	return errors.Join(refused...)
}

// passOver leaves a cluster of the bootstrap as it is, whatever CDS has of that name, as
// Envoy does, and warns of it once for each change.
func (m *Manager) passOver(r xds.Resource, message *clusterv3.Cluster) {
	if proto.Equal(m.passedOver[r.Name], message) {
		return
	}
	m.passedOver[r.Name] = message
	m.options.Log.Warn("ignored a cluster of the control plane: one of the bootstrap has its name", "cluster", r.Name, "version", r.Version)
}

// forget removes a cluster of CDS, warming or active.
func (m *Manager) forget(name string) {
	if m.static[name] {
		delete(m.passedOver, name)
		return
	}
	if w := m.warming[name]; w != nil {
		m.abandon(name, w)
	}
	if m.clusters[name] != nil {
		m.remove(name)
	}
}

// applyCluster takes a cluster of CDS, and says whether it is other than before.
func (m *Manager) applyCluster(message *clusterv3.Cluster, r xds.Resource) (changed bool, err error) {
	name := message.GetName()
	present := m.clusters[name]
	if w := m.warming[name]; w != nil {
		present = w.cluster
	}
	if present != nil && proto.Equal(present.Config.Message, message) {
		return false, nil
	}
	report := r.Report()
	strict.Check(message, r.At, m.options.Schema, report)
	config := Parse(message, r.At, m.options.Policies, report)
	config.Source = config.Source.Of(r.Source)
	if m.options.CheckSource != nil && config.ServiceName != "" {
		m.options.CheckSource(config.Source, config.SourceAt, report)
	}
	if err := report.Err(); err != nil {
		return false, err
	}
	strict.LogWarnings(m.options.Log, report)
	c := m.newCluster(config) // first, so that metrics stay that it has in common with the next
	if w := m.warming[name]; w != nil {
		m.abandon(name, w)
	}
	known, ready := m.start(c)
	if ready {
		m.activate(c)
		return true, nil
	}
	if !m.listed {
		m.awaited[c] = true
	}
	m.warm(c, known)
	return true, nil
}

// start gives a cluster its hosts, and says whether they are known, and whether
// it can be used as it is.
func (m *Manager) start(c *Cluster) (known, ready bool) {
	config := c.Config
	switch {
	case config.dns != nil:
		ready = c.resolve(m.options.Resolver, m.options.Log, func() { m.answered(c) })
		return ready, ready
	case config.ServiceName == "":
		c.update(config.assignment)
	case m.assignments[config.service()] != nil:
		c.Stats.assignmentsCached.Inc()
		c.update(m.assignments[config.service()])
	default:
		return false, false
	}
	return true, !c.pending()
}

// ApplyAssignments takes the assignments that EDS sent. Good ones take effect
// at once; the error names each bad one, whose hosts stay as they are, as do
// those of one that is gone: a cluster only waits for it no longer.
func (m *Manager) ApplyAssignments(resources []xds.Resource) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var refused []error
	for _, r := range resources {
		message, ok := r.Message.(*endpointv3.ClusterLoadAssignment)
		if r.Message == nil {
			m.assignmentGone(service{r.Source, r.Name}, r.Version)
			continue
		}
		if !ok {
			refused = append(refused, fmt.Errorf("assignment %q: is a %T", r.Name, r.Message))
			continue
		}
		began := time.Now()
		report := r.Report()
		strict.Check(message, r.At, m.options.Schema, report)
		assignment := parseAssignment(message, ipAddresses, r.At, report)
		service := service{r.Source, message.GetClusterName()}
		if err := report.Err(); err != nil {
			refused = append(refused, fmt.Errorf("assignment %q: %w", r.Name, err))
			m.assignmentFailed(service, xds.Refused)
			continue
		}
		if len(m.users[service]) == 0 { // nobody wants it any more
			continue
		}
		m.assign(service, assignment)
		for _, c := range m.users[service] {
			c.Stats.assignments.Took(r.Version, began)
		}
	}
	m.publish()
	m.checkStarted()
	return errors.Join(refused...)
}

// AssignmentsFailed hears that no assignments of those services came of a source, as
// xds.Sink has it, counts that, and has clusters wait for bad ones no longer.
func (m *Manager) AssignmentsFailed(source coreconfig.Source, names []string, why xds.Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		m.assignmentFailed(service{source, name}, why)
	}
	m.publish()
	m.checkStarted()
}

// assignmentFailed counts that no assignment came for the clusters of a service. A bad
// one takes those into use that wait for it in no other's place, as in Envoy: the start
// must go on. The caller publishes.
func (m *Manager) assignmentFailed(service service, why xds.Failure) {
	for _, c := range slices.Clone(m.users[service]) {
		c.Stats.assignments.Failed(why)
		name := c.Config.Name
		w, active := m.warming[name], m.clusters[name]
		if why == xds.Refused && w != nil && w.cluster == c && !w.known && (active == nil || active == c) {
			m.endWarming(name, w)
			m.activate(c)
		}
	}
}

// assign gives an assignment to the clusters of that service.
func (m *Manager) assign(service service, assignment *Assignment) {
	m.assignments[service] = assignment
	m.restartStale(service, assignment.StaleAfter)
	for _, c := range slices.Clone(m.users[service]) {
		c.update(assignment)
		m.hostsKnown(c)
	}
}

func (m *Manager) newCluster(config *Config) *Cluster {
	scope := m.options.Stats.Scope("cluster").Tagged("envoy_cluster_name", config.statName())
	c := newCluster(config, scope, m.updates, m.options.Zone, m.options.Runtime)
	c.startChecks(m.options.Log, func() { m.checked(c) })
	m.scopes[scope]++
	if config.ServiceName != "" {
		m.users[config.service()] = append(m.users[config.service()], c)
		c.Stats.assignments = xds.NewUpdates(scope)
		c.Stats.assignments.Began(config.Source)
	}
	return c
}

// retire lets go of a cluster that is neither active nor warming any more, and removes its
// metrics, unless another has them too.
func (m *Manager) retire(c *Cluster) {
	c.close()
	service := c.Config.service()
	m.users[service] = slices.DeleteFunc(m.users[service], func(user *Cluster) bool { return user == c })
	if len(m.users[service]) == 0 {
		m.restartStale(service, 0)
		delete(m.users, service)
		delete(m.assignments, service)
	}
	scope := c.Stats.Scope
	if m.scopes[scope]--; m.scopes[scope] == 0 {
		delete(m.scopes, scope)
		scope.Remove()
	}
}

// activate takes the cluster into use, in place of the one of the same name.
func (m *Manager) activate(c *Cluster) {
	old := m.clusters[c.Config.Name]
	if old == c {
		return
	}
	m.clusters[c.Config.Name] = c
	c.serve()
	if old == nil {
		m.added.Inc()
		return
	}
	m.modified.Inc()
	m.retire(old)
}

func (m *Manager) remove(name string) {
	gone := m.clusters[name]
	delete(m.clusters, name)
	m.retire(gone)
	m.removed.Inc()
}

// publish lets requests see the clusters as they are now.
func (m *Manager) publish() {
	active := maps.Clone(m.clusters)
	m.active.Store(&active)
	m.activeGauge.Set(int64(len(active)))
	m.warmGauge.Set(int64(len(m.warming)))
}

func (m *Manager) checkStarted() {
	if !m.listed || len(m.awaited) > 0 {
		return
	}
	select {
	case <-m.started:
	default:
		close(m.started)
	}
}

// subscribe tells xDS which assignments are wanted of each source.
func (m *Manager) subscribe() {
	wanted := map[coreconfig.Source][]string{}
	for source := range m.sources {
		wanted[source] = nil
	}
	for service := range m.users {
		wanted[service.source] = append(wanted[service.source], service.name)
	}
	for source, names := range wanted {
		m.sources[source] = true
		if slices.Sort(names); len(names) == 0 {
			delete(m.sources, source)
		}
		m.options.SetServices(source, names)
	}
}

// Run waits until ctx ends; then it closes all connections that no request uses, and
// returns nil.
func (m *Manager) Run(ctx context.Context) error {
	<-ctx.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, w := range m.warming {
		m.endWarming(name, w)
		w.cluster.close()
	}
	for _, timer := range m.stale {
		timer.Stop()
	}
	for _, c := range m.All() {
		c.close()
	}
	return nil
}
