package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// logged are the operators whose values are the same in our proxy and in Envoy,
// once logDiffers has been at them.
var logged = append(trafficOperators, strings.Fields(`
START_TIME START_TIME(%s) START_TIME(%s.%3f) REQUEST_HEADERS_BYTES BYTES_RECEIVED BYTES_SENT PROTOCOL UPSTREAM_PROTOCOL
RESPONSE_CODE RESPONSE_CODE_DETAILS CONNECTION_TERMINATION_DETAILS RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES
DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION ROUNDTRIP_DURATION
COMMON_DURATION(DS_RX_BEG:DS_TX_END:us) COMMON_DURATION(US_CX_BEG:US_CX_END:ns) COMMON_DURATION(US_TX_BEG:US_RX_END:ns)
RESPONSE_FLAGS RESPONSE_FLAGS_LONG ROUTE_NAME VIRTUAL_CLUSTER_NAME UPSTREAM_HOST UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW
UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT UPSTREAM_REMOTE_ADDRESS
UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_TRANSPORT_FAILURE_REASON
DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24) DOWNSTREAM_REMOTE_PORT
DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_PORT DOWNSTREAM_DIRECT_LOCAL_ADDRESS
CONNECTION_ID UPSTREAM_CONNECTION_ID STREAM_ID GRPC_STATUS GRPC_STATUS(SNAKE_STRING) GRPC_STATUS(NUMBER) GRPC_STATUS_NUMBER
REQ(:METHOD) REQ(:PATH) REQ(:AUTHORITY) REQ(:SCHEME) REQ(HOST) REQ(X-NONE) REQ(X-NONE?USER-AGENT):4 REQ(X-TWICE) REQ(X-QUOTES) RESP(:STATUS)
RESP(CONTENT-LENGTH) RESP(X-NONE) RESP(X-DOWN) RESP(X-ENVOY-UPSTREAM-SERVICE-TIME) TRAILER(X-NONE) DYNAMIC_METADATA(a:b) METADATA(ROUTE:a:b) REQUESTED_SERVER_NAME
DOWNSTREAM_TLS_VERSION DOWNSTREAM_PEER_CERT_V_START HOSTNAME LOCAL_REPLY_BODY ENVIRONMENT(WEIR_NOT_SET) UNIQUE_ID TRACE_ID
PATH PATH(NQ) PATH(WQ:ORIG) QUERY_PARAM(a) QUERY_PARAM(b):1 QUERY_PARAM(e) QUERY_PARAM(none) QUERY_PARAMS QUERY_PARAMS(DECODED) ACCESS_LOG_TYPE
FILTER_CHAIN_NAME METADATA(LISTENER_FILTER_CHAIN:ns:is) METADATA(ROUTE:ns:is) METADATA(ROUTE:ns:number) METADATA(ROUTE:ns) METADATA(VIRTUAL_HOST:ns:is)
METADATA(CLUSTER:ns:is) METADATA(UPSTREAM_HOST:ns:is) UPSTREAM_METADATA(ns:is) CLUSTER_METADATA(ns:is) METADATA(LISTENER:ns:is)
START_TIME_LOCAL START_TIME_LOCAL(%s) START_TIME_LOCAL(%z) EMIT_TIME EMIT_TIME(%s) EMIT_TIME_LOCAL EMIT_TIME_LOCAL(%s)
COALESCE({"operators":["TRACE_ID","LOCAL_REPLY_BODY","RESPONSE_CODE"]}) COALESCE({"operators":["UPSTREAM_HOST",{"command":"REQ","param":":METHOD","max_length":2}]}):3`)...)

// logDiffers is what no two runs have in common.
var logDiffers = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d{4})|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|127\.0\.0\.1:\d+|^\d{10}(\.\d{3})?$`)

// loggingBootstrap is a proxy that logs JSON and the default line, and changes
// headers on all levels.
func loggingBootstrap(host, lines, defaults string) string {
	var members strings.Builder
	for _, operator := range logged {
		name, length, _ := strings.Cut(operator, "):")
		if length != "" {
			operator = name + "):" + length
		}
		fmt.Fprintf(&members, "%q: %q, ", strings.ReplaceAll(operator, "%", ""), "%"+operator+"%")
	}
	mutations := func(level string) string {
		return fmt.Sprintf(`request_headers_to_add: [{header: {key: x-who, value: %[1]s}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-levels, value: "%[1]s %%REQ(:PATH)%%"}}, {header: {key: x-never, value: "%%REQ(x-none)%%"}}]
              , response_headers_to_add: [{header: {key: x-down, value: "%[1]s %%RESPONSE_CODE%% %%RESPONSE_FLAGS%% %%ROUTE_NAME%% %%UPSTREAM_CLUSTER%%"}}]`, level)
	}
	return bootstrap{
		listeners: []listener{{
			chain: `
name: chain
metadata: {filter_metadata: {ns: {is: chain}}}
`,
			manager: fmt.Sprintf(`
server_name: same
access_log_options: {flush_access_log_on_new_request: true}
access_log:
- {name: json, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q, log_format: {json_format: {%s mixed: "-%%REQ(x-none)%%-%%RESPONSE_CODE%%", nest: {list: ["%%PROTOCOL%%", 1, true, "x"]}}}}}
- {name: text, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q}}
route_config: {validate_clusters: false, %s, virtual_hosts: [{name: all, domains: ["*"], metadata: {filter_metadata: {ns: {is: host}}}, %s, routes: [
  {name: dead, match: {prefix: /dead}, route: {cluster: dead}},
  {name: empty, match: {prefix: /empty}, route: {cluster: empty}},
  {name: none, match: {prefix: /none}, route: {cluster: nowhere}},
  {name: up, match: {prefix: /up}, metadata: {filter_metadata: {ns: {is: route, number: 3}}}, route: {cluster: echo}, %s}]}]}
`, lines, members.String(), defaults, mutations("config"), mutations("vhost"), mutations("route")),
			filters: checked("/up/healthz", "cluster_min_healthy_percentages: {echo: {value: 50}}") +
				checked("/up/unhealthz", "cluster_min_healthy_percentages: {empty: {value: 1}}") +
				checked("/up/unknownz", "cluster_min_healthy_percentages: {nowhere: {value: 1}}") +
				checked("/up/itself"),
		}},
		clusters: []string{
			clusterOf("echo", "{lb_endpoints: ["+endpoint(host, "metadata: {filter_metadata: {ns: {is: endpoint}}}")+"]}",
				"metadata: {filter_metadata: {ns: {is: cluster}}}"),
			clusterOf("empty", ""),
			cluster("dead", "127.0.0.1:1"),
		},
	}.String()
}

func TestOurProxyAndARealEnvoyLogAndChangeHeadersAlike(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	directory := t.TempDir()
	file := func(name string) string { return filepath.Join(directory, name) }
	envoy := harness.Envoy(t, loggingBootstrap(host, file("envoy.json"), file("envoy.log")))
	ours := harness.Proxy(t, loggingBootstrap(host, file("ours.json"), file("ours.log")))
	requests := []string{
		"GET /up?headers&a=%41b&b=xyz&e= HTTP/1.1\r\nHost: Mill\r\nUser-Agent: curl/8\r\nX-Twice: 1\r\nX-Twice: 2\r\nX-Quotes: q\"\\x\tz\r\n\r\n",
		"POST /up HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain",
		"HEAD /up HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /up?status=500 HTTP/1.1\r\nHost: mill\r\n\r\n",
		"POST /up HTTP/1.1\r\nHost: mill\r\nContent-Length: 0\r\nContent-Type: application/grpc\r\n\r\n",
		"GET /dead HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /empty HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /none HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /nowhere HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /up/healthz HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /up/unhealthz HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /up/unknownz HTTP/1.1\r\nHost: mill\r\n\r\n",
		"GET /up/itself HTTP/1.1\r\nHost: mill\r\n\r\n",
	}
	for _, text := range requests {
		want := show(harness.SendRaw(t, envoy.Addr("ingress"), text))
		require.Equal(t, want, show(harness.SendRaw(t, ours.Addr("ingress"), text)), text)
		// A line may be written after the answer; it is there when the connection is gone.
		eventually(t, "both have logged it", func() bool {
			const connections = "http.ingress.downstream_cx_active"
			return harness.Stat(t, envoy, connections) == 0 && harness.Stat(t, ours, connections) == 0
		})
	}
	envoy.Stop() // Envoy writes its logs each ten seconds
	ours.Stop()
	lines := logLines(t, file("envoy.json"))
	require.Len(t, lines, 2*len(requests), "one for the beginning, one for the end of each")
	for i, want := range lines {
		got, request := logLines(t, file("ours.json"))[i], requests[i/2]
		wantValues, gotValues := logValues(t, want), logValues(t, got)
		if strings.HasPrefix(request, "GET /nowhere") {
			wantValues["METADATA(VIRTUAL_HOST:ns:is)"] = nil // which is the route's for us, and there is none
		}
		if _, body, ok := strings.Cut(request, "\r\n\r\n"); ok && i%2 == 0 { // which came with the head, and is not taken yet
			const received = "DOWNSTREAM_WIRE_BYTES_RECEIVED"
			wantValues[received] = wantValues[received].(float64) - float64(len(body))
		}
		for key := range wantValues {
			assert.Equal(t, wantValues[key], gotValues[key], "%s of %s, line %d", key, request, i)
		}
		require.Len(t, gotValues, len(wantValues))
	}
	wantLines, gotLines := logLines(t, file("envoy.log")), logLines(t, file("ours.log"))
	require.Len(t, gotLines, len(wantLines))
	times := regexp.MustCompile(`(\d+ \d+) \d+ [-\d]+ "`)
	for i, want := range wantLines {
		same := func(line string) string {
			return times.ReplaceAllString(logDiffers.ReplaceAllString(line, "*"), "$1 * * \"")
		}
		require.Equal(t, same(want), same(gotLines[i]))
	}
}

func logLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// logValues reads a line of JSON, without what no two runs have in common.
func logValues(t *testing.T, line string) map[string]any {
	t.Helper()
	values := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(line), &values), line)
	const serviceTime = "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)" // has as many bytes as it has digits
	if digits, ok := values[serviceTime].(string); ok {
		for _, bytes := range []string{"RESPONSE_HEADERS_BYTES", "DOWNSTREAM_WIRE_BYTES_SENT", "DOWNSTREAM_HEADER_BYTES_SENT", "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT"} {
			values[bytes] = values[bytes].(float64) - float64(len(digits))
		}
		values[serviceTime] = "a number"
	}
	for key, value := range values {
		switch value := value.(type) {
		case float64:
			if strings.Contains(key, "DURATION") || strings.Contains(key, "PORT") || strings.Contains(key, "CONNECTION_ID") && value != 0 {
				values[key] = "a number"
			}
		case string:
			values[key] = logDiffers.ReplaceAllString(value, "*")
		}
	}
	return values
}
