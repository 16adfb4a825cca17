package cluster

import (
	"slices"
	"time"
)

// warming is a cluster that waits for its first assignment, or for the first
// answers to its names, and then for the first check of each of its hosts.
type warming struct {
	cluster *Cluster
	known   bool        // the hosts are, so that only checks are awaited
	timer   *time.Timer // bounds the wait for an assignment; may be nil
}

// warm lets the cluster wait for its assignment, for a time, or for answers to
// its names, as long as the resolver takes, or, if its hosts are known, for
// their checks, which have timeouts of their own.
func (m *Manager) warm(c *Cluster, known bool) {
	w := &warming{cluster: c, known: known}
	if !known && c.Config.InitialFetchTimeout > 0 {
		// Ends with endWarming, or does nothing if that came first.
		w.timer = time.AfterFunc(c.Config.InitialFetchTimeout, func() { m.giveUp(w) })
	}
	m.warming[c.Config.Name] = w
	c.Stats.warming.Set(1)
}

// answered is told that all names of a cluster had an answer.
func (m *Manager) answered(c *Cluster) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hostsKnown(c)
	m.publish()
	m.checkStarted()
}

// checked is told that no host of a cluster waits for its first check any more.
func (m *Manager) checked(c *Cluster) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.warming[c.Config.Name]; w == nil || w.cluster != c || !w.known {
		return
	}
	m.hostsKnown(c)
	m.publish()
	m.checkStarted()
}

// hostsKnown takes a cluster that warms into use, unless a host of it waits for
// its first check: then checked does. The caller publishes.
func (m *Manager) hostsKnown(c *Cluster) {
	w := m.warming[c.Config.Name]
	if w == nil || w.cluster != c {
		return
	}
	if c.pending() {
		w.known = true
		if w.timer != nil {
			w.timer.Stop()
		}
		return
	}
	m.endWarming(c.Config.Name, w)
	m.activate(c)
}

// giveUp takes a cluster into use whose assignment did not come in time.
func (m *Manager) giveUp(w *warming) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := w.cluster.Config.Name
	if m.warming[name] != w || w.known { // or its assignment came just now
		return
	}
	m.options.Log.Warn("cluster has no assignment within its initial fetch timeout",
		"cluster", name, "timeout", w.cluster.Config.InitialFetchTimeout)
	w.cluster.Stats.assignments.GaveUp()
	m.endWarming(name, w)
	m.activate(w.cluster)
	m.publish()
	m.checkStarted()
}

// assignmentGone takes the clusters into use that wait for an assignment which
// the control plane has not. Others keep their hosts, as in Envoy. The caller
// publishes.
func (m *Manager) assignmentGone(service service, version string) {
	for _, c := range slices.Clone(m.users[service]) {
		c.Stats.assignments.Took(version, time.Now())
		c.Stats.updateEmpty.Inc()
		if w := m.warming[c.Config.Name]; w != nil && w.cluster == c {
			m.endWarming(c.Config.Name, w)
			m.activate(c)
		}
	}
}

func (m *Manager) endWarming(name string, w *warming) {
	if w.timer != nil {
		w.timer.Stop()
	}
	delete(m.warming, name)
	delete(m.awaited, w.cluster)
	w.cluster.Stats.warming.Set(0)
}

// abandon ends the warming of a cluster that is not wanted any more.
func (m *Manager) abandon(name string, w *warming) {
	m.endWarming(name, w)
	m.retire(w.cluster)
}
