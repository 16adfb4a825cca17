package resources

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

const usersRoutes = `"name":"users","virtualHosts":[{"name":"users","domains":["*"],"routes":[{"match":{"prefix":""},"route":{"cluster":"users"}}]}]`

func TestAListenerIsTheWayFromATargetToTheCluster(t *testing.T) {
	m := newMaker(t, Options{})
	for _, target := range []string{"users", "users:50051"} {
		wantJSON(t, `{"name":"`+target+`","apiListener":{"apiListener":{
			"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"statPrefix":"users","routeConfig":{`+usersRoutes+`},
			"httpFilters":[{"name":"envoy.filters.http.router","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}}`,
			made[listenerv3.Listener](t, m, Listeners, target, ""))
	}
	subset := made[listenerv3.Listener](t, m, Listeners, "users#canary:50051", "")
	require.Equal(t, "users#canary:50051", subset.GetName())
	manager := checkListener(t, subset)
	require.Equal(t, "users#canary", manager.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetCluster())
}

func TestRoutesLeadToTheCluster(t *testing.T) {
	wantJSON(t, `{`+usersRoutes+`}`, made[routev3.RouteConfiguration](t, newMaker(t, Options{}), Routes, "users", ""))
}

func TestAServiceThatIsNotKnownHasNoResources(t *testing.T) {
	m := newMaker(t, Options{})
	for kind := range Types {
		for _, name := range []string{"users", "users#canary"} {
			r, err := m.Make(kind, name, "users", "", registry.Listing{})
			require.NoError(t, err)
			require.Nil(t, r)
		}
	}
	for kind := Secrets; kind < Types; kind++ {
		r, err := m.Make(kind, "users", "users", "", registry.Listing{Known: true})
		require.NoError(t, err)
		require.Nil(t, r)
	}
}
