package xds

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

// subscription is what one stream wants of one kind and what it has of it. It
// follows the state-of-the-world protocol: each request lists all names, each
// response is answered once, and none is sent while another is unanswered.
type subscription struct {
	// begun says that a request came.
	begun bool
	// everNamed says that a name was ever asked for: until then no names mean
	// everything, and from then on they mean nothing.
	everNamed bool
	wildcard  bool
	names     map[string]struct{}
	// holdsEarlier says that the client held resources of an earlier stream
	// when it came.
	holdsEarlier bool

	// nonce is that of the last response; empty before the first.
	nonce    string
	inFlight bool
	// pending is what may have to be sent; true for what must be sent even if
	// the client has it, as after a new subscription. For a kind whose
	// responses are whole, everyName stands for the response.
	pending map[string]bool

	// version is that of all that the client has.
	version uint64
	// sent is what the client has, by name, in a kind sent in parts; entire is
	// the last response in a kind sent whole.
	sent   map[string]*resource
	entire *set

	// lastSent is what the last response held, in a kind sent in parts.
	lastSent []*resource
	// refused are the versions that the client refused, by name, or under
	// everyName that of a whole response. They are not sent again.
	refused map[string]uint64

	// For the operator's view.
	acks, nacks uint64
	lastNACK    string
}

// everyName is the wildcard.
const everyName = "*"

// begin prepares a subscription for its first request.
func (u *subscription) begin(holdsEarlier bool) {
	u.begun = true
	u.holdsEarlier = holdsEarlier
	u.names = map[string]struct{}{}
	u.pending = map[string]bool{}
	u.sent = map[string]*resource{}
	u.refused = map[string]uint64{}
}

// answered takes an ACK, or with a reason a NACK, of the last response.
func (u *subscription) answered(k kind, reason string) {
	u.inFlight = false
	if reason == "" {
		u.acks++
		u.lastSent = nil
		return
	}
	u.nacks++
	u.lastNACK = reason
	if k.whole() {
		u.refused[everyName] = u.entire.version
		// The client has none of it, so all of it is new to it next time.
		u.entire = nil
		return
	}
	for _, r := range u.lastSent {
		if u.sent[r.name] == r {
			u.refused[r.name] = r.version
			u.forget(r.name)
		}
	}
	u.lastSent = nil
}

// forget notes that the client no longer has a resource.
func (u *subscription) forget(name string) {
	if r := u.sent[name]; r != nil {
		u.version ^= r.version
		delete(u.sent, name)
	}
}

// want makes names, as a request lists them, what is subscribed to. It returns
// what is new and what is no longer wanted, and whether the wildcard began or
// ended to be.
func (u *subscription) want(k kind, names []string) (added, removed []string, wildcardChanged bool) {
	wanted := make(map[string]struct{}, len(names))
	for _, name := range names {
		wanted[name] = struct{}{}
	}
	wildcard := false
	if k.whole() {
		_, wildcard = wanted[everyName]
		delete(wanted, everyName)
		u.everNamed = u.everNamed || len(names) > 0
		wildcard = wildcard || !u.everNamed
	}
	for name := range wanted {
		if _, held := u.names[name]; !held {
			added = append(added, name)
		}
	}
	for name := range u.names {
		if _, kept := wanted[name]; !kept {
			removed = append(removed, name)
		}
	}
	wildcardChanged = wildcard != u.wildcard
	u.names, u.wildcard = wanted, wildcard
	return added, removed, wildcardChanged
}

// demand makes names, or the whole response, be sent even if the client has
// had them. Nothing is sent to a client that wants nothing.
func (u *subscription) demand(k kind, names iter.Seq[string]) {
	if k.whole() {
		if u.wildcard || len(u.names) > 0 {
			u.pending[everyName] = true
		}
		return
	}
	for name := range names {
		u.pending[name] = true
	}
}

// drop notes that the client is not interested in names any more, and so has
// neither them nor a quarrel with them.
func (u *subscription) drop(names []string) {
	for _, name := range names {
		u.forget(name)
		delete(u.pending, name)
		delete(u.refused, name)
	}
}

// changed notes that a name changed, if the subscription is for it.
func (u *subscription) changed(k kind, name string) {
	if !u.begun {
		return
	}
	if _, named := u.names[name]; !named && !u.wildcard {
		return
	}
	if k.whole() {
		name = everyName
	}
	if _, ok := u.pending[name]; !ok {
		u.pending[name] = false
	}
}

// compose returns the next response's resources, and false if none is to be
// sent. What it returns counts as sent.
func (u *subscription) compose(h *hub, k kind) ([]*resource, bool) {
	if !u.begun || u.inFlight || len(u.pending) == 0 || !h.ready(u.holdsEarlier) {
		return nil, false
	}
	if k.whole() {
		return u.composeWhole(h, k)
	}
	return u.composeParts(h, k)
}

func (u *subscription) composeWhole(h *hub, k kind) ([]*resource, bool) {
	must := u.pending[everyName]
	clear(u.pending)
	var current *set
	if u.wildcard {
		current = h.everything(k)
	} else {
		var list []*resource
		h.lookup(k, maps.Keys(u.names), func(r *resource) { list = append(list, r) })
		current = newSet(list)
	}
	if version, refused := u.refused[everyName]; refused && version == current.version {
		return nil, false
	}
	if !must && u.entire != nil && u.entire.version == current.version {
		return nil, false
	}
	delete(u.refused, everyName)
	u.entire, u.version = current, current.version
	return current.list, true
}

func (u *subscription) composeParts(h *hub, k kind) ([]*resource, bool) {
	var list []*resource
	h.lookup(k, maps.Keys(u.pending), func(r *resource) {
		if version, refused := u.refused[r.name]; refused && version == r.version {
			return
		}
		if held := u.sent[r.name]; u.pending[r.name] || held == nil || held.version != r.version {
			list = append(list, r)
		}
	})
	clear(u.pending)
	if len(list) == 0 {
		return nil, false
	}
	for _, r := range list {
		u.forget(r.name)
		u.sent[r.name] = r
		u.version ^= r.version
		delete(u.refused, r.name)
	}
	slices.SortFunc(list, func(a, b *resource) int { return cmp.Compare(a.name, b.name) })
	u.lastSent = list
	return list, true
}
