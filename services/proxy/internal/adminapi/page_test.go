package adminapi_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/proxy/internal/adminapi"
)

func TestThePageHasTheLoadOfListenersAndTheirRoutes(t *testing.T) {
	manager, err := anypb.New(&hcmv3.HttpConnectionManager{
		StatPrefix: "in",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: read(t, &routev3.RouteConfiguration{}, `{
			"name": "shop", "virtualHosts": [{"name": "v", "domains": ["a.example", "b.example"], "routes": [
				{"match": {"path": "/p", "headers": [{"name": "x"}], "queryParameters": [{"name": "q"}], "grpc": {}}, "directResponse": {"status": 200}},
				{"match": {"pathSeparatedPrefix": "/s"}, "redirect": {}},
				{"match": {"safeRegex": {"regex": "/r.*"}, "runtimeFraction": {"defaultValue": {}}}, "route": {"clusterHeader": "h"}},
				{"match": {"prefix": "/w"}, "route": {"weightedClusters": {"clusters": [{"name": "one", "weight": 1}, {"clusterHeader": "two", "weight": 1}]}}},
				{"match": {"prefix": "/"}, "route": {"cluster": "users"}}
			]}]}`)},
	})
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, func(o *adminapi.Options) {
			static := o.Listeners.(listeners).static
			static.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
				{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager}},
				{Name: "hcm again", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager}},
			}}}
			scope := o.Stats.Scope("http").Tagged("envoy_http_conn_manager_prefix", "in")
			scope.Counter("downstream_rq_total").Add(7)
			scope.Counter("downstream_rq_5xx").Add(2)
			scope.Histogram("downstream_rq_time").Record(0)
		})
		var shown struct {
			Listeners []struct {
				Name, Address, State, Refused string
				Total, Failed                 int
				Times                         []int
			}
			Routes []struct{ Table, Domains, Match, Target string }
		}
		require.NoError(t, json.Unmarshal(get(h, "/page.json").Body.Bytes(), &shown))
		require.Equal(t, "ingress", shown.Listeners[0].Name)
		require.Equal(t, []int{7, 2, 1}, []int{shown.Listeners[0].Total, shown.Listeners[0].Failed, shown.Listeners[0].Times[0]})
		require.Equal(t, "active, an update is warming", shown.Listeners[1].State)
		require.Equal(t, "stat_prefix: no", shown.Listeners[1].Refused)
		var routes []string
		for _, r := range shown.Routes[:5] {
			require.Equal(t, "shop", r.Table)
			require.Equal(t, "a.example b.example", r.Domains)
			routes = append(routes, r.Match+" → "+r.Target)
		}
		require.Equal(t, []string{
			"path /p, header x, query q, gRPC → direct response", "prefix /s/ → redirect", "regex /r.*, a fraction → cluster of header h",
			"prefix /w → one, two", "prefix / → users",
		}, routes)
	})
}

func TestThePageCountsTheRoutesThatItDoesNotShow(t *testing.T) {
	host := &routev3.VirtualHost{Domains: []string{"a.example"}}
	for i := range 300 {
		host.Routes = append(host.Routes, &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprint("/n", i)}}})
	}
	manager, err := anypb.New(&hcmv3.HttpConnectionManager{RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{
		RouteConfig: &routev3.RouteConfiguration{Name: "many", VirtualHosts: []*routev3.VirtualHost{host}},
	}})
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, func(o *adminapi.Options) {
			o.Listeners.(listeners).static.DefaultFilterChain = &listenerv3.FilterChain{Filters: []*listenerv3.Filter{
				{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager}},
			}}
		})
		for filter, want := range map[string][2]int{"many": {300, 200}, "a.example": {300, 200}, "/n": {300, 200}, "/n29": {11, 11}} {
			var shown struct {
				All    int `json:"all_routes"`
				Routes []struct{ Table string }
			}
			require.NoError(t, json.Unmarshal(get(h, "/page.json?filter="+filter).Body.Bytes(), &shown))
			require.Equal(t, want, [2]int{shown.All, len(shown.Routes)}, filter)
			require.Equal(t, "many", shown.Routes[0].Table)
		}
	})
}
