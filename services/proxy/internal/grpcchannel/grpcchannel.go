// Package grpcchannel makes gRPC channels to the hosts of a cluster: one
// HTTP/2 connection to each host, used in turn, and redialled as the cluster's
// hosts come and go. The xDS client's streams go over them, which grpc-go carries;
// calls, which are requests of the cluster, are grpccall's. It knows no service and
// no message, and heeds of the cluster its hosts, their health and connect_timeout.
package grpcchannel

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// reconnect is how connections to a host that is away are tried again: sooner than
// the xDS client opens its streams anew, which alone is to say when that is.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: time.Second,
}

// halfDead finds a host that vanished without closing: it is asked once nothing
// has come for Time while calls are open, and given up Timeout later. Asked more
// often than every five minutes, a server of grpc-go takes it for abuse unless
// it is told otherwise; within that, TCP's own keep-alives find the vanished.
var halfDead = keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 20 * time.Second}

// New makes a channel to the hosts of c; its first call dials. The caller
// closes it.
func New(c *cluster.Cluster) (*grpc.ClientConn, error) {
	if err := c.Config.CheckGRPC(); err != nil {
		return nil, err
	}
	channel, err := grpc.NewClient(scheme+":///"+url.PathEscape(c.Config.Name),
		grpc.WithResolvers(hostsResolver{c}),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, c, address) }),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(halfDead),
	)
	if err != nil {
		return nil, fmt.Errorf("make a gRPC channel to cluster %q: %w", c.Config.Name, err)
	}
	return channel, nil
}

// dial connects to one host and counts the connection until its end.
func dial(ctx context.Context, c *cluster.Cluster, address string) (net.Conn, error) {
	host := &cluster.HostStats{} // of a host that just went
	for _, m := range c.Hosts().Members {
		if m.Address.String() == address {
			host = &m.Host.Stats
		}
	}
	c.Stats.ConnectionsTotal.Inc()
	host.ConnectionsTotal.Add(1)
	dialer := net.Dialer{Timeout: c.Config.ConnectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		c.Stats.ConnectFailures.Inc()
		host.ConnectFailures.Add(1)
		return nil, err
	}
	c.Stats.ConnectionsActive.Add(1)
	host.ConnectionsActive.Add(1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() {
		c.Stats.ConnectionsActive.Add(-1)
		host.ConnectionsActive.Add(-1)
	})}, nil
}

// countedConn is a net.Conn that tells of its first close.
type countedConn struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
