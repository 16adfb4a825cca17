package xds

import (
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// addressesOf are the endpoints that everybody is shown of an assignment; nil if
// there is no such assignment.
func addressesOf(t *testing.T, h *testHub, name string) []string {
	t.Helper()
	var a endpointv3.ClusterLoadAssignment
	r := resourceOf(h, resources.Endpoints, name)
	if r == nil {
		return nil
	}
	require.NoError(t, r.Body.UnmarshalTo(&a))
	addresses := []string{}
	for _, locality := range a.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			addresses = append(addresses, e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
		}
	}
	return addresses
}

// resourceOf is what is shown now under a name that somebody asked for.
func resourceOf(h *testHub, typ resources.Type, name string) *resources.Resource {
	return h.topics[typ][name].editions[""].resource
}

// clusterOf is where a listener that somebody asked for leads.
func clusterOf(t *testing.T, h *testHub, name string) string {
	t.Helper()
	var l listenerv3.Listener
	var m hcmv3.HttpConnectionManager
	require.NoError(t, resourceOf(h, resources.Listeners, name).Body.UnmarshalTo(&l))
	require.NoError(t, l.GetApiListener().GetApiListener().UnmarshalTo(&m))
	return leadsTo(m.GetRouteConfig())
}

func leadsTo(c *routev3.RouteConfiguration) string {
	return c.GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetCluster()
}

// A service may be called as a subset or a listener is. While it has hosts it is
// shown under its name, before and after those of the shorter name come.
func TestALivingServiceIsShownUnderItsVeryName(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(variant(delta), func(t *testing.T) {
			h := newTestHub(t)
			h.open(&h.loaded)
			everything := h.stream(t, delta)
			ask(t, everything, resources.Clusters)
			s := h.stream(t, delta)
			names := []string{"foo#canary", "foo:8080"}
			ask(t, s, resources.Endpoints, names...)
			ask(t, s, resources.Listeners, names...)
			ask(t, s, resources.Routes, names...)
			h.hosts("foo#canary", "10.0.0.1:80")
			h.hosts("foo:8080", "10.0.0.2:80")
			own := func() {
				t.Helper()
				require.Equal(t, []string{"10.0.0.1"}, addressesOf(t, h, "foo#canary"))
				require.Equal(t, []string{"10.0.0.2"}, addressesOf(t, h, "foo:8080"))
				for _, name := range names {
					require.NotNil(t, resourceOf(h, resources.Clusters, name))
					require.Equal(t, name, clusterOf(t, h, name))
					var c routev3.RouteConfiguration
					require.NoError(t, resourceOf(h, resources.Routes, name).Body.UnmarshalTo(&c))
					require.Equal(t, name, leadsTo(&c))
				}
			}
			h.makeAsked()
			own()
			h.hosts("foo", "10.0.0.3:80#", "10.0.0.4:80")
			own()
			h.setMaker(h.maker)
			h.makeAsked()
			own()

			// When their hosts are gone, the names read as they do everywhere.
			h.hosts("foo#canary")
			h.hosts("foo:8080")
			h.makeAsked()
			require.Equal(t, []string{"10.0.0.3"}, addressesOf(t, h, "foo#canary"))
			require.Equal(t, "foo", clusterOf(t, h, "foo:8080"))
			h.listings["foo:8080"], h.listings["foo#canary"] = registry.Listing{}, registry.Listing{}
			h.refresh("foo:8080", start)
			h.refresh("foo#canary", start)
			h.hosts("foo", "10.0.0.5:80#")
			require.Equal(t, []string{"10.0.0.5"}, addressesOf(t, h, "foo#canary"))
			require.Empty(t, h.own)

			// And a subscriber hears of it when they come back.
			for s.next(start) != nil {
			}
			h.hosts("foo#canary", "10.0.0.6:80")
			require.Equal(t, []string{"10.0.0.6"}, addressesOf(t, h, "foo#canary"))
			s.mu.Lock()
			s.takeMarks()
			idle := s.subscriptions[resources.Endpoints].idle()
			s.mu.Unlock()
			require.False(t, idle)
		})
	}
}
