package registry

import (
	"slices"
	"sync/atomic"
	"time"
)

// Keeper has kept what its readers make of the hosts of a service, for as long as
// it stays true: until anything changes that a View shows, but for the time of the
// last check-in. It is kept with the service, and only of services that are read.
type Keeper struct {
	registry *Registry
	made     func(name string, list *Listing) any
}

// NewKeeper returns a Keeper of what made returns, which is shared by all who read
// it and may not be changed. made is called by readers, several at once if they
// come together; the list is its own until it returns.
func (r *Registry) NewKeeper(made func(name string, list *Listing) any) *Keeper {
	return &Keeper{r, made}
}

// Reading is what a Keeper knows of a service at one moment.
type Reading struct {
	// Kept is what was made of its hosts, and of their order.
	Kept any
	// CheckIns are when these last checked in, in the order of a Listing.
	CheckIns []Instant
	// Partial is that of the Listing now; that from which Kept was made may have
	// said otherwise.
	Partial bool
}

// kept is what one Keeper has of a service. It never changes once it is in a chain.
type kept struct {
	keeper *Keeper
	value  any
	next   *kept
}

// of is what k has kept, in the chain that begins with c; nil for nothing.
func (c *kept) of(k *Keeper) *kept {
	for c != nil && c.keeper != k {
		c = c.next
	}
	return c
}

// keptChain is what all Keepers have of a service. It is emptied by a change,
// under Registry.mu, and added to by readers, who hold that for reading.
type keptChain struct{ first atomic.Pointer[kept] }

// add keeps value for k, unless k has something already.
func (c *keptChain) add(k *Keeper, value any) {
	for {
		first := c.first.Load()
		if first.of(k) != nil || c.first.CompareAndSwap(first, &kept{k, value, first}) {
			return
		}
	}
}

// Read returns what is kept of a service, made anew if nothing is. The times of
// the check-ins are in room, if its capacity is enough; then nothing is allocated
// but by the making. Of a service that is not known nothing is kept. The error is
// ErrNotLoaded or nil.
func (k *Keeper) Read(room []Instant, name string) (Reading, error) {
	r := k.registry
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return Reading{}, ErrNotLoaded
	}
	partial := r.Partial()
	s := r.services[name]
	if s == nil {
		r.mu.RUnlock()
		return Reading{Kept: k.made(name, &Listing{Partial: partial}), Partial: partial}, nil
	}
	checkIns := r.checkIns(room, s)
	if c := s.kept.first.Load().of(k); c != nil {
		r.mu.RUnlock()
		return Reading{c.value, checkIns, partial}, nil
	}
	list := r.listing(nil, s.ordered)
	changes := s.changes
	r.mu.RUnlock()

	list.Known = true
	lasts := !slices.ContainsFunc(list.Hosts, endsByItself)
	value := k.made(name, &list)
	if lasts {
		r.mu.RLock()
		if s.changes == changes {
			s.kept.add(k, value)
		}
		r.mu.RUnlock()
	}
	return Reading{value, checkIns, partial}, nil
}

// endsByItself reports whether what v shows ends with time, and not by a change: a
// host that drains is Out a while later.
func endsByItself(v View) bool { return v.State == Draining }

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
	s.kept.first.Store(nil)
}
