package cluster

import (
	"maps"
	"time"
)

// warming is a cluster that waits for its first assignment.
type warming struct {
	cluster *Cluster
	timer   *time.Timer
}

// warm lets the cluster wait for its assignment, for a time.
func (m *Manager) warm(c *Cluster) {
	w := &warming{cluster: c}
	if c.Config.InitialFetchTimeout > 0 {
		// Ends with endWarming, or does nothing if that came first.
		w.timer = time.AfterFunc(c.Config.InitialFetchTimeout, func() { m.giveUp(w) })
	}
	m.warming[c.Config.Name] = w
	m.count()
}

// giveUp takes a cluster into use whose assignment did not come in time.
func (m *Manager) giveUp(w *warming) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := w.cluster.Config.Name
	if m.warming[name] != w {
		return
	}
	m.options.Log.Warn("cluster has no assignment within its initial fetch timeout",
		"cluster", name, "timeout", w.cluster.Config.InitialFetchTimeout)
	m.endWarming(name, w)
	m.activate(w.cluster)
	m.checkStarted()
}

func (m *Manager) endWarming(name string, w *warming) {
	if w.timer != nil {
		w.timer.Stop()
	}
	delete(m.warming, name)
	delete(m.awaited, w.cluster)
	m.count()
}

// activate swaps the cluster in, and closes the one of the same name that it
// replaces.
func (m *Manager) activate(c *Cluster) {
	active := maps.Clone(*m.active.Load())
	switch old := active[c.Config.Name]; old {
	case c:
		return
	case nil:
		m.added.Inc()
	default:
		m.modified.Inc()
		defer old.close()
	}
	active[c.Config.Name] = c
	m.active.Store(&active)
	m.count()
}
