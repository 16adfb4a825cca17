// Package cluster holds the upstream clusters: their configuration, their
// hosts as immutable snapshots behind an atomic pointer, and the Manager that
// takes clusters and assignments from the bootstrap and from xDS, warms them
// and swaps them in. The router asks a cluster for a host; the package sends
// no request itself.
package cluster

import (
	"net/netip"
	"sync"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Policy is one load-balancing policy that ships.
type Policy struct {
	// Name is the value of Cluster.lb_policy that chooses it.
	Name clusterv3.Cluster_LbPolicy
	// New makes the balancer of one snapshot; hosts is never empty, and the
	// balancer's to keep.
	New func(hosts []WeightedHost) Balancer
}

// Balancer picks a host for each request, from many goroutines at once.
type Balancer interface {
	Pick() *Host
}

// WeightedHost is a host that gets requests, with its share of them.
type WeightedHost struct {
	*Host
	// Weight is at least 1.
	Weight uint32
}

// Endpoint is one member of an assignment.
type Endpoint struct {
	Address netip.AddrPort
	// Weight is at least 1.
	Weight   uint32
	Health   corev3.HealthStatus
	Locality *corev3.Locality // may be nil
}

// Host is one upstream address of one cluster. It stays the same in all
// snapshots for as long as the cluster has it.
type Host struct {
	Address netip.AddrPort
	// Connections are the host's HTTP/1 connections.
	Connections *connpool.Pool
	Stats       HostStats
}

// HostSet is one snapshot of a cluster's hosts.
type HostSet struct {
	// Members are all endpoints of the assignment, in its order.
	Members []Member

	balancer Balancer // nil if no host is to get requests
}

// Member is an endpoint with its host.
type Member struct {
	Endpoint
	Host *Host
}

// Cluster is an upstream cluster at work.
type Cluster struct {
	Config *Config
	Stats  *Stats

	hosts atomic.Pointer[HostSet]

	mu       sync.Mutex // orders updates
	watchers map[int]func(*HostSet)
	watches  int
}

// newCluster makes a cluster that has no assignment yet.
func newCluster(config *Config, scope *stats.Scope) *Cluster {
	c := &Cluster{Config: config, Stats: newStats(scope), watchers: map[int]func(*HostSet){}}
	c.hosts.Store(&HostSet{})
	return c
}

// Hosts is the present snapshot.
func (c *Cluster) Hosts() *HostSet { return c.hosts.Load() }

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

// update makes the snapshot of an assignment the present one. Hosts that stay
// keep their connections; those that went are closed, and what is in flight on
// them ends in peace.
func (c *Cluster) update(endpoints []Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := map[netip.AddrPort]*Host{}
	for _, m := range c.hosts.Load().Members {
		old[m.Address] = m.Host
	}
	set := &HostSet{Members: make([]Member, 0, len(endpoints))}
	changed := 0
	for _, e := range endpoints {
		host, stays := old[e.Address]
		if !stays {
			host = c.newHost(e.Address)
			changed++
		}
		delete(old, e.Address)
		set.Members = append(set.Members, Member{e, host})
	}
	usable := set.usable()
	if len(usable) > 0 {
		set.balancer = c.Config.policy.New(usable)
	}
	c.hosts.Store(set)
	for _, gone := range old {
		gone.Connections.Close()
		changed++
	}
	c.Stats.membership(set, changed)
	for _, f := range c.watchers {
		f(set)
	}
}

func (c *Cluster) newHost(address netip.AddrPort) *Host {
	h := &Host{Address: address}
	h.Connections = connpool.New(address.String(), connpool.Options{
		ConnectTimeout: c.Config.ConnectTimeout,
		IdleTimeout:    idleTimeout,
		Limits:         responseLimits,
		HTTP1:          c.Config.HTTP1.Options,
		ProperCase:     c.Config.HTTP1.ProperCase,
		Opened: func() {
			c.Stats.ConnectionsTotal.Inc()
			c.Stats.ConnectionsActive.Add(1)
			h.Stats.ConnectionsTotal.Add(1)
			h.Stats.ConnectionsActive.Add(1)
		},
		Closed: func() {
			c.Stats.ConnectionsActive.Add(-1)
			h.Stats.ConnectionsActive.Add(-1)
		},
	})
	return h
}

// close ends all connections that no request uses.
func (c *Cluster) close() {
	for _, m := range c.Hosts().Members {
		m.Host.Connections.Close()
	}
}
