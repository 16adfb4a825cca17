// Package cluster holds the upstream clusters: their configuration, their
// hosts as immutable snapshots behind an atomic pointer, and the Manager that
// takes clusters and assignments from the bootstrap, from xDS and from DNS,
// warms them and swaps them in. Health checks and outlier detection, of packages
// below this one, set the hosts' health flags; package upstream asks a cluster for a
// host, and for leave to burden it (Breakers), and reports how it went. The
// package sends no request itself, and each load-balancing policy is a package's
// that it does not know.
package cluster

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Cluster is an upstream cluster at work.
type Cluster struct {
	Config *Config
	Stats  *Stats

	hosts    atomic.Pointer[HostSet]
	drop     atomic.Uint64        // the bits of Assignment.Drop
	breakers [2]*breaker.Set      // by RoutingPriority
	http2    *http2.ClientOptions // nil if the hosts never speak it
	checks   checks

	mu sync.Mutex // orders updates
	// assignment is the last one, nil before the first.
	assignment *Assignment
	// members are as the last assignment has them; the present snapshot may be
	// of others for as long as a rebuild waits.
	members  []Member
	watchers map[int]func(*HostSet)
	watches  int

	updates *updateStats
	serving bool        // the cluster is, or was, an active one
	rebuilt time.Time   // the present snapshot
	waiting *time.Timer // of the next one; nil if there is nothing new
	closed  bool
	// stop ends the lookups of a cluster that DNS resolves.
	stop        context.CancelFunc
	runtime     *layeredruntime.Runtime
	maintenance string // key of the runtime
	// balance makes the balancer of some hosts.
	balance func([]WeightedHost) Balancer
}

// newCluster makes a cluster that has no assignment yet. Zone is the proxy's own.
func newCluster(config *Config, scope *stats.Scope, updates *updateStats, zone string, runtime *layeredruntime.Runtime) *Cluster {
	c := &Cluster{
		Config: config, updates: updates, Stats: newStats(scope, zone), breakers: breaker.New(config.Thresholds, scope),
		watchers: map[int]func(*HostSet){}, stop: func() {}, runtime: runtime, maintenance: layeredruntime.MaintenanceKey(config.Name),
	}
	if config.http2 != nil {
		c.http2 = c.Stats.countHTTP2(*config.http2)
	}
	c.balance = func(hosts []WeightedHost) Balancer { return config.balancing.New(hosts, scope, runtime) }
	c.hosts.Store(newHostSet(config, c.balance, nil, defaultOverprovisioning, c.panicThreshold(), &HostSet{}))
	return c
}

// Hosts is the present snapshot.
func (c *Cluster) Hosts() *HostSet { return c.hosts.Load() }

// Breakers bound what requests of a routing priority may burden the cluster
// with.
func (c *Cluster) Breakers(priority corev3.RoutingPriority) *breaker.Set {
	if priority == corev3.RoutingPriority_HIGH {
		return c.breakers[1]
	}
	return c.breakers[0]
}

// Watch calls f with the present snapshot and then with each new one, until
// the returned function is called. F must not block, nor call the cluster.
func (c *Cluster) Watch(f func(*HostSet)) (cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.watches
	c.watches++
	c.watchers[id] = f
	f(c.hosts.Load())
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, id)
	}
}

// SetHealthFlag turns flags of a host on or off, for those who check hosts. It
// takes effect at once, or together with other changes of health a merge window
// after the last (CommonLbConfig.update_merge_window). It may be called from
// any goroutine, but not by a watcher; of a host that the cluster has no more
// it does nothing that anybody sees.
func (c *Cluster) SetHealthFlag(h *Host, flags HealthFlags, on bool) {
	if !h.set(flags, on) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.healthChanged(h, false)
}

// healthChanged makes a change of a host's flags take effect, at once if it is
// urgent. The lock is held.
func (c *Cluster) healthChanged(h *Host, urgent bool) {
	if c.closed {
		return
	}
	if h.Flags()&(PendingDynamicRemoval|FailedActiveHC) == PendingDynamicRemoval|FailedActiveHC {
		c.members = slices.DeleteFunc(c.members, func(m Member) bool { return m.Host == h })
		h.CloseConnections()
		c.rebuild(true)
		return
	}
	if urgent {
		c.rebuild(false)
		return
	}
	c.refresh()
}

// update makes an assignment the present one, at once: whoever lists hosts has
// gathered what changed, and a request that still goes to a host that drains is
// lost if it ends meanwhile. Hosts that stay keep their connections; those that
// went are closed, and what is in flight on them ends in peace.
func (c *Cluster) update(a *Assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if c.assignment != nil && c.assignment.equal(a) {
		c.Stats.updateNoRebuild.Inc()
		return
	}
	c.assignment = a
	c.drop.Store(math.Float64bits(a.Drop))
	c.rebuild(c.replaceMembers(a.Endpoints))
}

// replaceMembers makes the members those of endpoints and says whether hosts
// came or went.
func (c *Cluster) replaceMembers(endpoints []Endpoint) (changed bool) {
	old := map[netip.AddrPort]*Member{}
	for i := range c.members {
		old[c.identity(&c.members[i].Endpoint)] = &c.members[i]
	}
	members := make([]Member, 0, len(endpoints))
	for _, e := range endpoints {
		var host *Host
		if m, stays := old[c.identity(&e)]; stays {
			host = m.Host
			host.set(PendingDynamicRemoval, false)
			if m.HealthCheck.Disabled != e.HealthCheck.Disabled {
				c.awaitCheck(host, &e)
			}
			delete(old, c.identity(&e))
			if m.Address != e.Address {
				host.readdress(e.Address.String())
			}
		} else {
			host = c.newHost(&e)
			c.Stats.defaultSockets.Inc()
			changed = true
		}
		host.takeEDS(e.Health)
		host.describe(e.Metadata)
		host.zone.Store(c.Stats.ofZone(e.Locality.GetZone()))
		host.hostname.Store(&e.Hostname)
		members = append(members, Member{Endpoint: e, Host: host})
	}
	for _, m := range c.members {
		if old[c.identity(&m.Endpoint)] == nil {
			continue
		}
		if c.staysForItsHealth(m.Host) {
			m.Host.set(PendingDynamicRemoval, true)
			members = append(members, m)
			continue
		}
		m.Host.CloseConnections()
		changed = true
	}
	c.members = members
	return changed
}

// identity is what makes endpoints of two assignments the same host: the
// address, unless the host is a logical one, of which there is only one.
func (c *Cluster) identity(e *Endpoint) netip.AddrPort {
	if c.Config.dns != nil && c.Config.dns.Logical {
		return netip.AddrPort{}
	}
	return e.Address
}

// staysForItsHealth says whether a host that is in no assignment any more is
// kept because its health checks say that it serves, and those who list hosts
// are trusted less.
func (c *Cluster) staysForItsHealth(h *Host) bool {
	return c.Config.healthCheck != nil && !c.Config.ignoreHealthOnRemoval && h.Flags()&(FailedActiveHC|FailedEDSHealth) == 0
}

// refresh makes a new snapshot, now or once the merge window after the last one
// is over.
func (c *Cluster) refresh() {
	window := c.Config.mergeWindow
	switch {
	case c.waiting != nil:
	case window == 0:
		c.rebuild(false)
	case time.Since(c.rebuilt) > window:
		c.countUpdate(c.updates.outOfWindow)
		c.rebuild(false)
	default:
		// Ends by itself, or with close.
		c.waiting = time.AfterFunc(window, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.waiting != nil && !c.closed {
				c.waiting = nil
				c.countUpdate(c.updates.merged)
				c.publish(false)
			}
		})
	}
}

// rebuild makes a snapshot of what is known the present one, at once: what waits for
// the end of a merge window goes with it. Changed says that hosts came or went.
func (c *Cluster) rebuild(changed bool) {
	if c.waiting != nil {
		c.waiting.Stop()
		c.waiting = nil
		c.countUpdate(c.updates.cancelled)
	}
	c.countUpdate(c.updates.applied)
	c.publish(changed)
}

// serve says that requests see the cluster from now on.
func (c *Cluster) serve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = true
}

// countUpdate counts a change of the hosts, of a cluster in use that had some before.
func (c *Cluster) countUpdate(counter *stats.Counter) {
	if c.serving && !c.rebuilt.IsZero() {
		counter.Inc()
	}
}

// publish makes a snapshot of what is known the present one.
func (c *Cluster) publish(changed bool) {
	factor := uint32(defaultOverprovisioning)
	if c.assignment != nil {
		factor = c.assignment.Overprovisioning
	}
	members := slices.Clone(c.members)
	for i := range members {
		members[i].Flags = members[i].Host.Flags()
	}
	set := newHostSet(c.Config, c.balance, members, factor, c.panicThreshold(), c.hosts.Load())
	c.hosts.Store(set)
	c.rebuilt = time.Now()
	c.Stats.membership(set, changed)
	for _, f := range c.watchers {
		f(set)
	}
}

// panicThreshold is the healthy panic threshold of now, in percent: the runtime's
// before the configuration's.
func (c *Cluster) panicThreshold() uint32 {
	return uint32(min(c.runtime.Snapshot().Integer(layeredruntime.HealthyPanicThreshold, c.Config.panicThreshold), 100))
}

func (c *Cluster) newHost(e *Endpoint) *Host {
	h := &Host{Address: e.Address}
	h.Outlier = c.checks.outlier.Add(h)
	c.awaitCheck(h, e)
	h.Connections = connpool.New(e.Address.String(), c.poolOptions(h, c.Config.HTTP2))
	if c.Config.SameProtocol {
		h.http2 = connpool.New(e.Address.String(), c.poolOptions(h, true))
	}
	return h
}

// poolOptions are those of a host's connections, of HTTP/2 or of HTTP/1.
func (c *Cluster) poolOptions(h *Host, multiplexed bool) connpool.Options {
	counted := &connections{c.Stats, h, c.Stats.connectionsHTTP1}
	options := connpool.Options{
		ConnectTimeout: c.Config.ConnectTimeout,
		IdleTimeout:    c.Config.idleTimeout,
		MaxRequests:    c.Config.maxRequests,
		MaxDuration:    c.Config.maxConnectionDuration,
		Limits:         http1.Limits{HeadBytes: cmp.Or(c.Config.headBytes, defaultHTTP1HeadBytes), Headers: c.Config.headers},
		HTTP1:          c.Config.HTTP1.Options,
		ProperCase:     c.Config.HTTP1.ProperCase,
		Stats:          counted,
		Open:           &h.open,
	}
	if multiplexed {
		counted.version = c.Stats.connectionsHTTP2
		options.HTTP2, options.MaxStreams = c.http2, c.Config.maxStreams
	}
	return options
}

// close ends the checks, the lookups, and all connections that no request uses.
func (c *Cluster) close() {
	c.checks.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.stop()
	if c.waiting != nil {
		c.waiting.Stop()
		c.waiting = nil
	}
	for i := range c.members {
		c.members[i].Host.CloseConnections()
	}
}
