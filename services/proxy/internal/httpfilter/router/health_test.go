package router_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// upstream is a cluster of one host, with further fields.
func upstream(t testing.TB, address, fields string) (*cluster.Cluster, *stats.Registry) {
	t.Helper()
	return clusterOf(t, fields, address)
}

// clusterOf is a cluster of hosts, with further fields. An address may have the name
// of its host before it: a@127.0.0.1:80.
func clusterOf(t testing.TB, fields string, addresses ...string) (*cluster.Cluster, *stats.Registry) {
	t.Helper()
	var endpoints []string
	for _, address := range addresses {
		name, address, named := strings.Cut(address, "@")
		if !named {
			name, address = "", name
		}
		host, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		endpoints = append(endpoints, fmt.Sprintf(`{"endpoint": {"hostname": %q, "address": {"socket_address": {"address": %q, "port_value": %s}}}}`, name, host, port))
	}
	return clusterFrom(t, fmt.Sprintf(`{"name": "up", %s, "load_assignment": {"cluster_name": "up",
		"endpoints": [{"lb_endpoints": [%s]}]}}`, fields, strings.Join(endpoints, ",")))
}

// clusterFrom is the cluster up of a configuration.
func clusterFrom(t testing.TB, text string) (*cluster.Cluster, *stats.Registry) {
	t.Helper()
	message := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal([]byte(text), message))
	report := &strict.Report{}
	policies := []cluster.Policy{lb.RoundRobin()}
	config := cluster.Parse(message, "", policies, report)
	require.NoError(t, report.Err())
	registry := stats.NewRegistry()
	clusters := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Stats: registry, Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	clusters.AddStatic([]*cluster.Config{config})
	<-clusters.Started()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, clusters.Run(ctx))
	})
	return clusters.Get("up"), registry
}

// get sends a GET of / to the cluster and returns the status.
func get(t *testing.T, up *cluster.Cluster) int {
	t.Helper()
	return getAs(t, up, "")
}

// getAs is get with a content-type, unless that is empty.
func getAs(t *testing.T, up *cluster.Cluster, contentType string) int {
	t.Helper()
	s := &stream.Stream{Route: &route.Route{}, Cluster: up, Context: t.Context()}
	s.Request.Method, s.Request.Path, s.Request.Authority = []byte("GET"), []byte("/"), []byte("up")
	if contentType != "" {
		s.Request.Headers.Add("content-type", contentType)
	}
	filter := newFilter()
	defer filter.(httpfilter.Done).Done(s)
	if reply := filter.(httpfilter.Terminal).Forward(s); reply != nil {
		return reply.Status
	}
	for s.Response.Body != nil {
		if _, err := s.Response.Body.Next(); err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
	}
	return s.Response.Status
}

// count is the metric of that name.
func count(registry *stats.Registry, name string) (value int64) {
	registry.Each(func(m stats.Metric) {
		if m.Name == name {
			value = m.Value
		}
	})
	return value
}

const outliers = `"outlier_detection": {"consecutive_5xx": 3, "always_eject_one_host": true}`

func TestHostIsEjectedByWhatRequestsCameTo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer server.Close()
	up, registry := upstream(t, server.Listener.Addr().String(), outliers)
	for range 3 {
		require.Zero(t, count(registry, "cluster.up.outlier_detection.ejections_active"))
		require.Equal(t, 500, get(t, up))
	}
	require.EqualValues(t, 1, count(registry, "cluster.up.outlier_detection.ejections_active"))
}

func TestHostIsEjectedByWhatCallsOfGRPCCameTo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("grpc-status", "14") }))
	defer server.Close()
	for kind, want := range map[string]int64{"application/grpc": 1, "text/plain": 0} {
		up, registry := upstream(t, server.Listener.Addr().String(), outliers)
		for range 3 {
			require.Equal(t, 200, getAs(t, up, kind))
		}
		require.Equal(t, want, count(registry, "cluster.up.outlier_detection.ejections_active"), kind)
	}
}

func TestHostIsEjectedThatCannotBeReached(t *testing.T) {
	up, registry := upstream(t, servicetest.FreeAddress(t), outliers)
	for range 3 {
		require.Equal(t, 503, get(t, up))
	}
	require.EqualValues(t, 1, count(registry, "cluster.up.outlier_detection.ejections_active"))
}

func TestHostIsEjectedThatBreaksOff(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer server.Close()
	up, registry := upstream(t, server.Listener.Addr().String(), outliers)
	for range 3 {
		require.Equal(t, 503, get(t, up))
	}
	require.EqualValues(t, 1, count(registry, "cluster.up.outlier_detection.ejections_active"))
}

func TestHostThatAsksToBeLeftOutIsFailed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("x-envoy-immediate-health-check-fail", "true")
		}
	}))
	defer server.Close()
	up, registry := upstream(t, server.Listener.Addr().String(), `"health_checks": [{"timeout": "5s", "interval": "3600s", "no_traffic_interval": "3600s",
		"healthy_threshold": 1, "unhealthy_threshold": 3, "http_health_check": {"path": "/healthz"}}]`)
	require.Equal(t, 200, get(t, up))
	servicetest.Eventually(t, "the host is failed", func() bool {
		return up.Hosts().Members[0].Host.Flags() == cluster.FailedActiveHC|cluster.ExcludedViaImmediateHCFail
	})
	require.EqualValues(t, 1, count(registry, "cluster.up.health_check.passive_failure"))
}
