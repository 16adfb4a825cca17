package xds

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// origin brings the resources of a source: by one stream, which is that of ADS
// or of one type, or from a file. What is below the first group is guarded by
// the client's mu.
type origin struct {
	client  *Client
	source  coreconfig.Source
	plane   coreconfig.GRPC
	typeURL string // the only type; empty for ADS
	// wake has a token when a subscription changed.
	wake      chan struct{}
	connected *stats.Gauge // nil where nobody looks for it

	subscriptions []*subscription // in the order of the types
	cancel        context.CancelFunc
	online        bool
	identifier    string
}

func newOrigin(c *Client, source coreconfig.Source, plane coreconfig.GRPC, typeURL string) *origin {
	o := &origin{client: c, source: source, plane: plane, typeURL: typeURL, wake: make(chan struct{}, 1)}
	if typeURL == "" {
		o.connected = c.options.Stats.Scope("control_plane").Gauge("connected_state")
	} else if scope := scopeOf(c.options.Stats, typeURL); scope != nil && source.Path == "" {
		o.connected = scope.Scope("control_plane").Gauge("connected_state")
	}
	return o
}

// find is the subscription to a type, nil if there is none; that of no origin
// is none. The caller holds mu.
func (o *origin) find(typeURL string) *subscription {
	if o == nil {
		return nil
	}
	i := slices.IndexFunc(o.subscriptions, func(s *subscription) bool { return s.typeURL == typeURL })
	if i < 0 {
		return nil
	}
	return o.subscriptions[i]
}

func (o *origin) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// wanted are the subscriptions as they are now.
func (o *origin) wanted() []*subscription {
	o.client.mu.Lock()
	defer o.client.mu.Unlock()
	return slices.Clone(o.subscriptions)
}

// The delay before the next try is drawn from 0 to a bound that doubles, from
// the first of these to the second, and falls back when the control plane was
// there, unless the control plane has a BackOff of its own.
const (
	firstDelay = 500 * time.Millisecond
	mostDelay  = 30 * time.Second
	// Until the first response ever the bound stays at this: the proxy has
	// nothing to go on with.
	mostDelayAtStart = 4 * time.Second
)

// run brings resources until ctx ends.
func (o *origin) run(ctx context.Context) {
	if o.source.Path != "" {
		o.watchFile(ctx)
		return
	}
	dial := dialler{dial: o.client.options.Dial, cluster: o.plane.Cluster}
	defer dial.close()
	told := false // the loss of this connection was logged
	first, most, later := firstDelay, mostDelayAtStart, mostDelay
	if own := o.plane.BackOff; own != (coreconfig.BackOff{}) {
		first, most, later = own.First, own.Most, own.Most
	}
	for bound := first; ; bound = min(2*bound, most) {
		steady, err := o.connect(ctx, &dial)
		if ctx.Err() != nil {
			return
		}
		for _, s := range o.wanted() {
			o.client.failed(s, Away)
		}
		if steady {
			bound, most, told = first, later, false
		}
		if !told {
			o.client.options.Log.Warn("control plane is away", "source", o.source, "error", err)
			told = true
		}
		select {
		case <-time.After(rand.N(bound)):
		case <-ctx.Done():
			return
		}
	}
}

// dialler opens the channel at the first success and keeps it.
type dialler struct {
	dial    func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error)
	cluster string
	channel grpc.ClientConnInterface
	closer  io.Closer
}

func (d *dialler) open(ctx context.Context) (grpc.ClientConnInterface, error) {
	if d.channel == nil {
		channel, closer, err := d.dial(ctx, d.cluster)
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
