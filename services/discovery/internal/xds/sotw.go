package xds

import (
	"cmp"
	"hash/maphash"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// requestSotW takes in a request of the state of the world, which lists all
// names. The steps: whether it is the answer to the last response, what names
// are new and what gone, what has to be sent for that.
func (s *stream) requestSotW(u *subscription, r *request, first bool, now time.Time) error {
	if first {
		u.earlier = r.version
		u.holdsEarlier = r.version != "" && !s.hub.given.has(parseVersion(r.version))
	}
	isAnswer := u.inFlight && r.nonce == u.nonce
	forgotten := !u.inFlight && u.nonce != "" && r.nonce == ""
	switch {
	case isAnswer:
		s.answered(u, r, now)
	case u.nonce != "" && r.nonce != u.nonce && !forgotten:
		// It was written before the last response was read; the answer to
		// that one will list the names again.
		s.hub.metrics.stale.Inc()
		return nil
	}

	changed, err := s.relist(u, r)
	if err != nil {
		return err
	}
	if first || forgotten || !isAnswer && !changed {
		// Asked, or asked again for the same: the client wants all of it.
		s.demand(u)
	}
	if !first {
		u.earlier = ""
	}
	return nil
}

// demand makes everything that is subscribed to be sent, even if the client has
// had it. Nothing is sent to a client that wants nothing.
func (s *stream) demand(u *subscription) {
	if !u.whole() {
		u.wantAll()
		return
	}
	if u.wildcard || len(u.names) > 0 {
		u.mustAll = true
	}
}

// relist makes the names of a request what is subscribed to. It reports whether
// that changed anything.
func (s *stream) relist(u *subscription, r *request) (changed bool, err error) {
	hash := s.hashNames(r)
	if hash == u.listed {
		return false, nil
	}
	if err := s.mayName(u, r.names); err != nil {
		return false, err
	}
	u.listed = hash
	wildcard := false
	names := func(yield func([]byte) bool) {
		for name := range r.allNames() {
			if u.typ.Whole() && string(name) == everyName {
				wildcard = true
				continue
			}
			if !yield(name) {
				return
			}
		}
	}
	topics := s.hub.subscribe(u, names)
	if u.typ.Whole() {
		u.everNamed = u.everNamed || r.names > 0
		wildcard = wildcard || !u.everNamed
	}
	added := u.name(topics)
	removed := s.unlisted(u, topics)

	begins, ends := wildcard && !u.wildcard, u.wildcard && !wildcard
	u.wildcard = wildcard
	switch {
	case begins:
		s.hub.subscribeAll(u)
	case ends:
		s.hub.unsubscribeAll(u)
	}
	switch {
	case u.whole():
		u.mustAll = u.mustAll || len(added) > 0 || begins
		if !u.wildcard && len(u.names) == 0 {
			u.all, u.mustAll = false, false
		}
	default:
		for _, t := range added {
			u.want(t, true)
		}
	}
	return len(added)+len(removed) > 0 || begins || ends, nil
}

// unlisted drops the names that are not among topics, and returns them.
func (s *stream) unlisted(u *subscription, topics []*topic) (removed []*topic) {
	wanted := make(map[*topic]struct{}, len(topics))
	for _, t := range topics {
		wanted[t] = struct{}{}
	}
	for t := range u.names {
		if _, ok := wanted[t]; !ok {
			removed = append(removed, t)
		}
	}
	for _, t := range removed {
		u.drop(t)
	}
	s.hub.unsubscribe(u, slices.Values(removed))
	return removed
}

// hashNames is a hash of the names of a request in their order; never 0.
func (s *stream) hashNames(r *request) uint64 {
	var hash maphash.Hash
	hash.SetSeed(s.hub.seed)
	for name := range r.allNames() {
		_, _ = hash.Write(name)  // which never fails
		_ = hash.WriteByte(0xff) // which no name holds
	}
	return max(1, hash.Sum64())
}

// composeWhole returns a response with all that is subscribed to. What is only
// removed waits for breaks. If something else is new too and later types have
// news for the client, what is removed stays in this response and goes with the
// next, since they may tell the client what to do without it.
func (u *subscription) composeWhole(h *hub, breaks bool) *response {
	current, known := u.current(h)
	if !known || u.withholdsList(h, current) {
		return nil
	}
	had := u.entire
	if had == nil {
		had = noSet
	}
	d := current.since(had)
	must := u.mustAll || u.entire == nil
	if u.skips(current) {
		u.entire, u.version, u.accepted = current, current.version, current.version
		u.all, u.mustAll = false, false
		for _, r := range current.list {
			u.keeps(r)
		}
		return nil
	}
	removes := len(d.removed) > 0
	switch {
	case u.refuses(current) || !must && !removes && len(d.changed) == 0:
		u.all, u.mustAll = false, false
		return nil
	case removes && !breaks && !must && len(d.changed) == 0:
		return nil
	case removes && !breaks && u.stream.laterNews(u.typ):
		if union := current.with(d.removed); !u.refuses(union) {
			u.all, u.mustAll = true, false
			return u.sendSet(union, d)
		}
	}
	u.all, u.mustAll = false, false
	return u.sendSet(current, d)
}

// sendSet notes that the client is sent a whole response, and returns it.
func (u *subscription) sendSet(s *set, d *difference) *response {
	u.refused = nil
	u.entire, u.version = s, s.version
	if u.typ == resources.Clusters {
		u.stream.resendAssignments(d.changed)
	}
	return &response{version: s.version, resources: s.list, whole: s}
}

// skips reports whether the first response may be left out, for the client has
// it from an earlier stream. It is asked once.
func (u *subscription) skips(current *set) bool {
	earlier := u.earlier
	u.earlier = ""
	return u.nonce == "" && earlier != "" && earlier == versionText(current.version)
}

// current is all that is subscribed to and there is; known is false while some
// of it has yet to be made.
func (u *subscription) current(h *hub) (current *set, known bool) {
	if u.wildcard {
		all, known := h.everything(u.typ, u.view)
		if !known || len(u.names) == 0 {
			return all, known
		}
		more, known := u.offShelf(all)
		if !known || len(more) == 0 {
			return all, known
		}
		return all.with(more), true
	}
	list := make([]*resources.Resource, 0, len(u.names))
	for t := range u.names {
		e := u.edition(t)
		if e == nil || !e.made {
			return nil, false
		}
		if e.resource != nil {
			list = append(list, e.resource)
		}
	}
	return newSet(list), true
}

// offShelf are the resources that are subscribed to by name and are not among
// everything.
func (u *subscription) offShelf(all *set) (list []*resources.Resource, known bool) {
	for t := range u.names {
		e := u.edition(t)
		if e == nil || !e.made {
			return nil, false
		}
		if e.resource == nil {
			continue
		}
		if _, there := slices.BinarySearchFunc(all.list, t.name, func(r *resources.Resource, name string) int {
			return cmp.Compare(r.Name, name)
		}); !there {
			list = append(list, e.resource)
		}
	}
	return list, true
}

// composeParts returns a response with what is new or changed. What there is no
// resource of cannot be told, and is sent when there is one.
func (u *subscription) composeParts() *response {
	if u.skipsParts() {
		return nil
	}
	var list []*resources.Resource
	for t, p := range u.due() {
		switch {
		case p.news():
			u.sends(t, p.resource.Version)
			list = append(list, p.resource)
		case p.resource == nil && p.held.version() != 0:
			// The client has it until its time to live is over, if it has one.
			u.version ^= p.held.version()
			u.names[t] = something
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *resources.Resource) int { return cmp.Compare(a.Name, b.Name) })
	return &response{version: u.version, resources: list}
}

// skipsParts is skips for a type that comes in parts: it reports whether the
// client has exactly the resources of all names that it asked for.
func (u *subscription) skipsParts() bool {
	if u.nonce != "" || u.earlier == "" {
		return false
	}
	version := uint64(0)
	for t := range u.names {
		e := u.edition(t)
		if e == nil || !e.made || !u.stream.mayHave(t) {
			return false
		}
		if e.resource != nil {
			version ^= e.resource.Version
		}
	}
	if earlier := u.earlier; version == 0 || earlier != versionText(version) {
		u.earlier = ""
		return false
	}
	u.earlier = ""
	for t := range u.names {
		if r := u.edition(t).resource; r != nil {
			u.names[t] = held(r.Version)
			u.keeps(r)
		}
	}
	u.version, u.accepted = version, version
	clear(u.pending)
	return true
}
