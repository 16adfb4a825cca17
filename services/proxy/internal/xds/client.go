// Package xds is the client of control planes in Envoy's v3 API: of the
// aggregated stream (ADS), of streams for one type, both in the state of the
// world and in delta, and of files that hold a response. App makes one Client
// and says who takes which type; it keeps the streams alive, subscribes, hands
// over what comes and answers with an ACK or a NACK. It keeps no resource of a
// stream: what was accepted before stays with the sinks, and so nothing is lost
// while a control plane is away.
package xds

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// The types of resources, in the order in which they are asked for.
const (
	ClusterType    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	AssignmentType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType   = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType      = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

var order = []string{ClusterType, AssignmentType, ListenerType, RouteType}

// Resource is one resource of a response.
type Resource struct {
	Name string
	// Version is the resource's own, or that of its response.
	Version string
	// Source is where it comes from.
	Source coreconfig.Source
	// Message is nil for a resource that its source does not have any more.
	Message proto.Message
	// At is the path of the message, which faults begin with: empty but for one
	// of a file.
	At strict.Path

	file *strict.Report // finds its lines; nil if it came by a stream
}

// Report is a new one for the faults of the resource; of one from a file it
// knows the lines.
func (r Resource) Report() *strict.Report {
	if r.file == nil {
		return &strict.Report{}
	}
	return r.file.Apart()
}

// Sink takes the resources of one type. Of one source, Apply is called from one
// goroutine at a time, and the next response waits for it; it may call Subscribe,
// SetNames and SetName. All says that resources are all that the source has of a type
// that is asked for as a whole; else they are what changed, of the names asked
// for. The sink takes the good ones into use, keeps what it had for the others,
// and returns an error with all refusals, which the control plane gets to read.
type Sink interface {
	Apply(resources []Resource, all bool) error
	// Failed tells that nothing came of a source for some of the names that it is asked
	// for, for the sink to count: of a type that is asked for as a whole the client
	// does. The last good ones stay in use.
	Failed(source coreconfig.Source, names []string, why Failure)
}

// Options says how a client connects. All fields are required but ADS.
type Options struct {
	// Dial opens the channel to the control plane that a cluster is. It is
	// called until it succeeds; the channel is then used for all streams of a
	// source, and closed when it is wanted no more.
	Dial func(ctx context.Context, cluster string) (grpc.ClientConnInterface, io.Closer, error)
	// ADS is the aggregated control plane; nil without one.
	ADS  *coreconfig.GRPC
	Node *corev3.Node
	// Schema holds what is supported in files.
	Schema *strict.Schema
	// Stats is the root of the counters.
	Stats *stats.Registry
	Log   *slog.Logger
}

// Client is a client of the control planes of one proxy.
type Client struct {
	options Options
	sinks   map[string]Sink // by type, not changed once anything is subscribed

	mu      sync.Mutex
	origins []*origin
	ctx     context.Context // of Run; nil before
	ended   bool
	running sync.WaitGroup
}

// New makes a client that does nothing until Run.
func New(o Options) *Client {
	c := &Client{options: o, sinks: map[string]Sink{}}
	if o.ADS != nil {
		c.origins = append(c.origins, newOrigin(c, coreconfig.Source{}, *o.ADS, ""))
	}
	return c
}

// Handle says who takes the resources of a type. It is called once per type,
// before that is subscribed to.
func (c *Client) Handle(typeURL string, sink Sink) { c.sinks[typeURL] = sink }

// Subscribe asks a source for all resources of a type, once. If no response
// comes within initialFetch, unless that is 0, expired is called.
func (c *Client) Subscribe(source coreconfig.Source, typeURL string, initialFetch time.Duration, expired func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, s := c.subscription(source, typeURL)
	s.wildcard, s.changed = true, true
	s.initialFetch, s.expired = initialFetch, expired
	if c.ctx != nil {
		s.wait()
	}
	o.nudge()
}

// SetNames replaces the names of a type that a source is asked for. It does not
// wait for anything and may be called from any goroutine.
func (c *Client) SetNames(source coreconfig.Source, typeURL string, names []string) {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	c.want(source, typeURL, len(wanted) > 0, func(s *subscription) (changed bool) {
		changed = !maps.Equal(s.wanted, wanted)
		for name := range s.wanted {
			if !wanted[name] {
				s.lose(name)
			}
		}
		s.wanted = wanted
		return changed
	})
}

// SetName adds a name to those of a type that a source is asked for, or removes it, at a
// cost that does not grow with their number. It does not wait for anything and may be
// called from any goroutine.
func (c *Client) SetName(source coreconfig.Source, typeURL, name string, wanted bool) {
	c.want(source, typeURL, wanted, func(s *subscription) (changed bool) {
		changed = s.wanted[name] != wanted
		if wanted {
			s.wanted[name] = true
		} else if changed {
			delete(s.wanted, name)
			s.lose(name)
		}
		return changed
	})
}

// want changes the names of a subscription, which is made if there are to be any.
func (c *Client) want(source coreconfig.Source, typeURL string, some bool, change func(*subscription) (changed bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	nowhere := source.IsADS() && c.options.ADS == nil // which the check of the configuration refuses
	if nowhere || !some && c.origin(source, typeURL).find(typeURL) == nil {
		return
	}
	o, s := c.subscription(source, typeURL)
	if !change(s) {
		return
	}
	s.sorted = nil
	if len(s.wanted) == 0 && !source.IsADS() && !s.wildcard {
		c.drop(o) // which says it all to the other side
		return
	}
	s.changed = true
	o.nudge()
}

// subscription finds or makes one, and what brings its resources. The caller
// holds mu.
func (c *Client) subscription(source coreconfig.Source, typeURL string) (*origin, *subscription) {
	o := c.origin(source, typeURL)
	if o == nil {
		o = newOrigin(c, source, source.GRPC, typeURL)
		c.origins = append(c.origins, o)
		c.start(o)
	}
	s := o.find(typeURL)
	if s == nil {
		s = &subscription{
			typeURL: typeURL, source: source, sink: c.sinks[typeURL], log: c.options.Log,
			updates: NewUpdates(scopeOf(c.options.Stats, typeURL)), versions: map[string]string{},
			wanted: map[string]bool{}, lost: map[string]bool{},
		}
		if c.ctx != nil {
			s.updates.Began(source)
		}
		o.subscriptions = append(o.subscriptions, s)
		slices.SortStableFunc(o.subscriptions, func(a, b *subscription) int { return rank(a.typeURL) - rank(b.typeURL) })
	}
	return o, s
}

// origin is what brings the resources of a type from a source, nil if nothing
// does yet. The caller holds mu.
func (c *Client) origin(source coreconfig.Source, typeURL string) *origin {
	for _, o := range c.origins {
		if o.source == source && (o.typeURL == "" || o.typeURL == typeURL) {
			return o
		}
	}
	return nil
}

// rank is the place of a type in the order of requests; others come last.
func rank(typeURL string) int {
	if i := slices.Index(order, typeURL); i >= 0 {
		return i
	}
	return len(order)
}

// start runs an origin, if the client runs. The caller holds mu.
func (c *Client) start(o *origin) {
	if c.ctx == nil || c.ended {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	o.cancel = cancel
	// Ends with the client or when nobody wants it any more; Run waits for it.
	c.running.Go(func() { o.run(ctx) })
}

// drop ends an origin that nobody wants any more. The caller holds mu.
func (c *Client) drop(o *origin) {
	c.origins = slices.DeleteFunc(c.origins, func(other *origin) bool { return other == o })
	if o.cancel != nil {
		o.cancel()
	}
}

// Run keeps everything open until ctx ends, and then returns nil. It is called
// once.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	for _, o := range c.origins {
		for _, s := range o.subscriptions {
			s.updates.Began(s.source)
			s.wait()
		}
		c.start(o)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ended = true
	for _, o := range c.origins {
		for _, s := range o.subscriptions {
			s.waited()
		}
	}
	c.mu.Unlock()
	c.running.Wait()
	return nil
}
