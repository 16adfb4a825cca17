package xds

import (
	"cmp"
	"slices"
	"time"
)

// StreamStatus is one stream as an operator sees it.
type StreamStatus struct {
	// Number is the stream's; 0 for calls of REST-JSON, of which nothing is kept that
	// one could ask for by it.
	Number uint64 `json:"stream,omitzero"`
	// Type is ads for a stream of all types, and rest for calls of REST-JSON;
	// Variant is sotw or delta.
	Type    string    `json:"type"`
	Variant string    `json:"variant"`
	Peer    string    `json:"peer"`
	Since   time.Time `json:"since"`
	Node    string    `json:"node"`
	Cluster string    `json:"cluster"`
	// Identity is who opened the stream, by token or certificate; empty for who
	// did not say.
	Identity string `json:"identity"`
	Region   string `json:"region"`
	Zone     string `json:"zone"`
	Agent    string `json:"agent"`
	// LastPush is when the last response went; zero before the first.
	LastPush time.Time `json:"last_push,omitzero"`
	// LastPoll is when the client last called by REST-JSON; zero for a stream.
	LastPoll      time.Time                     `json:"last_poll,omitzero"`
	Subscriptions map[string]SubscriptionStatus `json:"subscriptions"`
}

// SubscriptionStatus is one type of one stream.
type SubscriptionStatus struct {
	Wildcard bool `json:"wildcard"`
	Names    int  `json:"names"`
	// Held is how many resources the client was sent and did not refuse.
	Held int `json:"held"`
	// Pending is how many resources may have to be sent yet, of those that are
	// not sent as a whole; Withheld says that something waits.
	Pending  int  `json:"pending"`
	Withheld bool `json:"withheld"`
	// Version is that of all that was sent, in the state of the world. Nonce is
	// that of the last response; Unanswered says that the client neither took
	// nor refused it yet.
	Version    string    `json:"version,omitempty"`
	Nonce      string    `json:"nonce"`
	SentAt     time.Time `json:"sent_at,omitzero"`
	Unanswered bool      `json:"unanswered"`
	Slow       bool      `json:"slow"`
	ACKs       uint64    `json:"acks"`
	NACKs      uint64    `json:"nacks"`
	// Refused says that the client refused the last response; of one that polls,
	// that its last call said that it refused one.
	Refused bool `json:"refused"`
	// LastNACK is the client's last refusal; nil if there was none.
	LastNACK *NACKStatus `json:"last_nack,omitempty"`
}

// NACKStatus is a refusal: of which response, why, and the first of the names
// that it held. It never changes.
type NACKStatus struct {
	At     time.Time `json:"at"`
	Nonce  string    `json:"nonce"`
	Reason string    `json:"reason"`
	Names  []string  `json:"names,omitempty"`
}

// Status is the streams that are open, the oldest first.
func (s *Server) Status() []StreamStatus {
	list := []StreamStatus{}
	for _, st := range s.hub.all() {
		if !st.poll {
			list = append(list, st.status())
		}
	}
	slices.SortFunc(list, func(a, b StreamStatus) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

func (s *stream) status() StreamStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := StreamStatus{
		Number: s.number, Peer: s.peer, Since: s.since.UTC(), LastPush: s.lastPush.UTC(),
		Identity: s.identity, Node: s.node.id, Cluster: s.node.cluster, Region: s.node.region, Zone: s.node.zone, Agent: s.node.agent,
		Subscriptions: map[string]SubscriptionStatus{},
	}
	shown.Type, shown.Variant = streamKind{s.only, s.delta}.labels()
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	for _, u := range s.subscriptions {
		if u != nil {
			shown.Subscriptions[u.typ.String()] = u.status()
		}
	}
	return shown
}

// status is a subscription as it is shown. The hub's lock must be held for
// reading.
func (u *subscription) status() SubscriptionStatus {
	shown := SubscriptionStatus{
		Wildcard: u.wildcard, Names: len(u.names), Held: u.holds(), Refused: u.refusesLast(), Pending: len(u.pending), Withheld: !u.idle(),
		Nonce: u.nonce, SentAt: u.sentAt.UTC(), Unanswered: u.inFlight, Slow: u.slow, ACKs: u.acks, NACKs: u.nacks, LastNACK: u.lastNACK,
	}
	if !u.stream.delta && u.nonce != "" {
		shown.Version = versionText(u.version)
	}
	return shown
}

// holds is how many resources the client has. The hub's lock must be held for
// reading.
func (u *subscription) holds() (n int) {
	if u.whole() {
		return len(u.lastEntire().list)
	}
	own := 0 // of names, those that the wildcard is for too
	for t, had := range u.names {
		if had.version() != 0 {
			n++
		}
		if t.listed {
			own++
		}
	}
	if !u.wildcard || u.nonce == "" {
		return n
	}
	all, _ := u.stream.hub.everything(u.typ, u.view)
	if all == nil {
		return n
	}
	others := len(all.list) - own
	for t := range u.pending {
		if _, named := u.names[t]; t.listed && !named {
			others--
		}
	}
	return n + max(0, others)
}
