package xds

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// StreamStatus is one stream as an operator sees it.
type StreamStatus struct {
	Number        uint64                        `json:"stream"`
	Peer          string                        `json:"peer"`
	Since         time.Time                     `json:"since"`
	Node          string                        `json:"node"`
	Cluster       string                        `json:"cluster"`
	Zone          string                        `json:"zone"`
	Subscriptions map[string]SubscriptionStatus `json:"subscriptions"`
}

// SubscriptionStatus is one type of one stream.
type SubscriptionStatus struct {
	Wildcard bool `json:"wildcard"`
	Names    int  `json:"names"`
	// Version and Nonce are those of the last response; Unanswered says that
	// the client neither took nor refused it yet.
	Version    string `json:"version"`
	Nonce      string `json:"nonce"`
	Unanswered bool   `json:"unanswered"`
	ACKs       uint64 `json:"acks"`
	NACKs      uint64 `json:"nacks"`
	// LastNACK is the client's reason for its last refusal.
	LastNACK string `json:"last_nack,omitempty"`
}

// Status is the streams that are open, the oldest first.
func (s *Server) Status() []StreamStatus {
	s.hub.mu.RLock()
	open := make([]*stream, 0, len(s.hub.streams))
	for st := range s.hub.streams {
		open = append(open, st)
	}
	s.hub.mu.RUnlock()
	list := make([]StreamStatus, len(open))
	for i, st := range open {
		list[i] = st.status()
	}
	slices.SortFunc(list, func(a, b StreamStatus) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

func (s *stream) status() StreamStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := StreamStatus{
		Number: s.number, Peer: s.peer, Since: s.since,
		Node: s.node.GetId(), Cluster: s.node.GetCluster(), Zone: s.node.GetLocality().GetZone(),
		Subscriptions: map[string]SubscriptionStatus{},
	}
	for k := range kinds {
		u := &s.subscriptions[k]
		if !u.begun {
			continue
		}
		subscription := SubscriptionStatus{
			Wildcard: u.wildcard, Names: len(u.names), Nonce: u.nonce, Unanswered: u.inFlight,
			ACKs: u.acks, NACKs: u.nacks, LastNACK: u.lastNACK,
		}
		if u.nonce != "" {
			subscription.Version = versionText(u.version)
		}
		shown.Subscriptions[k.String()] = subscription
	}
	return shown
}

// StatusHandler answers with Status as JSON.
func (s *Server) StatusHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(s.Status()) // a failed write means that the reader has gone
	})
}
