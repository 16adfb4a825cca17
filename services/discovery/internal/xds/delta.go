package xds

import (
	"cmp"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// requestDelta takes in a request of the delta variant. What it says of names
// holds whether or not it is an answer, and to whatever response.
func (s *stream) requestDelta(u *subscription, r *request, first bool, now time.Time) error {
	switch {
	case r.nonce == "":
	case u.inFlight && r.nonce == u.nonce:
		s.answered(u, r, now)
	default:
		s.hub.metrics.stale.Inc()
	}
	had, names := len(u.names), r.names+r.initial > 0
	if names {
		// Before it takes memory for them. It keeps what it has meanwhile.
		if err := s.mayName(u, max(had, r.names, r.initial)); err != nil {
			return err
		}
	}
	if first {
		u.readInitial(r)
	}
	s.addNames(u, r, first)
	s.dropNames(u, r)
	if !u.wildcard {
		u.initial = nil // of use only to who wants everything
	}
	if !names && len(u.names) == had {
		return nil // as with most answers
	}
	return s.mayName(u, len(u.names))
}

// readInitial takes in what the client has from an earlier stream.
func (u *subscription) readInitial(r *request) {
	if r.initial == 0 {
		return
	}
	u.initial = make(map[string]held, r.initial)
	for name, version := range r.initialVersions() {
		has := something // of a version that is not ours
		if v := parseVersion(string(version)); v != 0 {
			has = held(v)
		}
		if !u.stream.hub.given.has(has.version()) {
			u.holdsEarlier = true
		}
		u.initial[string(name)] = has
	}
}

// addNames subscribes to the new names of a request. Each is answered, also one
// that is subscribed to already, but for what the client says it has.
func (s *stream) addNames(u *subscription, r *request, first bool) {
	everything := first && u.typ.Whole() && r.names == 0
	topics := s.hub.subscribe(u, func(yield func([]byte) bool) {
		for name := range r.allNames() {
			if u.typ.Whole() && string(name) == everyName {
				everything = true
				continue
			}
			if !yield(name) {
				return
			}
		}
	})
	u.name(topics)
	for _, t := range topics {
		version, has := u.initial[t.name]
		if has {
			u.names[t] = version
			delete(u.initial, t.name)
		}
		u.want(t, !has)
	}
	if !everything {
		return
	}
	if !u.wildcard {
		u.wildcard = true
		s.hub.subscribeAll(u)
	}
	u.mustAll = true
}

// dropNames unsubscribes from names of a request. One that the wildcard still
// covers is answered: with the resource, or by its removal.
func (s *stream) dropNames(u *subscription, r *request) {
	var removed []*topic
	for name := range r.droppedNames() {
		if u.typ.Whole() && string(name) == everyName {
			s.dropWildcard(u)
			continue
		}
		t := s.hub.find(u.typ, name)
		if t == nil {
			continue
		}
		if _, named := u.names[t]; !named {
			continue
		}
		removed = append(removed, t)
		u.drop(t)
		if u.wildcard {
			u.want(t, true)
		}
	}
	s.hub.unsubscribe(u, slices.Values(removed))
}

// dropWildcard unsubscribes from everything but what is named.
func (s *stream) dropWildcard(u *subscription) {
	if !u.wildcard {
		return
	}
	u.wildcard, u.all, u.mustAll, u.initial = false, false, false, nil
	s.hub.unsubscribeAll(u)
	for t := range u.refusals {
		if _, named := u.names[t]; !named {
			u.forgive(t)
		}
	}
	for t := range u.pending {
		if _, named := u.names[t]; !named {
			delete(u.pending, t)
		}
	}
}

// composeDelta returns a response with what is new or changed and the removals
// that a name was asked for, or if breaks is true with the other removals.
func (u *subscription) composeDelta(h *hub, breaks bool) *response {
	everything := u.mustAll
	if everything {
		all, known := h.everything(u.typ, u.view)
		if !known {
			return nil
		}
		if everything = !u.withholdsList(h, all); everything {
			u.mustAll = false
			u.reconcile(h, all)
		}
	}
	r := &response{delta: true}
	var later []*topic
	for t, p := range u.due() {
		switch {
		case p.news():
			u.sends(t, p.resource.Version)
			r.resources = append(r.resources, p.resource)
		case p.resource != nil:
			// The client has it, or does not want it.
			if !p.refused {
				u.keeps(p.resource)
			}
		case p.must || breaks:
			u.sends(t, 0)
			r.removed = append(r.removed, t.name)
		case p.held != nothing || !p.named:
			later = append(later, t)
		}
	}
	for _, t := range later {
		u.want(t, false)
	}
	if everything {
		r.removed = append(r.removed, u.gone()...)
	}
	if len(r.resources)+len(r.removed) == 0 && !everything {
		return nil
	}
	slices.SortFunc(r.resources, func(a, b *resources.Resource) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(r.removed)
	if u.typ == resources.Clusters {
		u.stream.resendAssignments(r.resources)
	}
	return r
}

// reconcile makes everything be sent but what the client says that it has.
func (u *subscription) reconcile(h *hub, all *set) {
	for _, r := range all.list {
		version, has := u.initial[r.Name]
		delete(u.initial, r.Name)
		t := h.topics[u.typ][r.Name]
		if had, named := u.names[t]; named && u.nonce == "" {
			has, version = had != nothing, had
		}
		if !has || version != held(r.Version) {
			u.want(t, true)
		} else {
			u.keeps(r)
		}
	}
}

// gone are the names that the client says it has and there are not. It has been
// told of them when this returns.
func (u *subscription) gone() (names []string) {
	for name := range u.initial {
		names = append(names, name)
	}
	u.initial = nil
	return names
}
