package registry

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// entry is a host in the registry. Fields but lease, lastBeat, registered, countsFrom,
// counted and beaten are guarded by Registry.mu.
type entry struct {
	lease         Lease  // never changes
	host          *Host  // its Key never changes
	hash          uint64 // of host
	firstSeen     Instant
	drainingSince Instant
	// heldFrom is when this process took the host over, on the registry's clock,
	// or when a trouble ended that the host is not to suffer for; the TTL counts
	// from here if the last beat is older. heardFrom is the same for those
	// troubles alone in which beats were made and not heard.
	heldFrom, heardFrom time.Duration
	// lastBeat is the time of the last check-in on the registry's clock, in
	// nanoseconds; below 0 if it was before this process began.
	lastBeat atomic.Int64
	// registered is the same of the last check-in here of the host as a whole, which
	// would register it were it not known, under this lease or one that it came in the
	// place of; 0 for none.
	registered atomic.Int64
	// countsFrom is when a check-in counts as a beat for the guard again, as lastBeat.
	countsFrom atomic.Int64
	// counted is how many check-ins did.
	counted atomic.Uint32
	// beaten says that the beat waits in the outbox.
	beaten atomic.Bool
	// stale says that the TTL has passed since the last beat, and that readers
	// were told so.
	stale bool
	// held is what the guard last said of it; guard.Free unless stale.
	held guard.Reason
	// away says that a Maintenance setting holds for it.
	away bool
	// unhealthy is what SetHealth said of it last.
	unhealthy bool
	// leaving says that the guard let it go and the Store is asked to; refusals
	// is how often the Store did not.
	leaving  bool
	refusals uint8

	due   time.Duration // when the sweeper looks at the entry next
	index int           // its place in the queue of expiries

	// before and after are its neighbours among the hosts of its repository, nil
	// at the ends: a chain takes a quarter of a map's memory.
	before, after *entry
}

// beat notes a check-in at a time of the registry's clock; an older one than
// the last is ignored.
func (e *entry) beat(at time.Duration) {
	for {
		last := e.lastBeat.Load()
		if int64(at) <= last || e.lastBeat.CompareAndSwap(last, int64(at)) {
			return
		}
	}
}

// countedPerTTL is how many beats of a host count within its TTL, at most: twice
// as many as hosts are to make. So a host counts no more for beating in a loop, and
// at least every third of its TTL if it beats more often than it need.
const countedPerTTL = 6

// counts reports whether a check-in at a time of the registry's clock counts as a
// beat for the guard, and is then the last that does for a while. That the host is
// new does not count: it might come and go in a loop. r.mu must be held, for reading
// at least.
func (e *entry) counts(at time.Duration) bool {
	from := e.countsFrom.Load()
	if int64(at) < from || !e.countsFrom.CompareAndSwap(from, int64(at+e.host.TTL/countedPerTTL)) {
		return false
	}
	e.counted.Add(1)
	return true
}

// since is when the host's TTL began to run.
func (e *entry) since() time.Duration {
	return max(time.Duration(e.lastBeat.Load()), e.heldFrom)
}

// deadline is when the host is dead if it does not check in before. If its TTL
// began anew, the guard holds it until that has passed too.
func (e *entry) deadline() time.Duration { return time.Duration(e.lastBeat.Load()) + e.host.TTL }

// record is what a Store keeps of e.
func (e *entry) record(w *wall) Record {
	return Record{
		Host: e.host, Lease: e.lease, FirstSeen: e.firstSeen.Time(),
		LastCheckIn:   w.at(time.Duration(e.lastBeat.Load())),
		DrainingSince: e.drainingSince.Time(),
	}
}

// put makes record what the registry holds of its host, and returns the entry.
// beat is when that beat, on the registry's clock. A host new to this process
// lives for its TTL from now at least. r.mu must be held.
func (r *Registry) put(record Record, beat time.Duration) *entry {
	h := record.Host
	s := r.services[h.Service]
	if s == nil {
		s = &service{name: h.Service, hosts: map[string]*entry{}}
		r.services[h.Service] = s
		r.metrics.services.Set(float64(len(r.services)))
	}
	if record.Lease == 0 { // from a Store that kept none
		record.Lease = NewLease()
	}
	e := s.hosts[h.ID]
	var registered int64
	if e != nil && e.lease != record.Lease { // another stay of the same host
		registered = e.registered.Load()
		r.forget(s, e)
		e = nil
	}
	now := time.Since(r.born)
	// A clock that was set back since may have stored a time to come.
	beat = min(beat, now)
	if e == nil {
		e = &entry{lease: record.Lease, host: h, firstSeen: InstantOf(record.FirstSeen), heldFrom: now, heardFrom: now}
		e.lastBeat.Store(int64(beat))
		e.registered.Store(registered)
		e.countsFrom.Store(int64(now + h.TTL/countedPerTTL))
		s.hosts[h.ID] = e
		s.insert(e)
		r.leases[e.lease] = e
		if s.empty != nil {
			r.empties.Remove(s.empty)
			s.empty = nil
		}
		r.expiries.add(e, e.deadline())
		r.metrics.hosts.Set(float64(len(r.leases)))
	} else {
		r.unindex(e)
		s.replace(e, h)
		e.beat(beat)
		if e.deadline() > now {
			r.recover(e, Itself)
		}
		r.expiries.move(e, e.deadline())
	}
	e.hash = h.hash()
	e.drainingSince = InstantOf(record.DrainingSince)
	r.index(e)
	r.setAway(e, r.isAway(h))
	r.tell(s)
	r.relieve(s)
	return e
}

// drop takes a host out; its service stays known for a while. r.mu must be held.
func (r *Registry) drop(e *entry) {
	s := r.services[e.host.Service]
	r.forget(s, e)
	r.outbox.forgetToldOf(e.host.Key)
	if len(s.hosts) == 0 {
		s.emptySince = time.Since(r.born)
		s.empty = r.empties.PushBack(s)
	}
	r.tell(s)
}

// forget undoes put, but for the service. r.mu must be held.
func (r *Registry) forget(s *service, e *entry) {
	r.setAway(e, false)
	r.release(e)
	if r.lingers(e) {
		delete(r.lingering, e)
		s.lingering--
	}
	delete(s.hosts, e.host.ID)
	s.remove(e)
	delete(r.leases, e.lease)
	r.unindex(e)
	r.expiries.remove(e)
	r.metrics.hosts.Set(float64(len(r.leases)))
}

// place is where e is in the order of the hosts, or would be. r.mu must be held.
func (s *service) place(e *entry) int {
	i, _ := slices.BinarySearchFunc(s.ordered, e, compareEntries)
	return i
}

// insert puts e among the hosts in their order. r.mu must be held.
func (s *service) insert(e *entry) { s.ordered = slices.Insert(s.ordered, s.place(e), e) }

// remove undoes insert. r.mu must be held.
func (s *service) remove(e *entry) {
	i := s.place(e)
	s.ordered = slices.Delete(s.ordered, i, i+1)
}

// replace makes h what e says of itself, and keeps the order. r.mu must be held.
func (s *service) replace(e *entry, h *Host) {
	if e.host.Address == h.Address {
		e.host = h
		return
	}
	s.remove(e)
	e.host = h
	s.insert(e)
}

// index makes e findable by its repository, and among those that are draining.
// r.mu must be held.
func (r *Registry) index(e *entry) {
	if e.host.Draining {
		r.draining[e] = struct{}{}
	}
	if e.host.Repo == "" {
		return
	}
	e.after = r.repos[e.host.Repo]
	if e.after != nil {
		e.after.before = e
	}
	r.repos[e.host.Repo] = e
}

// unindex undoes index. r.mu must be held.
func (r *Registry) unindex(e *entry) {
	delete(r.draining, e)
	if e.host.Repo == "" {
		return
	}
	if e.after != nil {
		e.after.before = e.before
	}
	switch {
	case e.before != nil:
		e.before.after = e.after
	case e.after != nil:
		r.repos[e.host.Repo] = e.after
	default:
		delete(r.repos, e.host.Repo)
	}
	e.before, e.after = nil, nil
}

// NewLease draws a lease. That two hosts of one registry have the same is as
// likely as 1 in 10^9 for 100,000 hosts.
func NewLease() Lease {
	for {
		if lease := Lease(rand.Uint64()); lease != 0 {
			return lease
		}
	}
}
