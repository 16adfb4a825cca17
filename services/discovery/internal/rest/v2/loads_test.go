package v2

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/lrs"
)

// withLoads has the face know the load of two clusters.
func withLoads(o *Options) {
	rates := lrs.Rates{Issued: 3, Successful: 2.5, Failed: 0.5, InProgress: 1}
	o.Loads = func() []lrs.ClusterLoad {
		return []lrs.ClusterLoad{
			{Cluster: "carts", Localities: []lrs.LocalityLoad{}},
			{Cluster: "users", Clients: 2, Rates: rates, Dropped: map[string]float64{"overload": 1}, Localities: []lrs.LocalityLoad{{
				Region: "eu", Zone: "eu-1", SubZone: "b", Rates: rates, Endpoints: []lrs.EndpointLoad{{Address: "10.0.0.1:80", Rates: rates}},
			}}},
		}
	}
}

func TestLoadsAreToldOfAllClustersOrOfOne(t *testing.T) {
	f := newFixture(t, withLoads)
	names := func(target string) []string {
		names := []string{}
		for _, c := range f.get(t, target)["clusters"].([]any) {
			names = append(names, c.(map[string]any)["cluster"].(string))
		}
		return names
	}
	require.Equal(t, []string{"carts", "users"}, names("/v2/loads"))
	require.Equal(t, []string{"users"}, names("/v2/loads?cluster=users"))
	require.Empty(t, names("/v2/loads?cluster=none"))
	require.Equal(t, []string{"users"}, names("/v2/loads?search=SER"))
	require.Equal(t, []string{"carts"}, names("/v2/loads?limit=1"))
	require.Equal(t, []string{"users"}, names("/v2/loads?limit=1&offset=1"))
	require.Empty(t, names("/v2/loads?offset=7"))
	part := f.get(t, "/v2/loads?detail=clusters&offset=1&search=s")
	require.Equal(t, [2]any{2.0, 1.0}, [2]any{part["matching"], part["offset"]})
	require.Empty(t, part["clusters"].([]any)[0].(map[string]any)["localities"])
	require.Equal(t, map[string]any{
		"cluster": "users", "clients": 2.0, "issued": 3.0, "successful": 2.5, "failed": 0.5, "in_progress": 1.0,
		"dropped": map[string]any{"overload": 1.0},
		"localities": []any{map[string]any{
			"region": "eu", "zone": "eu-1", "sub_zone": "b", "issued": 3.0, "successful": 2.5, "failed": 0.5, "in_progress": 1.0,
			"endpoints": []any{map[string]any{"address": "10.0.0.1:80", "issued": 3.0, "successful": 2.5, "failed": 0.5, "in_progress": 1.0}},
		}},
	}, f.get(t, "/v2/loads?cluster=users")["clusters"].([]any)[0])
}
