package grpcchannel_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/grpcchannel"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// host serves gRPC and counts its calls.
type host struct {
	healthv1.UnimplementedHealthServer
	address string
	server  *grpc.Server
	calls   atomic.Int64
}

func (h *host) Check(context.Context, *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	h.calls.Add(1)
	return &healthv1.HealthCheckResponse{}, nil
}

// serve starts the host on a free port, or again on the one that it had.
func (h *host) serve(t *testing.T) *host {
	t.Helper()
	if h.address == "" {
		h.address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", h.address)
	require.NoError(t, err)
	h.address = l.Addr().String()
	h.server = grpc.NewServer()
	healthv1.RegisterHealthServer(h.server, h)
	server := h.server
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return h
}

// hosts are a cluster of a bootstrap whose hosts come by EDS.
type hosts struct {
	*cluster.Cluster
	t       *testing.T
	manager *cluster.Manager
}

func newHosts(t *testing.T, http2 bool) *hosts {
	t.Helper()
	schema, err := strict.NewSchema(cluster.Fields(), coreconfig.Fields())
	require.NoError(t, err)
	policies := []cluster.Policy{lb.RoundRobin()}
	manager := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Schema: schema, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	protocol := "http_protocol_options"
	if http2 {
		protocol = "http2_protocol_options"
	}
	message := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal(fmt.Appendf(nil, `{"name": "a/b c", "type": "EDS",
		"eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
		"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			"explicit_http_config": {%q: {}}}}}`, protocol), message))
	report := &strict.Report{}
	config := cluster.Parse(message, "", policies, report)
	require.NoError(t, report.Err())
	manager.AddStatic([]*cluster.Config{config})
	return &hosts{manager.Get("a/b c"), t, manager}
}

// set makes these the hosts: each an address, and JSON fields of lb_endpoint
// after a space, if any.
func (h *hosts) set(list ...string) {
	h.t.Helper()
	var endpoints []string
	for _, text := range list {
		address, fields, _ := strings.Cut(text, " ")
		a := netip.MustParseAddrPort(address)
		if fields != "" {
			fields = ", " + fields
		}
		endpoints = append(endpoints, fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %d}}} %s}`, a.Addr(), a.Port(), fields))
	}
	message := &endpointv3.ClusterLoadAssignment{}
	require.NoError(h.t, protojson.Unmarshal(fmt.Appendf(nil, `{"cluster_name": "a/b c", "endpoints": [{"lb_endpoints": [%s]}]}`, strings.Join(endpoints, ",")), message))
	require.NoError(h.t, h.manager.ApplyAssignments([]xds.Resource{{Name: "a/b c", Message: message}}))
}

// channel makes the channel under test.
func (h *hosts) channel() *grpc.ClientConn {
	h.t.Helper()
	channel, err := grpcchannel.New(h.Cluster)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = channel.Close() }) // a second close says that it is one
	return channel
}

// call makes one call with a deadline that no test should meet.
func call(channel *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	defer cancel()
	_, err := healthv1.NewHealthClient(channel).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

// share asks twelve times, all of which must be answered, until the wanted
// hosts got equal parts of it and so the others none.
func share(t *testing.T, what string, channel *grpc.ClientConn, want ...*host) {
	t.Helper()
	servicetest.Eventually(t, what, func() bool {
		for _, h := range want {
			h.calls.Store(0)
		}
		for range 12 {
			if call(channel) != nil {
				return false
			}
		}
		for _, h := range want {
			if h.calls.Load() != int64(12/len(want)) {
				return false
			}
		}
		return true
	})
}

func TestHostsTakeTurnsAndComeAndGo(t *testing.T) {
	first, second, third := (&host{}).serve(t), (&host{}).serve(t), (&host{}).serve(t)
	h := newHosts(t, true)
	h.set(first.address, second.address)
	channel := h.channel()
	share(t, "both are asked", channel, first, second)
	h.set(first.address, second.address, third.address)
	share(t, "a host that came is asked", channel, first, second, third)
	h.set(second.address, third.address)
	share(t, "a host that went is not", channel, second, third)
	servicetest.Eventually(t, "its connection is closed", func() bool { return h.Stats.ConnectionsActive.Value() == 2 })
	h.set()
	servicetest.Eventually(t, "without hosts no call gets through", func() bool { return status.Code(call(channel)) == codes.Unavailable })
	h.set(third.address)
	share(t, "the one that came back is asked", channel, third)
}

func TestHostThatRefusesIsLeftOutUntilItServesAgain(t *testing.T) {
	good, away := (&host{}).serve(t), (&host{}).serve(t)
	away.server.Stop()
	h := newHosts(t, true)
	h.set(away.address)
	channel := h.channel()
	require.ErrorContains(t, call(channel), "connection refused")
	require.NotZero(t, h.Stats.ConnectFailures.Value())
	require.NotZero(t, h.Stats.ConnectionsTotal.Value(), "connects count, made or not")
	require.NotZero(t, h.Hosts().Members[0].Host.Stats.ConnectFailures.Load())
	h.set(away.address, good.address)
	share(t, "the other gets all calls", channel, good)
	away.serve(t)
	share(t, "one that serves again is asked", channel, good, away)
}

func TestWeightsAreNotHeeded(t *testing.T) {
	light, heavy := (&host{}).serve(t), (&host{}).serve(t)
	h := newHosts(t, true)
	h.set(light.address+` "load_balancing_weight": 1`, heavy.address+` "load_balancing_weight": 9`)
	share(t, "both are asked alike", h.channel(), light, heavy)
}

func TestUnhealthyHostsAreAskedOnlyIfNoneIsHealthy(t *testing.T) {
	first, second := (&host{}).serve(t), (&host{}).serve(t)
	h := newHosts(t, true)
	h.set(first.address, second.address+` "health_status": "UNHEALTHY"`)
	channel := h.channel()
	share(t, "the healthy one is asked", channel, first)
	require.Zero(t, second.calls.Load())
	h.set(first.address+` "health_status": "DRAINING"`, second.address+` "health_status": "UNHEALTHY"`)
	share(t, "all are asked", channel, first, second)
}

func TestConnectionsAreCountedUntilTheirEnd(t *testing.T) {
	server := (&host{}).serve(t)
	h := newHosts(t, true)
	h.set(server.address)
	channel := h.channel()
	require.Zero(t, h.Stats.ConnectionsTotal.Value(), "nothing is dialled before the first call")
	for range 3 {
		require.NoError(t, call(channel))
	}
	member := h.Hosts().Members[0].Host
	require.EqualValues(t, 1, h.Stats.ConnectionsTotal.Value())
	require.EqualValues(t, 1, h.Stats.ConnectionsActive.Value())
	require.EqualValues(t, 1, member.Stats.ConnectionsTotal.Load())
	require.EqualValues(t, 1, member.Stats.ConnectionsActive.Load())
	require.NoError(t, channel.Close())
	servicetest.Eventually(t, "the connection is closed", func() bool { return h.Stats.ConnectionsActive.Value() == 0 })
	require.Zero(t, member.Stats.ConnectionsActive.Load())
}

// That nothing runs on is held by TestMain.
func TestCloseEndsEverything(t *testing.T) {
	server, later := (&host{}).serve(t), (&host{}).serve(t)
	h := newHosts(t, true)
	h.set(server.address)
	channel := h.channel()
	require.NoError(t, call(channel))
	require.NoError(t, channel.Close())
	require.Equal(t, codes.Canceled, status.Code(call(channel)))
	for range 3 { // more than a watcher that nobody reads has room for
		h.set(later.address)
		h.set(server.address)
	}
	require.Zero(t, later.calls.Load())
	require.EqualValues(t, 1, h.Stats.ConnectionsTotal.Value(), "nothing is dialled any more")
}

func TestClusterWithoutHTTP2IsRefused(t *testing.T) {
	_, err := grpcchannel.New(newHosts(t, false).Cluster)
	require.EqualError(t, err, "the cluster has no http2_protocol_options, which gRPC needs")
}
