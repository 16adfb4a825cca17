package registry

import "time"

// A host that goes at one replica, at its own wish, is often about to register at
// another, and a third one may hear of the first long before it hears of the second.
// So the last host of a service that another replica took out lingers for a while:
// readers see it still, who checks in or beats does not find it. It does not expire,
// does not count, and takes no place. While the Store is away nobody can hear where it
// went, so it lingers until that has answered for as long. The replica that was asked to take it out lets it
// go at once, as whoever asked expects. So do all where it went since its TTL had
// passed: that says nothing of another replica.

// parting is what is to be told of a host that lingers.
type parting struct {
	event *Event        // tells that it goes; nil where nothing does
	since time.Duration // when this replica heard of it, on the registry's clock
}

// lingers reports whether e does. r.mu must be held, for reading at least.
func (r *Registry) lingers(e *entry) bool {
	if len(r.lingering) == 0 {
		return false
	}
	_, lingers := r.lingering[e]
	return lingers
}

// linger has e linger, which another replica took out, if readers see no other host
// of its service, and reports whether it does. r.mu must be held.
func (r *Registry) linger(e *entry, event *Event) bool {
	switch {
	case r.lingers(e):
		return true
	case r.options.Linger == 0 || !r.isLastShown(e):
		return false
	}
	r.stays(e)
	r.setAway(e, false)
	r.services[e.host.Service].lingering++
	r.lingering[e] = parting{event, time.Since(r.born)}
	return true
}

// unheard is after how long without an answer of the Store what others did meanwhile may
// come late.
const unheard = 2 * time.Second

// heardAll notes that all was heard that others have told the Store so far, and ends the
// lingering of hosts of which nothing was heard for long enough. r.mu must be held.
func (r *Registry) heardAll(now time.Duration) {
	if now-r.heard > unheard {
		r.hears = now
	}
	r.heard = now
	for e, p := range r.lingering {
		if r.heardFor(p.since) >= r.options.Linger {
			r.endLingering(e)
		}
	}
}

// heardFor is for how long since a time it was heard without a gap what others told the
// Store; where nobody shares it, how long that is ago. r.mu must be held, for reading at
// least.
func (r *Registry) heardFor(since time.Duration) time.Duration {
	if r.shared == nil {
		return time.Since(r.born) - since
	}
	return max(0, r.heard-max(since, r.hears))
}

// isLastShown reports whether readers are shown e and no other host of its service, but
// for those that linger. r.mu must be held.
func (r *Registry) isLastShown(e *entry) bool {
	now := time.Now()
	for _, other := range r.services[e.host.Service].ordered {
		state, _ := r.outlook(other, now)
		if shown := state != Out; shown != (other == e) && !r.lingers(other) {
			return false
		}
	}
	return true
}

// endLingering ends the lingering of e, which readers see no more. r.mu must be held.
func (r *Registry) endLingering(e *entry) {
	p, s := r.lingering[e], r.services[e.host.Service]
	if p.event != nil {
		r.deregistered(e)
	}
	r.drop(e)
	if s.empty != nil {
		s.emptySince = p.since
	}
	if p.event != nil {
		r.happened(p.event)
	}
}

// comesAnew ends the lingering of a host, if it does, since it comes anew. r.mu must be held.
func (r *Registry) comesAnew(k Key) {
	if len(r.lingering) == 0 {
		return
	}
	if e := r.find(k); e != nil && r.lingers(e) {
		r.endLingering(e)
	}
}

// relieve ends the lingering of the hosts of a service in whose place others came. r.mu
// must be held.
func (r *Registry) relieve(s *service) {
	for i := len(s.ordered) - 1; i >= 0 && s.lingering > 0; i-- { // from the end, for some go
		if e := s.ordered[i]; r.lingers(e) && !r.isLastShown(e) {
			r.endLingering(e)
		}
	}
}
