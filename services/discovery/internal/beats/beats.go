// Package beats takes heartbeats of many hosts over one gRPC stream
// (HeartbeatService of proto/discovery/v2), which costs a host a few bytes or
// none instead of a request. The app registers it on the gRPC listener. It
// registers no host; it knows hosts by their leases alone, and forgets all with
// the stream.
package beats

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/grpchttp2"
	discoveryv2 "github.com/weirproxy/weir/proto/discovery/v2"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options is what a server is made of. Every field is required.
type Options struct {
	Registry *registry.Registry
	// Silence is how long a stream may be without a message before it is ended,
	// without harm to its hosts.
	Silence time.Duration
	// LossEnds allows clients to ask that the loss of their stream take their
	// hosts out.
	LossEnds bool
	// MaxStreams is how many streams are served at once, MaxHosts how many hosts
	// one may have attached.
	MaxStreams, MaxHosts int
	Log                  *slog.Logger
	Metrics              prometheus.Registerer
}

// Server serves HeartbeatService.
type Server struct {
	discoveryv2.UnimplementedHeartbeatServiceServer
	options  Options
	metrics  *metrics
	streams  atomic.Int64
	stopping context.Context // ends with stop
	stop     context.CancelFunc
	carriers carriers // used where LossEnds
}

// New makes a server; Register puts it on a gRPC server.
func New(o Options) *Server {
	s := &Server{options: o, metrics: newMetrics(o.Metrics)}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

// Register puts s on a server of package grpchttp2 that does not serve yet.
func (s *Server) Register(server grpc.ServiceRegistrar) {
	discoveryv2.RegisterHeartbeatServiceServer(server, s)
}

// Stop ends all streams, without harm to their hosts.
func (s *Server) Stop() { s.stop() }

// wire is the gRPC stream of one client.
type wire = grpc.BidiStreamingServer[discoveryv2.BeatRequest, discoveryv2.BeatResponse]

// Beat serves one stream.
func (s *Server) Beat(w wire) error {
	if s.streams.Add(1) > int64(s.options.MaxStreams) {
		s.streams.Add(-1)
		s.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d streams are open, the most that are served", s.options.MaxStreams)
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	defer s.streams.Add(-1)
	call, ok := grpchttp2.CallOf(w.Context())
	if !ok {
		return status.Error(codes.Internal, "streams of heartbeats are served by package grpchttp2 alone")
	}
	c := &connection{server: s, call: call, attached: map[registry.Lease]struct{}{}, actor: auth.FromContext(w.Context()).Actor()}
	err := c.serve(w)
	for lease := range c.attached {
		c.detach(lease)
	}
	return err
}

var errStopping = status.Error(codes.Unavailable, "this server is stopping")

// serve answers messages until the stream ends, by whomever. A client that does not
// read holds up its own stream alone: who ends that interrupts what is sent.
func (c *connection) serve(w wire) error {
	messages := make(chan *discoveryv2.BeatRequest)
	ended := make(chan ending, 1)
	// Ends when the stream does, or is interrupted.
	go func() { ended <- receive(w, messages) }()

	defer context.AfterFunc(c.server.stopping, func() { c.end(errStopping) })()
	silence := time.AfterFunc(c.server.options.Silence, func() {
		// No loss: where this process stood still, messages wait to be read.
		c.end(status.Errorf(codes.DeadlineExceeded, "no message for %v", c.server.options.Silence))
	})
	defer silence.Stop()
	var rested <-chan time.Time // when the next message is taken; nil for at once
	for {
		next := messages
		if rested != nil {
			next = nil
		}
		select {
		case m := <-next:
			response, err := c.take(m)
			if err != nil {
				return err
			}
			if w.Send(response) != nil {
				c.call.Interrupt()
				return c.over(<-ended)
			}
			rest := c.pace.pay(time.Now(), priceOf(m, len(c.attached)))
			if rest > 0 {
				rested = time.After(rest)
			}
			silence.Reset(rest + c.server.options.Silence)
		case <-rested:
			rested = nil
		case e := <-ended:
			return c.over(e)
		}
	}
}

// ending is how nothing more came to be received.
type ending struct {
	err     error                    // nil if the client ended the stream
	pending *discoveryv2.BeatRequest // a message that came and was not taken; nil for none
}

// receive hands on messages until the stream ends.
func receive(w wire, messages chan<- *discoveryv2.BeatRequest) ending {
	for {
		m, err := w.Recv()
		if errors.Is(err, io.EOF) {
			return ending{}
		}
		if err != nil {
			return ending{err: err}
		}
		select {
		case messages <- m:
		case <-w.Context().Done():
			return ending{context.Cause(w.Context()), m}
		}
	}
}

// connection is one stream and the hosts that are attached to it. It belongs to
// the goroutine that serves the stream.
type connection struct {
	server   *Server
	call     grpchttp2.Call
	ended    atomic.Pointer[error] // why this server ended it; any goroutine may
	actor    string
	begun    bool // the first message has come
	lossEnds bool
	attached map[registry.Lease]struct{}
	heard    time.Time // when the last message was taken
	pace     pace
	// leases are the keys of attached, and unknown has room for an answer; both
	// are kept from message to message.
	leases, unknown []registry.Lease
}

// take does what a message says, and then beats for all that are attached. The
// error is RESOURCE_EXHAUSTED for too many hosts, or UNAVAILABLE before the
// registry is loaded.
func (c *connection) take(m *discoveryv2.BeatRequest) (*discoveryv2.BeatResponse, error) {
	if !c.begun {
		c.begun = true
		c.lossEnds = m.GetLossEnds() && c.server.options.LossEnds
	}
	for _, lease := range m.GetDetach() {
		c.detach(registry.Lease(lease))
	}
	for _, lease := range m.GetAttach() {
		c.attach(registry.Lease(lease))
	}
	if most := c.server.options.MaxHosts; len(c.attached) > most {
		c.server.metrics.refused.Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "%d hosts attached, of %d at most", len(c.attached), most)
	}
	if len(m.GetAttach())+len(m.GetDetach()) > 0 || len(c.leases) != len(c.attached) {
		c.leases = c.leases[:0]
		for lease := range c.attached {
			c.leases = append(c.leases, lease)
		}
	}
	var err error
	if c.unknown, err = c.server.options.Registry.Beat(c.leases, c.unknown[:0], c.actor); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	c.heard = time.Now()
	c.server.metrics.messages.Inc()
	response := &discoveryv2.BeatResponse{LossEnds: c.lossEnds}
	for _, lease := range c.unknown {
		c.detach(lease)
		response.Unknown = append(response.Unknown, uint64(lease))
	}
	slices.Sort(response.Unknown)
	response.Attached = uint32(len(c.attached))
	return response, nil
}

// attach has the stream carry a host.
func (c *connection) attach(lease registry.Lease) {
	if _, attached := c.attached[lease]; attached {
		return
	}
	c.attached[lease] = struct{}{}
	c.server.metrics.hosts.Inc()
	if c.server.options.LossEnds {
		c.server.carriers.add(lease)
	}
}

// detach undoes attach, if it was.
func (c *connection) detach(lease registry.Lease) {
	if _, attached := c.attached[lease]; !attached {
		return
	}
	delete(c.attached, lease)
	c.server.metrics.hosts.Dec()
	if c.server.options.LossEnds {
		c.server.carriers.remove(lease)
	}
}

// end ends the stream for a reason that is no harm to its hosts. Only the first
// counts. It does not wait.
func (c *connection) end(why error) {
	c.ended.CompareAndSwap(nil, &why)
	c.call.Interrupt()
}

// over does what the end of the stream asks for, and returns its status. Where the
// stream broke, the hosts that its last message detached are not lost with it.
func (c *connection) over(e ending) error {
	if why := c.ended.Load(); why != nil {
		return *why
	}
	if c.server.stopping.Err() != nil { // and end is about to be told
		return errStopping
	}
	if e.err == nil {
		return nil
	}
	for _, lease := range e.pending.GetDetach() {
		c.detach(registry.Lease(lease))
	}
	c.lost()
	return e.err
}

// lost does what was agreed for the case that the stream breaks. A host that
// another stream carries too stays: its client has come back already.
func (c *connection) lost() {
	if !c.lossEnds || len(c.attached) == 0 {
		return
	}
	leases := make([]registry.Lease, 0, len(c.attached))
	for lease := range c.attached {
		if c.server.carriers.count(lease) == 1 {
			leases = append(leases, lease)
		}
	}
	// The error says that nothing is loaded; then nobody is attached.
	lost, _ := c.server.options.Registry.Lose(leases, c.heard, c.actor)
	if lost == 0 {
		return
	}
	c.server.options.Log.Info("hosts taken out with their stream", "hosts", lost, "peer", c.actor)
}
