package conformance

import (
	"fmt"
	"io"
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
func responsesBootstrap(host string) string {
	before := func(name string, internal int) listener {
		return listener{name: name, filters: passedHealthChecks, manager: fmt.Sprintf(`
use_remote_address: true
internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: %d}]}
route_config:
%s
`, internal, indented(respondingRoutes))}
	}
	return bootstrap{
		node:      "id: responses\ncluster: tests\nlocality: {zone: z1}",
		listeners: []listener{before("inside", 8), before("outside", 32)},
		clusters: []string{
			clusterOf("zoned", "{locality: {zone: z2}, lb_endpoints: ["+endpoint(host)+"]}"),
			clusterOf("canary", "{locality: {zone: z1}, lb_endpoints: ["+endpoint(host, "metadata: {filter_metadata: {envoy.lb: {canary: true}}}")+"]}"),
			cluster("dead", "127.0.0.1:1"),
		},
	}.String()
}

const respondingRoutes = `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
  - {match: {prefix: /zoned}, route: {cluster: zoned}}
  - {match: {prefix: /canary}, route: {cluster: canary}}
  - {match: {prefix: /dead}, route: {cluster: dead, retry_policy: {retry_on: connect-failure}}}
  - {match: {prefix: /again}, route: {cluster: zoned, retry_policy: {retry_on: 5xx}}}
  - {match: {prefix: /health}, route: {cluster: zoned}}
`

var passedHealthChecks = filter("health", "health_check.v3.HealthCheck", "pass_through_mode: true", whose("/health"))

func TestOurProxyAndARealEnvoyCountResponsesAlike(t *testing.T) {
	bootstrap := responsesBootstrap(harness.Echo(t, "one").Addr("http"))
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
