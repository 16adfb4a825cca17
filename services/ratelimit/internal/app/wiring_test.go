package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestStatisticsAreSentUnderThePeersNames(t *testing.T) {
	o := options(t)
	sent := receiveStreams(t, &o)
	r := start(t, o)
	for range 4 {
		_, err := r.ask(t.Context(), "user", "alice")
		require.NoError(t, err)
	}
	require.NoError(t, r.stop()) // and with it the last flush
	const name = "ratelimit.service.rate_limit.shop.user."
	servicetest.Eventually(t, "all that was counted has come", func() bool {
		return sent.value(name+"total_hits|c") == 4 && sent.value(name+"within_limit|c") == 3 && sent.value(name+"over_limit|c") == 1
	})
}

func TestMetricsAreServedUnderThePeersNamesWhereThatIsWanted(t *testing.T) {
	o := options(t)
	o.UsePrometheus, o.PrometheusAddr, o.PrometheusPath = true, "127.0.0.1:0", "/peer"
	r := start(t, o)
	_, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
	status, body := servicetest.Get(t, r.addrs["prometheus"], "/peer")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `ratelimit_service_rate_limit_total_hits{domain="shop",key1="user"} 1`)

	o = options(t)
	o.UsePrometheus, o.DisableStats = true, true
	require.NotContains(t, start(t, o).addrs, "prometheus")
}

func TestDomainsWithoutRulesAreCountedByNameUpToTheBound(t *testing.T) {
	o := options(t)
	o.MaxNames = 1
	r := start(t, o)
	for _, domain := range []string{"a", "b", "a"} {
		_, err := pb.NewRateLimitServiceClient(r.conn).ShouldRateLimit(t.Context(), &pb.RateLimitRequest{
			Domain: domain, Descriptors: []*commonpb.RateLimitDescriptor{{}, {}},
		})
		require.NoError(t, err)
	}
	_, body := r.get(t, "admin", "/metrics")
	require.Contains(t, body, `ratelimit_service_rate_limit_domain_not_found{domain="a"} 4`)
	require.Contains(t, body, `ratelimit_service_rate_limit_domain_not_found{domain="(other)"} 2`)
}

func TestServesOnAUnixSocket(t *testing.T) {
	o := options(t)
	o.GRPCUDS = filepath.Join(t.TempDir(), "grpc.sock")
	start(t, o)
	conn, err := grpc.NewClient("unix:"+o.GRPCUDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	_, err = pb.NewRateLimitServiceClient(conn).ShouldRateLimit(t.Context(), &pb.RateLimitRequest{})
	require.ErrorContains(t, err, "domain")
}

func TestCallsAreTraced(t *testing.T) {
	spans := make(chan string, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		request := &collectorpb.ExportTraceServiceRequest{}
		if proto.Unmarshal(body, request) != nil {
			return
		}
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					spans <- span.GetName()
				}
			}
		}
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	o := options(t)
	o.TracingEnabled = true
	r := start(t, o)
	_, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
	require.NoError(t, r.stop()) // sends what waits
	require.ElementsMatch(t, []string{"ShouldRateLimit Execution", "Redis Pipeline Execution"}, []string{<-spans, <-spans})
}

func TestIsReadyOnlyWithADomainWhereThatIsWanted(t *testing.T) {
	o := options(t)
	o.HealthyWithConfig = true
	r := start(t, o)
	ready := func() bool {
		code, _ := r.get(t, "admin", "/ready")
		return code == http.StatusOK
	}
	require.True(t, ready())
	require.NoError(t, os.Remove(filepath.Join(r.rules, "shop.yaml")))
	servicetest.Eventually(t, "it is not ready without a domain", func() bool { return !ready() })
	_, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err, "an emptied directory is no rules, which limit nothing")
}

func TestThePageHasItsData(t *testing.T) {
	o := options(t)
	o.LocalCacheSize, o.ResponseHeaders = 1<<20, true
	r := start(t, o)
	for range 5 {
		_, err := r.ask(t.Context(), "user", "alice")
		require.NoError(t, err)
	}
	answer, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
	require.Len(t, answer.GetResponseHeadersToAdd(), 3)
	status, body := r.get(t, "admin", "/page")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "page.json")
	_, body = r.get(t, "admin", "/page.json?filter=user")
	var data struct {
		Ready    bool
		Store    string
		Rules    int
		Matching int
		Refusals []struct {
			Descriptor string
			Hits       uint64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &data))
	require.True(t, data.Ready)
	require.Equal(t, "memory", data.Store)
	require.Equal(t, 3, data.Rules)
	require.Equal(t, 2, data.Matching)
	require.Equal(t, "shop: user=alice", data.Refusals[0].Descriptor)
	require.Equal(t, uint64(3), data.Refusals[0].Hits)
}

func TestAControlPlaneGivesTheRules(t *testing.T) {
	o := options(t)
	o.ConfigType, o.XDSServer, o.XDSRetry = "GRPC_XDS_SOTW", controlPlane(t), 20*time.Millisecond
	o.XDSBackoff, o.XDSBackoffMax = 20*time.Millisecond, 20*time.Millisecond
	r := start(t, o)
	servicetest.Eventually(t, "its rules are in force", func() bool {
		_, body := r.get(t, "admin", "/rlconfig")
		return strings.Contains(body, "shop.user: unit=HOUR requests_per_unit=7")
	})
	servicetest.Eventually(t, "it is ready", func() bool {
		code, _ := r.get(t, "admin", "/ready")
		return code == http.StatusOK
	})
	answer, err := r.ask(context.Background(), "user", "alice")
	require.NoError(t, err)
	require.Equal(t, uint32(6), answer.GetStatuses()[0].GetLimitRemaining())
}

// controlPlane starts one that gives a rule of the domain shop, and returns its
// address.
func controlPlane(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	plane := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	snapshot, err := cache.NewSnapshot("1", map[resource.Type][]types.Resource{resource.RateLimitConfigType: {
		&ratelimitv3.RateLimitConfig{Name: "shop", Domain: "shop", Descriptors: []*ratelimitv3.RateLimitDescriptor{{
			Key: "user", RateLimit: &ratelimitv3.RateLimitPolicy{Unit: ratelimitv3.RateLimitUnit_HOUR, RequestsPerUnit: 7},
		}}},
	}})
	require.NoError(t, err)
	require.NoError(t, plane.SetSnapshot(ctx, "default", snapshot))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(ctx, plane, nil))
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) }) // ends with Stop
	t.Cleanup(func() { cancel(); g.Stop(); serving.Wait() })
	return l.Addr().String()
}
