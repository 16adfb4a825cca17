package conformance

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// respondedTo are the counters of responses, with those of their kinds.
var respondedTo = regexp.MustCompile(`^(cluster\.\w+\.(\w+\.)*upstream_rq_(\d\d\d|\dxx|completed)|http\.(in|out)side\.downstream_rq_(total|\dxx|completed)): [1-9]`)

// responsesBootstrap is a proxy in zone z1 with a cluster of a host in z2 and of a
// canary, and one of a host without a zone, that refuses connections. Listener edge
// trusts x-forwarded-for.
func responsesBootstrap(t *testing.T, host string) string {
	t.Helper()
	ip, port, err := net.SplitHostPort(host)
	require.NoError(t, err)
	listener := func(name string) string {
		return fmt.Sprintf(`
  - name: %[1]s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %[1]s
          use_remote_address: true
          internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: %[2]d}]}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {prefix: /zoned}, route: {cluster: zoned}}
              - {match: {prefix: /canary}, route: {cluster: canary}}
              - {match: {prefix: /dead}, route: {cluster: dead, retry_policy: {retry_on: connect-failure}}}
              - {match: {prefix: /again}, route: {cluster: zoned, retry_policy: {retry_on: 5xx}}}
              - {match: {prefix: /health}, route: {cluster: zoned}}
          http_filters:
          - name: health
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: true
              headers: [{name: ":path", string_match: {exact: /health}}]
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`,
			name, map[string]int{"inside": 8, "outside": 32}[name])
	}
	cluster := func(name, ip, port, locality, metadata string) string {
		return fmt.Sprintf(`
  - name: %[1]s
    type: STATIC
    connect_timeout: 60s
    load_assignment: {cluster_name: %[1]s, endpoints: [{%[4]s lb_endpoints: [{endpoint: {address: {socket_address: {address: %[2]s, port_value: %[3]s}}} %[5]s}]}]}`,
			name, ip, port, locality, metadata)
	}
	return `
node: {id: responses, cluster: tests, locality: {zone: z1}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:` + listener("inside") + listener("outside") + `
  clusters:` + cluster("zoned", ip, port, "locality: {zone: z2},", "") +
		cluster("canary", ip, port, "locality: {zone: z1},", ", metadata: {filter_metadata: {envoy.lb: {canary: true}}}") +
		cluster("dead", "127.0.0.1", "1", "", "") + "\n"
}

func TestOurProxyAndARealEnvoyCountResponsesAlike(t *testing.T) {
	bootstrap := responsesBootstrap(t, harness.Echo(t, "one").Addr("http"))
	envoy, ours := harness.Envoy(t, bootstrap), harness.Proxy(t, bootstrap)
	for _, listener := range []string{"inside", "outside"} {
		for _, path := range []string{"/zoned", "/zoned?status=404", "/canary", "/canary?status=500", "/dead", "/again?status=503", "/health"} {
			for _, proxy := range []*harness.Process{envoy, ours} {
				response, err := http.Get("http://" + proxy.Addr(listener) + path)
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, response.Body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
			}
		}
	}
	counters := func(admin string) string {
		response, err := http.Get("http://" + admin + "/stats")
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		lines := strings.Split(string(text), "\n")
		return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return !respondedTo.MatchString(line) }), "\n")
	}
	var want, got string
	alike := awaited(func() bool { // the end of a request may be counted behind its answer
		want, got = counters(envoy.Addr("admin")), counters(ours.Addr("admin"))
		return want == got
	})
	require.True(t, alike, "Envoy has\n%s\nours\n%s", want, got)
	for _, name := range []string{"zoned.internal.upstream_rq_200: 1", "zoned.external.", "zoned.zone.z1.z2.", "canary.canary.upstream_rq_500: 2", "canary.zone.z1.z1.", "dead.external.", "zoned.retry."} {
		require.Contains(t, got, "cluster."+name)
	}
}
