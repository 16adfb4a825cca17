package xds

import (
	"iter"
	"maps"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// subscription is what one stream wants of one type and what it has of it. Each
// response is answered once, and none is sent while another is unanswered; what
// changes meanwhile folds. How requests are read and responses put together
// differs by variant: see sotw.go and delta.go.
type subscription struct {
	stream *stream
	typ    resources.Type
	view   resources.View // guarded by the hub's lock

	// everNamed says that a name was ever asked for: in the state of the world
	// no names mean everything until then, and nothing from then on.
	everNamed bool
	wildcard  bool
	// names are those that are subscribed to, with what the client has of each.
	names map[*topic]held
	// listed is a hash of the names of the last request of the state of the
	// world, which most requests repeat; 0 before the first.
	listed uint64
	// holdsEarlier says that the client held resources when it came that it was
	// not sent since the start; earlier is the version of all that it held in the
	// state of the world, initial their versions by name in delta, until they were
	// compared.
	holdsEarlier bool
	earlier      string
	initial      map[string]held

	// nonce is that of the last response; empty before the first.
	nonce    string
	inFlight bool
	sentAt   time.Time // when the last response went
	// ttl is the least time to live of what the client has, 0 if none has one;
	// beatAt is when all of them were last kept alive, zero where that is not known.
	ttl    time.Duration
	beatAt time.Time
	slow   bool // it has been unanswered for so long that it was counted

	// pending is what may have to be sent; true for what must be sent even if
	// the client has it, as after a new subscription.
	pending map[*topic]bool
	// all says that everything may have to be sent, of a type whose responses
	// are whole or to who asked for everything; mustAll, that it must.
	all, mustAll bool

	// version is that of all that the client has, in the state of the world.
	version uint64
	// offered is the version of the last response, accepted that of the last one
	// that the client took, in the state of the world. By that it tells heartbeats.
	offered, accepted uint64
	// entire is the last response of a type sent whole; refused the one that the
	// client refused last, which is not sent again; nil for none.
	entire, refused *set
	// refusals are what the client refused of a type sent in parts, again the
	// parts of what it refused that are to be sent again. Both are nil as a rule.
	refusals map[*topic]refusal
	again    [][]*topic
	// lastSent is what the last response held, of a type sent in parts.
	lastSent []sent

	// For the operators' view.
	acks, nacks uint64
	lastNACK    *NACKStatus // nil before the first
}

// held is the version of what a client has under a name: nothing, or something of
// a version that is not known, or that of a resource, which is neither.
type held uint64

const (
	nothing   held = 0
	something held = 1
)

// version is that of what was sent and taken; 0 if that is not known.
func (h held) version() uint64 {
	if h == something {
		return 0
	}
	return uint64(h)
}

// sent is what a response held under a name; a version of 0 for a removal.
type sent struct {
	topic   *topic
	version uint64
}

// everyName is the wildcard.
const everyName = "*"

// maxReason bounds the reason that is kept of a refusal, in bytes.
const maxReason = 2048

// maxShown is how many names are kept of a refused response.
const maxShown = 10

func newSubscription(s *stream, t resources.Type) *subscription {
	return &subscription{stream: s, typ: t, names: map[*topic]held{}}
}

// refuses reports whether the client has refused a whole response.
func (u *subscription) refuses(s *set) bool {
	return u.refused != nil && u.refused.version == s.version
}

// idle reports whether there is surely nothing to send.
func (u *subscription) idle() bool {
	return len(u.pending) == 0 && !u.all && !u.mustAll && len(u.again) == 0
}

// want makes a topic be looked at for the next response; must sends it even if
// the client has it.
func (u *subscription) want(t *topic, must bool) {
	if u.pending == nil {
		u.pending = map[*topic]bool{}
	}
	u.pending[t] = u.pending[t] || must
}

// wantAll makes all that is named be sent, whether the client has it or not.
func (u *subscription) wantAll() {
	for t := range u.names {
		u.want(t, true)
	}
}

// changed notes that a topic changed, if the subscription is for it.
func (u *subscription) changed(t *topic) {
	if _, named := u.names[t]; !named && !u.wildcard {
		return
	}
	if u.whole() {
		u.all = true
		return
	}
	u.want(t, false)
}

// whole says that every response holds all that the client subscribed to.
func (u *subscription) whole() bool { return u.typ.Whole() && !u.stream.delta }

// name notes that topics are subscribed to by name, and returns those that were
// not before.
func (u *subscription) name(topics []*topic) (added []*topic) {
	for _, t := range topics {
		if _, named := u.names[t]; !named {
			u.names[t] = nothing
			added = append(added, t)
		}
	}
	return added
}

// drop notes that the client is not interested in a topic any more, and so has
// neither it nor a quarrel with it.
func (u *subscription) drop(t *topic) {
	u.version ^= u.names[t].version()
	delete(u.names, t)
	delete(u.pending, t)
	u.forgive(t)
}

// sends notes that the client is sent a resource, or by a version of 0 that it is
// told that there is none.
func (u *subscription) sends(t *topic, version uint64) {
	u.lastSent = append(u.lastSent, sent{t, version})
	had, named := u.names[t]
	if !named {
		return // what everybody is sent is not kept of each stream
	}
	u.version ^= had.version() ^ version
	u.names[t] = held(version)
}

// answered takes in an ACK, or the reason of a NACK, of the last response.
func (u *subscription) answered(r *request, now time.Time) {
	u.inFlight, u.slow = false, false
	if !r.refused {
		u.acks++
		u.accepted = u.offered
		u.lastSent = nil
		return
	}
	u.nacks++
	u.lastNACK = &NACKStatus{At: now.UTC(), Nonce: u.nonce, Reason: reasonOf(r)}
	if u.whole() {
		u.refused = u.entire
		// The client has none of it, so all of it is new to it next time.
		u.entire = nil
		return
	}
	number := u.nacks
	if len(u.lastSent) == 1 {
		number = 0
	}
	for _, s := range u.lastSent {
		if len(u.lastNACK.Names) < maxShown {
			u.lastNACK.Names = append(u.lastNACK.Names, s.topic.name)
		}
		if s.version == 0 {
			continue // a removal cannot be refused
		}
		had, named := u.names[s.topic]
		switch {
		case named && had.version() != s.version, !named && !u.wildcard:
			continue // it is not wanted any more
		case named:
			// What the client has of it now is not known.
			u.version ^= s.version
			u.names[s.topic] = something
		}
		u.refuse(s.topic, refusal{version: s.version, nack: number})
	}
	u.lastSent = nil
}

// compose returns the next response's contents, or nil if none is to be sent
// now: what is new or changed, or if breaks is true what is removed. The hub's
// lock must be held for reading. What it returns counts as sent.
func (u *subscription) compose(h *hub, breaks bool) *response {
	if u.inFlight || u.idle() || !h.ready(u.holdsEarlier) {
		return nil
	}
	u.retry()
	if !u.made() {
		return nil
	}
	var r *response
	switch {
	case u.stream.delta:
		r = u.composeDelta(h, breaks)
	case u.whole():
		r = u.composeWhole(h, breaks)
	case !breaks:
		r = u.composeParts()
	}
	if u.idle() {
		u.pending = nil // which may have been large
	}
	return r
}

// made reports whether all is made that may have to be sent. It soon will be, and
// goes in one response then.
func (u *subscription) made() bool {
	for t := range u.pending {
		if e := u.edition(t); e != nil && !e.made {
			return false
		}
	}
	return true
}

// wholeMade reports whether all is made that the subscription is for. The hub's
// lock must be held for reading.
func (u *subscription) wholeMade(h *hub) bool {
	if u.wildcard {
		if _, known := h.everything(u.typ, u.view); !known {
			return false
		}
	}
	for t := range u.names {
		if e := u.edition(t); e == nil || !e.made {
			return false
		}
	}
	return true
}

// maxResponse is about how many bytes of resources a response holds at most, in
// what can come in parts: those of gRPC take no message of above 4 MiB.
const maxResponse = 2 << 20

// due gives the topics of pending that are known, with what they are now to this
// client, nil for nothing, until the response is full. What it gives is not
// pending any more unless the caller puts it back.
func (u *subscription) due() iter.Seq2[*topic, pendingResource] {
	return func(yield func(*topic, pendingResource) bool) {
		size := 0
		for t, must := range u.pending {
			e := u.edition(t)
			p := pendingResource{must: must}
			p.held, p.named = u.names[t]
			switch {
			case !p.named && !t.listed && u.superseded(t):
				delete(u.pending, t)
				u.forgive(t)
				continue
			case !p.named && !t.listed || !u.stream.mayHave(t):
				// It is off the shelf, or not there for this client.
			case e == nil:
				continue // the hub is about to say that it is off the shelf
			case e.isWithheld():
				continue
			default:
				p.resource = e.resource
			}
			if p.resource != nil {
				if size += len(p.resource.Encoded()); size > maxResponse && size > len(p.resource.Encoded()) {
					return
				}
			}
			delete(u.pending, t)
			r, refused := u.refusals[t]
			if p.refused = refused && p.resource != nil && p.resource.Version == r.version; !p.refused {
				u.forgive(t)
			}
			if !yield(t, p) {
				return
			}
		}
	}
}

// superseded reports whether a topic was forgotten and there is another of its
// name by now, which tells the client all that there is to tell of that name.
func (u *subscription) superseded(t *topic) bool {
	now := u.stream.hub.topics[u.typ][t.name]
	if now == nil || now == t {
		return false
	}
	_, named := u.names[now]
	return named || now.listed
}

// pendingResource is something that may have to be sent.
type pendingResource struct {
	named    bool
	held     held
	refused  bool // as it is
	must     bool
	resource *resources.Resource // nil: there is none
}

// news reports whether there is a resource that is to be sent: one that must be,
// or that the client does not have, and that it has not refused.
func (p *pendingResource) news() bool {
	if p.resource == nil || p.refused {
		return false
	}
	return p.must || p.held != held(p.resource.Version)
}

// topics are those that are subscribed to by name.
func (u *subscription) topics() iter.Seq[*topic] { return maps.Keys(u.names) }
