package conformance

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// TestOurProxyAndARealEnvoyLogWhatGoesOnAlike wants of both, among the lines of a slow
// request, those that they write while they wait for its answer.
func TestOurProxyAndARealEnvoyLogWhatGoesOnAlike(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	bootstrap := func(file string) string {
		const logger, options = `typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q, log_format: {text_format_source: {inline_string: %q}}}`,
			"upstream_log_options: {flush_upstream_log_on_upstream_stream: true}"
		log := fmt.Sprintf(logger, file, "%ACCESS_LOG_TYPE% %REQ(:PATH)% %REQ(X-ENVOY-ATTEMPT-COUNT)% %RESPONSE_CODE% %RESPONSE_FLAGS% %PROTOCOL% %UPSTREAM_PROTOCOL% "+
			"%UPSTREAM_CLUSTER% %UPSTREAM_HOST% %BYTES_RECEIVED% %BYTES_SENT%\n")
		return strings.NewReplacer(
			options, "upstream_log_options: {upstream_log_flush_interval: 0.05s}",
			"stat_prefix: ingress\n", "stat_prefix: ingress\n          access_log_options: {access_log_flush_interval: 0.05s}\n          access_log: [{name: requests, "+log+"}]\n",
		).Replace(upstreamLogBootstrap(t, host, file+".attempts"))
	}
	want := map[string]string{
		"log":          "DownstreamPeriodic /slow?delay=2s 1 0 - HTTP/1.1 HTTP/1.1 echo " + host + " 5 0",
		"log.attempts": "UpstreamPeriodic /slow?delay=2s 1 0 - - HTTP/1.1 HTTP/1.1 echo " + host + " 5 0 - - - 127.0.0.1",
	}
	for name, start := range map[string]func(testing.TB, string) *harness.Process{
		"Envoy": harness.Envoy,
		"ours":  func(t testing.TB, bootstrap string) *harness.Process { return harness.Proxy(t, bootstrap) },
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			process := start(t, bootstrap(filepath.Join(directory, "log")))
			answer, _ := harness.SendRaw(t, process.Addr("ingress"), "POST /slow?delay=2s HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain")
			require.Equal(t, 200, answer.Status)
			process.Stop() // Envoy writes its logs each ten seconds
			for file, line := range want {
				require.Contains(t, logLines(t, filepath.Join(directory, file)), line)
			}
		})
	}
}
