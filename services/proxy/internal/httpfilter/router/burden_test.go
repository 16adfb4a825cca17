package router_test

import (
	"fmt"
	"log/slog"
	"net"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestClusterThatIsNotToBeBurdenedGetsNoRequest(t *testing.T) {
	_, port, err := net.SplitHostPort(newScripted(t, fine).address)
	require.NoError(t, err)
	endpoints := `"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ` + port + `}}}}]}]`
	for _, c := range []struct {
		priority              corev3.RoutingPriority
		name, config, counter string
		want                  httpfilter.Reply
		told                  string
	}{
		{corev3.RoutingPriority_DEFAULT, "drop_overloads", `{"name": "up", "load_assignment": {"cluster_name": "up", ` + endpoints + `,
			"policy": {"drop_overloads": [{"category": "all", "drop_percentage": {"numerator": 100}}]}}}`, "upstream_rq_drop_overload",
			httpfilter.Reply{
				Status:  503,
				Headers: []httpfilter.Header{{Name: "x-envoy-unconditional-drop-overload", Value: "true"}},
				Body:    "unconditional drop overload",
			}, "UDO unconditional_drop_overload"},
		{corev3.RoutingPriority_DEFAULT, "max_requests", `{"name": "up", "load_assignment": {"cluster_name": "up", ` + endpoints + `},
			"circuit_breakers": {"thresholds": [{"max_requests": 0}]}}`, "upstream_rq_active_overflow",
			httpfilter.Reply{
				Status:  503,
				Headers: []httpfilter.Header{{Name: "x-envoy-overloaded", Value: "true"}},
				Body:    "upstream connect error or disconnect/reset before headers. reset reason: overflow",
			}, "UO upstream_reset_before_response_started{overflow}"},
		{corev3.RoutingPriority_HIGH, "max_requests of the route's priority", `{"name": "up", "load_assignment": {"cluster_name": "up", ` + endpoints + `},
			"circuit_breakers": {"thresholds": [{"priority": "HIGH", "max_requests": 0}]}}`, "upstream_rq_active_overflow",
			httpfilter.Reply{
				Status:  503,
				Headers: []httpfilter.Header{{Name: "x-envoy-overloaded", Value: "true"}},
				Body:    "upstream connect error or disconnect/reset before headers. reset reason: overflow",
			}, "UO upstream_reset_before_response_started{overflow}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			message := &clusterv3.Cluster{}
			require.NoError(t, protojson.Unmarshal([]byte(c.config), message))
			report := &strict.Report{}
			policies := []cluster.Policy{lb.RoundRobin()}
			up := cluster.Parse(message, "", policies, report)
			require.NoError(t, report.Err())
			registry := stats.NewRegistry()
			clusters := cluster.NewManager(cluster.ManagerOptions{
				Policies: policies, Stats: registry, Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
			}, false)
			clusters.AddStatic([]*cluster.Config{up})
			s := &stream.Stream{Route: &route.Route{Priority: c.priority}, Cluster: clusters.Get("up"), Context: t.Context()}

			filter := newFilter()
			reply := filter.(httpfilter.Terminal).Forward(s)
			require.Equal(t, &c.want, reply)
			require.Equal(t, c.told, fmt.Sprint(s.Facts.Flags, " ", s.Facts.Details))
			filter.(httpfilter.Done).Done(s)
			for _, m := range clusters.Get("up").Hosts().Members {
				m.Host.Connections.Close()
			}
			used := map[string]int64{}
			registry.Each(func(m stats.Metric) { used[m.Name] = m.Value })
			require.EqualValues(t, 1, used["cluster.up."+c.counter])
			require.EqualValues(t, 1, used["cluster.up.upstream_rq_503"])
			require.Zero(t, used["cluster.up.upstream_rq_active"])
		})
	}
}

// TestRequestsAreDroppedByChance has nearly all dropped, so that one of a few is.
func TestRequestsAreDroppedByChance(t *testing.T) {
	host, port, err := net.SplitHostPort(newScripted(t, fine).address)
	require.NoError(t, err)
	up, _ := clusterFrom(t, fmt.Sprintf(`{"name": "up", "load_assignment": {"cluster_name": "up",
		"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}]}],
		"policy": {"drop_overloads": [{"category": "some", "drop_percentage": {"numerator": 999999, "denominator": "MILLION"}}]}}}`, host, port))
	for suppressed, header := range map[bool]string{false: "true", true: ""} {
		s := sendBy(t, &routerv3.Router{SuppressEnvoyHeaders: suppressed}, up, routeOf(t, "", ""), nil)
		for s.Response.Status == 200 {
			s = sendBy(t, &routerv3.Router{SuppressEnvoyHeaders: suppressed}, up, routeOf(t, "", ""), nil)
		}
		require.Equal(t, "503 DO", s.summary())
		require.Equal(t, "drop overload", s.body)
		require.Equal(t, "drop_overload", s.Facts.Details)
		told, _ := s.Response.Headers.Get("x-envoy-drop-overload")
		require.Equal(t, header, string(told))
	}
}
