package rlsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/grpcchannel"
)

// method is the only one of the service.
const method = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

var errNoHosts = errors.New("the cluster has no hosts")

// connection is a gRPC channel to the hosts of one cluster.
type connection struct {
	cluster *cluster.Cluster
	channel *grpc.ClientConn
	outage  outage
}

// connect makes a connection; its first call dials.
func connect(c *cluster.Cluster, service Service, log *slog.Logger) (*connection, error) {
	calls := []grpc.CallOption{grpc.ForceCodecV2(codec{})}
	if service.MaxMessage > 0 {
		calls = append(calls, grpc.MaxCallRecvMsgSize(int(service.MaxMessage)))
	}
	options := []grpc.DialOption{grpc.WithDefaultCallOptions(calls...)}
	if service.Authority != "" {
		options = append(options, grpc.WithAuthority(service.Authority))
	}
	channel, err := grpcchannel.New(c, options...)
	if err != nil {
		return nil, err
	}
	return &connection{cluster: c, channel: channel, outage: outage{log: log.With("cluster", c.Config.Name)}}, nil
}

func (c *connection) close() { c.channel.Close() }

// internal is what a call of the proxy's own is counted by, as in Envoy.
var internal = cluster.Response{Internal: true}

// call makes one call and counts it as Envoy's cluster counts the HTTP exchange
// below it.
func (c *connection) call(ctx context.Context, request *Request, response *Response) error {
	stats := c.cluster.Stats
	stats.RequestsTotal.Inc()
	if len(c.cluster.Hosts().Members) == 0 {
		stats.NoHealthyHost.Inc()
		stats.CountResponse(503, internal)
		return errNoHosts
	}
	stats.RequestsActive.Add(1)
	defer stats.RequestsActive.Add(-1)
	err := c.channel.Invoke(ctx, method, request, response)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// Nobody waits for the answer: there is none to count.
	case status.Code(err) == codes.DeadlineExceeded:
		stats.RequestTimeouts.Inc()
		stats.CountResponse(504, internal)
	case status.Code(err) == codes.Unavailable:
		stats.CountResponse(503, internal)
	default: // gRPC's own errors come in a 200
		stats.CountResponse(200, internal)
	}
	if err == nil && response.Code != rlsv3.RateLimitResponse_OK && response.Code != rlsv3.RateLimitResponse_OVER_LIMIT {
		err = fmt.Errorf("it answered with the code %v", response.Code)
	}
	return err
}
