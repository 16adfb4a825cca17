package conformance

import (
	"regexp"
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

const filteringRoutes = `
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
      buffer: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, buffer: {max_request_bytes: 20}}
      late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}
    routes:
    - match: {prefix: /off}
      route: {cluster: backend}
      typed_per_filter_config:
        buffer: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, disabled: true}
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
    - match: {prefix: /teapot}
      route: {cluster: backend}
      typed_per_filter_config:
        late:
          "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
          config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 418, percentage: {numerator: 100}}}
    - match: {prefix: /weight}
      route:
        weighted_clusters:
          clusters:
          - name: backend
            weight: 1
            typed_per_filter_config:
              late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
    - match: {prefix: /limit}
      route: {cluster: backend, rate_limits: [{stage: 1, actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        limit:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: staged
          stage: 1
          vh_rate_limits: INCLUDE
          enable_x_ratelimit_headers: DRAFT_VERSION_03
          token_bucket: {max_tokens: 5, tokens_per_fill: 1, fill_interval: 600s}
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 100}}
          descriptors:
          - {entries: [{key: user, value: ann}], token_bucket: {max_tokens: 1, fill_interval: 600s}}
          - {entries: [{key: generic_key, value: of-host}], token_bucket: {max_tokens: 3, fill_interval: 600s}}
    - match: {prefix: /hits}
      route: {cluster: backend}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        limit:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: hits
          enable_x_ratelimit_headers: DRAFT_VERSION_03
          token_bucket: {max_tokens: 100, tokens_per_fill: 1, fill_interval: 600s}
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 100}}
          rate_limits: [{actions: [{source_cluster: {}}], hits_addend: {format: "%REQ(x-hits)%"}}]
          descriptors: [{entries: [{key: source_cluster, value: edge}], token_bucket: {max_tokens: 5, fill_interval: 600s}}]
    - match: {prefix: /connection}
      route: {cluster: backend}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        limit:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: connection
          local_rate_limit_per_downstream_connection: true
          token_bucket: {max_tokens: 1, fill_interval: 600s}
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 100}}
    - match: {prefix: /twins}
      route: {cluster: backend}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        twin:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: twins
          token_bucket: {max_tokens: 3, fill_interval: 600s}
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 100}}
    - match: {prefix: /shadow}
      route: {cluster: backend}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        limit:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: shadow
          enable_x_ratelimit_headers: DRAFT_VERSION_03
          token_bucket: {max_tokens: 4, fill_interval: 600s}
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 100}}
          rate_limits: [{actions: [{generic_key: {descriptor_value: a}}]}, {actions: [{generic_key: {descriptor_value: b}}]}]
          descriptors:
          - {entries: [{key: generic_key, value: a}], token_bucket: {max_tokens: 2, fill_interval: 600s}, shadow_mode: true}
          - {entries: [{key: generic_key, value: b}], token_bucket: {max_tokens: 1, fill_interval: 600s}, shadow_mode: true}
          response_headers_to_add: [{header: {key: x-why, value: "%RESPONSE_CODE_DETAILS% %REQ(:PATH)% %ROUTE_NAME% 100%%"}}, {header: {key: x-none, value: "%REQ(x-none)%"}}]
    - match: {prefix: /unenforced}
      route: {cluster: backend}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        limit:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: unenforced
          token_bucket: {max_tokens: 1, fill_interval: 600s}
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 0}}
          request_headers_to_add_when_not_enforced: [{header: {key: x-over, value: "%PROTOCOL% %REQ(x-user)% %UPSTREAM_CLUSTER%"}}]
    - match: {prefix: /neither}
      route: {cluster: backend}
      typed_per_filter_config:
        late: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
        twin: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
    - {match: {prefix: /}, route: {cluster: backend}}
`

const routeFilters = `
- name: limit
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: none}
- name: buffer
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 10}
- name: twin
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: one}
- name: twin
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: other}
- name: twin
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, headers: [{name: x-twin, present_match: true}], abort: {http_status: 444, percentage: {numerator: 100}}}
- name: late
  disabled: true
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 503, percentage: {numerator: 100}}}
`

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
