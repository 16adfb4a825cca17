package conformance

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// routeFiltersBootstrap has filters that routes configure, before a backend at
// an address.
func routeFiltersBootstrap(backend string) string {
	return bootstrap{
		node:      "id: mill\ncluster: edge",
		listeners: []listener{{manager: filteringRoutes, filters: routeFilters}},
		clusters:  []string{cluster("backend", backend)},
	}.String()
}

var filteringRoutes = `
route_config:
  name: all
  virtual_hosts:
  - name: plain
    domains: [plain]
    routes: [{match: {prefix: /}, route: {cluster: backend}}]
  - name: tuned
    domains: [tuned]
    rate_limits: [{stage: 1, actions: [{generic_key: {descriptor_value: of-host}}]}]
    typed_per_filter_config:
      buffer: ` + typed("envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "buffer: {max_request_bytes: 20}") + `
      late: ` + typed(filterConfig, "config: {}") + `
    routes:
` + strings.Join([]string{
	tunedRoute("/off", "cluster: backend", "buffer: "+typed("envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled: true"), "late: "+off),
	tunedRoute("/teapot", "cluster: backend", "late: "+typed(filterConfig,
		"config: "+typed("envoy.extensions.filters.http.fault.v3.HTTPFault", "abort: {http_status: 418, percentage: {numerator: 100}}"))),
	tunedRoute("/weight", "weighted_clusters: {clusters: [{name: backend, weight: 1, typed_per_filter_config: {late: "+off+"}}]}"),
	tunedRoute("/limit", "cluster: backend, rate_limits: [{stage: 1, actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]", "late: "+off,
		"limit: "+localLimit("staged", "stage: 1", "vh_rate_limits: INCLUDE", "enable_x_ratelimit_headers: DRAFT_VERSION_03", bucket(5), enforced,
			"descriptors: ["+descriptor("user", "ann", 1)+", "+descriptor("generic_key", "of-host", 3)+"]")),
	tunedRoute("/hits", "cluster: backend", "late: "+off,
		"limit: "+localLimit("hits", "enable_x_ratelimit_headers: DRAFT_VERSION_03", bucket(100), enforced,
			`rate_limits: [{actions: [{source_cluster: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]`,
			"descriptors: ["+descriptor("source_cluster", "edge", 5)+"]")),
	tunedRoute("/connection", "cluster: backend", "late: "+off,
		"limit: "+localLimit("connection", "local_rate_limit_per_downstream_connection: true", bucket(1), enforced)),
	tunedRoute("/twins", "cluster: backend", "late: "+off, "twin: "+localLimit("twins", bucket(3), enforced)),
	tunedRoute("/shadow", "cluster: backend", "late: "+off,
		"limit: "+localLimit("shadow", "enable_x_ratelimit_headers: DRAFT_VERSION_03", bucket(4), enforced,
			"rate_limits: [{actions: [{generic_key: {descriptor_value: a}}]}, {actions: [{generic_key: {descriptor_value: b}}]}]",
			"descriptors: ["+descriptor("generic_key", "a", 2, "shadow_mode: true")+", "+descriptor("generic_key", "b", 1, "shadow_mode: true")+"]",
			`response_headers_to_add: [{header: {key: x-why, value: "%RESPONSE_CODE_DETAILS% %REQ(:PATH)% %ROUTE_NAME% 100%%"}}, {header: {key: x-none, value: "%REQ(x-none)%"}}]`)),
	tunedRoute("/unenforced", "cluster: backend", "late: "+off,
		"limit: "+localLimit("unenforced", bucket(1), "filter_enabled: {default_value: {numerator: 100}}", "filter_enforced: {default_value: {numerator: 0}}",
			`request_headers_to_add_when_not_enforced: [{header: {key: x-over, value: "%PROTOCOL% %REQ(x-user)% %UPSTREAM_CLUSTER%"}}]`)),
	tunedRoute("/neither", "cluster: backend", "late: "+off, "twin: "+off),
	tunedRoute("/", "cluster: backend"),
}, "")

// filterConfig is the type of what configures any filter on a route, and off turns one off.
const filterConfig = "envoy.config.route.v3.FilterConfig"

var off = typed(filterConfig, "disabled: true")

// tunedRoute is an item of routes: one by a prefix, with its action's fields, and what it says
// to filters.
func tunedRoute(prefix, action string, filters ...string) string {
	return "    - {match: {prefix: " + prefix + "}, route: {" + action + "}, typed_per_filter_config: {" + strings.Join(filters, ", ") + "}}\n"
}

// localLimit is a local_ratelimit filter.
func localLimit(prefix string, fields ...string) string {
	return typed("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", append([]string{"stat_prefix: " + prefix}, fields...)...)
}

// bucket holds so many tokens, and gets one each 600 s.
func bucket(tokens int) string {
	return fmt.Sprintf("token_bucket: {max_tokens: %d, tokens_per_fill: 1, fill_interval: 600s}", tokens)
}

// descriptor is one of an entry, with a bucket, and further fields.
func descriptor(key, value string, tokens int, more ...string) string {
	return "{" + strings.Join(append([]string{"entries: [{key: " + key + ", value: " + value + "}]", bucket(tokens)}, more...), ", ") + "}"
}

var routeFilters = filter("limit", "local_ratelimit.v3.LocalRateLimit", "stat_prefix: none") +
	filter("buffer", "buffer.v3.Buffer", "max_request_bytes: 10") +
	filter("twin", "local_ratelimit.v3.LocalRateLimit", "stat_prefix: one") +
	filter("twin", "local_ratelimit.v3.LocalRateLimit", "stat_prefix: other") +
	filter("twin", "fault.v3.HTTPFault", "headers: [{name: x-twin, present_match: true}]", "abort: {http_status: 444, percentage: {numerator: 100}}") +
	filter("late, disabled: true", "fault.v3.HTTPFault", "abort: {http_status: 503, percentage: {numerator: 100}}")

// routeFilterRequests are sent in this order, each on a connection of its own.
var routeFilterRequests = []struct{ name, text string }{
	{"a_disabled_filter_is_left_out", "GET /?headers HTTP/1.1\r\nHost: plain\r\n\r\n"},
	{"until_the_virtual_host_turns_it_on", "GET / HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"and_the_route_off", "GET /off HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"or_the_cluster_of_a_weight", "GET /weight HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"or_configures_it", "GET /teapot HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"a_body_that_the_virtual_host_allows", "POST /weight?headers HTTP/1.1\r\nHost: tuned\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n0123456789abcde\r\n0\r\n\r\n"},
	{"a_body_that_is_not_buffered", "POST /off?headers HTTP/1.1\r\nHost: tuned\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n0123456789abcdefghijklmno\r\n0\r\n\r\n"},
	{"the_first_of_one_of_a_stage", "GET /limit HTTP/1.1\r\nHost: tuned\r\nX-User: ann\r\n\r\n"},
	{"the_second", "GET /limit HTTP/1.1\r\nHost: tuned\r\nX-User: ann\r\n\r\n"},
	{"another_by_the_limit_of_the_host", "GET /limit HTTP/1.1\r\nHost: tuned\r\nX-User: bob\r\n\r\n"},
	{"the_last_of_the_host", "GET /limit HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"beyond_that_of_the_host", "GET /limit HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"three_hits_of_five", "GET /hits HTTP/1.1\r\nHost: tuned\r\nX-Hits: 3\r\n\r\n"},
	{"three_more_are_too_many", "GET /hits HTTP/1.1\r\nHost: tuned\r\nX-Hits: 3\r\n\r\n"},
	{"two_are_not", "GET /hits HTTP/1.1\r\nHost: tuned\r\nX-Hits: 2\r\n\r\n"},
	{"nor_none", "GET /hits HTTP/1.1\r\nHost: tuned\r\nX-Hits: 0\r\n\r\n"},
	{"what_is_no_number_has_no_descriptor", "GET /hits HTTP/1.1\r\nHost: tuned\r\nX-Hits: many\r\n\r\n"},
	{"each_filter_of_one_name_takes_a_token", "GET /twins HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"and_one_of_them_the_last", "GET /twins HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"one_of_another_kind_is_as_it_is", "GET /weight HTTP/1.1\r\nHost: tuned\r\nX-Twin: 1\r\n\r\n"},
	{"all_of_one_name_are_turned_off", "GET /neither HTTP/1.1\r\nHost: tuned\r\nX-Twin: 1\r\n\r\n"},
	{"within_limits_in_shadow_mode", "GET /shadow HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"beyond_one_of_them", "GET /shadow HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"beyond_both_of_them", "GET /shadow HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"still_beyond_both_of_them", "GET /shadow HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"beyond_the_common_one_too", "GET /shadow HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"a_request_that_may_pass", "GET /unenforced?headers HTTP/1.1\r\nHost: tuned\r\nX-User: ann\r\n\r\n"},
	{"and_one_that_does_all_the_same", "GET /unenforced?headers HTTP/1.1\r\nHost: tuned\r\nX-User: ann\r\n\r\n"},
	{"a_connection", "GET /connection HTTP/1.1\r\nHost: tuned\r\n\r\n"},
	{"another_connection", "GET /connection HTTP/1.1\r\nHost: tuned\r\n\r\n"},
}

// untilAToken is the header of a bucket that was emptied within the last minute
// and gets a token each 600 s: how many of them have passed is told by the clock.
var untilAToken = regexp.MustCompile(`X-Ratelimit-Reset: (5[4-9]\d|600)\n`)

func showRouteFiltered(a harness.Answer, closed bool) string {
	return untilAToken.ReplaceAllString(showFiltered(a, closed), "X-Ratelimit-Reset: 600 less what has passed\n")
}

func TestFiltersThatRoutesConfigureGiveTheAnswersOfARealEnvoy(t *testing.T) {
	envoy, ours := bothBefore(t, routeFiltersBootstrap)
	for _, r := range routeFilterRequests {
		t.Run(r.name, func(t *testing.T) {
			want := showRouteFiltered(harness.SendRaw(t, envoy.Addr("ingress"), r.text))
			require.Equal(t, want, showRouteFiltered(harness.SendRaw(t, ours.Addr("ingress"), r.text)))
		})
	}
	t.Run("counters", func(t *testing.T) {
		for _, prefix := range []string{"staged", "hits", "twins", "shadow", "unenforced", "connection"} {
			for _, counter := range []string{"enabled", "ok", "rate_limited", "enforced", "shadow_mode"} {
				name := prefix + ".http_local_rate_limit." + counter
				require.Equal(t, harness.Stat(t, envoy, name), harness.Stat(t, ours, name), name)
			}
		}
	})
	t.Run("too_long_for_the_virtual_host", func(t *testing.T) {
		const text = "POST /weight HTTP/1.1\r\nHost: tuned\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n0123456789abcdefghijk\r\n0\r\n\r\n"
		want, _ := harness.SendRaw(t, envoy.Addr("ingress"), text)
		got, _ := harness.SendRaw(t, ours.Addr("ingress"), text)
		require.Equal(t, []any{413, want.Body}, []any{got.Status, got.Body})
		require.Equal(t, 413, want.Status)
	})
}
