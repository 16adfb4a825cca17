package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/dns"
)

// resolution looks up the names of a cluster's endpoints, again and again, and
// makes the answers its hosts. A lookup that fails leaves the hosts as they
// are; a name that is gone takes its hosts with it, unless the host is a
// logical one.
type resolution struct {
	cluster *Cluster
	config  *dns.Config
	log     *slog.Logger
	// answered is called once, when all names had an answer, or a failure; not
	// by who made the resolution.
	answered func()

	mu      sync.Mutex // orders updates
	targets []*target
	awaited int
}

// target is one endpoint whose address is a name.
type target struct {
	endpoint  Endpoint
	addresses []netip.Addr
	awaited   bool
	failed    bool // the last lookup
}

// resolve begins to look up the cluster's names, until it is closed. It says
// whether the cluster is ready; else answered is called later, when it is.
func (c *Cluster) resolve(resolver dns.Resolver, log *slog.Logger, answered func()) (ready bool) {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	r := &resolution{cluster: c, config: c.Config.dns, log: log.With("cluster", c.Config.Name), answered: answered}
	for _, e := range c.Config.assignment.Endpoints {
		r.targets = append(r.targets, &target{endpoint: e, awaited: true})
	}
	r.awaited = len(r.targets)
	if r.awaited == 0 {
		c.update(c.Config.assignment)
		return true
	}
	for _, t := range r.targets {
		// Nobody waits for it; it ends with the cluster.
		go r.config.Follow(ctx, resolver, t.endpoint.name, func(addresses []netip.Addr, err error) { r.take(t, addresses, err) })
	}
	return !c.Config.waitForNames
}

// take makes an answer the target's addresses, and all of them the hosts.
func (r *resolution) take(t *target, addresses []netip.Addr, err error) {
	r.mu.Lock()
	r.cluster.Stats.updateAttempts.Inc()
	if err != nil {
		r.cluster.Stats.updateFailures.Inc()
	} else {
		r.cluster.Stats.updates.Inc()
		if len(addresses) == 0 {
			r.cluster.Stats.updateEmpty.Inc()
		}
		if len(addresses) > 0 || !r.config.Logical {
			t.addresses = addresses
		}
		r.cluster.update(r.assignment())
	}
	switch {
	case err != nil && !t.failed:
		r.log.Warn("a name can't be looked up, its hosts stay as they are", "name", t.endpoint.name, "error", err)
	case err == nil && t.failed:
		r.log.Info("a name can be looked up again", "name", t.endpoint.name)
	}
	t.failed = err != nil
	last := false
	if t.awaited {
		t.awaited = false
		r.awaited--
		last = r.awaited == 0
	}
	r.mu.Unlock()
	if last {
		r.answered()
	}
}

// assignment is the cluster's with the addresses that are known.
func (r *resolution) assignment() *Assignment {
	made := *r.cluster.Config.assignment
	made.Endpoints = nil
	seen := map[netip.AddrPort]bool{}
	for _, t := range r.targets {
		for _, ip := range t.addresses {
			e := t.endpoint
			e.Address = netip.AddrPortFrom(ip, e.Address.Port())
			if seen[e.Address] {
				continue
			}
			seen[e.Address] = true
			made.Endpoints = append(made.Endpoints, e)
			if r.config.Logical {
				break
			}
		}
	}
	return &made
}
