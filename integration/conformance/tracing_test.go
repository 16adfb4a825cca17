package conformance

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// tracers are managers that trace in different ways, by the names of their listeners.
var tracers = map[string]string{
	"none":     "",
	"all":      "tracing: {}",
	"few":      "tracing: {random_sampling: {value: 49.999}}",
	"asked":    "tracing: {random_sampling: {value: 0}}",
	"services": "tracing: {random_sampling: {value: 0}, client_sampling: {value: 0}}",
	"nothing":  "tracing: {overall_sampling: {value: 0}}",
	"unmarked": "tracing: {random_sampling: {value: 0}}\nrequest_id_extension: {typed_config: {" + uuids + "pack_trace_reason: false}}",
	"unread":   "tracing: {}\nrequest_id_extension: {typed_config: {" + uuids + "use_request_id_for_trace_sampling: false}}",
	"foreign":  "tracing: {random_sampling: {value: 0}}\npreserve_external_request_id: true\ninternal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}",
}

const uuids = `"@type": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, `

// traced are the fields of requests. All have an id: by the number of one that a proxy
// makes a request would be chosen by chance.
var traced = []string{
	"X-Request-Id: 00000000-1111-4111-8111-111111111111\r\nX-Envoy-Force-Trace: true",
	"X-Client-Trace-Id: 1\r\nX-Request-Id: 00000000-1111-4111-8111-111111111111",
	"X-Request-Id: 00000000-1111-4111-8111-111111111111",
	"X-Request-Id: 00000000-1111-9111-8111-111111111111",
	"X-Request-Id: 00000000-1111-a111-8111-111111111111",
	"X-Request-Id: 00000000-1111-b111-8111-111111111111",
	"X-Request-Id: 00000000-1111-7111-8111-111111111111",
	"X-Request-Id: 00001386-1111-4111-8111-111111111111", // 4998
	"X-Request-Id: 00001387-1111-4111-8111-111111111111",
	"X-Request-Id: 00000000-1111-9111-8111-111111111111\r\nX-Envoy-Force-Trace: true",
	"X-Request-Id: zzzzzzzz-1111-4111-8111-111111111111\r\nX-Envoy-Force-Trace: true",
	"X-Request-Id: 00000000xyz\r\nX-Envoy-Force-Trace: true",
}

func TestOurProxyAndARealEnvoyTraceAlike(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	directory := t.TempDir()
	file := func(proxy, listener string) string { return filepath.Join(directory, proxy+"-"+listener) }
	config := func(proxy string) string {
		b := bootstrap{clusters: []string{cluster("echo", host)}}
		for name, manager := range tracers {
			if !strings.Contains(manager, "internal_address_config") {
				manager += "\ninternal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"
			}
			b.listeners = append(b.listeners, listener{name: name, manager: fmt.Sprintf(`
use_remote_address: true
skip_xff_append: true
server_name: same
access_log:
- {name: traced, filter: {traceable_filter: {}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q, log_format: {text_format_source: {inline_string: "%%REQ(:PATH)%%\n"}}}}
route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [
  {match: {prefix: /never}, route: {cluster: echo}, tracing: {overall_sampling: {numerator: 0}}},
  {match: {prefix: /random}, route: {cluster: echo}, tracing: {client_sampling: {numerator: 0}, random_sampling: {numerator: 4999, denominator: TEN_THOUSAND}}},
  {match: {prefix: /}, route: {cluster: echo}}]}]}
%s
`, file(proxy, name), manager)})
		}
		return b.String()
	}
	envoy, ours := harness.Envoy(t, config("envoy")), harness.Proxy(t, config("ours"))
	for name := range tracers {
		for i, fields := range traced {
			for _, path := range []string{"/any", "/never", "/random"} {
				request := fmt.Sprintf("GET %s/%d?headers HTTP/1.1\r\nHost: mill\r\n%s\r\n\r\n", path, i, fields)
				answer := func(p *harness.Process) string {
					got, _ := harness.SendRaw(t, p.Addr(name), request)
					got.Header.Del("X-Envoy-Upstream-Service-Time")
					got.Header.Del("Date")
					return fmt.Sprint(got.Status, " ", got.Header, "\n", got.Body)
				}
				require.Equal(t, answer(envoy), answer(ours), "%s: %s", name, request)
			}
		}
	}
	envoy.Stop() // Envoy writes its logs each ten seconds
	ours.Stop()
	for name := range tracers {
		require.Equal(t, logLines(t, file("envoy", name)), logLines(t, file("ours", name)), name)
	}
}
