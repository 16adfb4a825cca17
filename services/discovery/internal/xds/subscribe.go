package xds

import (
	"iter"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// topic returns the topic of a name, made if there is none. h.mu must be held.
func (h *hub) topic(t resources.Type, name string) *topic {
	found := h.topics[t][name]
	if found == nil {
		found = &topic{typ: t, name: name, assignment: name, editions: map[resources.View]*edition{}}
		h.topics[t][name] = found
		h.attach(found)
	}
	return found
}

// find returns the topic of a name, or nil.
func (h *hub) find(t resources.Type, name []byte) *topic {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.topics[t][string(name)]
}

// attach notes from which service a topic is made. h.mu must be held.
func (h *hub) attach(t *topic) {
	t.service, t.fromService = h.maker.Service(t.typ, t.name)
	if !t.fromService {
		return
	}
	if _, own := h.own[t.name]; own {
		t.service = t.name
	}
	topics := h.ofService[t.service]
	if topics == nil {
		topics = map[*topic]struct{}{}
		h.ofService[t.service] = topics
	}
	topics[t] = struct{}{}
}

// detach undoes attach. h.mu must be held.
func (h *hub) detach(t *topic) {
	topics := h.ofService[t.service]
	delete(topics, t)
	if len(topics) == 0 {
		delete(h.ofService, t.service)
	}
}

// claim has what bears a service's very name made from that service while it has
// hosts, and else from the one that the name reads as. Only run calls it. h.mu
// must be held.
func (h *hub) claim(service string, lives bool) {
	_, own := h.own[service]
	switch {
	case own == lives || lives && h.maker.IsPlain(service):
		return
	case lives:
		h.own[service] = struct{}{}
	default:
		delete(h.own, service)
	}
	for t := range resources.Types {
		topic := h.topics[t][service]
		if topic == nil || !topic.fromService {
			continue
		}
		h.detach(topic)
		h.attach(topic)
		h.unmade[topic] = struct{}{}
	}
	h.ask()
}

// view is what decides what a subscription is shown. h.mu must be held.
func (h *hub) view(u *subscription) resources.View {
	if !h.maker.Varies(u.typ) {
		return ""
	}
	return h.maker.View(u.stream.asker())
}

// subscribe makes a subscription hear of names from now on, and returns their
// topics in the same order.
func (h *hub) subscribe(u *subscription, names iter.Seq[[]byte]) []*topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	u.view = h.view(u)
	var list []*topic
	for name := range names {
		t := h.topics[u.typ][string(name)]
		if t == nil {
			t = h.topic(u.typ, string(name))
		}
		e := t.edition(u.view)
		e.subscribers[u] = struct{}{}
		delete(h.idle, e)
		h.need(e)
		list = append(list, t)
	}
	return list
}

// need has an edition made, if it is not. h.mu must be held.
func (h *hub) need(e *edition) {
	switch {
	case e.made:
	case e.topic.file != nil:
		e.made, e.resource = true, e.topic.file
	case !e.topic.fromService:
		e.made, e.resource = true, e.topic.empty
	default:
		h.unmade[e.topic] = struct{}{}
		h.ask()
	}
}

// subscribeAll makes a subscription hear of everything from now on.
func (h *hub) subscribeAll(u *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u.view = h.view(u)
	sh := h.shelves[u.typ][u.view]
	if sh == nil {
		sh = &shelf{subscribers: map[*subscription]struct{}{}}
		h.shelves[u.typ][u.view] = sh
		for _, t := range h.topics[u.typ] {
			if t.listed {
				h.need(t.edition(u.view))
			}
		}
		h.freshShelves = append(h.freshShelves, sh)
		h.ask()
	}
	sh.subscribers[u] = struct{}{}
	delete(h.idleShelves, sh)
}

// unsubscribe makes a subscription hear no more of topics.
func (h *hub) unsubscribe(u *subscription, topics iter.Seq[*topic]) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range topics {
		e := t.editions[u.view]
		if e == nil {
			continue
		}
		delete(e.subscribers, u)
		h.release(e, now)
	}
}

// unsubscribeAll undoes subscribeAll.
func (h *hub) unsubscribeAll(u *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sh := h.shelves[u.typ][u.view]; sh != nil {
		delete(sh.subscribers, u)
		if len(sh.subscribers) == 0 {
			h.idleShelves[sh] = time.Now()
		}
	}
}

// release notes that an edition has a subscriber less. h.mu must be held.
func (h *hub) release(e *edition, now time.Time) {
	if h.wanted(e) {
		return
	}
	if len(h.idle) < mostIdle {
		h.idle[e] = now
		return
	}
	h.drop(e)
}

// wanted reports whether somebody is shown an edition. h.mu must be held.
func (h *hub) wanted(e *edition) bool {
	return len(e.subscribers) > 0 || e.topic.listed && h.shelves[e.topic.typ][e.view] != nil
}

// drop forgets an edition that nobody wants. h.mu must be held.
func (h *hub) drop(e *edition) {
	delete(h.idle, e)
	if e.topic.editions[e.view] == e {
		delete(e.topic.editions, e.view)
	}
	h.tidy(e.topic)
}

// tidy forgets a topic that is nothing to anybody. h.mu must be held.
func (h *hub) tidy(t *topic) {
	if len(t.editions) > 0 || t.listed || t.file != nil || t.empty != nil {
		return
	}
	if h.topics[t.typ][t.name] == t {
		delete(h.topics[t.typ], t.name)
	}
	delete(h.unmade, t)
	delete(h.withheld, t)
	h.detach(t)
}

// sweep forgets what nobody has wanted for long.
func (h *hub) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.shelves {
		for v, sh := range h.shelves[t] {
			since, idle := h.idleShelves[sh]
			if !idle || now.Sub(since) < linger {
				continue
			}
			delete(h.idleShelves, sh)
			delete(h.shelves[t], v)
			for _, topic := range h.topics[t] {
				if e := topic.editions[v]; e != nil && !h.wanted(e) {
					h.drop(e)
				}
			}
		}
	}
	for e, since := range h.idle {
		switch {
		case h.wanted(e):
			delete(h.idle, e)
		case now.Sub(since) >= linger:
			h.drop(e)
		}
	}
}

// edition is a topic as a subscription sees it, or nil. h.mu must be held.
func (u *subscription) edition(t *topic) *edition { return t.editions[u.view] }

// everything returns all listed resources as askers of a view see them; ok is
// false while they have yet to be made. h.mu must be held, if only for reading.
func (h *hub) everything(t resources.Type, v resources.View) (all *set, ok bool) {
	sh := h.shelves[t][v]
	if sh == nil || !sh.made {
		return nil, false
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.all == nil {
		var list []*resources.Resource
		for _, topic := range h.topics[t] {
			if e := topic.editions[v]; topic.listed && e != nil && e.resource != nil {
				list = append(list, e.resource)
			}
		}
		sh.all = newSet(list)
		sh.all.common = true
	}
	return sh.all, true
}
