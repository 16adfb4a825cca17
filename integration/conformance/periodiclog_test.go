package conformance

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// TestOurProxyAndARealEnvoyLogWhatGoesOnAlike wants of both, among the lines of a slow
// request, those that they write while they wait for its answer.
func TestOurProxyAndARealEnvoyLogWhatGoesOnAlike(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	file := func(path string) string {
		return fmt.Sprintf(`typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q, log_format: {text_format_source: {inline_string: %q}}}`,
			path, "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %PROTOCOL% %UPSTREAM_PROTOCOL% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %BYTES_RECEIVED% %BYTES_SENT%\n")
	}
	text := func(directory string) string {
		return bootstrap{
			listeners: []listener{{
				manager: `
access_log_options: {access_log_flush_interval: 0.05s}
access_log: [{name: requests, ` + file(filepath.Join(directory, "requests")) + `}]
route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: echo}}]}]}
`,
				router: `
upstream_log_options: {upstream_log_flush_interval: 0.05s}
upstream_log: [{name: attempts, ` + file(filepath.Join(directory, "attempts")) + `}]
`,
			}},
			clusters: []string{cluster("echo", host)},
		}.String()
	}
	want := map[string]string{
		"requests": "DownstreamPeriodic /slow?delay=2s 0 - HTTP/1.1 HTTP/1.1 echo " + host + " 5 0",
		"attempts": "UpstreamPeriodic /slow?delay=2s 0 - HTTP/1.1 HTTP/1.1 echo " + host + " 0 5",
	}
	for name, start := range map[string]func(testing.TB, string) *harness.Process{
		"Envoy": harness.Envoy,
		"ours":  func(t testing.TB, bootstrap string) *harness.Process { return harness.Proxy(t, bootstrap) },
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			process := start(t, text(directory))
			answer, _ := harness.SendRaw(t, process.Addr("ingress"), "POST /slow?delay=2s HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain")
			require.Equal(t, 200, answer.Status)
			process.Stop() // Envoy writes its logs each ten seconds
			for file, line := range want {
				require.Contains(t, logLines(t, filepath.Join(directory, file)), line)
			}
		})
	}
}
