package registry

import (
	"fmt"
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

// CheckIn registers h, or is a heartbeat of h, which is the same: the host
// lives for its TTL from now. All but its tags replaces what was known; tags
// are laid over the known ones, and none is ever removed. The error is
// ErrNotLoaded, ErrTagsTooLarge with the sizes, or nil. The registry keeps
// h.Tags.Other, which nobody may change afterwards.
//
// In the common case nothing has changed; then only the time is noted, under
// the shared lock and without allocating.
func (r *Registry) CheckIn(h Host) (Outcome, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return 0, ErrNotLoaded
	}
	if e := r.find(h.Key); e != nil && e.host.covers(&h) {
		e.beat(time.Since(r.born))
		r.outbox.beat(e)
		r.mu.RUnlock()
		r.metrics.checkIns[HostUnchanged].Inc()
		return HostUnchanged, nil
	}
	r.mu.RUnlock()

	outcome, err := r.change(h)
	if err != nil {
		return 0, err
	}
	r.metrics.checkIns[outcome].Inc()
	if outcome == HostNew {
		r.log.Info("host registered", "service", h.Service, "host", h.ID, "address", h.Address, "ttl", h.TTL.String())
	} else {
		r.log.Debug("host changed", "service", h.Service, "host", h.ID, "address", h.Address)
	}
	return outcome, nil
}

// change checks in a host that was not known just so a moment ago, and says
// whether it was known at all. The error is ErrTagsTooLarge or nil.
func (r *Registry) change(h Host) (Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	record := Record{Host: &h, FirstSeen: now, LastCheckIn: now}
	outcome := HostNew
	if e := r.find(h.Key); e != nil {
		outcome = HostChanged
		record.FirstSeen = e.firstSeen
		h.Tags = e.host.Tags.merge(h.Tags)
	}
	if size := h.Tags.size(); size > MaxTags {
		return 0, fmt.Errorf("%w: %d bytes with those of earlier check-ins, of %d at most", ErrTagsTooLarge, size, MaxTags)
	}
	r.put(record)
	r.outbox.change(Change{Key: h.Key, Record: &record})
	return outcome, nil
}

// put makes record what the registry holds of its host. A host new to this
// process lives for its TTL from now at least. r.mu must be held.
func (r *Registry) put(record Record) {
	h := record.Host
	s := r.services[h.Service]
	if s == nil {
		s = &service{name: h.Service, hosts: map[string]*entry{}}
		r.services[h.Service] = s
		r.metrics.services.Set(float64(len(r.services)))
	}
	now := time.Since(r.born)
	// A clock that was set back since may have stored a time to come.
	beat := min(record.LastCheckIn.Sub(r.born), now)
	e := s.hosts[h.ID]
	if e == nil {
		e = &entry{key: h.Key, host: h, firstSeen: record.FirstSeen, heldFrom: now}
		e.lastBeat.Store(int64(beat))
		s.hosts[h.ID] = e
		if s.empty != nil {
			r.empties.Remove(s.empty)
			s.empty = nil
		}
		r.index(e)
		r.expiries.add(e, e.deadline())
		r.hosts++
		r.metrics.hosts.Set(float64(r.hosts))
	} else {
		r.unindex(e)
		e.host = h
		e.beat(beat)
		r.index(e)
		r.expiries.move(e, e.deadline())
	}
	r.tell(h.Service)
}

// index makes e findable by its repository. r.mu must be held.
func (r *Registry) index(e *entry) {
	if e.host.Repo == "" {
		return
	}
	hosts := r.repos[e.host.Repo]
	if hosts == nil {
		hosts = map[*entry]struct{}{}
		r.repos[e.host.Repo] = hosts
	}
	hosts[e] = struct{}{}
}

// unindex undoes index. r.mu must be held.
func (r *Registry) unindex(e *entry) {
	hosts := r.repos[e.host.Repo]
	delete(hosts, e)
	if len(hosts) == 0 {
		delete(r.repos, e.host.Repo)
	}
}
