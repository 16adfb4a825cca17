package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// upstreamLogBootstrap is a proxy that logs the attempts of its requests to a file.
func upstreamLogBootstrap(host, file string) string {
	return bootstrap{
		listeners: []listener{{
			manager: `
internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
route_config: {virtual_hosts: [{name: all, domains: ["*"], include_request_attempt_count: true, routes: [
  {match: {prefix: /dead}, stat_prefix: dead, route: {cluster: dead}},
  {match: {prefix: /}, stat_prefix: up, route: {cluster: echo, retry_policy: {retry_on: 5xx, num_retries: 2}}}]}]}
`,
			router: `
suppress_grpc_request_failure_code_stats: true
upstream_log:
- name: attempts
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: ` + file + `
    log_format: {text_format_source: {inline_string: "%ACCESS_LOG_TYPE% %REQ(:PATH)% %REQ(X-ENVOY-ATTEMPT-COUNT)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL% %UPSTREAM_PROTOCOL% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %BYTES_SENT% %BYTES_RECEIVED% %REQUEST_DURATION% %RESPONSE_TX_DURATION% %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_HEADER_BYTES_SENT% %UPSTREAM_HEADER_BYTES_RECEIVED%\n"}}
upstream_log_options: {flush_upstream_log_on_upstream_stream: true}
`,
		}},
		clusters: []string{cluster("echo", host), cluster("dead", "127.0.0.1:1")},
	}.String()
}

func TestOurProxyAndARealEnvoyLogAndCountAttemptsAlike(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	directory := t.TempDir()
	envoyLog, ourLog := filepath.Join(directory, "envoy"), filepath.Join(directory, "ours")
	envoy := harness.Envoy(t, upstreamLogBootstrap(host, envoyLog))
	ours := harness.Proxy(t, upstreamLogBootstrap(host, ourLog))
	for _, text := range []string{
		"GET /one HTTP/1.1\r\nHost: mill\r\nX-Forwarded-For: 10.0.0.1\r\nX-Envoy-Upstream-Alt-Stat-Name: blue\r\n\r\n",
		"POST /two HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain",
		"GET /three?status=503 HTTP/1.1\r\nHost: mill\r\nX-Envoy-Upstream-Alt-Stat-Name: of.no.internal.client\r\n\r\n",
		"POST /four?status=503 HTTP/1.1\r\nHost: mill\r\nContent-Length: 0\r\nContent-Type: application/grpc\r\n\r\n",
		"GET /dead HTTP/1.1\r\nHost: mill\r\n\r\n",
	} {
		want, _ := harness.SendRaw(t, envoy.Addr("ingress"), text)
		got, _ := harness.SendRaw(t, ours.Addr("ingress"), text)
		require.Equal(t, want.Status, got.Status, text)
	}
	for _, name := range []string{
		"vhost.all.route.up.upstream_rq_200", "vhost.all.route.up.upstream_rq_503", "vhost.all.route.up.upstream_rq_total", "vhost.all.route.up.upstream_rq_retry",
		"vhost.all.route.up.upstream_rq_retry_limit_exceeded", "vhost.all.route.up.upstream_rq_completed", "vhost.all.route.dead.upstream_rq_5xx", "vhost.all.route.dead.upstream_rq_total",
		"cluster.echo.blue.upstream_rq_200", "cluster.echo.blue.internal.upstream_rq_2xx", "cluster.echo.of.no.internal.client.upstream_rq_503",
		"cluster.echo.upstream_rq_503", "cluster.echo.upstream_rq_completed", "cluster.echo.external.upstream_rq_503", "cluster.echo.retry.upstream_rq_503",
	} {
		require.Equal(t, harness.Stat(t, envoy, name), harness.Stat(t, ours, name), name)
	}
	require.Equal(t, 1, harness.Stat(t, ours, "cluster.echo.blue.upstream_rq_200"))
	envoy.Stop() // Envoy writes its logs each ten seconds
	ours.Stop()
	want, err := os.ReadFile(envoyLog)
	require.NoError(t, err)
	got, err := os.ReadFile(ourLog)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	require.Len(t, strings.Split(strings.TrimSpace(string(got)), "\n"), 2+2+6+6+1)
}
