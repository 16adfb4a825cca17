// Package xds is a control plane for Envoys, other proxies and gRPC clients by
// the xDS protocol, version 3: on aggregated streams and on streams of one type,
// in the state-of-the-world variant and in delta, and by polling with JSON over
// HTTP. What it hands out package resources makes from the registry, or
// operators' files say. The app starts it beside the REST faces. It only reads
// from the registry, answers nothing before that is loaded, and never holds a
// lock while it sends.
//
// The parts, from a change to the wire: the hub follows the registry (hub.go,
// filling.go, debounce.go), makes what somebody subscribes to (make.go), beside
// what files say (files.go), and marks the streams that are shown it; a topic is
// one name that can be subscribed to (topic.go, subscribe.go). A stream
// (stream.go) holds a subscription for each type (subscription.go, refusal.go),
// which reads requests and puts responses together by the rules of its variant
// (sotw.go, delta.go). Requests are read by hand and responses written around
// shared bytes (request.go, response.go, codec.go). The ways in are streams of
// gRPC (services.go, serve.go) and single calls (poll.go) over HTTP (rest.go) and
// gRPC (fetch.go); operators look by status.go, clients.go and csds.go, and see
// who polls by pollers.go. Locks are taken in the order stream, hub,
// and then one of marks, shelf or given, under which nothing else is locked. That of a
// sender comes after the stream's and never with the hub's, that of pollers alone.
package xds

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// Options is what a server is made of. Every field but Identity is required.
type Options struct {
	Registry *registry.Registry
	// Maker makes resources from what the registry lists. SetMaker replaces it.
	Maker *resources.Maker
	// Identifier names this replica in every response.
	Identifier string
	Debounce   Debounce
	Limits     Limits
	// Identity is who opened a stream, or calls, as operators are shown; empty
	// for who did not say. It may be nil: then nobody said.
	Identity func(context.Context) string
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Limits bound what clients take of a server.
type Limits struct {
	// Streams is how many there are at once, calls of REST-JSON that wait
	// included; StreamsPerNode how many one node has, 0 for any number.
	Streams, StreamsPerNode int
	// Names is how many names one stream subscribes to, and NamesPerNode how many
	// all streams of a node together, 0 for any number.
	Names, NamesPerNode int
	// RequestRate is how many requests per second are read from one stream, 0
	// for any number: more are read later.
	RequestRate int
	// FirstAnswers is how many streams get their first response each second, 0
	// for any number: the others wait.
	FirstAnswers int
	// MaxAge is the age at which a stream ends, up to a fifth later; 0 for none.
	// ServerOptions has connections heed it too.
	MaxAge time.Duration
	// SlowAfter is how long a response is unanswered before its client counts
	// as slow, DropAfter before the stream ends; 0 for never.
	SlowAfter, DropAfter time.Duration
	// Wait is how long a call of REST-JSON waits for something that the client
	// does not have, 0 for not at all.
	Wait time.Duration
	// MayBe returns why who opened a stream, or called, may not be a node; the
	// error is a gRPC status. nil lets everyone be any. Server.RecheckNodes has it
	// asked again.
	MayBe func(context.Context, resources.Asker) error
	// MayRead returns why who opened a stream may not see anything, by the rules of
	// now; the error is a gRPC status. It is asked before each answer of client
	// status. nil lets everyone.
	MayRead func(context.Context) error
	// MayHaveSecret reports whether a node may have the secret of a name, whose
	// stream or call has the context; to one that may not, there is none. nil lets
	// everyone have all. Server.RecheckSecrets has it asked again.
	MayHaveSecret func(context.Context, resources.Asker, string) bool
}

// Server serves xDS on a gRPC server and an HTTP server that others make.
type Server struct {
	hub        *hub
	identifier string
	limits     Limits
	form       wireForm
	admission  *bucket
	identity   func(context.Context) string
	polled     *pollers
	log        *slog.Logger
	metrics    *metrics
	stopping   chan struct{} // closed when the stop begins
	noWaits    chan struct{} // closed when polls may not wait any more

	lastStream atomic.Uint64 // the number of the newest stream
}

// New makes a server; Register puts it on a gRPC server, and Run must be running
// for anything to be sent.
func New(o Options) *Server {
	m := newMetrics(o.Metrics)
	identity := o.Identity
	if identity == nil {
		identity = func(context.Context) string { return "" }
	}
	s := &Server{
		hub:        newHub(o.Registry, o.Maker, o.Debounce, o.Log, m),
		identifier: o.Identifier,
		limits:     o.Limits,
		form:       newWireForm(o.Identifier),
		admission:  newBucket(o.Limits.FirstAnswers),
		identity:   identity,
		log:        o.Log,
		metrics:    m,
		stopping:   make(chan struct{}),
		noWaits:    make(chan struct{}),
	}
	s.polled = newPollers(o.Limits.Streams)
	return s
}

// Run follows the registry until ctx ends, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	s.hub.run(ctx, &s.limits)
	return nil
}

// Stop makes all streams end. It must be called once.
func (s *Server) Stop() {
	close(s.stopping)
	for _, st := range s.hub.all() {
		if !st.poll {
			st.end(errStopping)
		}
	}
}

// StopWaiting answers the polls that wait, and lets none wait from now on. It must
// be called once.
func (s *Server) StopWaiting() { close(s.noWaits) }
