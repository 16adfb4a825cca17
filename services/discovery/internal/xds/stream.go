package xds

import (
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// stream is the protocol's state of one stream: what came in decides what next
// returns. It sends and receives nothing itself.
type stream struct {
	hub        *hub
	only       kind // anyKind on an aggregated stream
	identifier string
	number     uint64
	peer       string
	since      time.Time
	log        *slog.Logger

	// wake has a value when there are marks, or the hub opened.
	wake  chan struct{}
	marks marks

	// mu guards all below; the stream's own goroutine changes it, and the
	// operator's view reads it.
	mu            sync.Mutex
	node          *corev3.Node // who the client is, from the first request that says it
	nonces        uint64
	subscriptions [kinds]subscription
}

// marks are the names of changed resources that the stream has not looked at.
type marks struct {
	mu    sync.Mutex
	names [kinds]map[string]struct{}
}

func newStream(h *hub, only kind, identifier string, log *slog.Logger) *stream {
	return &stream{hub: h, only: only, identifier: identifier, log: log, since: time.Now(), wake: make(chan struct{}, 1)}
}

// mark tells the stream that a resource changed. It never waits.
func (s *stream) mark(k kind, name string) {
	s.marks.mu.Lock()
	if s.marks.names[k] == nil {
		s.marks.names[k] = map[string]struct{}{}
	}
	s.marks.names[k][name] = struct{}{}
	s.marks.mu.Unlock()
	s.awake()
}

// awake makes the stream's goroutine look whether there is something to send.
func (s *stream) awake() {
	select {
	case s.wake <- struct{}{}:
	default: // it has yet to see the last one
	}
}

// request takes in what the client sent. The error is a gRPC status that ends
// the stream.
func (s *stream) request(r *discoveryv3.DiscoveryRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil && r.GetNode() != nil {
		s.node = identity(r.GetNode())
	}
	k, served := s.kindOf(r.GetTypeUrl())
	if !served {
		if r.GetTypeUrl() == "" || s.only != anyKind {
			return status.Errorf(codes.InvalidArgument, "type_url %q: not one of this stream's", r.GetTypeUrl())
		}
		// The other types of the stream must not suffer for one that we have
		// nothing of.
		s.hub.metrics.unserved.Inc()
		return nil
	}

	u := &s.subscriptions[k]
	first := !u.begun
	if first {
		u.begin(r.GetVersionInfo() != "")
	}
	isAnswer := u.inFlight && r.GetResponseNonce() == u.nonce
	forgotten := !u.inFlight && u.nonce != "" && r.GetResponseNonce() == ""
	switch {
	case isAnswer:
		s.answered(k, u, r)
	case u.nonce != "" && r.GetResponseNonce() != u.nonce && !forgotten:
		// It was written before the last response was read; the answer to
		// that one will list the names again.
		s.hub.metrics.stale.Inc()
		return nil
	}

	added, removed, wildcardChanged := u.want(k, r.GetResourceNames())
	s.hub.subscribe(s, k, added, wildcardChanged && u.wildcard)
	s.hub.unsubscribe(s, k, removed, wildcardChanged && !u.wildcard)
	u.drop(removed)
	changed := len(added)+len(removed) > 0 || wildcardChanged
	switch {
	case first || forgotten || !isAnswer && !changed:
		// Asked, or asked again for the same: the client wants all of it.
		u.demand(k, maps.Keys(u.names))
	case len(added) > 0 || wildcardChanged && u.wildcard:
		u.demand(k, slices.Values(added))
	}
	return nil
}

// identity is what is kept of a node for as long as its stream lasts: what logs
// and the operator's view show. Metadata and the list of a proxy's extensions,
// of tens of kilobytes, are not.
func identity(n *corev3.Node) *corev3.Node {
	return &corev3.Node{Id: n.GetId(), Cluster: n.GetCluster(), Locality: n.GetLocality()}
}

// kindOf returns the kind of a request on this stream.
func (s *stream) kindOf(typeURL string) (kind, bool) {
	if s.only != anyKind && typeURL == "" {
		return s.only, true
	}
	k, ok := kindOf(typeURL)
	return k, ok && (s.only == anyKind || s.only == k)
}

// answered takes in an ACK or a NACK. s.mu must be held.
func (s *stream) answered(k kind, u *subscription, r *discoveryv3.DiscoveryRequest) {
	if r.GetErrorDetail() == nil {
		u.answered(k, "")
		s.hub.metrics.acks[k].Inc()
		return
	}
	reason := r.GetErrorDetail().GetMessage()
	if reason == "" {
		reason = "no reason given"
	}
	u.answered(k, reason)
	s.hub.metrics.nacks[k].Inc()
	s.log.Warn("client refused a response", "stream", s.number, "node", s.node.GetId(), "type", k, "nonce", u.nonce, "reason", reason)
}

// next returns the next response to send, or nil if there is none now.
func (s *stream) next() *discoveryv3.DiscoveryResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeMarks()
	for k := range kinds {
		u := &s.subscriptions[k]
		before := u.entire
		resources, ok := u.compose(s.hub, k)
		if !ok {
			continue
		}
		if k == clusters {
			s.resendEndpoints(u.entire, before)
		}
		s.nonces++
		u.nonce = strconv.FormatUint(s.nonces, 10)
		u.inFlight = true
		s.hub.metrics.responses[k].Inc()
		return s.respond(k, u, resources)
	}
	return nil
}

// takeMarks notes in the subscriptions what the hub marked.
func (s *stream) takeMarks() {
	s.marks.mu.Lock()
	taken := s.marks.names
	s.marks.names = [kinds]map[string]struct{}{}
	s.marks.mu.Unlock()
	for k := range kinds {
		for name := range taken[k] {
			s.subscriptions[k].changed(k, name)
		}
	}
}

// resendEndpoints sees to it that the assignment of every cluster that is new
// to the client, or other than before, goes out again, though it may not have
// changed: the client waits for it before it takes the cluster, and does not
// ask again.
func (s *stream) resendEndpoints(now, before *set) {
	u := &s.subscriptions[endpoints]
	now.changedFrom(before, func(r *resource) {
		if _, wanted := u.names[r.name]; wanted {
			u.pending[r.name] = true
		}
	})
}

func (s *stream) respond(k kind, u *subscription, resources []*resource) *discoveryv3.DiscoveryResponse {
	bodies := make([]*anypb.Any, len(resources))
	for i, r := range resources {
		bodies[i] = r.body
	}
	return &discoveryv3.DiscoveryResponse{
		VersionInfo:  versionText(u.version),
		Resources:    bodies,
		TypeUrl:      k.url(),
		Nonce:        u.nonce,
		ControlPlane: &corev3.ControlPlane{Identifier: s.identifier},
	}
}
