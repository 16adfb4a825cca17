package registry

import (
	"sync"
	"time"
)

// Event is a change of a service as its history tells it.
type Event struct {
	At      time.Time
	Kind    EventKind
	Service string
	// ID is the host's; empty when the event is of a whole service or zone.
	ID string
	// Zone is that of a setting's scope, if it has one. With a Zone and no Service
	// the event is of all services with hosts there, and stands in their histories.
	Zone string
	// Actor is who did it: the identity or address of a caller, or the name of
	// the part of discovery that did.
	Actor string
	// Detail says more, for people: a reason, or what changed. May be empty.
	Detail string
}

// EventKind is what happened.
type EventKind string

// The kinds of events.
const (
	Registered   EventKind = "registered"
	Changed      EventKind = "changed"
	Deregistered EventKind = "deregistered"
	Expired      EventKind = "expired"
	// Lost is of a host that was taken out with the connection that was its beat.
	Lost EventKind = "lost"
	// HeldStale is of a host whose TTL passed and which a guard holds.
	HeldStale EventKind = "held"
	// Recovered is of a held host that beat again.
	Recovered EventKind = "recovered"
	// Sickened and Healed are of a host that became Unhealthy, and that is it no
	// more. They are kept on this replica alone.
	Sickened EventKind = "unhealthy"
	Healed   EventKind = "healthy"
	// SettingMade and SettingEnded are of operators' settings.
	SettingMade  EventKind = "setting made"
	SettingEnded EventKind = "setting ended"
)

// historyLength is how many events of a service are kept.
const historyLength = 50

// history is the last events of a service: a ring that grows up to its length,
// by little, since most services have a few events and there are many services.
type history struct {
	events []past
	next   int // where the next goes, once the ring is full
}

// past is an Event but for the service, which is that of the history.
type past struct {
	at                Instant
	kind              EventKind
	id, actor, detail string
	zone              *string // nil for none, as most events have
}

func (h *history) add(e *Event) {
	p := past{at: InstantOf(e.At), kind: e.Kind, id: e.ID, actor: e.Actor, detail: e.Detail}
	if e.Zone != "" {
		p.zone = new(e.Zone)
	}
	n := len(h.events)
	if n > 0 { // one caller often does several things
		share(&p.actor, h.events[(h.next+n-1)%n].actor)
	}
	if n == historyLength {
		h.events[h.next] = p
		h.next = (h.next + 1) % n
		return
	}
	if n == cap(h.events) {
		h.events = append(make([]past, 0, min(n+n/4+2, historyLength)), h.events...)
	}
	h.events = append(h.events, p)
}

// list returns the events, oldest first, which are of a service.
func (h *history) list(service string) []Event {
	list := make([]Event, 0, len(h.events))
	for i := range h.events {
		p := &h.events[(h.next+i)%len(h.events)]
		e := Event{At: p.at.Time(), Kind: p.kind, Service: service, ID: p.id, Actor: p.actor, Detail: p.detail}
		if p.zone != nil {
			e.Zone = *p.zone
		}
		list = append(list, e)
	}
	return list
}

// History returns the last events of a service, oldest first, as far as they
// are kept. The slice is the caller's. The error is ErrNotLoaded or nil.
func (r *Registry) History(name string) ([]Event, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	s := r.services[name]
	if s == nil {
		return nil, nil
	}
	return s.history.list(s.name), nil
}

// happened tells of an event, which nobody changes afterwards. r.mu must be
// held.
func (r *Registry) happened(e *Event) {
	r.remember(e)
	for f := range r.events {
		if f.service == "" || r.concerns(e, f.service) {
			f.add(e)
		}
	}
}

// remember adds an event to the histories of the services that it concerns. r.mu
// must be held.
func (r *Registry) remember(e *Event) {
	if e.isOfZone() {
		for _, s := range r.inScope(Scope{Zone: e.Zone}) {
			s.history.add(e)
		}
	} else if s := r.services[e.Service]; s != nil {
		s.history.add(e)
	}
}

// concerns reports whether an event concerns a service: is of it, or of a zone in
// which it has hosts. r.mu must be held.
func (r *Registry) concerns(e *Event, service string) bool {
	if e.isOfZone() {
		s := r.services[service]
		return s != nil && s.isIn(e.Zone)
	}
	return e.Service == service
}

// isOfZone reports whether an event is of all services with hosts in a zone.
func (e *Event) isOfZone() bool { return e.Service == "" && e.Zone != "" }

// eventQueue is how many events wait for a slow reader at most.
const eventQueue = 1024

// EventFeed tells one reader of events, in order: of all, or those of a service.
type EventFeed struct {
	registry *Registry
	service  string        // "" for all
	ready    chan struct{} // has a value when there are events

	mu     sync.Mutex
	queue  []Event
	missed bool
}

// Events returns a feed of all events from now on. The reader closes it.
func (r *Registry) Events() *EventFeed { return r.EventsOf("") }

// EventsOf returns a feed of the events from now on that stand in the history of
// a service, known or not; of all for "". The reader closes it.
func (r *Registry) EventsOf(service string) *EventFeed {
	f := &EventFeed{registry: r, service: service, ready: make(chan struct{}, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[f] = struct{}{}
	return f
}

// Close ends the feed.
func (f *EventFeed) Close() {
	f.registry.mu.Lock()
	defer f.registry.mu.Unlock()
	delete(f.registry.events, f)
}

// Ready gives a value when Take has something to return.
func (f *EventFeed) Ready() <-chan struct{} { return f.ready }

// Take returns the events since the last Take. missed says that there were more
// than the reader took in time, and that these are lost. The slice is the
// caller's.
func (f *EventFeed) Take() (events []Event, missed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	events, missed = f.queue, f.missed
	f.queue, f.missed = nil, false
	return events, missed
}

func (f *EventFeed) add(e *Event) {
	f.mu.Lock()
	if len(f.queue) < eventQueue {
		f.queue = append(f.queue, *e)
	} else {
		f.missed = true
	}
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default: // the reader has yet to see the last one
	}
}
