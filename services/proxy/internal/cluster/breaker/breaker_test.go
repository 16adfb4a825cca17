package breaker_test

import (
	"math"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func parse(t testing.TB, text string) [2]breaker.Thresholds {
	t.Helper()
	message := &clusterv3.CircuitBreakers{}
	require.NoError(t, protojson.Unmarshal([]byte(text), message))
	report := &strict.Report{}
	made := breaker.Parse(message, "", report)
	require.NoError(t, report.Err())
	return made
}

func TestLimitsAreEnvoysUnlessSet(t *testing.T) {
	standard := breaker.Thresholds{MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 3, MaxConnectionPools: math.MaxUint32, MaxHostConnections: math.MaxUint32}
	budget, host := standard, standard
	budget.RetryBudget = &breaker.RetryBudget{Percent: 20, Least: 3}
	host.MaxHostConnections = 7
	for _, c := range []struct {
		name, text        string
		wantLow, wantHigh breaker.Thresholds
	}{
		{"nothing", `{}`, standard, standard},
		{"all", `{"thresholds": [{"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4, "max_connection_pools": 5, "track_remaining": true,
			"retry_budget": {"budget_percent": {"value": 0.5}, "min_retry_concurrency": 0}}]}`,
			breaker.Thresholds{MaxConnections: 1, MaxPendingRequests: 2, MaxRequests: 3, MaxRetries: 4, MaxConnectionPools: 5, MaxHostConnections: math.MaxUint32, TrackRemaining: true, RetryBudget: &breaker.RetryBudget{Percent: 0.5}}, standard},
		{"a budget", `{"thresholds": [{"priority": "HIGH", "retry_budget": {}}]}`, standard, budget},
		{"the first of two", `{"thresholds": [{"max_retries": 3, "max_requests": 1024}, {"max_requests": 1}]}`, standard, standard},
		{"of a host", `{"per_host_thresholds": [{"priority": "HIGH", "max_connections": 7}, {"priority": "HIGH", "max_connections": 8}, {}]}`, standard, host},
		{"a priority that is none", `{"thresholds": [{"priority": 7, "max_requests": 1}]}`, standard, standard},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, [2]breaker.Thresholds{c.wantLow, c.wantHigh}, parse(t, c.text))
		})
	}
}

func TestAHostHasALimitOfConnectionsAlone(t *testing.T) {
	message, report := &clusterv3.CircuitBreakers{}, &strict.Report{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"per_host_thresholds": [{"max_connections": 1}, {"max_requests": 1, "track_remaining": true}]}`), message))
	breaker.Parse(message, "circuit_breakers", report)
	require.ErrorContains(t, report.Err(), "circuit_breakers.per_host_thresholds[1].max_requests: a host has a limit of connections alone")
	require.ErrorContains(t, report.Err(), "circuit_breakers.per_host_thresholds[1].track_remaining: ")
	require.NotContains(t, report.Err().Error(), "[0]")
}

func TestResourcesHaveTheirLimits(t *testing.T) {
	registry := stats.NewRegistry()
	sets := breaker.New(parse(t, `{"thresholds": [
		{"max_requests": 2, "max_connections": 0, "track_remaining": true},
		{"priority": "HIGH", "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 1}, "track_remaining": true}]}`), registry.Scope("c"))
	gauge := func(name string) int64 { return registry.Scope("c").Gauge("circuit_breakers." + name).Value() }
	require.Zero(t, gauge("high.rq_retry_open"))
	names := map[string]bool{}
	registry.Each(func(m stats.Metric) { names[m.Name] = true })
	require.Contains(t, names, "c.circuit_breakers.high.remaining_retries", "which a budget leaves at 0")

	requests := &sets[0].Requests
	require.EqualValues(t, 2, gauge("default.remaining_rq"))
	require.True(t, requests.Acquire())
	require.Zero(t, gauge("default.rq_open"))
	require.True(t, requests.Acquire())
	require.EqualValues(t, 1, gauge("default.rq_open"))
	require.False(t, requests.Acquire())
	require.Zero(t, gauge("default.remaining_rq"))
	require.EqualValues(t, 2, requests.Used())
	requests.Release()
	require.Zero(t, gauge("default.rq_open"))
	require.EqualValues(t, 1, gauge("default.remaining_rq"))

	connections := &sets[0].Connections
	require.EqualValues(t, 1, gauge("default.cx_open"), "there never are any")
	require.False(t, connections.Acquire())
	connections.Take()
	require.EqualValues(t, 1, connections.Used())
	connections.Release()
	require.EqualValues(t, 1, gauge("default.cx_open"))

	high := sets[1]
	require.True(t, high.Retries.Acquire(), "the least that there may be")
	require.False(t, high.Retries.Acquire())
	for range 3 {
		require.True(t, high.Requests.Acquire())
	}
	require.True(t, high.PendingRequests.Acquire())
	require.True(t, high.Retries.Acquire(), "half of four")
	require.False(t, high.Retries.Acquire())
}

func TestLimitHoldsAmongManyGoroutines(t *testing.T) {
	requests := &breaker.New(parse(t, `{"thresholds": [{"max_requests": 3}]}`), stats.NewRegistry().Scope("c"))[0].Requests
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				if requests.Acquire() {
					if used := requests.Used(); used > 3 {
						t.Errorf("%d are in use", used)
					}
					requests.Release()
				}
			}
		})
	}
	all.Wait()
	require.Zero(t, requests.Used())
}

func TestAcquireAndReleaseAllocateNothing(t *testing.T) {
	requests := &breaker.New(parse(t, `{}`), stats.NewRegistry().Scope("c"))[0].Requests
	servicetest.Allocations(t, 0, func() {
		requests.Acquire()
		requests.Release()
	})
}

func BenchmarkAcquireAndRelease(b *testing.B) {
	requests := &breaker.New(parse(b, `{}`), stats.NewRegistry().Scope("c"))[0].Requests
	b.ReportAllocs()
	for b.Loop() {
		requests.Acquire()
		requests.Release()
	}
}
