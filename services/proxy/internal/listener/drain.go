package listener

import "time"

// Drain makes each connection's next answer its last, but for listeners that
// drain by MODIFY_ONLY, until Undrain.
func (m *Manager) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drains = true
	for _, l := range m.atWork() {
		if !l.Config().modifyOnly {
			l.Drain(0)
		}
	}
}

// Undrain lets connections that come from now on last, but for listeners that
// DrainListeners drains. Those that were told to end still do.
func (m *Manager) Undrain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drains = false
	for _, l := range m.atWork() {
		if !m.isToDrain(l.Config()) {
			l.Undrain()
		}
	}
}

// isToDrain says whether connections to a listener are not to last.
func (m *Manager) isToDrain(c *Config) bool {
	return m.drains && !c.modifyOnly || m.drained.has(c)
}

// directions says which listeners are meant, by their traffic_direction.
type directions int

const (
	noListeners directions = iota
	inboundListeners
	allListeners
)

func (d directions) has(c *Config) bool {
	return d == allListeners || d == inboundListeners && c.inbound
}

// DrainListeners closes the sockets of listeners, inbound ones only or all, of
// which the connections go on. Graceful makes each connection's next answer its
// last, and closes the sockets DrainTime later; keepOpen does so and never closes
// them. Both hold for good, also for listeners that come later.
func (m *Manager) DrainListeners(inboundOnly, graceful, keepOpen bool) {
	meant := allListeners
	if inboundOnly {
		meant = inboundListeners
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if graceful || keepOpen {
		m.drained = max(m.drained, meant)
		for _, l := range m.atWork() {
			if meant.has(l.Config()) {
				l.Drain(m.easing())
			}
		}
	}
	switch {
	case keepOpen, m.stopping:
	case !graceful:
		m.closeSockets(meant)
	default:
		// Ends DrainTime later, or with Stop, which waits for it.
		m.running.Go(func() {
			select {
			case <-time.After(m.options.DrainTime):
				m.mu.Lock()
				defer m.mu.Unlock()
				m.closeSockets(meant)
			case <-m.stopped:
			}
		})
	}
}

// closeSockets closes those of listeners that there are, and of those to come.
func (m *Manager) closeSockets(meant directions) {
	m.closed = max(m.closed, meant)
	for _, e := range m.listeners {
		if e.active != nil && meant.has(e.active.Config()) {
			m.closeSocket(e.active)
		}
		if w := e.warming; w != nil && w.listener != e.active && meant.has(w.config) {
			m.closeSocket(w.listener)
		}
	}
}

func (m *Manager) closeSocket(l *Listener) {
	if !l.closed {
		l.closed = true
		m.stats.stopped.Inc()
		_ = l.Close() // it is closed, whatever it says
	}
}
