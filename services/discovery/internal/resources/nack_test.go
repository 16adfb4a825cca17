package resources

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// What gRPC refuses a resource for, or leaves a part of it out for, as functions.

func checkCluster(t testing.TB, c *clusterv3.Cluster) {
	require.NotEmpty(t, c.GetName())
	require.Equal(t, clusterv3.Cluster_EDS, c.GetType())
	require.NotNil(t, c.GetEdsClusterConfig().GetEdsConfig().GetAds())
	require.Contains(t, []clusterv3.Cluster_LbPolicy{clusterv3.Cluster_ROUND_ROBIN, clusterv3.Cluster_LEAST_REQUEST, clusterv3.Cluster_RING_HASH}, c.GetLbPolicy())
}

func checkListener(t testing.TB, l *listenerv3.Listener) *hcmv3.HttpConnectionManager {
	manager := &hcmv3.HttpConnectionManager{}
	require.NoError(t, l.GetApiListener().GetApiListener().UnmarshalTo(manager))
	validate(t, manager)
	filters := manager.GetHttpFilters()
	require.NotEmpty(t, filters)
	require.NoError(t, filters[len(filters)-1].GetTypedConfig().UnmarshalTo(&routerv3.Router{}))
	names := map[string]bool{}
	for _, f := range filters {
		require.NotEmpty(t, f.GetName())
		require.False(t, names[f.GetName()], "two filters of one name")
		names[f.GetName()] = true
	}
	require.Zero(t, manager.GetXffNumTrustedHops())
	require.Empty(t, manager.GetOriginalIpDetectionExtensions())
	checkRoutes(t, manager.GetRouteConfig())
	return manager
}

func checkRoutes(t testing.TB, c *routev3.RouteConfiguration) {
	require.NotEmpty(t, c.GetVirtualHosts())
	for _, host := range c.GetVirtualHosts() {
		require.Contains(t, host.GetDomains(), "*")
		require.NotEmpty(t, host.GetRoutes())
		for _, r := range host.GetRoutes() {
			require.IsType(t, &routev3.RouteMatch_Prefix{}, r.GetMatch().GetPathSpecifier())
			require.NotEmpty(t, r.GetRoute().GetCluster())
		}
	}
}

func checkAssignment(t testing.TB, a *endpointv3.ClusterLoadAssignment) {
	require.NotEmpty(t, a.GetClusterName())
	addresses := map[string]bool{}
	take := func(address *corev3.Address) {
		at := fmt.Sprintf("%s %d", address.GetSocketAddress().GetAddress(), address.GetSocketAddress().GetPortValue())
		require.False(t, addresses[at], "%s is there twice", at)
		addresses[at] = true
	}
	type place struct {
		priority             uint32
		region, zone, subset string
	}
	places := map[place]bool{}
	sums := map[uint32]uint64{}
	for _, l := range a.GetEndpoints() {
		require.NotNil(t, l.GetLocality())
		require.GreaterOrEqual(t, l.GetLoadBalancingWeight().GetValue(), uint32(1))
		at := place{l.GetPriority(), l.GetLocality().GetRegion(), l.GetLocality().GetZone(), l.GetLocality().GetSubZone()}
		require.False(t, places[at], "a locality is there twice")
		places[at] = true
		sums[l.GetPriority()] += uint64(l.GetLoadBalancingWeight().GetValue())
		require.NotEmpty(t, l.GetLbEndpoints())
		own := uint64(0)
		for _, e := range l.GetLbEndpoints() {
			if w := e.GetLoadBalancingWeight(); w != nil {
				require.NotZero(t, w.GetValue())
			}
			own += uint64(max(1, e.GetLoadBalancingWeight().GetValue()))
			take(e.GetEndpoint().GetAddress())
			for _, more := range e.GetEndpoint().GetAdditionalAddresses() {
				take(more.GetAddress())
			}
		}
		require.Equal(t, own, uint64(l.GetLoadBalancingWeight().GetValue()))
	}
	for priority, sum := range sums {
		require.LessOrEqual(t, sum, uint64(math.MaxUint32))
		require.Less(t, int(priority), len(sums), "a priority is left out")
	}
}

// randomHosts are up to most hosts in a few zones, with addresses that collide
// now and then.
func randomHosts(r *rand.Rand, most int) []registry.View {
	hosts := make([]registry.View, r.IntN(most+1))
	address := func() netip.Addr {
		if r.IntN(4) == 0 {
			return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(r.IntN(most))})
		}
		return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(most))})
	}
	for i := range hosts {
		h := &registry.Host{
			Key:     registry.Key{Service: "users", ID: fmt.Sprint("i", i)},
			Address: netip.AddrPortFrom(address(), uint16(80+r.IntN(2))),
			Tags:    registry.Tags{Region: []string{"", "eu", "us"}[r.IntN(3)], Zone: []string{"", "1", "2", "3"}[r.IntN(4)]},
		}
		for range r.IntN(3) {
			h.Additional = append(h.Additional, address())
		}
		if r.IntN(2) == 0 {
			canary := r.IntN(2) == 0
			h.Tags.Canary = &canary
			h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{"team": json.RawMessage(`"a"`)})
		}
		hosts[i] = registry.View{
			Record: registry.Record{Host: h, FirstSeen: time.Unix(int64(r.IntN(5)), 0)},
			State:  []registry.State{registry.Serving, registry.Serving, registry.Draining, registry.Out}[r.IntN(4)],
			Weight: uint8(r.IntN(101)),
			Stale:  r.IntN(5) == 0,
		}
	}
	return hosts
}

func TestNothingIsMadeThatGRPCRefuses(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		hosts := randomHosts(r, 40)
		m := newMaker(t, Options{
			TagNamespace:   []string{"", "weir.tags", LoadBalancer}[r.IntN(3)],
			ZonePriorities: r.IntN(2) == 0,
			SubsetSize:     []int{0, 1, 5, 100}[r.IntN(4)],
			StaleDegraded:  r.IntN(2) == 0,
		})
		v := m.View(Asker{ID: fmt.Sprint(r.IntN(9)), Region: []string{"", "eu", "us"}[r.IntN(3)], Zone: []string{"", "1", "2", "9"}[r.IntN(4)]})
		for _, name := range []string{"users", "users#canary", "users#!canary,zone=1"} {
			assignment := made[endpointv3.ClusterLoadAssignment](t, m, Endpoints, name, v, hosts...)
			checkAssignment(t, assignment)
			checkCluster(t, made[clusterv3.Cluster](t, m, Clusters, name, v, hosts...))
			checkListener(t, made[listenerv3.Listener](t, m, Listeners, name+":80", v, hosts...))
			checkRoutes(t, made[routev3.RouteConfiguration](t, m, Routes, name, v, hosts...))

			want, err := m.Make(Endpoints, name, "users", v, registry.Listing{Hosts: hosts, Known: true})
			require.NoError(t, err)
			shuffled := slices.Clone(hosts)
			r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			got, err := m.Make(Endpoints, name, "users", v, registry.Listing{Hosts: shuffled, Known: true})
			require.NoError(t, err)
			require.Equal(t, want.Version, got.Version, "seed %d: the order in which hosts are found", seed)
		}
	}
}
