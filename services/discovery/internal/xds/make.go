package xds

import (
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// refresh makes all that somebody is shown of a service anew and tells the
// streams that have to hear of it. since is when the service changed.
func (h *hub) refresh(service string, since time.Time) {
	// The error says that nothing is loaded; then there is nothing to do yet.
	list, err := h.listing(service)
	if err != nil {
		return
	}
	h.show(service, list, since)
}

// show does what refresh says with a listing. Steps: the editions to make under
// the lock, making without it, publishing all of them at once under it.
func (h *hub) show(service string, list registry.Listing, since time.Time) {
	duplicates := resources.Duplicates(list.Hosts)
	h.metrics.duplicates.Add(float64(duplicates - h.duplicates[service]))
	if h.duplicates[service] = duplicates; duplicates == 0 {
		delete(h.duplicates, service)
	}
	if h.hosts[service] = shownHosts(list); h.hosts[service] == 0 {
		delete(h.hosts, service)
	}

	h.mu.Lock()
	h.claim(service, len(list.Hosts) > 0)
	if list.Known {
		h.known[service] = struct{}{}
		h.list(service)
	}
	maker := h.maker
	var changes []change
	for t := range h.ofService[service] {
		for _, e := range t.editions {
			changes = append(changes, change{edition: e, service: service, fromService: true})
		}
	}
	h.mu.Unlock()

	shown := same{}
	for i := range changes {
		h.make(maker, &changes[i], list, shown)
	}

	h.mu.Lock()
	defer h.unlock()
	locked := time.Now()
	h.publish(maker, changes, since)
	if !list.Known {
		delete(h.known, service)
		h.unlist(service)
	}
	h.metrics.marked.Observe(time.Since(locked).Seconds())
}

// makeAsked makes the topics that are asked for, and their editions, and what
// hung on them.
func (h *hub) makeAsked() {
	h.mu.Lock()
	unmade, shelves, maker := h.unmade, h.freshShelves, h.maker
	h.unmade, h.freshShelves = map[*topic]struct{}{}, nil
	var changes []change
	for t := range unmade {
		for _, e := range t.editions {
			changes = append(changes, change{edition: e, service: t.service, fromService: t.fromService})
		}
	}
	h.mu.Unlock()

	listings, shown := map[string]registry.Listing{}, same{}
	due := changes[:0]
	for _, c := range changes {
		if c.fromService {
			list, listed := listings[c.service]
			if !listed {
				var err error
				if list, err = h.listing(c.service); err != nil {
					// Nothing is loaded. It will all be asked for again.
					h.askAgain(unmade, shelves)
					return
				}
				listings[c.service] = list
			}
			if c.edition.topic.typ == resources.Endpoints && h.justEmptied(c.service, list) {
				c.withheld = true // until push makes it
			} else {
				h.make(maker, &c, list, shown)
			}
		}
		due = append(due, c)
	}

	h.mu.Lock()
	defer h.unlock()
	h.publish(maker, due, time.Time{})
	for _, sh := range shelves {
		sh.made = true
		for u := range sh.subscribers {
			h.woken = append(h.woken, u.stream)
		}
	}
}

// askAgain puts back what makeAsked took.
func (h *hub) askAgain(unmade map[*topic]struct{}, shelves []*shelf) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range unmade {
		h.unmade[t] = struct{}{}
	}
	h.freshShelves = append(h.freshShelves, shelves...)
}

// change is an edition and the resource that it is to be.
type change struct {
	edition     *edition
	service     string
	fromService bool
	resource    *resources.Resource
	failed      bool // the resource could not be made
	withheld    bool // nobody is to be told of it yet
}

// same holds what was made of one topic for askers that are shown the same.
type same map[narrowed]*resources.Resource

type narrowed struct {
	topic *topic
	view  resources.View
}

// make makes the resource of a change from the listing of its service.
func (h *hub) make(m *resources.Maker, c *change, list registry.Listing, made same) {
	t := c.edition.topic
	key := narrowed{t, c.edition.view}
	if key.view != "" {
		key.view = m.Narrow(key.view, list)
	}
	if c.resource = made[key]; c.resource == nil {
		r, err := m.Make(t.typ, t.name, c.service, c.edition.view, list)
		if err != nil {
			h.metrics.unbuilt.Inc()
			h.log.Error("resource not made", "type", t.typ.String(), "name", t.name, "error", err)
			c.failed = true
			return
		}
		c.resource, made[key] = r, r
	}
	c.withheld = isWithheld(t, c.resource, list)
}

// publish makes changes current, all at once, and marks every stream that
// subscribes to one that is other than it was: no making, no sending. A mark
// costs the same however many the stream already has; what a slow stream missed
// it finds here when it next sends. What another maker than the hub's made is
// dropped, for all is asked for anew when that is set. h.mu must be held.
func (h *hub) publish(maker *resources.Maker, changes []change, since time.Time) {
	if maker != h.maker {
		return
	}
	for i := range changes {
		c := &changes[i]
		switch e := c.edition; {
		case e.topic.file != nil:
			h.put(e, e.topic.file, since)
		case c.withheld:
			h.withhold(e)
		case !c.failed:
			h.put(e, c.resource, since)
		case !e.made:
			// Nobody waits for what cannot be made.
			h.put(e, nil, since)
		}
	}
}

// put makes r the resource of an edition, nil that there is none but perhaps an
// assignment without endpoints, and marks the streams that are shown it if that
// changes anything. h.mu must be held.
func (h *hub) put(e *edition, r *resources.Resource, since time.Time) {
	if r == nil {
		r = e.topic.empty
	}
	same := e.made && (e.resource == r || e.resource != nil && r != nil && e.resource.Version == r.Version)
	if same && !e.withheld {
		return
	}
	if e.made && !same {
		h.metrics.updates[e.topic.typ].Inc()
	}
	e.made, e.withheld, e.resource = true, false, r
	for u := range e.subscribers {
		h.mark(u.stream, e.topic, since)
	}
	if e.topic.listed {
		h.markShelf(e, since)
	}
}

// mark tells a stream that a topic changed. The stream is woken when the lock is
// given back, if it is not about to look anyway. h.mu must be held.
func (h *hub) mark(s *stream, t *topic, since time.Time) {
	if s.mark(t, since) {
		h.woken = append(h.woken, s)
	}
}

// unlock gives back the lock, and then wakes the streams that were marked under
// it.
func (h *hub) unlock() {
	woken := h.woken
	h.woken = nil
	h.mu.Unlock()
	for _, s := range woken {
		s.wake()
	}
}

// markShelf says that an edition on a shelf is other than it was. h.mu must be
// held.
func (h *hub) markShelf(e *edition, since time.Time) {
	sh := h.shelves[e.topic.typ][e.view]
	if sh == nil {
		return
	}
	sh.all = nil
	for u := range sh.subscribers {
		h.mark(u.stream, e.topic, since)
	}
}

// list makes the topics that bear a service's name and are among everything of
// their types. h.mu must be held.
func (h *hub) list(service string) {
	for t := range resources.Types {
		if t.Whole() && h.maker.Listed(t) {
			h.shelve(h.topic(t, service))
		}
	}
}

// shelve has a topic listed. Its editions have yet to be made. h.mu must be held.
func (h *hub) shelve(t *topic) {
	t.listed = true
	for v := range h.shelves[t.typ] {
		t.edition(v)
	}
}

// unshelve has a topic not listed any more, and lets go of the editions that it
// had for that alone. It is nothing to anybody after that, perhaps. h.mu must be
// held.
func (h *hub) unshelve(t *topic) {
	now := time.Now()
	if t.listed {
		for _, e := range t.editions {
			h.markShelf(e, now)
		}
	}
	t.listed = false
	for _, e := range t.editions {
		h.release(e, now)
	}
	h.tidy(t)
}

// unlist undoes list, but for what a file lists too. h.mu must be held.
func (h *hub) unlist(service string) {
	for t := range resources.Types {
		topic := h.topics[t][service]
		if topic != nil && topic.listed && topic.file == nil {
			h.unshelve(topic)
		}
	}
}

// SetMaker has everything made anew by m from now on. Clients are told of what
// comes out otherwise, and keep what they have until it has been made.
func (s *Server) SetMaker(m *resources.Maker) { s.hub.setMaker(m) }

func (h *hub) setMaker(m *resources.Maker) {
	h.mu.Lock()
	defer h.unlock()
	h.maker = m
	clear(h.idle)
	clear(h.idleShelves)
	clear(h.ofService)
	for t := range resources.Types {
		h.regroup(t)
	}
	for t := range resources.Types {
		for _, topic := range h.topics[t] {
			h.unmade[topic] = struct{}{}
			h.tidy(topic)
		}
	}
	h.ask()
}

// regroup puts the subscribers of a type where their askers' views are now.
// h.mu must be held.
func (h *hub) regroup(t resources.Type) {
	shelves := h.shelves[t]
	h.shelves[t] = map[resources.View]*shelf{}
	for _, old := range shelves {
		for u := range old.subscribers {
			u.view = h.view(u)
			sh := h.shelves[t][u.view]
			if sh == nil {
				sh = &shelf{subscribers: map[*subscription]struct{}{}}
				h.shelves[t][u.view] = sh
				h.freshShelves = append(h.freshShelves, sh)
			}
			sh.subscribers[u] = struct{}{}
		}
	}
	for _, topic := range h.topics[t] {
		h.attach(topic)
		editions := topic.editions
		topic.editions = map[resources.View]*edition{}
		for _, old := range editions {
			for u := range old.subscribers {
				u.view = h.view(u)
				topic.edition(u.view).subscribers[u] = struct{}{}
			}
		}
		if topic.listed {
			h.shelve(topic)
		}
		for v, e := range topic.editions {
			if old := editions[v]; old != nil {
				e.made, e.withheld, e.resource = old.made, old.withheld, old.resource
			}
		}
	}
}
