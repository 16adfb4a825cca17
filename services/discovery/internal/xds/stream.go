package xds

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// allTypes stands for the types of an aggregated stream.
const allTypes resources.Type = -1

// stream is the protocol's state of one stream: what came in decides what next
// returns. It sends and receives nothing itself.
type stream struct {
	hub    *hub
	only   resources.Type // allTypes on an aggregated stream
	delta  bool
	poll   bool // it is a call of REST-JSON, which lasts for one response
	limits *Limits
	ctx    context.Context // of who opened it
	number uint64
	peer   string
	// identity is who that is, for operators; empty for who did not say.
	identity string
	since    time.Time
	// until is when the stream is too old; zero for never.
	until time.Time
	log   *slog.Logger
	// wake makes the stream be looked at for something to send. It is called by
	// whoever knows of something, with the stream's lock held or without, and never
	// with the hub's: it must not wait.
	wake  func()
	ended chan error // has a value when the stream is to end
	// interrupt has whoever receives or sends hear of that. It does not wait for
	// them; nil where nobody does.
	interrupt func()

	marks marks

	// mu guards all below. It is never held while anything is sent, and comes
	// before the hub's.
	mu     sync.Mutex
	begun  bool
	closed bool
	// toldUnserved says that it is logged that the client asks for a type that
	// there is not.
	toldUnserved bool
	node         node // who the client is, from the first request
	nonces       uint64
	// counted is how many names are counted to the node, where those are limited.
	counted int
	// changedAt is when the first of the changes was that the client has yet to
	// hear of; zero if there are none.
	changedAt     time.Time
	lastPush      time.Time
	subscriptions [resources.Types]*subscription // nil before the first request
}

// marks are the changed topics that the stream has not looked at: commonly one,
// which needs no map.
type marks struct {
	mu    sync.Mutex
	first *topic
	more  map[*topic]struct{}
	since time.Time // of the first of them
}

// mark tells the stream that a topic changed. It returns whether the stream has
// to be woken for that: whether it has looked since the last mark.
func (s *stream) mark(t *topic, since time.Time) (asleep bool) {
	m := &s.marks
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.first == nil:
		m.first, asleep = t, true
	case m.first == t:
	case m.more == nil:
		m.more = map[*topic]struct{}{t: {}}
	default:
		m.more[t] = struct{}{}
	}
	if !since.IsZero() && (m.since.IsZero() || since.Before(m.since)) {
		m.since = since
	}
	return asleep
}

// count is how many topics are marked.
func (m *marks) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == nil {
		return 0
	}
	n := len(m.more)
	if _, twice := m.more[m.first]; !twice {
		n++
	}
	return n
}

// take returns the marks, and forgets them.
func (m *marks) take() (first *topic, more map[*topic]struct{}, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, more, since = m.first, m.more, m.since
	m.first, m.more, m.since = nil, nil, time.Time{}
	return first, more, since
}

// end makes the stream end with an error, or nil. Only the first end counts.
func (s *stream) end(err error) {
	select {
	case s.ended <- err:
	default:
		return
	}
	if s.interrupt != nil {
		s.interrupt()
	}
}

// asker is who the client is. It does not change once something is subscribed to.
func (s *stream) asker() resources.Asker { return s.node.asker() }

// mayHave reports whether the client may have the resource of a topic.
func (s *stream) mayHave(t *topic) bool {
	return t.typ != resources.Secrets || s.limits.MayHaveSecret == nil || s.limits.MayHaveSecret(s.ctx, s.asker(), t.name)
}

// request takes in what the client sent. The error is a gRPC status that ends
// the stream.
func (s *stream) request(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return status.Error(codes.Canceled, "the stream has ended")
	}
	if err := s.begin(r); err != nil {
		return err
	}
	t, served := r.typ, r.served
	if s.only != allTypes && r.typeURL == "" && !served {
		t, served = s.only, true
	}
	if !served || s.only != allTypes && t != s.only {
		return s.unserved(r)
	}
	u := s.subscriptions[t]
	first := u == nil
	if first {
		u = newSubscription(s, t)
		s.subscriptions[t] = u
	}
	now := time.Now()
	take := s.requestSotW
	if s.delta {
		take = s.requestDelta
	}
	if err := take(u, r, first, now); err != nil {
		return err
	}
	if s.hasWork() {
		s.wake()
	}
	return nil
}

// begin takes in who the client is, from its first request.
func (s *stream) begin(r *request) error {
	if s.begun {
		return nil
	}
	n, err := readNode(r.node)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if s.limits.MayBe != nil {
		if err := s.limits.MayBe(s.ctx, n.asker()); err != nil {
			s.hub.metrics.refused.Inc()
			return err
		}
	}
	if err := s.hub.admitNode(n.id, s.limits.StreamsPerNode); err != nil {
		return err
	}
	s.begun, s.node = true, n
	return nil
}

// unserved is the answer to a request for a type that this stream does not have.
// The other types of an aggregated stream must not suffer for it; operators are
// told of the first one. s.mu must be held.
func (s *stream) unserved(r *request) error {
	url := r.typeURL
	if r.served {
		url = r.typ.URL()
	}
	if url == "" || s.only != allTypes {
		return status.Errorf(codes.InvalidArgument, "type_url %q: not one of this stream's", shortURL(url))
	}
	s.hub.metrics.unserved.Inc()
	if !s.toldUnserved {
		s.toldUnserved = true
		s.log.Warn("client asks for a type that is not served; that is not answered", "stream", s.number, "node", s.node.id, "type", shortURL(url))
	}
	return nil
}

// shortURL is what of a type's URL is repeated.
func shortURL(url string) string {
	const most = 200
	return strings.ToValidUTF8(url[:min(len(url), most)], "\ufffd")
}

// mayName returns an error if the stream, or its node, would have too many names
// with n of a subscription.
func (s *stream) mayName(u *subscription, n int) error {
	for _, other := range s.subscriptions {
		if other != nil && other != u {
			n += len(other.names)
		}
	}
	if n > s.limits.Names {
		s.hub.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d names on one stream: %d are the most", n, s.limits.Names)
	}
	if s.limits.NamesPerNode > 0 {
		return s.hub.admitNames(s, n)
	}
	return nil
}

// answered takes in an ACK or a NACK. s.mu must be held.
func (s *stream) answered(u *subscription, r *request, now time.Time) {
	s.hub.metrics.ackLag.Observe(now.Sub(u.sentAt).Seconds())
	u.answered(r, now)
	if !r.refused {
		s.hub.metrics.acks[u.typ].Inc()
		return
	}
	s.hub.metrics.nacks[u.typ].Inc()
	s.log.Warn("client refused a response", "stream", s.number, "node", s.node.id, "type", u.typ.String(), "nonce", u.nonce, "reason", u.lastNACK.Reason)
}

// reasonOf is why a client refused a response.
func reasonOf(r *request) string {
	if r.reason == "" {
		return "no reason given"
	}
	return strings.ToValidUTF8(r.reason[:min(len(r.reason), maxReason)], "\ufffd")
}

// hasWork reports whether something may be to be sent that does not wait for an
// answer. s.mu must be held.
func (s *stream) hasWork() bool {
	for _, u := range s.subscriptions {
		if u != nil && !u.inFlight && !u.idle() {
			return true
		}
	}
	return false
}

// maySend reports whether next may well return a response: whether the hub is
// ready for something that is to be sent, and has made it.
func (s *stream) maySend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.takeMarks()
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	for _, u := range s.subscriptions {
		if u != nil && !u.inFlight && !u.idle() && s.hub.ready(u.holdsEarlier) && u.allMade(s.hub) && !u.withholdsAll(s.hub) {
			return true
		}
	}
	return false
}

// allMade reports whether all is made that the next response may hold. The hub's
// lock must be held for reading.
func (u *subscription) allMade(h *hub) bool {
	return u.made() && (!u.all && !u.mustAll || u.wholeMade(h))
}

// next returns the next response to send, or nil if there is none now.
func (s *stream) next(now time.Time) *response {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.takeMarks()
	r := s.compose(now)
	if r != nil {
		r.since = s.changedAt
		s.lastPush = now
	}
	if s.allIdle() {
		s.changedAt = time.Time{}
	}
	return r
}

// compose puts the next response together: first of all types what is new or
// changed, in their order; when all of that is sent, what is removed; then what
// keeps resources with a time to live alive.
func (s *stream) compose(now time.Time) *response {
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	for _, breaks := range [...]bool{false, true} {
		for _, u := range s.subscriptions {
			if u == nil || breaks && s.waits(u.typ) {
				continue
			}
			if r := u.compose(s.hub, breaks); r != nil {
				s.send(u, r, now)
				return r
			}
		}
	}
	for _, u := range s.subscriptions {
		if u == nil {
			continue
		}
		if r := u.heartbeat(s.hub, now); r != nil {
			s.send(u, r, now)
			return r
		}
	}
	return nil
}

// send notes that a response is on its way, and completes it. The hub's lock must
// be held for reading.
func (s *stream) send(u *subscription, r *response, now time.Time) {
	s.nonces++
	u.nonce = strconv.FormatUint(s.nonces, 10)
	u.inFlight, u.sentAt, u.offered = true, now, r.version
	r.delta, r.typ, r.nonce = s.delta, u.typ, u.nonce
	if r.ttl = s.takesTTL(); r.ttl {
		u.notes(r.resources, now)
	}
	s.hub.metrics.responses[u.typ].Inc()
	if !s.hub.warm {
		s.hub.given.add(r)
	}
}

// waits reports whether a type's removals have to wait: for what is new of later
// types, which the client may need to do without what is removed.
func (s *stream) waits(t resources.Type) bool {
	for later := t + 1; later <= resources.Routes; later++ {
		if u := s.subscriptions[later]; u != nil && u.inFlight && !u.idle() {
			return true
		}
	}
	return false
}

// laterNews reports whether something may be to be sent of types after t.
func (s *stream) laterNews(t resources.Type) bool {
	for later := t + 1; later <= resources.Routes; later++ {
		if u := s.subscriptions[later]; u != nil && !u.idle() {
			return true
		}
	}
	return false
}

// takeMarks notes in the subscriptions what the hub marked.
func (s *stream) takeMarks() {
	first, more, since := s.marks.take()
	if first == nil {
		return
	}
	s.changed(first)
	for t := range more {
		s.changed(t)
	}
	if !since.IsZero() && (s.changedAt.IsZero() || since.Before(s.changedAt)) {
		s.changedAt = since
	}
}

// changed notes that a topic changed.
func (s *stream) changed(t *topic) {
	if u := s.subscriptions[t.typ]; u != nil {
		u.changed(t)
	}
}

// allIdle reports whether there is surely nothing to send.
func (s *stream) allIdle() bool {
	for _, u := range s.subscriptions {
		if u != nil && !u.idle() {
			return false
		}
	}
	return true
}

// resendAssignments sees to it that the assignment of every cluster that is new
// to the client, or other than before, goes out again, though it may not have
// changed: the client waits for it before it takes the cluster, and does not
// ask again. The hub's lock must be held for reading.
func (s *stream) resendAssignments(clusters []*resources.Resource) {
	u := s.subscriptions[resources.Endpoints]
	if u == nil {
		return
	}
	for _, c := range clusters {
		assignment := c.Name
		if t := s.hub.topics[resources.Clusters][c.Name]; t != nil {
			assignment = t.assignment
		}
		t := s.hub.topics[resources.Endpoints][assignment]
		if _, named := u.names[t]; named {
			u.want(t, true)
		}
	}
}

// close makes the stream hear and say nothing any more.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, u := range s.subscriptions {
		if u == nil {
			continue
		}
		s.hub.unsubscribe(u, u.topics())
		if u.wildcard {
			s.hub.unsubscribeAll(u)
		}
	}
	s.hub.leave(s)
}
