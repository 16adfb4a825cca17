package registry

import "time"

// SetHealth takes in what those who check hosts found: true for a host that is
// unhealthy, false for one that is not. It is laid over what hosts and operators
// say, is not stored, and goes with the host's stay; a beat does not change it.
// Hosts that are not known are passed over, those of which nothing is said stay
// as they are. It returns how many became other than they were. actor is who
// says so.
func (r *Registry) SetHealth(unhealthy map[Key]bool, actor string) (changed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	services := map[*service]struct{}{}
	for key, is := range unhealthy {
		e := r.find(key)
		if e == nil || r.lingers(e) || e.unhealthy == is {
			continue
		}
		e.unhealthy = is
		changed++
		event := &Event{At: time.Now(), Kind: Healed, Service: key.Service, ID: key.ID, Actor: actor}
		if is {
			event.Kind = Sickened
		}
		r.happened(event)
		services[r.services[key.Service]] = struct{}{}
	}
	for s := range services {
		r.tell(s)
	}
	return changed
}
