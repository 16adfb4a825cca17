package registry

import "time"

// setAway says whether e is expected to be away, by a Maintenance setting. Then
// it does not expire and does not count, and afterwards has its TTL to come back.
// r.mu must be held.
func (r *Registry) setAway(e *entry, away bool) {
	if e.away == away {
		return
	}
	e.away = away
	s := r.services[e.host.Service]
	if !away {
		s.away--
		r.away--
		e.heldFrom = time.Since(r.born)
		e.heardFrom = e.heldFrom
		return
	}
	s.away++
	r.away++
	if r.release(e) {
		r.tell(s)
	}
}

// isAway says whether a Maintenance setting holds for a host. r.mu must be held.
func (r *Registry) isAway(h *Host) bool {
	return len(r.settings) > 0 && r.settingOf(Maintenance, h) != nil
}

// maintained sets anew which hosts of a scope are away. r.mu must be held.
func (r *Registry) maintained(scope Scope) {
	for _, s := range r.inScope(scope) {
		for _, e := range s.hosts {
			r.setAway(e, r.isAway(e.host) && !r.lingers(e))
		}
	}
}
