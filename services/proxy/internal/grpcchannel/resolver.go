package grpcchannel

import (
	"google.golang.org/grpc/resolver"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// scheme is that of the targets which hostsResolver resolves.
const scheme = "cluster"

// hostsResolver tells a gRPC channel the hosts of a cluster: now, and whenever
// they change.
type hostsResolver struct{ cluster *cluster.Cluster }

// Scheme implements resolver.Builder.
func (hostsResolver) Scheme() string { return scheme }

// Build implements resolver.Builder.
func (b hostsResolver) Build(_ resolver.Target, channel resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	// The newest set alone counts: a slow channel skips those between.
	sets := make(chan *cluster.HostSet, 1)
	w := &watch{done: make(chan struct{})}
	w.cancel = b.cluster.Watch(func(set *cluster.HostSet) {
		select {
		case <-sets:
		default:
		}
		sets <- set // there is room: no other call of this function runs
	})
	// Nobody waits for it; it ends with Close. It is there since what the
	// cluster calls must not block, as UpdateState can.
	go func() {
		for {
			select {
			case set := <-sets:
				// The error asks for another try, which the next set is.
				_ = channel.UpdateState(state(set))
			case <-w.done:
				return
			}
		}
	}()
	return w, nil
}

// state lists the hosts that are healthy, or all if none is.
func state(set *cluster.HostSet) resolver.State {
	var all, healthy []resolver.Endpoint
	for i := range set.Members {
		m := &set.Members[i]
		endpoint := resolver.Endpoint{Addresses: []resolver.Address{{Addr: m.Address.String()}}}
		all = append(all, endpoint)
		if m.Healthy() {
			healthy = append(healthy, endpoint)
		}
	}
	if len(healthy) > 0 {
		return resolver.State{Endpoints: healthy}
	}
	return resolver.State{Endpoints: all}
}

// watch implements resolver.Resolver.
type watch struct {
	cancel func()
	done   chan struct{}
}

// ResolveNow does nothing: what is known is the newest.
func (w *watch) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the watch.
func (w *watch) Close() {
	w.cancel()
	close(w.done)
}
