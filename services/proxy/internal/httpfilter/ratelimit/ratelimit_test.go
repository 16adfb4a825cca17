package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/ratelimit"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// call is what a service was asked.
type call struct {
	cluster, domain, descriptors string
	timeout                      time.Duration
}

// fake is a rate-limit service that gives one answer.
type fake struct {
	answer rlsclient.Response
	err    error
	calls  []call
	// blocks makes it wait for the timeout, or for the end of the context.
	blocks bool
}

func (f *fake) ShouldRateLimit(ctx context.Context, _ upstream.Caller, service rlsclient.Service, request *rlsclient.Request, response *rlsclient.Response) error {
	c := call{cluster: service.Cluster, domain: request.Domain, timeout: service.Timeout}
	for i := range request.Descriptors.Len() {
		for _, e := range request.Descriptors.At(i) {
			c.descriptors += e.Key + "=" + string(e.Value) + " "
		}
		if hits := request.Descriptors.Details(i).Hits; hits.Set {
			c.descriptors += fmt.Sprintf("+%d ", hits.Number)
		}
		c.descriptors += "; "
	}
	f.calls = append(f.calls, c)
	if f.blocks {
		select {
		case <-ctx.Done():
			return rlsclient.ErrGivenUp
		case <-time.After(service.Timeout):
			return errors.New("the timeout passed")
		}
	}
	*response = f.answer
	return f.err
}

func (f *fake) Report(service rlsclient.Service, request *rlsclient.Request) {
	_ = f.ShouldRateLimit(context.Background(), nil, service, request, &rlsclient.Response{})
}

const minimal = `
domain: edge
rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}
`

// target is a route to the cluster echo, limited by x-user and the client's
// address.
type target struct {
	cluster *cluster.Cluster
	route   *route.Route
}

func newTarget(t testing.TB) *target {
	t.Helper()
	report := &strict.Report{}
	limits := descriptor.Parse([]*routev3.RateLimit{
		{Actions: []*routev3.RateLimit_Action{
			{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: "x-user", DescriptorKey: "user"}}},
			{ActionSpecifier: &routev3.RateLimit_Action_DestinationCluster_{DestinationCluster: &routev3.RateLimit_Action_DestinationCluster{}}},
		}},
		{Actions: []*routev3.RateLimit_Action{
			{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: "x-user", DescriptorKey: "user"}}},
			{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}},
		}},
	}, "rate_limits", report)
	policies := []cluster.Policy{lb.RoundRobin()}
	manager := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	manager.AddStatic([]*cluster.Config{cluster.Parse(&clusterv3.Cluster{
		Name:           "echo",
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: "echo"},
	}, "cluster", policies, report)})
	require.NoError(t, report.Err())
	return &target{manager.Get("echo"), &route.Route{Cluster: "echo", RateLimits: limits}}
}

func (x *target) prepare(s *stream.Stream) { s.Route, s.Cluster = x.route, x.cluster }

// counters are the filter's for the cluster echo, by name, without those that
// are 0; and the cluster's own for 429.
func (x *target) counters() map[string]uint64 {
	found := map[string]uint64{}
	for _, name := range []string{"ratelimit.ok", "ratelimit.over_limit", "ratelimit.error", "ratelimit.failure_mode_allowed", "ratelimit.over_limit_not_enforced", "upstream_rq_429"} {
		if n := x.cluster.Stats.Scope.Counter(name).Value(); n > 0 {
			found[name] = n
		}
	}
	return found
}

const (
	asked  = "GET /a\nx-user: ann"
	passed = "GET /a\nhost: a.example\nx-user: ann"
)

func TestAnswers(t *testing.T) {
	failed := errors.New("no answer")
	for _, c := range []struct {
		name     string
		config   string // beside the minimal one
		answer   rlsclient.Response
		err      error
		want     filtertest.Result
		counters map[string]uint64
	}{
		{
			name:     "OK lets the request pass",
			answer:   rlsclient.Response{Code: rlsv3.RateLimitResponse_OK, Body: "not for use"},
			want:     filtertest.Result{Forwarded: passed, Response: "200\nx-up: 1"},
			counters: map[string]uint64{"ratelimit.ok": 1},
		},
		{
			name: "OK adds headers to the request and to its response",
			answer: rlsclient.Response{
				Code:            rlsv3.RateLimitResponse_OK,
				RequestHeaders:  []rlsclient.Header{{Name: "x-tier", Value: "gold"}, {Name: "x-user", Value: "bob"}},
				ResponseHeaders: []rlsclient.Header{{Name: "x-left", Value: "9"}, {Name: "x-up", Value: "2"}},
			},
			want:     filtertest.Result{Forwarded: passed + "\nx-tier: gold\nx-user: bob", Response: "200\nx-up: 1\nx-left: 9\nx-up: 2"},
			counters: map[string]uint64{"ratelimit.ok": 1},
		},
		{
			name:     "OVER_LIMIT is answered with 429",
			answer:   rlsclient.Response{Code: rlsv3.RateLimitResponse_OVER_LIMIT},
			want:     filtertest.Result{Response: "429\nx-envoy-ratelimited: true"},
			counters: map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1},
		},
		{
			name: "OVER_LIMIT has the service's headers and body, once",
			answer: rlsclient.Response{
				Code:            rlsv3.RateLimitResponse_OVER_LIMIT,
				RequestHeaders:  []rlsclient.Header{{Name: "x-tier", Value: "gold"}},
				ResponseHeaders: []rlsclient.Header{{Name: "content-type", Value: "application/json"}, {Name: "retry-after", Value: "7"}},
				Body:            `{"slow": "down"}`,
			},
			want:     filtertest.Result{Response: "429\nx-envoy-ratelimited: true\ncontent-type: application/json\nretry-after: 7\n\n{\"slow\": \"down\"}"},
			counters: map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1},
		},
		{
			name:     "without an answer the request passes",
			answer:   rlsclient.Response{RequestHeaders: []rlsclient.Header{{Name: "x-tier", Value: "gold"}}},
			err:      failed,
			want:     filtertest.Result{Forwarded: passed, Response: "200\nx-up: 1"},
			counters: map[string]uint64{"ratelimit.error": 1, "ratelimit.failure_mode_allowed": 1},
		},
		{
			name:     "without an answer failure_mode_deny refuses it",
			config:   "failure_mode_deny: true",
			err:      failed,
			want:     filtertest.Result{Response: "500"},
			counters: map[string]uint64{"ratelimit.error": 1},
		},
		{
			name:     "UNKNOWN is no answer",
			answer:   rlsclient.Response{Code: rlsv3.RateLimitResponse_UNKNOWN},
			want:     filtertest.Result{Forwarded: passed, Response: "200\nx-up: 1"},
			counters: map[string]uint64{"ratelimit.error": 1, "ratelimit.failure_mode_allowed": 1},
		},
		{
			name:     "a code of a later version is no answer",
			config:   "failure_mode_deny: true",
			answer:   rlsclient.Response{Code: 7},
			want:     filtertest.Result{Response: "500"},
			counters: map[string]uint64{"ratelimit.error": 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTarget(t)
			service := &fake{answer: c.answer, err: c.err}
			config := filtertest.MustParse(t, ratelimit.Factory{Services: service}, minimal+c.config)
			exchange := filtertest.Exchange{Request: asked, Response: "200\nx-up: 1", Prepare: x.prepare}
			require.Equal(t, c.want, filtertest.Run(t, config, exchange))
			require.Equal(t, c.counters, x.counters())

			// The filter of the next stream keeps nothing of this one.
			exchange.Prepare = nil
			require.Equal(t, filtertest.Result{Forwarded: passed, Response: "200\nx-up: 1"}, filtertest.Run(t, config, exchange))
			require.Len(t, service.calls, 1)
		})
	}
}

func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  string
		request string
		prepare func(*stream.Stream)
		want    []call
	}{
		{
			name: "every descriptor goes in one call", request: asked,
			want: []call{{"rls", "edge", "user=ann destination_cluster=echo ; user=ann remote_address=192.0.2.1 ; ", 20 * time.Millisecond}},
		},
		{
			name: "a dropped descriptor leaves the others", request: asked,
			prepare: func(s *stream.Stream) { s.ClientAddress = netip.Addr{} },
			want:    []call{{"rls", "edge", "user=ann destination_cluster=echo ; ", 20 * time.Millisecond}},
		},
		{
			name: "the timeout bounds it", config: "timeout: 0.5s", request: asked,
			want: []call{{"rls", "edge", "user=ann destination_cluster=echo ; user=ann remote_address=192.0.2.1 ; ", 500 * time.Millisecond}},
		},
		{
			name: "a timeout of 0 is none", config: "timeout: 0s", request: asked,
			want: []call{{"rls", "edge", "user=ann destination_cluster=echo ; user=ann remote_address=192.0.2.1 ; ", 0}},
		},
		{name: "no descriptor, no call", request: "GET /a"},
		{name: "no route, no call", request: asked, prepare: func(s *stream.Stream) { s.Route = nil }},
		{name: "no cluster, no call", request: asked, prepare: func(s *stream.Stream) { s.Cluster = nil }},
		{name: "a route without limits, no call", request: asked, prepare: func(s *stream.Stream) { s.Route = &route.Route{Cluster: "echo"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTarget(t)
			service := &fake{answer: rlsclient.Response{Code: rlsv3.RateLimitResponse_OK}}
			config := filtertest.MustParse(t, ratelimit.Factory{Services: service}, minimal+c.config)
			got := filtertest.Run(t, config, filtertest.Exchange{Request: c.request, Prepare: func(s *stream.Stream) {
				x.prepare(s)
				if c.prepare != nil {
					c.prepare(s)
				}
			}})
			require.NotEmpty(t, got.Forwarded)
			require.Equal(t, c.want, service.calls)
			if c.want == nil {
				require.Empty(t, x.counters())
			}
		})
	}
}

func TestAccessLogsAreToldWhyARequestWasRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		service *fake
		want    string
	}{
		{"it passed", &fake{answer: rlsclient.Response{Code: rlsv3.RateLimitResponse_OK}}, " "},
		{"over its limit", &fake{answer: rlsclient.Response{Code: rlsv3.RateLimitResponse_OVER_LIMIT}}, "RL request_rate_limited"},
		{"no answer", &fake{err: errors.New("away")}, "RLSE rate_limiter_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTarget(t)
			config := filtertest.MustParse(t, ratelimit.Factory{Services: c.service}, minimal+"failure_mode_deny: true")
			var told *stream.Stream
			filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: func(s *stream.Stream) {
				x.prepare(s)
				told = s
			}})
			require.Equal(t, c.want, strings.TrimPrefix(told.Facts.Flags.String(), "-")+" "+told.Facts.Details)
		})
	}
}

func TestSlowServiceIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTarget(t)
		config := filtertest.MustParse(t, ratelimit.Factory{Services: &fake{blocks: true}}, minimal)
		start := time.Now()
		got := filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: x.prepare})
		require.Equal(t, passed, got.Forwarded)
		require.Equal(t, 20*time.Millisecond, time.Since(start))
		require.Equal(t, map[string]uint64{"ratelimit.error": 1, "ratelimit.failure_mode_allowed": 1}, x.counters())
	})
}

func TestStreamThatEndsMeanwhileIsNoErrorOfTheService(t *testing.T) {
	x := newTarget(t)
	config := filtertest.MustParse(t, ratelimit.Factory{Services: &fake{blocks: true}}, minimal+"failure_mode_deny: true")
	got := filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: func(s *stream.Stream) {
		x.prepare(s)
		ended, cancel := context.WithCancel(s.Context)
		cancel()
		s.Context = ended
	}})
	require.Equal(t, filtertest.Result{Response: "500"}, got)
	require.Empty(t, x.counters())
}

func TestClusterThatCameAgainHasNewCounters(t *testing.T) {
	config := filtertest.MustParse(t, ratelimit.Factory{Services: &fake{answer: rlsclient.Response{Code: rlsv3.RateLimitResponse_OK}}}, minimal)
	for range 2 {
		x := newTarget(t)
		for range 3 {
			filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: x.prepare})
		}
		require.Equal(t, map[string]uint64{"ratelimit.ok": 3}, x.counters())
	}
}

func TestClusterThatWentIsForgotten(t *testing.T) {
	config := filtertest.MustParse(t, ratelimit.Factory{Services: silent{}}, minimal)
	scope := func() weak.Pointer[stats.Scope] {
		x := newTarget(t)
		filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: x.prepare})
		return weak.Make(x.cluster.Stats.Scope)
	}()
	servicetest.Eventually(t, "nothing holds its metrics", func() bool {
		runtime.GC()
		return scope.Value() == nil
	})
	runtime.KeepAlive(config)
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"no domain", `rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}`, "domain"},
		{"no service", `domain: edge`, "rate_limit_service"},
		{"no grpc_service", `{domain: edge, rate_limit_service: {transport_api_version: V3}}`, "rate_limit_service.grpc_service"},
		{"no cluster", `{domain: edge, rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {}}}}`, "rate_limit_service.grpc_service.envoy_grpc.cluster_name"},
		{"another transport", `{domain: edge, rate_limit_service: {transport_api_version: V3, grpc_service: {google_grpc: {target_uri: a, stat_prefix: b}}}}`, "google_grpc"},
		{"retries", `{domain: edge, rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls, retry_policy: {}}}}}`, "rate_limit_service.grpc_service.envoy_grpc.retry_policy: it is for streams of xDS"},
		{"no version", `{domain: edge, rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: rls}}}}`, "config.yaml:1:16: rate_limit_service.transport_api_version: AUTO is not supported: use V3"},
		{"an old version", `{domain: edge, rate_limit_service: {transport_api_version: V2, grpc_service: {envoy_grpc: {cluster_name: rls}}}}`, "config.yaml:1:37: rate_limit_service.transport_api_version: V2 is not supported: use V3"},
		{"a negative timeout", minimal + "timeout: -1s", "config.yaml:4:1: timeout: -1s is negative"},
		{"a stage that is none", minimal + "stage: 11", "stage"},
		{"a request_type that is none", minimal + "request_type: inner", "request_type"},
		{"a stage of limits of its own", minimal + "rate_limits: [{stage: 0, actions: [{remote_address: {}}]}]", "rate_limits[0].stage: is for the rate_limits of routes and virtual hosts only"},
		{"a disable_key of limits of its own", minimal + "rate_limits: [{disable_key: a, actions: [{remote_address: {}}]}]", "rate_limits[0].disable_key"},
		{"a number and a format of hits", minimal + `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 1, format: "%BYTES_RECEIVED%"}}]`, "rate_limits[0].hits_addend: either a number or a format is needed"},
		{"hits of two operators", minimal + `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%BYTES_RECEIVED%%BYTES_SENT%"}}]`, "hits_addend.format: format \"%BYTES_RECEIVED%%BYTES_SENT%\": "},
		{"hits of two operators apart", minimal + `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%BYTES_RECEIVED% %BYTES_SENT%"}}]`, "exactly one operator is needed, and nothing beside it"},
		{"a deprecated action", minimal + `rate_limits: [{actions: [{dynamic_metadata: {descriptor_key: a, metadata_key: {key: a, path: [{key: b}]}}}]}]`, "deprecated: use metadata"},
		{"a limit without a unit", minimal + `rate_limits: [{actions: [{remote_address: {}}], limit: {rate_limit: {requests_per_unit: 1}}}]`, "limit.rate_limit.unit"},
		{"a header that is none", minimal + `response_headers_to_add: [{header: {key: "x y", value: a}}]`, "response_headers_to_add[0].header.key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, report := filtertest.Parse(t, ratelimit.Factory{}, c.config)
			require.ErrorContains(t, report.Err(), c.want)
			require.Len(t, report.Faults(), 1, "%v", report.Err())
		})
	}
}

const over, okay = rlsv3.RateLimitResponse_OVER_LIMIT, rlsv3.RateLimitResponse_OK

// answering makes a filter whose service gives one answer, and has every chance
// come to 30.
func answering(t testing.TB, config string, answer rlsclient.Response, err error) (httpfilter.Config, *fake) {
	t.Helper()
	service := &fake{answer: answer, err: err}
	return filtertest.MustParse(t, ratelimit.Factory{Services: service, Random: func() uint64 { return 30 }}, minimal+config), service
}

func TestSettings(t *testing.T) {
	statuses := []rlsclient.Status{
		{Code: okay, Limited: true, Requests: 10, Window: time.Minute, Remaining: 3, Reset: 9900 * time.Millisecond, Name: `a"b`},
		{Code: over, Limited: true, Requests: 5, Remaining: 1, Reset: 200 * time.Millisecond},
		{Code: over, Remaining: 0, Reset: time.Second},
	}
	failed := errors.New("no answer")
	const (
		pass   = "200\nx-up: 1"
		refuse = "429\nx-envoy-ratelimited: true"
		shown  = "\nx-ratelimit-limit: 5, 10;w=60;name=\"ab\"\nx-ratelimit-remaining: 1\nx-ratelimit-reset: 0"
		grpc   = "\ncontent-type: application/grpc"
	)
	for _, c := range []struct {
		name, config string
		answer       rlsclient.Response
		err          error
		headers      string // of the request
		want         string // the response
		counters     map[string]uint64
	}{
		{"filter_enabled off: continue, no stats", "filter_enabled: {default_value: {numerator: 30}}", rlsclient.Response{Code: over}, nil, "", pass, nil},
		{"filter_enabled on", "filter_enabled: {default_value: {numerator: 31}}", rlsclient.Response{Code: over}, nil, "", refuse, map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"not enforced: stat over_limit, cluster charged, request goes on; headers are still added", "filter_enforced: {default_value: {numerator: 30}}",
			rlsclient.Response{Code: over, ResponseHeaders: []rlsclient.Header{{Name: "x-left", Value: "0"}}}, nil, "", pass + "\nx-left: 0",
			map[string]uint64{"ratelimit.over_limit": 1, "ratelimit.over_limit_not_enforced": 1, "upstream_rq_429": 1}},
		{"internal: only when x-envoy-internal: true", "request_type: internal", rlsclient.Response{Code: over}, nil, "", pass, nil},
		{"internal is", "request_type: internal", rlsclient.Response{Code: over}, nil, "\nx-envoy-internal: true", refuse, map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"external: only when not", "request_type: external", rlsclient.Response{Code: over}, nil, "\nx-envoy-internal: true", pass, nil},
		{"both", "request_type: both", rlsclient.Response{Code: okay}, nil, "", pass, map[string]uint64{"ratelimit.ok": 1}},
		{"a status of its own", "rate_limited_status: {code: 503}", rlsclient.Response{Code: over}, nil, "", "503\nx-envoy-ratelimited: true", map[string]uint64{"ratelimit.over_limit": 1}},
		{"a status below 400 is 429", "rate_limited_status: {code: 200}", rlsclient.Response{Code: over}, nil, "", refuse, map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"without the mark", "disable_x_envoy_ratelimited_header: true", rlsclient.Response{Code: over}, nil, "", "429", map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"headers of its own, with operators", `response_headers_to_add: [{header: {key: x-who, value: "%REQ(x-user)%"}}]`, rlsclient.Response{Code: over}, nil, "", refuse + "\nx-who: ann", map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"but not on what passes", `response_headers_to_add: [{header: {key: x-who, value: "%REQ(x-user)%"}}]`, rlsclient.Response{Code: okay}, nil, "", pass, map[string]uint64{"ratelimit.ok": 1}},
		{"gRPC: 200 with grpc-status UNAVAILABLE", "", rlsclient.Response{Code: over, Body: "50% of\n"}, nil, grpc, "200\nx-envoy-ratelimited: true\ncontent-type: application/grpc\ngrpc-status: 14\ngrpc-message: 50%25 of%0A", map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"or RESOURCE_EXHAUSTED", "rate_limited_as_resource_exhausted: true", rlsclient.Response{Code: over}, nil, grpc, "200\nx-envoy-ratelimited: true\ncontent-type: application/grpc\ngrpc-status: 8", map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"limits are shown", "enable_x_ratelimit_headers: DRAFT_VERSION_03", rlsclient.Response{Code: okay, Statuses: statuses}, nil, "", pass + shown, map[string]uint64{"ratelimit.ok": 1}},
		{"statuses without a limit show nothing", "enable_x_ratelimit_headers: DRAFT_VERSION_03", rlsclient.Response{Code: okay, Statuses: statuses[2:]}, nil, "", pass, map[string]uint64{"ratelimit.ok": 1}},
		{"the first of equal ones is shown", "enable_x_ratelimit_headers: DRAFT_VERSION_03", rlsclient.Response{Code: okay, Statuses: []rlsclient.Status{{Limited: true, Requests: 1}, {Limited: true, Requests: 2}}}, nil, "", pass + "\nx-ratelimit-limit: 1\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 0", map[string]uint64{"ratelimit.ok": 1}},
		{"retry-after: the largest, at least 1", "enable_retry_after_header: true", rlsclient.Response{Code: over, Statuses: statuses[:2]}, nil, "", refuse + "\nretry-after: 1", map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"never over the service's own", "enable_retry_after_header: true", rlsclient.Response{Code: over, Statuses: statuses, ResponseHeaders: []rlsclient.Header{{Name: "retry-after", Value: "7"}}}, nil, "", refuse + "\nretry-after: 7", map[string]uint64{"ratelimit.over_limit": 1, "upstream_rq_429": 1}},
		{"not with another status than 429", "enable_retry_after_header: true\nrate_limited_status: {code: 503}", rlsclient.Response{Code: over, Statuses: statuses}, nil, "", "503\nx-envoy-ratelimited: true", map[string]uint64{"ratelimit.over_limit": 1}},
		{"status_on_error", "failure_mode_deny: true\nstatus_on_error: {code: 503}", rlsclient.Response{}, failed, "", "503", map[string]uint64{"ratelimit.error": 1}},
		{"an error of gRPC", "failure_mode_deny: true", rlsclient.Response{}, failed, grpc, "200\ncontent-type: application/grpc\ngrpc-status: 2", map[string]uint64{"ratelimit.error": 1}},
		{"failure_mode_deny_percent overrides", "failure_mode_deny: true\nfailure_mode_deny_percent: {default_value: {numerator: 30}, runtime_key: a}", rlsclient.Response{}, failed, "", pass, map[string]uint64{"ratelimit.error": 1, "ratelimit.failure_mode_allowed": 1}},
		{"failure_mode_deny_percent denies", "failure_mode_deny_percent: {default_value: {numerator: 31}, runtime_key: a}", rlsclient.Response{}, failed, "", "500", map[string]uint64{"ratelimit.error": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTarget(t)
			config, _ := answering(t, c.config, c.answer, c.err)
			got := filtertest.Run(t, config, filtertest.Exchange{Request: asked + c.headers, Response: "200\nx-up: 1", Prepare: x.prepare})
			require.Equal(t, c.want, got.Response)
			counters := x.counters()
			if len(counters) == 0 {
				counters = nil
			}
			require.Equal(t, c.counters, counters)
		})
	}
}

func TestTheRuntimeSaysWhichRequestsAreLimited(t *testing.T) {
	const (
		pass   = "200\nx-up: 1"
		refuse = "429\nx-envoy-ratelimited: true"
		keyed  = "filter_enabled: {default_value: {numerator: 100}, runtime_key: a}\nfilter_enforced: {default_value: {numerator: 100}, runtime_key: b}"
	)
	failed := errors.New("no answer")
	for _, c := range []struct {
		config, values string
		err            error
		want           string
	}{
		{"", "{}", nil, refuse},
		{"", "{ratelimit.http_filter_enabled: 30}", nil, pass},
		{"", "{ratelimit.http_filter_enabled: 31}", nil, refuse},
		{"", "{ratelimit.http_filter_enforcing: 0}", nil, pass},
		{keyed, "{a: 0}", nil, pass},
		{keyed, "{b: {numerator: 1, denominator: MILLION}}", nil, pass},
		{keyed, "{ratelimit.http_filter_enabled: 0, ratelimit.http_filter_enforcing: 0}", nil, refuse},
		{"failure_mode_deny_percent: {default_value: {}, runtime_key: a}", "{a: 100}", failed, "500"},
		{"failure_mode_deny: true", "{a: 0}", failed, "500"},
	} {
		x := newTarget(t)
		config, _ := answering(t, c.config, rlsclient.Response{Code: over}, c.err)
		got := filtertest.Run(t, config, filtertest.Exchange{
			Request: asked, Response: "200\nx-up: 1", Prepare: x.prepare, Runtime: runtimetest.Values(t, c.values),
		})
		require.Equal(t, c.want, got.Response, "%+v", c)
	}
}

func TestStatPrefixSetsCountersApart(t *testing.T) {
	x := newTarget(t)
	config, _ := answering(t, "stat_prefix: edge", rlsclient.Response{Code: okay}, nil)
	filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: x.prepare})
	require.EqualValues(t, 1, x.cluster.Stats.Scope.Counter("ratelimit.edge.ok").Value())
}

// onRoute runs a request of a route that configures the filter.
func onRoute(t *testing.T, config httpfilter.Config, routes string, service *fake) string {
	t.Helper()
	x := newTarget(t)
	table := filtertest.MustParseRoutes(t, ratelimit.Factory{}, routes)
	filtertest.Run(t, config, filtertest.Exchange{Request: asked, Routes: table, Prepare: func(s *stream.Stream) { s.Cluster = x.cluster }})
	var calls []string
	for _, c := range service.calls {
		calls = append(calls, c.domain+": "+strings.ReplaceAll(c.descriptors, " ; ", ";"))
	}
	return strings.Join(calls, " | ")
}

// TestSources: "per-route rate_limits (most specific) → filter rate_limits → route
// + vhost rate_limits. The first that is set wins; it may yield nothing (then no
// call)".
func TestSources(t *testing.T) {
	const (
		own  = "\nrate_limits: [{actions: [{generic_key: {descriptor_value: filter}}]}]"
		per  = `, typed_per_filter_config: {test: {"@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute, `
		mine = `rate_limits: [{actions: [{generic_key: {descriptor_value: per-route}}]}]`
		none = `rate_limits: [{actions: [{request_headers: {header_name: x-none, descriptor_key: none}}]}]`
	)
	for _, c := range []struct{ name, config, route, want string }{
		{"the route's and not the host's", "", "", "edge: generic_key=route;"},
		{"both of them", "", per + "vh_rate_limits: INCLUDE}}", "edge: generic_key=route;generic_key=host;"},
		{"the filter's", own, "", "edge: generic_key=filter;"},
		{"what the route configures", own, per + mine + "}}", "edge: generic_key=per-route;"},
		{"though it yields nothing", own, per + none + "}}", ""},
		{"a domain of the route's", own, per + "domain: mine}}", "mine: generic_key=filter;"},
		{"another stage", "\nstage: 1", "", "edge: generic_key=later;"},
		{"of which the filter's have none", "\nstage: 1" + own, "", "edge: generic_key=filter;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, service := answering(t, c.config, rlsclient.Response{Code: okay}, nil)
			require.Equal(t, c.want, onRoute(t, config, `
virtual_hosts:
- name: all
  domains: ["*"]
  rate_limits: [{actions: [{generic_key: {descriptor_value: host}}]}]
  routes:
  - {match: {prefix: /}, route: {cluster: echo, rate_limits: [{actions: [{generic_key: {descriptor_value: route}}]}, {stage: 1, actions: [{generic_key: {descriptor_value: later}}]}]}`+c.route+`}
`, service))
		})
	}
	_, report := filtertest.ParseRoutes(t, ratelimit.Factory{}, `virtual_hosts: [{name: all, domains: ["*"]`+per+`override_option: OVERRIDE_POLICY}}}]`)
	require.ErrorContains(t, report.Err(), `virtual_hosts[0].typed_per_filter_config["test"].override_option: not supported`)
	_, report = filtertest.ParseRoutes(t, ratelimit.Factory{}, `virtual_hosts: [{name: all, domains: ["*"], rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 3}}]}]`)
	require.ErrorContains(t, report.Err(), "virtual_hosts[0].rate_limits[0].hits_addend: has no effect here")
}

// TestHitsAtTheEndOfTheStream: apply_on_stream_done is "sent after the stream
// ended, answer ignored; hits can come from response data".
func TestHitsAtTheEndOfTheStream(t *testing.T) {
	config, service := answering(t, `rate_limits:
- {actions: [{generic_key: {descriptor_value: first}}], hits_addend: {number: 0}}
- {actions: [{request_headers: {header_name: x-user, descriptor_key: user}}], apply_on_stream_done: true, hits_addend: {format: "%RESPONSE_HEADER(x-cost)%"}}
`, rlsclient.Response{Code: okay}, nil)
	x := newTarget(t)
	filtertest.Run(t, config, filtertest.Exchange{Request: asked, Response: "200\nx-cost: 7", Prepare: x.prepare})
	require.Len(t, service.calls, 2)
	require.Equal(t, []string{"generic_key=first +0 ; ", "user=ann +7 ; "}, []string{service.calls[0].descriptors, service.calls[1].descriptors})
	require.Equal(t, map[string]uint64{"ratelimit.ok": 1}, x.counters())
}

func TestDynamicMetadataIsForTheFiltersBehind(t *testing.T) {
	metadata := func(key, value string) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
	}
	for namespace, field := range map[string]string{"envoy.filters.http.ratelimit": "", "mine": "metadata_namespace: mine"} {
		x := newTarget(t)
		config, _ := answering(t, field, rlsclient.Response{Code: okay, Metadata: metadata("tier", "gold")}, nil)
		filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: func(s *stream.Stream) {
			x.prepare(s)
			s.Facts.DynamicMetadata = map[string]*structpb.Struct{namespace: metadata("old", "1")}
			t.Cleanup(func() {
				require.Equal(t, map[string]any{"old": "1", "tier": "gold"}, s.Facts.DynamicMetadata[namespace].AsMap())
			})
		}})
	}
}

// TestMetadataThatALogMayReadStays has a snapshot of the facts, as access logs take it,
// read beside a filter that adds to their metadata.
func TestMetadataThatALogMayReadStays(t *testing.T) {
	const namespace = "envoy.filters.http.ratelimit"
	metadata := func(key string) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue("1")}}
	}
	config, _ := answering(t, "", rlsclient.Response{Code: okay, Metadata: metadata("new")}, nil)
	x, read := newTarget(t), make(chan map[string]any, 1)
	var taken *structpb.Struct
	filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: func(s *stream.Stream) {
		x.prepare(s)
		s.Facts.DynamicMetadata = map[string]*structpb.Struct{namespace: metadata("old")}
		var snapshot format.Snapshot
		snapshot.Take(&s.Facts)
		taken = snapshot.Facts(&s.Facts).DynamicMetadata[namespace]
		go func() { read <- taken.AsMap() }() // ends once it has read, which is received below
	}})
	require.Equal(t, map[string]any{"old": "1"}, <-read)
	require.Equal(t, map[string]any{"old": "1"}, taken.AsMap())
}

func TestParseHasTheClusterChecked(t *testing.T) {
	factory := ratelimit.Factory{CheckCluster: func(name string, at strict.Path, report *strict.Report) {
		report.Add(at, "no cluster %q", name)
	}}
	_, report := filtertest.Parse(t, factory, minimal)
	require.EqualError(t, report.Err(), `config.yaml:3:77: rate_limit_service.grpc_service.envoy_grpc.cluster_name: no cluster "rls"`)
}

// asker keeps which service was asked last.
type asker struct {
	silent
	service rlsclient.Service
}

func (a *asker) ShouldRateLimit(ctx context.Context, caller upstream.Caller, service rlsclient.Service, request *rlsclient.Request, response *rlsclient.Response) error {
	a.service = service
	return a.silent.ShouldRateLimit(ctx, caller, service, request, response)
}

func TestTheServiceIsAskedAsItsConfigurationSays(t *testing.T) {
	x, a := newTarget(t), &asker{}
	config := filtertest.MustParse(t, ratelimit.Factory{Services: a}, `domain: edge
timeout: 0.25s
rate_limit_service:
  transport_api_version: V3
  grpc_service: {envoy_grpc: {cluster_name: rls, authority: limits.example, max_receive_message_length: 4096, skip_envoy_headers: true}, initial_metadata: [{key: x-token, value: abc}]}`)
	filtertest.Run(t, config, filtertest.Exchange{Request: asked, Prepare: x.prepare})
	require.Equal(t, rlsclient.Service{Cluster: "rls", Authority: "limits.example", Timeout: 250 * time.Millisecond, MaxMessage: 4096, SkipEnvoyHeaders: true, Metadata: "x-token\nabc\n"}, a.service)
}

func TestReadme(t *testing.T) { filtertest.Readme(t, ratelimit.Factory{}) }

// silent is a service that says OK and costs nothing.
type silent struct{}

func (silent) ShouldRateLimit(_ context.Context, _ upstream.Caller, _ rlsclient.Service, _ *rlsclient.Request, response *rlsclient.Response) error {
	response.Code = rlsv3.RateLimitResponse_OK
	return nil
}

func (silent) Report(rlsclient.Service, *rlsclient.Request) {}

// step makes a function that takes one request through the filter.
func step(t testing.TB, limited bool) func() {
	x := newTarget(t)
	config := filtertest.MustParse(t, ratelimit.Factory{Services: silent{}}, minimal)
	s := &stream.Stream{Context: t.Context(), ClientAddress: netip.MustParseAddr("192.0.2.1")}
	x.prepare(s)
	if !limited {
		s.Route = &route.Route{Cluster: "echo"}
	}
	s.Request.Headers.Add("x-user", "ann")
	return func() {
		f := config.NewFilter()
		if reply := f.(httpfilter.RequestHead).RequestHead(s); reply != nil {
			t.Fatal("refused")
		}
		f.(httpfilter.ResponseHead).ResponseHead(s)
		f.(httpfilter.Done).Done(s)
	}
}

func TestAllocations(t *testing.T) {
	for name, limited := range map[string]bool{"a request without limits": false, "a request that is asked about": true} {
		t.Run(name+" allocates nothing", func(t *testing.T) { servicetest.Allocations(t, 0, step(t, limited)) })
	}
}

func BenchmarkFilter(b *testing.B) {
	for _, c := range []struct {
		name    string
		limited bool
	}{{"unlimited", false}, {"limited", true}} {
		b.Run(c.name, func(b *testing.B) {
			f := step(b, c.limited)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
