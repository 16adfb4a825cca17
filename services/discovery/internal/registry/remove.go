package registry

import (
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// Remove takes out the selected hosts, at their own wish, and returns how many
// they were. actor is who says so. The error is ErrNotLoaded, that of
// selected.Allow, for which none goes, ErrUnheard or nil.
func (r *Registry) Remove(selected Selection, actor string) (int, error) {
	removed, err := r.remove(selected, actor)
	for _, h := range removed {
		r.metrics.deregistrations.Inc()
		r.log.Info("host deregistered", "service", h.Service, "host", h.ID, "address", h.Address, "by", actor)
	}
	return len(removed), err
}

// remove is Remove, without saying so: nothing is logged under the lock.
func (r *Registry) remove(selected Selection, actor string) (removed []*Host, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, err := r.selected(selected)
	for _, e := range entries {
		r.takeOut(e, &Event{Kind: Deregistered, Actor: actor})
		removed = append(removed, e.host)
	}
	return removed, err
}

// takeOut drops e, tells of it, and has the Store do so too; At and the host of
// the event are filled in. r.mu must be held.
func (r *Registry) takeOut(e *entry, event *Event) {
	r.takenOut(e, event)
	r.outbox.change(Change{Key: e.host.Key, Lease: e.lease, Went: event.At, Event: event})
}

// takenOut is takeOut of what the Store knows. r.mu must be held.
func (r *Registry) takenOut(e *entry, event *Event) {
	event.At, event.Service, event.ID = time.Now(), e.host.Service, e.host.ID
	if event.Kind != Expired {
		r.deregistered(e)
	}
	r.drop(e)
	r.happened(event)
}

// Lose takes out the hosts with some leases because the connection that was
// their beat is gone, and returns how many they were. heard is when that last
// beat: a host that has beaten since does so in another way, and stays. The last
// host of a service stays until its TTL has passed, and so does the last one that
// takes work: that it is gone is less sure than that the connection is. Nor is any taken
// out where beats may have been missed that came in another way, for this process stood
// still or its Store was away lately. The error is ErrNotLoaded or nil.
func (r *Registry) Lose(leases []Lease, heard time.Time, actor string) (int, error) {
	lost, err := r.lose(leases, heard.Sub(r.born), actor)
	for _, h := range lost {
		r.metrics.losses.Inc()
		r.log.Info("host lost with its connection", "service", h.Service, "host", h.ID, "address", h.Address, "by", actor)
	}
	return len(lost), err
}

// mayHaveMissedBeats reports whether hosts may have beaten of which nobody could tell
// this process: it stands still, which shows by the tick that is late, or did lately;
// or its Store is away, or was. r.mu must be held.
func (r *Registry) mayHaveMissedBeats(now time.Duration) bool {
	return now-r.ticked > r.options.SweepInterval+shortestPause || r.guard.Suspended(guard.Paused) || r.guard.Suspended(guard.StoreAway)
}

// lose is Lose, without saying so; heard is by the registry's clock.
func (r *Registry) lose(leases []Lease, heard time.Duration, actor string) (lost []*Host, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	if r.mayHaveMissedBeats(time.Since(r.born)) {
		return nil, nil
	}
	now := time.Now()
	workers := map[*service]int{} // of the services that lose any
	for _, lease := range leases {
		e := r.leases[lease]
		if e == nil || r.lingers(e) || time.Duration(e.lastBeat.Load()) > heard+echo {
			continue
		}
		s := r.services[e.host.Service]
		if _, counted := workers[s]; !counted {
			workers[s] = r.workers(s, now)
		}
		works := r.takesWork(e, now)
		if others(s, e) == 0 || works && workers[s] == 1 {
			continue
		}
		if works {
			workers[s]--
		}
		r.takeOut(e, &Event{Kind: Lost, Actor: actor, Detail: "its connection is gone"})
		lost = append(lost, e.host)
	}
	return lost, nil
}

// others is how many hosts of s beside e are there: not about to go, nor away. The
// registry's mutex must be held.
func others(s *service, e *entry) int {
	there := len(s.hosts) - s.leaving - s.away - s.lingering
	if !e.leaving && !e.away {
		there--
	}
	return there
}

// workers is how many hosts of s take work. r.mu must be held.
func (r *Registry) workers(s *service, now time.Time) (n int) {
	for _, e := range s.ordered {
		if r.takesWork(e, now) {
			n++
		}
	}
	return n
}

// takesWork is View.TakesWork, and that e is not about to go. r.mu must be held.
func (r *Registry) takesWork(e *entry, now time.Time) bool {
	state, _ := r.outlook(e, now)
	return state == Serving && !e.unhealthy && !e.leaving && !r.lingers(e)
}
