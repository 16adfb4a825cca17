package cluster

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/healthcheck"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
)

// checks are what watches the hosts of a cluster, and sets their flags. Both
// parts are nil unless they are configured.
type checks struct {
	active  *healthcheck.Checker[*Host]
	outlier *outlier.Detector[*Host]
	stop    context.CancelFunc // of the detector; nil without
	running sync.WaitGroup     // the detector's goroutine

	// pending says that a host of the present snapshot waits for its first check;
	// over is told when none does any more. The cluster's lock guards pending.
	pending bool
	over    func()
}

// startChecks begins to check the hosts that the cluster gets. It is called
// once, before the cluster has any. Over is called, on a goroutine of its own,
// each time that no host waits for its first check any more.
func (c *Cluster) startChecks(log *slog.Logger, over func()) {
	log = log.With("cluster", c.Config.Name)
	k := &c.checks
	k.over = over
	if config := c.Config.outlier; config != nil {
		k.outlier = outlier.New(config, outlier.Options[*Host]{
			Changed: func(h *Host, ejected bool) { c.SetHealthFlag(h, FailedOutlierCheck, ejected) },
			Scope:   c.Stats.Scope, Log: log, Name: func(h *Host) string { return h.Address.String() },
		})
		var ctx context.Context
		ctx, k.stop = context.WithCancel(context.Background())
		// Ends with close, which waits for it.
		k.running.Go(func() { k.outlier.Run(ctx) })
	}
	if config := c.Config.healthCheck; config != nil {
		options := healthcheck.Options[*Host]{
			Cluster: c.Config.Name, Changed: c.setHealth, Scope: c.Stats.Scope, Log: log,
			Metadata: (*Host).Metadata,
			Used:     func() bool { return c.Stats.ConnectionsTotal.Value() > 0 },
		}
		if k.outlier != nil {
			options.Passed = k.outlier.HealthCheckPassed
		}
		k.active = healthcheck.New(config, options)
	}
	if k.active != nil || k.outlier != nil {
		c.Watch(k.setHosts)
	}
}

// setHosts tells both parts which hosts there are. The cluster's lock is held.
func (k *checks) setHosts(set *HostSet) {
	targets, hosts := make(map[*Host]healthcheck.Target, len(set.Members)), make([]*Host, 0, len(set.Members))
	for i := range set.Members {
		m := &set.Members[i]
		targets[m.Host] = healthcheck.Target{Address: m.Address, Endpoint: healthcheck.Endpoint(m.HealthCheck)}
		hosts = append(hosts, m.Host)
	}
	if k.active != nil {
		k.active.SetHosts(targets)
	}
	if k.outlier != nil {
		k.outlier.SetHosts(hosts)
	}
	before := k.pending
	if k.pending = set.pending(); before && !k.pending {
		// Nobody waits for it; it ends once it had the manager's lock, which the
		// caller may hold.
		go k.over()
	}
}

// pending says whether a host waits for its first check.
func (s *HostSet) pending() bool {
	for i := range s.Members {
		if s.Members[i].Flags&PendingActiveHC != 0 {
			return true
		}
	}
	return false
}

// pending says whether a host of the present snapshot waits for its first check.
func (c *Cluster) pending() bool { return c.Hosts().pending() }

// ofChecks are the flags that active checks set.
const ofChecks = FailedActiveHC | PendingActiveHC | ExcludedViaImmediateHCFail | ActiveHCTimeout

// checkFlags are the flags of what checks found.
func checkFlags(health healthcheck.Health) (flags HealthFlags) {
	if health.Failed {
		flags |= FailedActiveHC
	}
	if health.Pending {
		flags |= PendingActiveHC
	}
	if health.Excluded {
		flags |= ExcludedViaImmediateHCFail
	}
	if health.TimedOut {
		flags |= ActiveHCTimeout
	}
	return flags
}

// setHealth takes over what the checks found of a host. Its first result takes effect at
// once, but those of a cluster that waits for them to be used with the last of them: as
// many snapshots as there are hosts would be for nobody.
func (c *Cluster) setHealth(h *Host, health healthcheck.Health) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.ContainsFunc(c.members, func(m Member) bool { return m.Host == h && !m.HealthCheck.Disabled }) {
		return // it went meanwhile, or is not checked any more
	}
	first := h.Flags()&PendingActiveHC != 0
	flags := checkFlags(health)
	failed := h.set(flags, true)
	passed := h.set(ofChecks&^flags, false)
	if !passed && !failed || first && !c.serving && slices.ContainsFunc(c.members, pending) {
		return
	}
	c.healthChanged(h, first)
}

// pending says whether a member waits for its first check.
func pending(m Member) bool { return m.Host.Flags()&PendingActiveHC != 0 }

// awaitCheck takes the host for failed until its first check, or for well if it
// is not checked.
func (c *Cluster) awaitCheck(h *Host, e *Endpoint) {
	checked := c.Config.healthCheck != nil && !e.HealthCheck.Disabled
	h.set(ofChecks, false)
	h.set(FailedActiveHC|PendingActiveHC, checked)
}

// OutlierThresholds are outlier.Detector.Thresholds; not ok is that outliers are not
// detected.
func (c *Cluster) OutlierThresholds() (external, local outlier.Thresholds, ok bool) {
	if c.checks.outlier == nil {
		return external, local, false
	}
	external, local = c.checks.outlier.Thresholds()
	return external, local, true
}

// FailPassively makes the host failed until its next good check: an answer of
// its bore x-envoy-immediate-health-check-fail. Without active checks it does
// nothing. It may be called from any goroutine.
func (c *Cluster) FailPassively(h *Host) {
	if c.checks.active != nil {
		c.checks.active.Host(h).FailPassively()
	}
}

// close ends the checks, and waits for that. The cluster's lock is not held,
// since they take it.
func (k *checks) close() {
	if k.active != nil {
		k.active.Close()
	}
	if k.stop != nil {
		k.stop()
	}
	k.running.Wait()
}
