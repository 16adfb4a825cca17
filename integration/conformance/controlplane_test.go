package conformance

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// controlPlane is go-control-plane's own ADS server with its snapshot cache.
type controlPlane struct {
	address  string
	snapshot cache.SnapshotCache
	version  int

	mu      sync.Mutex
	refused []string // messages of NACKs
}

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	c := &controlPlane{snapshot: cache.NewSnapshotCache(true, cache.IDHash{}, nil)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	g := grpc.NewServer()
	discoverypb.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(ctx, c.snapshot, server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, r *discoverypb.DiscoveryRequest) error {
			if text := r.GetErrorDetail().GetMessage(); text != "" {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.refused = append(c.refused, text)
			}
			return nil
		},
	}))
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }() // ends at Stop; the cleanup waits for it
	t.Cleanup(func() {
		cancel()
		g.Stop()
		require.NoError(t, <-served)
	})
	return c
}

// set serves a cluster echo, changed by change, with these endpoints.
func (c *controlPlane) set(t *testing.T, change func(*clusterpb.Cluster), addresses ...string) {
	t.Helper()
	cluster := &clusterpb.Cluster{
		Name:                 "echo",
		ConnectTimeout:       durationpb.New(slowMachine),
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		EdsClusterConfig: &clusterpb.Cluster_EdsClusterConfig{EdsConfig: &corepb.ConfigSource{
			ResourceApiVersion:    corepb.ApiVersion_V3,
			ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
		}},
	}
	if change != nil {
		change(cluster)
	}
	hosts := &endpointpb.LocalityLbEndpoints{}
	for _, text := range addresses {
		address, err := net.ResolveTCPAddr("tcp", text)
		require.NoError(t, err)
		hosts.LbEndpoints = append(hosts.LbEndpoints, &endpointpb.LbEndpoint{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: &corepb.Address{
				Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
					Address:       address.IP.String(),
					PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(address.Port)},
				}},
			}}},
		})
	}
	c.version++
	snapshot, err := cache.NewSnapshot(fmt.Sprint(c.version), map[resource.Type][]types.Resource{
		resource.ClusterType: {cluster},
		resource.EndpointType: {&endpointpb.ClusterLoadAssignment{
			ClusterName: "echo", Endpoints: []*endpointpb.LocalityLbEndpoints{hosts},
		}},
	})
	require.NoError(t, err)
	require.NoError(t, c.snapshot.SetSnapshot(t.Context(), "demo-proxy", snapshot))
}

func (c *controlPlane) refusals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.refused...)
}

func TestOurProxyTakesItsClustersFromGoControlPlane(t *testing.T) {
	one, two := harness.Echo(t, "one").Addr("http"), harness.Echo(t, "two").Addr("http")
	control := startControlPlane(t)
	control.set(t, nil, one)
	// Nobody listens where the rate limiter would be: requests pass.
	proxy := harness.Proxy(t, harness.DemoBootstrap(t, control.address, "127.0.0.1:1"))
	client, target := harness.Client(t), "http://"+proxy.Addr("ingress")+"/"
	answers := func(instance string) func() bool {
		return func() bool {
			answer, err := harness.Send(client, harness.Request{URL: target})
			return err == nil && answer.Status == http.StatusOK && answer.Instance == instance
		}
	}
	servicetest.Eventually(t, "one answers", answers("one"))

	control.set(t, nil, two)
	servicetest.Eventually(t, "the host changes", answers("two"))

	control.set(t, func(c *clusterpb.Cluster) { c.LbPolicy = clusterpb.Cluster_CLUSTER_PROVIDED }, two)
	servicetest.Eventually(t, "what is not supported is refused", func() bool { return len(control.refusals()) > 0 })
	require.Contains(t, control.refusals()[0], "lb_policy")
	require.True(t, answers("two")(), "the last good cluster stays")
	require.Positive(t, harness.Stat(t, proxy, "cluster_manager.cds.update_rejected"))

	control.set(t, nil, one, two)
	servicetest.Eventually(t, "what is mended is taken", answers("one"))
	servicetest.Eventually(t, "with all its hosts", answers("two"))
}
