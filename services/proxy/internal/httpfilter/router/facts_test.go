package router_test

import (
	"fmt"
	"log/slog"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestAccessLogsAreToldWhyNoUpstreamWasAsked(t *testing.T) {
	policies := []cluster.Policy{lb.RoundRobin()}
	clusters := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	report := &strict.Report{}
	empty := &clusterv3.Cluster{Name: "empty", LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: "empty"}}
	clusters.AddStatic([]*cluster.Config{cluster.Parse(empty, "", policies, report)})
	require.NoError(t, report.Err())
	for _, c := range []struct {
		name    string
		route   *route.Route
		cluster *cluster.Cluster
		want    string
	}{
		{"no route", nil, nil, "404 NR route_not_found"},
		{"no cluster", &route.Route{ClusterNotFound: 503}, nil, "503 NC cluster_not_found"},
		{"no host", &route.Route{}, clusters.Get("empty"), "503 UH no_healthy_upstream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &stream.Stream{Context: t.Context(), Route: c.route, Cluster: c.cluster}
			s.Facts.Reset(&s.Request, &s.Response, nil)
			var run httpfilter.Run
			run.Begin(chainOf(&routerv3.Router{}))
			run.Exchange(s)
			run.End(s)
			require.Equal(t, c.want, fmt.Sprint(s.Response.Status, " ", s.Facts.Flags, " ", s.Facts.Details))
		})
	}
}

// TestRequestIsInternalAsItGoesOut has a route that takes the mark of the connection
// manager out, with which Envoy, too, counts an external request.
func TestRequestIsInternalAsItGoesOut(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	send(t, up, routeOf(t, "", ""), nil, "x-envoy-internal", "true")
	require.EqualValues(t, 1, counted(registry, "internal.upstream_rq_200"))
	send(t, up, routeOf(t, `"request_headers_to_remove": ["x-envoy-internal"],`, ""), nil, "x-envoy-internal", "true")
	require.EqualValues(t, 1, counted(registry, "internal.upstream_rq_200"))
	require.EqualValues(t, 1, counted(registry, "external.upstream_rq_200"))
}
