package conformance

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// filtersBootstrap has one chain with most HTTP filters, before a backend at
// an address. Which of them acts on a request is chosen by its headers and path.
func filtersBootstrap(backend string) string {
	return bootstrap{
		listeners: []listener{{manager: filtersRoutes, filters: filters}},
		clusters:  []string{cluster("backend", backend), clusterOf("empty", "")},
	}.String()
}

const filtersRoutes = `
use_remote_address: true
route_config:
  name: all
  virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: backend}}]}]
`

var filters = checked("/healthz", "cluster_min_healthy_percentages: {backend: {value: 50.9}}") +
	checked("/unhealthz", "cluster_min_healthy_percentages: {empty: {value: 1}}") +
	filter("passed", "health_check.v3.HealthCheck", "pass_through_mode: true", "cache_time: 600s",
		`headers: [{name: ":path", string_match: {prefix: /passed}}]`) +
	filter("fault", "fault.v3.HTTPFault", "headers: [{name: x-abort, present_match: true}]",
		"abort: {http_status: 503, percentage: {numerator: 100}}") +
	filter("fault-of-grpc", "fault.v3.HTTPFault", "headers: [{name: x-abort-grpc, present_match: true}]",
		"abort: {grpc_status: 5, percentage: {numerator: 100}}") +
	filter("tags", "ip_tagging.v3.IPTagging", "request_type: BOTH",
		"ip_tags: [{ip_tag_name: home, ip_list: [{address_prefix: 127.0.0.0, prefix_len: 8}]}]") +
	filter("limit", "local_ratelimit.v3.LocalRateLimit", "stat_prefix: limit", enforced,
		"token_bucket: {max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 600s}",
		"rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]",
		`descriptors: [{entries: [{key: user, value: ann}], token_bucket: {max_tokens: 1, fill_interval: 600s}},
    {entries: [{key: user}], token_bucket: {max_tokens: 2, fill_interval: 600s}}]`,
		`response_headers_to_add: [{header: {key: x-limited, value: "yes"}}]`) +
	filter("buffer", "buffer.v3.Buffer", "max_request_bytes: 10")

// checked is a health_check filter that answers requests for a path.
func checked(path string, fields ...string) string {
	return filter("health", "health_check.v3.HealthCheck", append([]string{"pass_through_mode: false", whose(path)}, fields...)...)
}

// whose is the headers of a filter for requests whose path is this.
func whose(path string) string {
	return `headers: [{name: ":path", string_match: {exact: ` + path + `}}]`
}

// enforced has a local_ratelimit filter limit all requests.
const enforced = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}"

// filterRequests are sent in this order, since buckets and kept answers remember.
var filterRequests = []struct{ name, text string }{
	{"a_request_that_no_filter_minds", "GET /?headers HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"tags_are_the_proxy's_to_set", "GET /?headers HTTP/1.1\r\nHost: mill\r\nX-Envoy-Ip-Tags: office\r\n\r\n"},
	{"a_health_check", "GET /healthz HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"a_health_check_of_a_cluster_without_hosts", "GET /unhealthz HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"a_health_check_of_the_backend", "GET /passed?status=404 HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"whose_status_is_kept", "GET /passed HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"an_abort", "GET / HTTP/1.1\r\nHost: mill\r\nX-Abort: 1\r\n\r\n"},
	{"an_abort_of_gRPC", "POST / HTTP/1.1\r\nHost: mill\r\nX-Abort: 1\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"},
	{"an_abort_with_a_status_of_gRPC", "GET / HTTP/1.1\r\nHost: mill\r\nX-Abort-Grpc: 1\r\n\r\n"},
	{"an_abort_of_gRPC_with_a_status_of_gRPC", "POST / HTTP/1.1\r\nHost: mill\r\nX-Abort-Grpc: 1\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"},
	{"the_first_of_one", "GET /a HTTP/1.1\r\nHost: mill\r\nX-User: ann\r\n\r\n"},
	{"the_second_is_over_the_limit", "GET /a HTTP/1.1\r\nHost: mill\r\nX-User: ann\r\n\r\n"},
	{"one_of_gRPC_too", "POST /a HTTP/1.1\r\nHost: mill\r\nX-User: ann\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"},
	{"any_other_has_two", "GET /a HTTP/1.1\r\nHost: mill\r\nX-User: bob\r\n\r\n"},
	{"each_of_them", "GET /a HTTP/1.1\r\nHost: mill\r\nX-User: cyd\r\n\r\n"},
	{"the_second_of_two", "GET /a HTTP/1.1\r\nHost: mill\r\nX-User: bob\r\n\r\n"},
	{"the_third_is_over_the_limit", "GET /a HTTP/1.1\r\nHost: mill\r\nX-User: bob\r\n\r\n"},
	{"a_body_of_the_most_bytes", "POST /?headers HTTP/1.1\r\nHost: mill\r\nContent-Length: 10\r\n\r\n0123456789"},
	{"chunks_of_the_most_bytes", "POST /?headers HTTP/1.1\r\nHost: mill\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"},
}

// forwardedFor is the header as the backend shows it. Envoy takes a peer on
// loopback for the machine's own address there.
var forwardedFor = regexp.MustCompile(`x-forwarded-for: .*`)

func showFiltered(a harness.Answer, closed bool) string {
	delete(a.Header, "Content-Length") // of what is made the same below
	return forwardedFor.ReplaceAllString(show(a, closed), "x-forwarded-for: *")
}

// sameCounter waits until both proxies have counted the same, and something: they
// may still count when their answer is there.
func sameCounter(t *testing.T, envoy, ours *harness.Process, name string) {
	t.Helper()
	var want, got int
	settled := awaited(func() bool {
		want, got = harness.Stat(t, envoy, name), harness.Stat(t, ours, name)
		return want > 0 && want == got
	})
	require.True(t, settled, "%s: want %d, have %d", name, want, got)
}

func TestFiltersOfOurProxyAndOfARealEnvoyGiveTheSameAnswers(t *testing.T) {
	envoy, ours := bothBefore(t, filtersBootstrap)
	for _, r := range filterRequests {
		t.Run(r.name, func(t *testing.T) {
			want := showFiltered(harness.SendRaw(t, envoy.Addr("ingress"), r.text))
			require.Equal(t, want, showFiltered(harness.SendRaw(t, ours.Addr("ingress"), r.text)))
		})
	}
	t.Run("a_body_that_is_too_long", func(t *testing.T) {
		for _, text := range []string{
			"POST / HTTP/1.1\r\nHost: mill\r\nContent-Length: 11\r\n\r\n01234567890",
			"POST / HTTP/1.1\r\nHost: mill\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
		} {
			// Ours may keep the connection: whether the rest came already is a race.
			want, _ := harness.SendRaw(t, envoy.Addr("ingress"), text)
			got, _ := harness.SendRaw(t, ours.Addr("ingress"), text)
			require.Equal(t, []any{want.Status, want.Body}, []any{got.Status, got.Body})
		}
	})
	t.Run("counters", func(t *testing.T) {
		for _, name := range []string{
			"http.ingress.fault.aborts_injected", "http.ingress.ip_tagging.total", "http.ingress.ip_tagging.home.hit",
			"limit.http_local_rate_limit.enabled", "limit.http_local_rate_limit.ok", "limit.http_local_rate_limit.rate_limited",
			"limit.http_local_rate_limit.enforced",
		} {
			sameCounter(t, envoy, ours, name)
		}
	})
}
