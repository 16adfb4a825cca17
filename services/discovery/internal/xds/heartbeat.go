package xds

import (
	"cmp"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// beatsPerTTL is how often a client hears of a resource within the resource's
// time to live, so that it may miss one or two.
const beatsPerTTL = 3

// notes takes in that resources were sent: those with a time to live have to be
// kept alive from now on.
func (u *subscription) notes(list []*resources.Resource, now time.Time) {
	for _, r := range list {
		if r.TTL == 0 {
			continue
		}
		if u.ttl == 0 && u.beatAt.IsZero() {
			u.beatAt = now
		}
		if u.ttl == 0 || r.TTL < u.ttl {
			u.ttl = r.TTL
		}
	}
}

// keeps takes in that the client has a resource that this stream has not sent it.
// Its time runs since an earlier stream last told of it, nobody here knows when:
// so it is kept alive at once.
func (u *subscription) keeps(r *resources.Resource) {
	if r.TTL > 0 && (u.ttl == 0 || r.TTL < u.ttl) && !u.stream.poll && u.stream.takesTTL() {
		u.ttl, u.beatAt = r.TTL, time.Time{}
	}
}

// takesTTL reports whether the client can take resources with a time to live,
// which come wrapped.
func (s *stream) takesTTL() bool { return s.node.features.ttl && (s.delta || s.node.features.wrapped) }

// beats reports whether resources have to be kept alive now.
func (u *subscription) beats(now time.Time) bool {
	return u.ttl > 0 && !u.inFlight && now.Sub(u.beatAt) >= u.ttl/beatsPerTTL
}

// heartbeat returns a response that keeps the resources alive that have a time
// to live and that the client has as they are now, or nil if it is not time. The
// hub's lock must be held for reading.
func (u *subscription) heartbeat(h *hub, now time.Time) *response {
	if !u.beats(now) {
		return nil
	}
	list := u.mortal(h)
	u.ttl, u.beatAt = 0, now
	u.notes(list, now)
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *resources.Resource) int { return cmp.Compare(a.Name, b.Name) })
	return &response{heartbeat: true, version: u.accepted, resources: list}
}

// mortal are the resources with a time to live that the client has as they are
// now.
func (u *subscription) mortal(h *hub) (list []*resources.Resource) {
	if u.whole() {
		for _, r := range u.lastEntire().list {
			if r.TTL > 0 {
				list = append(list, r)
			}
		}
		return list
	}
	for t, had := range u.names {
		e := u.edition(t)
		if e != nil && e.resource != nil && e.resource.TTL > 0 && had == held(e.resource.Version) && u.stream.mayHave(t) {
			list = append(list, e.resource)
		}
	}
	if !u.wildcard {
		return list
	}
	all, _ := h.everything(u.typ, u.view)
	if all == nil {
		return list
	}
	for _, r := range all.list {
		// One that is named was looked at, and one in pending or refused the
		// client has otherwise.
		t := h.topics[u.typ][r.Name]
		_, named := u.names[t]
		_, refused := u.refusals[t]
		if _, pending := u.pending[t]; r.TTL > 0 && !named && !refused && !pending {
			list = append(list, r)
		}
	}
	return list
}

// lastEntire is what the client has of a type that is sent whole.
func (u *subscription) lastEntire() *set {
	if u.entire == nil {
		return noSet
	}
	return u.entire
}
