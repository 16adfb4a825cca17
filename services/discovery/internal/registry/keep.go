package registry

import (
	"sync"
	"time"
)

// Keeper has kept what its readers make of the hosts of a service, for as long as
// it stays true: until anything changes that a View shows, but for the time of the
// last check-in. It is kept with the service, and only of services that are read.
type Keeper[T any] struct {
	registry *Registry
	compose  func(name string, list *Listing) T
}

// NewKeeper returns a Keeper of what compose returns, which is shared by all who read
// it and may not be changed. compose is called by readers, several at once if they
// come together; the list is its own until it returns.
func NewKeeper[T any](r *Registry, compose func(name string, list *Listing) T) *Keeper[T] {
	return &Keeper[T]{r, compose}
}

// Reading is what a Keeper knows of a service at one moment.
type Reading[T any] struct {
	// Kept is what was composed of its hosts, and of their order.
	Kept T
	// CheckIns are when these last checked in, in the order of a Listing.
	CheckIns []Instant
	// Partial is that of the Listing now; that of which Kept was composed may have
	// said otherwise.
	Partial bool
}

// Read returns what is kept of a service, composed anew if nothing is. The times of
// the check-ins are in room, if its capacity is enough; then nothing is allocated
// but by compose. Of a service that is not known nothing is kept. The error is
// ErrNotLoaded or nil.
func (k *Keeper[T]) Read(room []Instant, name string) (Reading[T], error) {
	r := k.registry
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return Reading[T]{}, ErrNotLoaded
	}
	partial := r.Partial()
	s := r.services[name]
	if s == nil {
		r.mu.RUnlock()
		return Reading[T]{Kept: k.compose(name, &Listing{Partial: partial}), Partial: partial}, nil
	}
	checkIns := r.checkIns(room, s)
	if value, ok := s.kept.get(k).(T); ok {
		r.mu.RUnlock()
		return Reading[T]{value, checkIns, partial}, nil
	}
	list := r.listing(nil, s.ordered)
	until := r.until(s.ordered, list.Hosts)
	changes := s.changes
	r.mu.RUnlock()

	list.Known = true
	value := k.compose(name, &list)
	r.mu.RLock()
	if s.changes == changes {
		s.kept.put(kept{k, value, until})
	}
	r.mu.RUnlock()
	return Reading[T]{value, checkIns, partial}, nil
}

// kept is what one Keeper has of a service.
type kept struct {
	keeper, value any
	until         time.Time // it is true; zero for as long as nothing changes
}

// shelf is what all Keepers have of a service. A change clears it, under Registry.mu;
// readers, who hold that for reading, come together.
type shelf struct {
	mu   sync.Mutex
	kept []kept // one of each Keeper
}

// get is what a Keeper has, nil for nothing that is true.
func (s *shelf) get(keeper any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if k := &s.kept[i]; k.keeper == keeper && (k.until.IsZero() || time.Now().Before(k.until)) {
			return k.value
		}
	}
	return nil
}

// put has k kept in the place of what its Keeper had.
func (s *shelf) put(k kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if s.kept[i].keeper == k.keeper {
			s.kept[i] = k
			return
		}
	}
	s.kept = append(s.kept, k)
}

// until is when what a list shows of these entries ends by itself, and not by a
// change: a host that drains is Out a while later. It is zero for never. r.mu must be
// held, for reading at least.
func (r *Registry) until(entries []*entry, hosts []View) (end time.Time) {
	for i, e := range entries {
		if hosts[i].State != Draining {
			continue
		}
		since, _ := r.orders(e)
		if out := since.Add(r.options.DrainTime); end.IsZero() || out.Before(end) {
			end = out
		}
	}
	return end
}

// checkIns are the times of the last check-ins of a service's hosts, in room if
// that is enough. r.mu must be held, for reading at least.
func (r *Registry) checkIns(room []Instant, s *service) []Instant {
	if cap(room) < len(s.ordered) {
		room = make([]Instant, len(s.ordered))
	}
	room = room[:len(s.ordered)]
	zero := r.wall.at(0).UnixNano()
	for i, e := range s.ordered {
		room[i] = Instant(zero + e.lastBeat.Load())
	}
	return room
}

// changed lets go of what is kept of s. r.mu must be held.
func (s *service) changed(now time.Time) {
	s.changedAt = now
	s.changes++
	s.kept.kept = nil
}
