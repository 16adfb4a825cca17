package conformance

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/integration/harness"
)

// recorder is a rate-limit service that notes what it is asked. What it answers
// is named by the value of an entry "answer"; without one it is OK.
type recorder struct {
	address string
	mu      sync.Mutex
	calls   []string
}

func startRecorder(t *testing.T) *recorder {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &recorder{address: listener.Addr().String()}
	server := grpc.NewServer()
	rlspb.RegisterRateLimitServiceServer(server, r)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with Stop, below
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	return r
}

// ShouldRateLimit implements rlspb.RateLimitServiceServer.
func (r *recorder) ShouldRateLimit(_ context.Context, request *rlspb.RateLimitRequest) (*rlspb.RateLimitResponse, error) {
	answer := ""
	for _, d := range request.GetDescriptors() {
		for _, e := range d.GetEntries() {
			if e.GetKey() == "answer" {
				answer = e.GetValue()
			}
		}
	}
	text, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.calls = append(r.calls, strings.ReplaceAll(string(text), `": `, `":`)) // the library varies its spaces
	r.mu.Unlock()
	return answers(answer), nil
}

// take waits for so many calls and forgets them.
func (r *recorder) take(t *testing.T, calls int) []string {
	t.Helper()
	eventually(t, fmt.Sprintf("the service is asked %d times", calls), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.calls) >= calls
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.calls
	r.calls = nil
	return taken
}

// answers are those that the recorder gives, by name.
func answers(name string) *rlspb.RateLimitResponse {
	limit := func(requests uint32, unit rlspb.RateLimitResponse_RateLimit_Unit, name string) *rlspb.RateLimitResponse_RateLimit {
		return &rlspb.RateLimitResponse_RateLimit{RequestsPerUnit: requests, Unit: unit, Name: name}
	}
	r := &rlspb.RateLimitResponse{OverallCode: rlspb.RateLimitResponse_OK}
	if strings.HasPrefix(name, "over") {
		r.OverallCode = rlspb.RateLimitResponse_OVER_LIMIT
	}
	switch strings.TrimPrefix(strings.TrimPrefix(name, "over-"), "ok-") {
	case "headers":
		r.ResponseHeadersToAdd = []*corepb.HeaderValue{{Key: "X-Left", Value: "9"}, {Key: "retry-after", Value: "7"}}
		r.RequestHeadersToAdd = []*corepb.HeaderValue{{Key: "x-tier", Value: "gold"}}
		r.RawBody = []byte("slow down")
	case "metadata":
		r.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			"tier": structpb.NewStringValue("gold"), "hits": structpb.NewNumberValue(5), "text": structpb.NewStringValue("6"), "empty": structpb.NewStringValue(""),
			"limit": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"requests_per_unit": structpb.NewNumberValue(42), "unit": structpb.NewStringValue("HOUR")}}),
			"wrong": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"requests_per_unit": structpb.NewNumberValue(42), "unit": structpb.NewStringValue("EPOCH")}}),
			"deep":  structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"tier": structpb.NewStringValue("silver")}}),
		}}
	case "statuses":
		r.Statuses = []*rlspb.RateLimitResponse_DescriptorStatus{
			{Code: rlspb.RateLimitResponse_OVER_LIMIT, CurrentLimit: limit(10, rlspb.RateLimitResponse_RateLimit_MINUTE, "first"), LimitRemaining: 3, DurationUntilReset: durationpb.New(30 * time.Second)},
			{Code: rlspb.RateLimitResponse_OVER_LIMIT, CurrentLimit: limit(100, rlspb.RateLimitResponse_RateLimit_WEEK, ""), LimitRemaining: 1, DurationUntilReset: durationpb.New(9500 * time.Millisecond)},
			{Code: rlspb.RateLimitResponse_OK, LimitRemaining: 0, DurationUntilReset: durationpb.New(time.Hour)},
			{Code: rlspb.RateLimitResponse_OK, CurrentLimit: limit(5, rlspb.RateLimitResponse_RateLimit_UNKNOWN, "odd"), LimitRemaining: 4, DurationUntilReset: durationpb.New(time.Hour)},
		}
	}
	return r
}

// limitCase is a virtual host of its own, and what is asked of it.
type limitCase struct {
	name string
	// host and route are fields of the virtual host and of the RouteAction, own
	// and hostOwn the RateLimitPerRoute of either, all in YAML.
	host, hostOwn, route, own string
	// request is what follows "GET /" of the request's head.
	request string
	calls   int // that are to come
}

// actions is a rate_limits of one policy.
func actions(list string) string { return "rate_limits: [{actions: [" + list + "]}]" }

const (
	userAction   = `{request_headers: {header_name: x-user, descriptor_key: user}}`
	vhostLimits  = `rate_limits: [{actions: [{generic_key: {descriptor_value: of-host}}]}]`
	routeLimits  = `rate_limits: [{actions: [{generic_key: {descriptor_value: of-route}}]}]`
	include      = `, include_vh_rate_limits: true`
	askMetadata  = `{actions: [{generic_key: {descriptor_key: answer, descriptor_value: ok-metadata}}]}`
	withMetadata = `rate_limits: [` + askMetadata + `, {stage: 1, `
)

func ofMetadata(key, rest string) string {
	path := "{key: " + strings.ReplaceAll(key, ".", "}, {key: ") + "}"
	return withMetadata + `actions: [{metadata: {descriptor_key: m, metadata_key: {key: envoy.filters.http.ratelimit, path: [` + path + `]}` + rest + `}}]}]`
}

func answered(name string) string {
	return actions(`{generic_key: {descriptor_key: answer, descriptor_value: ` + name + `}}`)
}

// limitCases are the actions of reference tables and what is easy to get wrong.
var limitCases = []limitCase{
	{name: "source_cluster", route: actions(`{source_cluster: {}}`), calls: 1},
	{name: "destination_cluster", route: actions(`{destination_cluster: {}}`), calls: 1},
	{name: "request_headers", route: actions(userAction), request: "\r\nX-User: ann\r\nX-User: bob", calls: 1},
	{name: "request_headers_empty", route: actions(userAction), request: "\r\nX-User: ", calls: 1},
	{name: "request_headers_absent_drops_the_descriptor", route: actions(userAction + `, {remote_address: {}}`)},
	{name: "request_headers_skip_if_absent_skips_the_entry", route: actions(`{request_headers: {header_name: x-user, descriptor_key: user, skip_if_absent: true}}, {remote_address: {}}`), calls: 1},
	{name: "one_dropped_descriptor_leaves_the_other", route: `rate_limits: [{actions: [` + userAction + `]}, {actions: [{remote_address: {}}]}]`, calls: 1},
	{name: "equal_descriptors_stay", route: `rate_limits: [{actions: [{remote_address: {}}]}, {actions: [{remote_address: {}}]}]`, calls: 1},
	{name: "path_is_a_header", route: actions(`{request_headers: {header_name: ":path", descriptor_key: p}}, {request_headers: {header_name: ":method", descriptor_key: m}}, {request_headers: {header_name: ":authority", descriptor_key: a}}, {request_headers: {header_name: ":scheme", descriptor_key: s}}`), request: "?a=b", calls: 1},
	{name: "query_parameters", route: actions(`{query_parameters: {query_parameter_name: a, descriptor_key: q}}`), request: "?b=1&a=x%20y&a=z", calls: 1},
	{name: "query_parameters_plus", route: actions(`{query_parameters: {query_parameter_name: a, descriptor_key: q}}`), request: "?a=x+y%zz%4", calls: 1},
	{name: "query_parameters_encoded_name", route: actions(`{query_parameters: {query_parameter_name: ab, descriptor_key: q, skip_if_absent: true}}, {remote_address: {}}`), request: "?%61b=1", calls: 1},
	{name: "query_parameters_empty", route: actions(`{query_parameters: {query_parameter_name: a, descriptor_key: q, skip_if_absent: true}}, {remote_address: {}}`), request: "?a", calls: 1},
	{name: "query_parameters_absent", route: actions(`{query_parameters: {query_parameter_name: a, descriptor_key: q}}, {remote_address: {}}`), request: "?b=1"},
	{name: "query_parameters_skip_if_absent", route: actions(`{query_parameters: {query_parameter_name: a, descriptor_key: q, skip_if_absent: true}}, {remote_address: {}}`), calls: 1},
	{name: "remote_address", route: actions(`{remote_address: {}}`), request: "\r\nX-Forwarded-For: 192.0.2.77", calls: 1},
	{name: "masked_remote_address", route: actions(`{masked_remote_address: {}}, {masked_remote_address: {v4_prefix_mask_len: 20}}`), request: "\r\nX-Forwarded-For: 192.0.2.77", calls: 1},
	{name: "masked_remote_address_0", route: actions(`{masked_remote_address: {v4_prefix_mask_len: 0}}`), request: "\r\nX-Forwarded-For: 192.0.2.77", calls: 1},
	{name: "masked_remote_address_v6", route: actions(`{masked_remote_address: {}}, {masked_remote_address: {v6_prefix_mask_len: 64}}, {masked_remote_address: {v6_prefix_mask_len: 44}}`), request: "\r\nX-Forwarded-For: 2001:abcd:ef01:2345:6789:abcd:ef01:234", calls: 1},
	{name: "generic_key", route: actions(`{generic_key: {descriptor_value: v}}, {generic_key: {descriptor_value: w, descriptor_key: k}}`), calls: 1},
	{name: "generic_key_operator", route: actions(`{generic_key: {descriptor_value: "a%REQ(x-user)%"}}`), request: "\r\nX-User: ann", calls: 1},
	{name: "header_value_match", route: actions(`{header_value_match: {descriptor_value: v, headers: [{name: x-user, present_match: true}]}}`), request: "\r\nX-User: ann", calls: 1},
	{name: "header_value_match_key", route: actions(`{header_value_match: {descriptor_value: v, descriptor_key: k, headers: [{name: x-user, string_match: {exact: ann}}, {name: ":path", string_match: {prefix: /}}]}}`), request: "\r\nX-User: ann", calls: 1},
	{name: "header_value_match_one_of_two", route: actions(`{header_value_match: {descriptor_value: v, headers: [{name: x-user, present_match: true}, {name: x-b, present_match: true}]}}`), request: "\r\nX-User: ann"},
	{name: "header_value_match_expect_no_match", route: actions(`{header_value_match: {descriptor_value: v, expect_match: false, headers: [{name: x-user, present_match: true}, {name: x-b, present_match: true}]}}`), request: "\r\nX-User: ann", calls: 1},
	{name: "header_value_match_expect_no_match_but_it_does", route: actions(`{header_value_match: {descriptor_value: v, expect_match: false, headers: [{name: x-user, present_match: true}]}}`), request: "\r\nX-User: ann"},
	{name: "query_parameter_value_match", route: actions(`{query_parameter_value_match: {descriptor_value: v, query_parameters: [{name: a, string_match: {exact: b}}]}}`), request: "?a=b", calls: 1},
	{name: "query_parameter_value_match_key", route: actions(`{query_parameter_value_match: {descriptor_value: v, descriptor_key: k, query_parameters: [{name: a, present_match: true}, {name: c, present_match: true}]}}`), request: "?a=b&c", calls: 1},
	{name: "query_parameter_value_match_not", route: actions(`{query_parameter_value_match: {descriptor_value: v, query_parameters: [{name: a, string_match: {exact: b}}]}}`), request: "?a=c"},
	{name: "query_parameter_value_match_expect_no_match", route: actions(`{query_parameter_value_match: {descriptor_value: v, expect_match: false, query_parameters: [{name: a, string_match: {exact: b}}]}}`), request: "?a=c", calls: 1},
	{name: "remote_address_match", route: actions(`{remote_address_match: {descriptor_value: v, address_matcher: {ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}}}`), request: "\r\nX-Forwarded-For: 192.0.2.77", calls: 1},
	{name: "remote_address_match_not", route: actions(`{remote_address_match: {descriptor_value: v, address_matcher: {ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}}}`), request: "\r\nX-Forwarded-For: 198.51.100.1"},
	{name: "remote_address_match_invert", route: actions(`{remote_address_match: {descriptor_value: v, descriptor_key: k, address_matcher: {invert_match: true, ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}}}`), request: "\r\nX-Forwarded-For: 198.51.100.1", calls: 1},
	{name: "remote_address_match_operator", route: actions(`{remote_address_match: {descriptor_value: "%REQ(x-user)%", default_value: d, address_matcher: {ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}}}`), request: "\r\nX-Forwarded-For: 192.0.2.77", calls: 1},

	{name: "metadata", route: ofMetadata("tier", ""), calls: 2},
	{name: "metadata_deep", route: ofMetadata("deep.tier", ""), calls: 2},
	{name: "metadata_no_string", route: ofMetadata("hits", ""), calls: 1},
	{name: "metadata_no_string_default", route: ofMetadata("hits", ", default_value: d"), calls: 2},
	{name: "metadata_empty", route: ofMetadata("empty", ""), calls: 1},
	{name: "metadata_absent", route: ofMetadata("none", ""), calls: 1},
	{name: "metadata_absent_default", route: ofMetadata("none", ", default_value: d"), calls: 2},
	{name: "metadata_absent_skip", route: withMetadata + `actions: [{metadata: {descriptor_key: m, skip_if_absent: true, metadata_key: {key: envoy.filters.http.ratelimit, path: [{key: none}]}}}, {remote_address: {}}]}]`, calls: 2},
	{name: "metadata_of_the_route", route: actions(`{metadata: {descriptor_key: m, source: ROUTE_ENTRY, metadata_key: {key: app, path: [{key: tier}]}}}`), calls: 1},
	{name: "limit_of_metadata", route: withMetadata + `actions: [{remote_address: {}}], limit: {dynamic_metadata: {metadata_key: {key: envoy.filters.http.ratelimit, path: [{key: limit}]}}}}]`, calls: 2},
	{name: "limit_of_metadata_that_is_none", route: withMetadata + `actions: [{remote_address: {}}], limit: {dynamic_metadata: {metadata_key: {key: envoy.filters.http.ratelimit, path: [{key: wrong}]}}}}]`, calls: 2},
	{name: "limit_of_its_own", route: `rate_limits: [{actions: [{remote_address: {}}], limit: {rate_limit: {requests_per_unit: 3, unit: HOUR}}}]`, calls: 1},
	{name: "stages_apart", route: `rate_limits: [{stage: 1, actions: [{generic_key: {descriptor_value: one}}]}, {stage: 0, actions: [{generic_key: {descriptor_value: zero}}]}, {stage: 2, actions: [{generic_key: {descriptor_value: two}}]}]`, calls: 2},
	{name: "disable_key", route: `rate_limits: [{disable_key: a, actions: [{remote_address: {}}]}]`, calls: 1},
	{name: "done", route: `rate_limits: [{actions: [{generic_key: {descriptor_value: first}}]}, {apply_on_stream_done: true, actions: [{generic_key: {descriptor_value: last}}, ` + userAction + `]}]`, request: "\r\nX-User: ann", calls: 2},

	{name: "virtual_host_alone", host: vhostLimits, calls: 1},
	{name: "virtual_host_and_route", host: vhostLimits, route: routeLimits, calls: 1},
	{name: "virtual_host_included", host: vhostLimits, route: routeLimits + include, calls: 1},
	{name: "virtual_host_INCLUDE", host: vhostLimits, route: routeLimits, own: "vh_rate_limits: INCLUDE", calls: 1},
	{name: "virtual_host_IGNORE", host: vhostLimits, own: "vh_rate_limits: IGNORE"},
	{name: "virtual_host_IGNORE_but_included", host: vhostLimits, route: routeLimits + include, own: "vh_rate_limits: IGNORE", calls: 1},
	{name: "virtual_host_OVERRIDE", host: vhostLimits, route: `rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]`, own: "vh_rate_limits: OVERRIDE", calls: 1},
	{name: "virtual_host_INCLUDE_by_the_host", host: vhostLimits, hostOwn: "vh_rate_limits: INCLUDE", route: routeLimits, calls: 1},

	{name: "own_domain", route: routeLimits, own: "domain: mine", calls: 1},
	{name: "own_limits", host: vhostLimits, route: routeLimits, own: actions(`{generic_key: {descriptor_value: own}}`), calls: 1},
	{name: "own_limits_that_make_nothing", host: vhostLimits, route: routeLimits, own: actions(userAction)},
	{name: "own_limits_of_the_host", hostOwn: actions(`{generic_key: {descriptor_value: own}}`), route: routeLimits, calls: 1},
	{name: "own_of_the_route_hides_that_of_the_host", hostOwn: actions(`{generic_key: {descriptor_value: own}}`), route: routeLimits, own: "domain: mine", calls: 1},
	{name: "hits_number", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 3}}]`, calls: 1},
	{name: "hits_zero", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 0}}]`, calls: 1},
	{name: "hits_negative", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 3, is_negative_hits: true}}]`, calls: 1},
	{name: "hits_header", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]`, request: "\r\nX-Hits: 12", calls: 1},
	{name: "hits_header_absent", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]`},
	{name: "hits_header_no_number", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]`, request: "\r\nX-Hits: -1"},
	{name: "hits_header_fraction", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]`, request: "\r\nX-Hits: 1.5", calls: 1},
	{name: "hits_header_too_great", own: `rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]`, request: "\r\nX-Hits: 1000000001"},
	{name: "hits_of_the_response", own: `rate_limits: [{actions: [{remote_address: {}}], apply_on_stream_done: true, hits_addend: {format: "%RESPONSE_CODE%"}}]`, calls: 1},
	{name: "own_limit", own: `rate_limits: [{actions: [{remote_address: {}}], limit: {rate_limit: {requests_per_unit: 3, unit: HOUR}}}]`, calls: 1},
	{name: "own_operator", own: actions(`{generic_key: {descriptor_value: "a%REQ(x-user)%"}}`), request: "\r\nX-User: ann", calls: 1},

	{name: "answer_over", route: answered("over"), calls: 1},
	{name: "answer_over_of_gRPC", route: answered("over"), request: "\r\nContent-Type: application/grpc", calls: 1},
	{name: "answer_over_headers", route: answered("over-headers"), calls: 1},
	{name: "answer_ok_headers", route: answered("ok-headers"), request: "?headers", calls: 1},
	{name: "answer_over_statuses", route: answered("over-statuses"), calls: 1},
	{name: "answer_ok_statuses", route: answered("ok-statuses"), calls: 1},
	{name: "answer_over_statuses_of_gRPC", route: answered("over-statuses"), request: "\r\nContent-Type: application/grpc", calls: 1},
	{name: "answer_over_headers_of_gRPC", route: answered("over-headers"), request: "\r\nContent-Type: application/grpc", calls: 1},
	{name: "answer_off", route: `rate_limits: [{x_ratelimit_option: "OFF", actions: [{generic_key: {descriptor_key: answer, descriptor_value: ok-statuses}}]}]`, calls: 1},
}

// limiter is the rate_limit_service of a filter, at a cluster.
func limiter(cluster string) string {
	return "rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: " + cluster + "}}}"
}

// limitBootstrap has two filters, of which the second is of stage 1.
func limitBootstrap(rls, backend string) string {
	var hosts []string
	own := func(fields string) string {
		if fields == "" {
			return ""
		}
		return ", typed_per_filter_config: {limit: " + typed("envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute", fields) + "}"
	}
	field := func(text string) string {
		if text == "" {
			return ""
		}
		return ", " + text
	}
	for _, c := range limitCases {
		hosts = append(hosts, fmt.Sprintf(`{name: %s, domains: [%s]%s%s, routes: [{match: {prefix: /}, metadata: {filter_metadata: {app: {tier: gold}}}, route: {cluster: backend%s}%s}]}`,
			c.name, strings.ToLower(c.name), field(c.host), own(c.hostOwn), field(c.route), own(c.own)))
	}
	limit := func(name string, fields ...string) string {
		return filter(name, "ratelimit.v3.RateLimit", append(fields, "domain: edge", "timeout: 60s", "enable_x_ratelimit_headers: DRAFT_VERSION_03",
			"enable_retry_after_header: true", `response_headers_to_add: [{header: {key: x-limited, value: "%REQ(:method)%"}}]`, limiter("rls"))...)
	}
	return bootstrap{
		node: "id: mill\ncluster: edge",
		listeners: []listener{{
			manager: `
use_remote_address: false
route_config:
  name: all
  virtual_hosts: [` + strings.Join(hosts, ",\n    ") + `]
`,
			filters: limit("limit") + limit("later", "stage: 1"),
		}},
		clusters: []string{cluster("backend", backend), cluster("rls", rls, overHTTP2)},
	}.String()
}

// limited is what comes of a request: the calls that were made, and the answer.
func limited(t *testing.T, service *recorder, address string, c limitCase) []string {
	path, rest, _ := strings.Cut(c.request, "\r\n")
	if rest != "" {
		rest += "\r\n"
	}
	a, closed := harness.SendRaw(t, address, "GET /"+path+" HTTP/1.1\r\nHost: "+c.name+"\r\n"+rest+"\r\n")
	return append(service.take(t, c.calls), showFiltered(a, closed))
}

func TestOurProxyAsksTheRateLimitServiceWhatARealEnvoyAsks(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	backend := harness.Echo(t, "echo-1").Addr("http")
	theirs, our := startRecorder(t), startRecorder(t)
	envoy := harness.Envoy(t, limitBootstrap(theirs.address, backend))
	ours := harness.Proxy(t, limitBootstrap(our.address, backend))
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			want := limited(t, theirs, envoy.Addr("ingress"), c)
			require.Len(t, want, c.calls+1, "%v", want)
			require.Equal(t, want, limited(t, our, ours.Addr("ingress"), c))
		})
	}
	t.Run("counters", func(t *testing.T) {
		for _, name := range []string{"ok", "over_limit"} {
			sameCounter(t, envoy, ours, "cluster.backend.ratelimit."+name)
		}
	})
}
