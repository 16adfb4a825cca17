package cluster

import "time"

// restartStale lets the assignment of a service go stale after a time, 0 being never,
// in place of the one before. The lock is held.
func (m *Manager) restartStale(service service, after time.Duration) {
	if timer := m.stale[service]; timer != nil {
		timer.Stop()
		delete(m.stale, service)
	}
	if after <= 0 {
		return
	}
	for _, c := range m.users[service] {
		c.Stats.Scope.Counter("assignment_timeout_received").Inc()
	}
	var timer *time.Timer
	// Ends with the next call for the service, or does nothing if that came first.
	timer = time.AfterFunc(after, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.stale[service] == timer {
			m.goStale(service)
		}
	})
	m.stale[service] = timer
}

// goStale takes their hosts from the clusters of a service, of which EDS has told
// nothing for too long; those that pass health checks stay, as when an assignment has
// them no more.
func (m *Manager) goStale(service service) {
	delete(m.stale, service)
	m.options.Log.Warn("assignment is stale", "service", service.name, "source", service.source)
	none := &Assignment{Overprovisioning: defaultOverprovisioning}
	m.assignments[service] = none
	for _, c := range m.users[service] {
		c.Stats.Scope.Counter("assignment_stale").Inc()
		c.update(none)
	}
}
