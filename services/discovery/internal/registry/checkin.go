package registry

import (
	"fmt"
	"net/netip"
	"time"
)

// Outcome is what a check-in did.
type Outcome int

const (
	// HostUnchanged says that the host was known just so.
	HostUnchanged Outcome = iota
	// HostChanged says that the host was known otherwise.
	HostChanged
	// HostNew says that the host was not known.
	HostNew
)

func (o Outcome) String() string { return [...]string{"unchanged", "changed", "new"}[o] }

// Receipt is the answer to a check-in that was taken.
type Receipt struct {
	Outcome Outcome
	Lease   Lease
}

// CheckIn registers h, or is a heartbeat of h, which is the same: the host
// lives for its TTL from now. All but its tags replaces what was known; tags
// are laid over the known ones, and none is ever removed. actor is who says so.
// The error is ErrNotLoaded, one of the limits' with the numbers, or nil. The
// registry keeps what h refers to but for its texts, which it copies where it keeps
// them; nobody may change any of that afterwards.
//
// In the common case nothing has changed; then only the time is noted, under
// the shared lock and without allocating.
func (r *Registry) CheckIn(h Host, actor string) (Receipt, error) {
	return r.checkIn(&h, actor, laidOver, nil)
}

// Put is CheckIn for a host that says all of itself each time: its tags replace
// the known ones too.
func (r *Registry) Put(h Host, actor string) (Receipt, error) {
	return r.checkIn(&h, actor, replaced, nil)
}

// PutIf is Put of a host that takes the place of one at another address only if allow
// returns nil for that; its error is returned otherwise. allow is called under the
// registry's lock, and may not use the registry.
func (r *Registry) PutIf(h Host, actor string, allow func(known netip.Addr) error) (Receipt, error) {
	return r.checkIn(&h, actor, replaced, allow)
}

// tagging is what becomes of the known tags of a host that checks in.
type tagging int

const (
	laidOver tagging = iota // those that it leaves out stay
	replaced                // those that it leaves out go
)

// isNews reports whether a check-in of newer would change h.
func (t tagging) isNews(h, newer *Host) bool {
	if t == laidOver {
		return !h.covers(newer)
	}
	return !h.equal(newer)
}

// checkIn notes the time if h is no news, or else takes it. allow is that of PutIf,
// or nil.
func (r *Registry) checkIn(h *Host, actor string, tags tagging, allow func(netip.Addr) error) (Receipt, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return Receipt{}, ErrNotLoaded
	}
	if e := r.find(h.Key); e != nil && !e.stale && !r.lingers(e) && !tags.isNews(e.host, h) {
		r.note(e)
		r.mu.RUnlock()
		r.metrics.checkIns[HostUnchanged].Inc()
		return Receipt{HostUnchanged, e.lease}, nil
	}
	r.mu.RUnlock()

	kept := *h // so that h itself need not be on the heap
	receipt, err := r.change(&kept, actor, tags, allow)
	if err != nil {
		return Receipt{}, err // which is no beat
	}
	r.metrics.checkIns[receipt.Outcome].Inc()
	if receipt.Outcome == HostNew {
		r.log.Info("host registered", "service", h.Service, "host", h.ID, "address", h.Address, "ttl", h.TTL.String(), "by", actor)
	} else {
		r.log.Debug("host changed", "service", h.Service, "host", h.ID, "address", h.Address, "by", actor)
	}
	return receipt, nil
}

// note marks that the host of e checked in just now, as it is known. r.mu must be
// held, for reading at least.
func (r *Registry) note(e *entry) {
	now := time.Since(r.born)
	e.beat(now)
	e.registered.Store(int64(now))
	r.count(e)
	r.outbox.beat(e)
}

// count has the guard told of the last beat of e, if it counts. r.mu must be held,
// for reading at least.
func (r *Registry) count(e *entry) {
	if e.counts(time.Duration(e.lastBeat.Load())) {
		r.beats.Add(1)
	}
}

// beatsOf is when entries last beat, for the outbox, in which they wait no more:
// those of them that are there still, which it returns in the same memory.
func (r *Registry) beatsOf(entries []*entry) (there []*entry, beats []Beat) {
	there, beats = entries[:0], make([]Beat, 0, len(entries))
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range entries {
		if r.leases[e.lease] != e {
			continue
		}
		// Before the time is read, so that a beat after it is not missed.
		e.beaten.Store(false)
		there = append(there, e)
		beats = append(beats, Beat{e.host.Key, r.wall.at(time.Duration(e.lastBeat.Load()))})
	}
	return there, beats
}

// change checks in a host that was not known just so a moment ago.
func (r *Registry) change(h *Host, actor string, tags tagging, allow func(netip.Addr) error) (Receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	record := Record{Host: h, FirstSeen: now, LastCheckIn: now}
	event := &Event{At: now, Kind: Registered, Actor: actor}
	parts := Parts{Anew: true, Whole: tags == replaced}
	outcome := HostNew
	e := r.find(h.Key)
	if e != nil && r.lingers(e) {
		e = nil // it comes anew, if it may
	}
	if e != nil {
		if !tags.isNews(e.host, h) { // it was stale alone, or another was faster
			r.note(e)
			if e.stale {
				r.recover(e, actor)
			}
			return Receipt{HostUnchanged, e.lease}, nil
		}
		if known := e.host.Address.Addr(); allow != nil && known != h.Address.Addr() {
			if err := allow(known); err != nil {
				return Receipt{}, err
			}
		}
		outcome = HostChanged
		record.Lease, record.FirstSeen, record.DrainingSince = e.lease, e.firstSeen.Time(), e.drainingSince.Time()
		if tags == laidOver {
			h.Tags = e.host.Tags.merge(h.Tags)
		}
		event.Kind, event.Detail = Changed, e.host.difference(h)
		parts = e.host.parts(h)
	} else if err := r.checkRoom(h.Service); err != nil {
		return Receipt{}, err
	}
	most, together := r.options.Limits.TagBytes, ""
	if e != nil && tags == laidOver {
		// What two replicas were told may be more, and is no reason to refuse what adds nothing.
		most, together = max(most, e.host.Tags.size()), " with those of earlier check-ins"
	}
	if size := h.Tags.size(); size > most {
		return Receipt{}, fmt.Errorf("%w: %d bytes%s, of %d at most", ErrTagsTooLarge, size, together, r.options.Limits.TagBytes)
	}
	switch {
	case !h.Draining:
		record.DrainingSince = time.Time{}
	case record.DrainingSince.IsZero():
		record.DrainingSince = now
	}
	if e != nil && e.stale {
		r.recover(e, actor)
	}
	r.comesAnew(h.Key)
	r.shareText(h)
	e = r.put(record, time.Since(r.born))
	e.registered.Store(e.lastBeat.Load())
	r.count(e)
	record.Lease = e.lease
	event.Service, event.ID = h.Service, h.ID
	r.happened(event)
	r.outbox.change(Change{Key: h.Key, Record: &record, Parts: parts, Registered: r.registered(e), Event: event})
	return Receipt{outcome, e.lease}, nil
}

// checkRoom says whether a host more may come to a service. For one that is new,
// the first of r.empties makes room. r.mu must be held.
func (r *Registry) checkRoom(name string) error {
	limits := r.options.Limits
	s := r.services[name]
	if empty := r.empties.Front(); s == nil && empty != nil && len(r.services) >= limits.Services {
		r.forgetService(empty)
	}
	switch {
	case s == nil && len(r.services) >= limits.Services:
		return fmt.Errorf("%w: %d", ErrTooManyServices, limits.Services)
	case s != nil && len(s.hosts)-s.lingering >= limits.HostsPerService:
		return fmt.Errorf("%w: %d", ErrServiceFull, limits.HostsPerService)
	}
	return nil
}

// beatBatch is how many beats are noted under one hold of the lock.
const beatBatch = 1024

// Beat is a heartbeat of the hosts with some leases: each lives for its TTL
// from now. It appends to unknown those that it does not know, whose hosts must
// register again, and returns that. The error is ErrNotLoaded or nil. The work
// is one look-up for each; nothing is allocated but by unknown.
func (r *Registry) Beat(leases, unknown []Lease, actor string) ([]Lease, error) {
	noted, counted := 0, 0
	var stale []*entry
	for len(leases) > 0 {
		batch := leases[:min(len(leases), beatBatch)]
		leases = leases[len(batch):]
		r.mu.RLock()
		if !r.isLoaded {
			r.mu.RUnlock()
			return unknown, ErrNotLoaded
		}
		now := time.Since(r.born)
		for _, lease := range batch {
			e := r.leases[lease]
			if e == nil || r.lingers(e) {
				unknown = append(unknown, lease)
				continue
			}
			e.beat(now)
			if e.counts(now) {
				counted++
			}
			r.outbox.beat(e)
			noted++
			if e.stale {
				stale = append(stale, e)
			}
		}
		r.mu.RUnlock()
	}
	r.beats.Add(int64(counted))
	r.metrics.checkIns[HostUnchanged].Add(float64(noted))
	if len(stale) > 0 {
		r.mu.Lock()
		for _, e := range stale {
			if e.stale && r.leases[e.lease] == e {
				r.recover(e, actor)
			}
		}
		r.mu.Unlock()
	}
	return unknown, nil
}
