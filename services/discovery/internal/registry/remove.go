package registry

import (
	"net/netip"
	"slices"
	"time"
)

// Selection is some hosts of one service.
type Selection struct {
	Service string
	// ID is the host's; empty selects any.
	ID string
	// Lease is that of the host's stay; 0 selects any.
	Lease Lease
	// IP is where the hosts are; its zero value selects those of any address.
	IP netip.Addr
	// Port is where they listen; 0 selects those of any port.
	Port uint16
	// Allow says why nothing may be done to a host at an address; nil if it may
	// be. It is called while the registry is locked, and may be nil itself.
	Allow func(netip.Addr) error
}

// holds reports whether a host is selected. r.mu must be held.
func (s *Selection) holds(e *entry) bool {
	h := e.host
	return (s.ID == "" || s.ID == h.ID) && (s.Lease == 0 || s.Lease == e.lease) &&
		(!s.IP.IsValid() || s.IP == h.Address.Addr()) && (s.Port == 0 || s.Port == h.Address.Port())
}

// allowed says whether something may be done to all of entries, the error of Allow
// if not. r.mu must be held.
func (s *Selection) allowed(entries []*entry) error {
	if s.Allow == nil {
		return nil
	}
	for _, e := range entries {
		if err := s.Allow(e.host.Address.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes out the selected hosts, at their own wish, and returns how many
// they were. actor is who says so. The error is ErrNotLoaded, that of
// selected.Allow, for which none goes, or nil.
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
	r.outbox.change(Change{Key: e.host.Key, Lease: e.lease, Event: event})
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
// host of a service stays until its TTL has passed: that it is gone is less sure
// than that the connection is. The error is ErrNotLoaded or nil.
func (r *Registry) Lose(leases []Lease, heard time.Time, actor string) (int, error) {
	lost, err := r.lose(leases, heard.Sub(r.born), actor)
	for _, h := range lost {
		r.metrics.losses.Inc()
		r.log.Info("host lost with its connection", "service", h.Service, "host", h.ID, "address", h.Address, "by", actor)
	}
	return len(lost), err
}

// lose is Lose, without saying so; heard is by the registry's clock.
func (r *Registry) lose(leases []Lease, heard time.Duration, actor string) (lost []*Host, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	for _, lease := range leases {
		e := r.leases[lease]
		if e == nil || time.Duration(e.lastBeat.Load()) > heard+echo || len(r.services[e.host.Service].hosts) == 1 {
			continue
		}
		r.takeOut(e, &Event{Kind: Lost, Actor: actor, Detail: "its connection is gone"})
		lost = append(lost, e.host)
	}
	return lost, nil
}

// weighBatch is how many hosts are weighed under one hold of the lock. Each costs
// as much as a check-in that changes it.
const weighBatch = 64

// SetWeight gives the selected hosts a weight of 1 to 100, as if they had said
// so themselves: it stays until another is set or checked in. It returns how
// many they were. Many are not weighed at one moment; those that go meanwhile
// are left out, those that come are not weighed. The error is ErrNotLoaded, that of
// selected.Allow, for which none is weighed, or nil.
func (r *Registry) SetWeight(selected Selection, weight uint8, actor string) (int, error) {
	r.mu.RLock()
	entries, err := r.selected(selected)
	r.mu.RUnlock()
	for batch := range slices.Chunk(entries, weighBatch) {
		r.weighSome(batch, weight, actor)
	}
	return len(entries), err
}

// weighSome is SetWeight for a batch, but for those of it that went meanwhile, or
// have that weight.
func (r *Registry) weighSome(batch []*entry, weight uint8, actor string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range batch {
		if r.leases[e.lease] == e && e.host.Tags.Weight != weight {
			r.weigh(e, weight, actor)
		}
	}
}

// weigh is SetWeight for one host. r.mu must be held.
func (r *Registry) weigh(e *entry, weight uint8, actor string) {
	h := *e.host
	h.Tags.Weight = weight
	event := &Event{At: time.Now(), Kind: Changed, Service: h.Service, ID: h.ID, Actor: actor, Detail: e.host.difference(&h)}
	record := e.record(r.wall)
	record.Host = &h
	r.put(record, time.Duration(e.lastBeat.Load()))
	r.happened(event)
	r.outbox.change(Change{Key: h.Key, Record: &record, Event: event})
}

// selected returns the entries of a selection. The error is ErrNotLoaded, that of
// s.Allow, or nil. r.mu must be held, for reading at least.
func (r *Registry) selected(s Selection) (entries []*entry, err error) {
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	known := r.services[s.Service]
	switch {
	case known == nil:
	case s.ID != "":
		if e := known.hosts[s.ID]; e != nil && s.holds(e) {
			entries = append(entries, e)
		}
	default:
		for _, e := range known.ordered {
			if s.holds(e) {
				entries = append(entries, e)
			}
		}
	}
	if err := s.allowed(entries); err != nil {
		return nil, err
	}
	return entries, nil
}
