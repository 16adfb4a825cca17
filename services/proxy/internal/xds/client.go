// Package xds is the client of a control plane: one aggregated stream (ADS) in
// the state-of-the-world protocol of Envoy's v3 API. App makes one, packages
// that want resources put a Sink on it, and it keeps the stream alive,
// subscribes, hands over what comes and answers with an ACK or a NACK. It
// holds no resource: what was accepted before stays with the sinks, and so
// nothing is lost while the control plane is away.
package xds

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// The types of resources, in the order in which they are asked for.
const (
	ClusterType    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	AssignmentType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

var order = []string{ClusterType, AssignmentType}

// Resource is one resource of a response.
type Resource struct {
	Name    string
	Message proto.Message
}

// Sink takes the resources of one type. Apply is called from one goroutine at
// a time, the next response waits for it, and it may call SetNames. For a
// wildcard type it gets the full set, otherwise those that came, of the names
// asked for. The sink takes the good ones into use, keeps what it had for the
// others, and returns an error with all refusals, which the control plane
// gets to read.
type Sink interface {
	Apply(resources []Resource) error
}

// Options says how a client connects. All fields but NodeOnFirstMessageOnly
// are required.
type Options struct {
	// Dial opens the channel to the control plane. It is called until it
	// succeeds; the channel is then used for all streams, and closed when Run
	// ends.
	Dial func(ctx context.Context) (grpc.ClientConnInterface, io.Closer, error)
	Node *corev3.Node
	// NodeOnFirstMessageOnly leaves the node out of all but the first request
	// of a stream.
	NodeOnFirstMessageOnly bool
	// Stats is the root of the counters.
	Stats *stats.Registry
	Log   *slog.Logger
}

// Client is a client of one control plane.
type Client struct {
	options   Options
	connected *stats.Gauge
	// wake has a token when a subscription changed.
	wake chan struct{}

	mu            sync.Mutex
	subscriptions []*subscription // in the order of the types
	online        bool
	identifier    string
}

// New makes a client that does nothing until Run.
func New(o Options) *Client {
	return &Client{
		options:   o,
		connected: o.Stats.Scope("control_plane").Gauge("connected_state"),
		wake:      make(chan struct{}, 1),
	}
}

// Watch subscribes to a type, before Run, once per type. A wildcard type is
// asked for as a whole; another by the names that SetNames gives.
func (c *Client) Watch(typeURL string, wildcard bool, sink Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscriptions = append(c.subscriptions, &subscription{
		typeURL: typeURL, wildcard: wildcard, sink: sink, counters: newCounters(c.options.Stats, typeURL),
	})
	slices.SortStableFunc(c.subscriptions, func(a, b *subscription) int { return rank(a.typeURL) - rank(b.typeURL) })
}

// rank is the place of a type in the order of requests; others come last.
func rank(typeURL string) int {
	if i := slices.Index(order, typeURL); i >= 0 {
		return i
	}
	return len(order)
}

// SetNames replaces the names that are asked for of a watched type. It does
// not wait for anything and may be called from any goroutine.
func (c *Client) SetNames(typeURL string, names []string) {
	names = slices.Sorted(slices.Values(names))
	names = slices.Compact(names)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.find(typeURL)
	if s == nil || slices.Equal(s.names, names) {
		return
	}
	s.names, s.changed = names, true
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// find is the subscription to a type, or nil. The caller holds mu.
func (c *Client) find(typeURL string) *subscription {
	i := slices.IndexFunc(c.subscriptions, func(s *subscription) bool { return s.typeURL == typeURL })
	if i < 0 {
		return nil
	}
	return c.subscriptions[i]
}

// The delay before the next try is drawn from 0 to a bound that doubles, from
// the first of these to the second, and falls back when the control plane was
// there.
const (
	firstDelay = 500 * time.Millisecond
	mostDelay  = 30 * time.Second
	// Until the first response ever the bound stays at this: the proxy has
	// nothing to go on with.
	mostDelayAtStart = 4 * time.Second
)

// Run keeps a stream open until ctx ends, and then returns nil. It is called
// once.
func (c *Client) Run(ctx context.Context) error {
	c.each(func(s *subscription) { s.counters.began() })
	dial := dialler{dial: c.options.Dial}
	defer dial.close()
	told := false // the loss of this connection was logged
	most := mostDelayAtStart
	for bound := firstDelay; ; bound = min(2*bound, most) {
		steady, err := c.connect(ctx, &dial)
		if ctx.Err() != nil {
			return nil
		}
		c.each(func(s *subscription) { s.counters.failed() })
		if steady {
			bound, most, told = firstDelay, mostDelay, false
		}
		if !told {
			c.options.Log.Warn("control plane is away", "error", err)
			told = true
		}
		select {
		case <-time.After(rand.N(bound)):
		case <-ctx.Done():
			return nil
		}
	}
}

// dialler opens the channel at the first success and keeps it.
type dialler struct {
	dial    func(context.Context) (grpc.ClientConnInterface, io.Closer, error)
	channel grpc.ClientConnInterface
	closer  io.Closer
}

func (d *dialler) open(ctx context.Context) (grpc.ClientConnInterface, error) {
	if d.channel == nil {
		channel, closer, err := d.dial(ctx)
		if err != nil {
			return nil, fmt.Errorf("dial: %w", err)
		}
		d.channel, d.closer = channel, closer
	}
	return d.channel, nil
}

func (d *dialler) close() {
	if d.closer != nil {
		// Nothing is in flight, and there is no use for what it may say.
		_ = d.closer.Close()
	}
}

func (c *Client) each(f func(*subscription)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subscriptions {
		f(s)
	}
}
