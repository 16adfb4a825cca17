package listener

import (
	"context"
	"time"
)

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

// cutTime is how long connections of a listener or filter chain that is gone may take
// for what they have in flight: Envoy's default of --drain-time-s.
const cutTime = 10 * time.Minute

// easing is the time within which the connections are drained of what goes.
func (m *Manager) easing() time.Duration {
	if m.options.DrainGradually {
		return m.options.DrainTime
	}
	return 0
}

// drain closes a listener's socket and lets its connections end.
func (m *Manager) drain(l *Listener) {
	m.closeSocket(l)
	m.draining[l] = true
	stopChains(l.Config().all())
	l.Drain(m.easing())
	// Ends within DrainTime and cutTime, or with Stop, which waits for it.
	m.running.Go(func() {
		m.pause(m.options.DrainTime, l.idle)
		l.Drain(0) // those whose moment is now
		ctx, cancel := context.WithTimeout(m.base, cutTime)
		defer cancel()
		_ = l.Stop(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.draining, l)
		m.settle()
		m.dropScope(l.scope())
	})
}

// drainChains lets the connections end of chains that a listener has no more.
func (m *Manager) drainChains(l *Listener, gone []*chain) {
	if len(gone) == 0 {
		return
	}
	stopChains(gone)
	m.stats.drainingChains.Add(int64(len(gone)))
	l.drainChains(gone, m.easing())
	// Ends within DrainTime and cutTime, or with Stop, which waits for it.
	m.running.Go(func() {
		defer func() { m.stats.drainingChains.Add(-int64(len(gone))) }()
		done := func() bool { return !l.forget(gone) }
		for _, step := range []struct {
			after time.Duration
			end   func(*handle)
		}{
			{m.options.DrainTime, func(h *handle) {
				h.drain() // if its moment is now
				h.finish()
			}},
			{cutTime, (*handle).cut},
		} {
			if m.pause(step.after, done) || m.ended() { // which ends them by itself
				return
			}
			l.each(gone, step.end)
		}
	})
}

// ended says whether Stop was called.
func (m *Manager) ended() bool {
	select {
	case <-m.stopped:
		return true
	default:
		return false
	}
}

// drainLook is how often what drains is looked at.
const drainLook = 100 * time.Millisecond

// pause waits, for a time at most, until done, which it says, or Stop is called.
func (m *Manager) pause(most time.Duration, done func() bool) bool {
	late := time.NewTimer(most)
	defer late.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for !done() {
		select {
		case <-look.C:
		case <-late.C:
			return false
		case <-m.stopped:
			return false
		}
	}
	return true
}
