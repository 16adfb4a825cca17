package registry

import (
	"slices"
	"time"
)

// weighBatch is how many hosts are weighed under one hold of the lock. Each costs
// as much as a check-in that changes it.
const weighBatch = 64

// SetWeight gives the selected hosts a weight of 1 to 100, as if they had said
// so themselves: it stays until another is set or checked in. It returns how
// many they were. Many are not weighed at one moment; those that go meanwhile
// are left out, those that come are not weighed. The error is ErrNotLoaded, that of
// selected.Allow, for which none is weighed, ErrUnheard or nil.
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
		if r.leases[e.lease] == e && !r.lingers(e) && e.host.Tags.Weight != weight {
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
	r.outbox.change(Change{Key: h.Key, Record: &record, Parts: Parts{Weight: true}, Registered: r.registered(e), Event: event})
}
