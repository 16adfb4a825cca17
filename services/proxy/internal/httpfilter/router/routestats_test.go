package router_test

import (
	"strings"
	"testing"
	"unique"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// used are the metrics below a prefix that are not 0, by what follows it; of a
// histogram it is how many there were.
func used(registry *stats.Registry, prefix string) map[string]int64 {
	all := map[string]int64{}
	registry.Each(func(m stats.Metric) {
		name, ok := strings.CutPrefix(m.Name, prefix)
		value := m.Value
		if m.Kind == stats.KindHistogram {
			value = int64(m.Distribution.Count)
		}
		if ok && value != 0 {
			all[name] = value
		}
	})
	return all
}

// measured is a router whose metrics are in a registry.
func measured(t testing.TB, config *routerv3.Router, registry *stats.Registry) httpfilter.Config {
	t.Helper()
	report := &strict.Report{}
	made := router.Factory{}.Parse(config, "", report)
	require.NoError(t, report.Err())
	made.(httpfilter.Measured).Measure(registry.Scope("http"))
	return made
}

func TestARouteWithAStatPrefixIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		cluster, action string
		script          []string
		want            map[string]int64
	}{
		"an answer": {"", "", []string{fine}, map[string]int64{
			"total": 1, "completed": 1, "200": 1, "2xx": 1, "time": 1,
		}},
		"a retry": {"", `, "retry_policy": {` + quick + `, "retry_on": "5xx"}`, []string{unavailable, fine}, map[string]int64{
			"total": 2, "retry": 1, "retry_success": 1, "completed": 1, "200": 1, "2xx": 1, "time": 1,
		}},
		"the last retry": {"", `, "retry_policy": {` + quick + `, "retry_on": "5xx"}`, []string{unavailable}, map[string]int64{
			"total": 2, "retry": 1, "retry_limit_exceeded": 1, "completed": 1, "503": 1, "5xx": 1, "time": 1,
		}},
		"no retry": {`, "circuit_breakers": {"thresholds": [{"max_retries": 0}]}`, `, "retry_policy": {"retry_on": "5xx"}`, []string{unavailable}, map[string]int64{
			"total": 1, "retry_overflow": 1, "completed": 1, "503": 1, "5xx": 1, "time": 1,
		}},
		"a timeout": {"", `, "timeout": "0.05s"`, []string{hang}, map[string]int64{
			"total": 1, "timeout": 1, "completed": 1, "504": 1, "5xx": 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			up, registry := clusterOf(t, `"connect_timeout": "5s"`+c.cluster, newScripted(t, c.script...).address)
			config, r := measured(t, &routerv3.Router{}, registry), routeOf(t, "", c.action)
			send := func() { sendThrough(t, config, nil, up, r, nil) }
			r.StatName = unique.Make(route.StatName{VirtualHost: "all", Prefix: "orders"})
			send()
			require.Equal(t, c.want, used(registry, "vhost.all.route.orders.upstream_rq_"))
			r.StatName = unique.Handle[route.StatName]{}
			send()
			require.Equal(t, c.want, used(registry, "vhost.all.route.orders.upstream_rq_"), "not of the same route without a name")
		})
	}
}

func TestPrometheusKnowsARouteByLabels(t *testing.T) {
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, newScripted(t, fine).address)
	r := routeOf(t, "", "")
	r.StatName = unique.Make(route.StatName{VirtualHost: "all", Prefix: "orders"})
	sendThrough(t, measured(t, &routerv3.Router{}, registry), nil, up, r, nil)
	found := false
	registry.Each(func(m stats.Metric) {
		if m.Name == "vhost.all.route.orders.upstream_rq_200" {
			found = true
			require.Equal(t, "envoy_vhost_route_upstream_rq", m.Prometheus)
			require.Equal(t, []stats.Label{{Name: "envoy_virtual_host", Value: "all"}, {Name: "envoy_route", Value: "orders"}, {Name: "envoy_response_code", Value: "200"}}, m.Labels)
		}
	})
	require.True(t, found)
}

func TestARequestIsCountedUnderTheNameThatItAsksFor(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	require.Equal(t, "200 -", send(t, up, routeOf(t, "", ""), nil, "x-envoy-upstream-alt-stat-name", "blue").summary())
	require.Equal(t, map[string]int64{
		"200": 1, "2xx": 1, "completed": 1, "time": 1,
	}, used(registry, "cluster.up.blue.upstream_rq_"))
	require.EqualValues(t, 1, counted(registry, "blue.external.upstream_rq_200"))
	require.EqualValues(t, 1, counted(registry, "upstream_rq_200"), "and as always")
	require.Empty(t, u.header(0, "x-envoy-upstream-alt-stat-name"), "it goes no further")
}

func TestStatusesOfGRPCNeedNotBeCounted(t *testing.T) {
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, newScripted(t, unavailable).address)
	config := measured(t, &routerv3.Router{SuppressGrpcRequestFailureCodeStats: true}, registry)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`)
	r.StatName = unique.Make(route.StatName{VirtualHost: "all", Prefix: "orders"})
	sendThrough(t, config, nil, up, r, nil, "content-type", "application/grpc")
	require.EqualValues(t, 1, counted(registry, "upstream_rq_completed"))
	require.Zero(t, counted(registry, "upstream_rq_503"))
	require.Zero(t, counted(registry, "upstream_rq_5xx"))
	require.EqualValues(t, 1, counted(registry, "external.upstream_rq_503"))
	require.EqualValues(t, 1, used(registry, "vhost.all.route.orders.")["upstream_rq_503"])
	require.EqualValues(t, 1, counted(registry, "retry.upstream_rq_completed"))
	require.Zero(t, counted(registry, "retry.upstream_rq_503"))
	sendThrough(t, config, nil, up, r, nil)
	require.EqualValues(t, 1, counted(registry, "upstream_rq_503"), "those of others are")
}
