package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// trafficOperators are those of what goes over the wire, by their sides and directions.
var trafficOperators = func() (all []string) {
	for _, side := range []string{"DOWNSTREAM", "UPSTREAM"} {
		for _, what := range []string{"WIRE", "HEADER", "DECOMPRESSED_HEADER"} {
			for _, direction := range []string{"RECEIVED", "SENT"} {
				all = append(all, fmt.Sprintf("%s_%s_BYTES_%s", side, what, direction))
			}
		}
	}
	return all
}()

// trafficBootstrap is a proxy that logs what goes over the wire, before a host that is
// spoken to in both versions of HTTP.
func trafficBootstrap(host, file string) string {
	var members []string
	for _, operator := range trafficOperators {
		members = append(members, operator+`: "%`+operator+`%"`)
	}
	return bootstrap{
		listeners: []listener{{
			manager: fmt.Sprintf(`
server_name: same
access_log: [{name: json, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q, log_format: {json_format: {%s}}}}]
route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [
  {match: {prefix: /again}, route: {cluster: h1, retry_policy: {retry_on: 5xx, num_retries: 2}}},
  {match: {prefix: /h2}, route: {cluster: h2}},
  {match: {prefix: /h1}, route: {cluster: h1}}]}]}
`, file, strings.Join(members, ", ")),
			router: "suppress_envoy_headers: true",
		}},
		clusters: []string{cluster("h1", host), cluster("h2", host, overHTTP2)},
	}.String()
}

func TestOurProxyAndARealEnvoyCountTrafficAlike(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	directory := t.TempDir()
	file := func(name string) string { return filepath.Join(directory, name) }
	envoy := harness.Envoy(t, trafficBootstrap(host, file("envoy")))
	ours := harness.Proxy(t, trafficBootstrap(host, file("ours")))
	type sent struct {
		http2  bool
		method string
		path   string
		body   int
	}
	requests := []sent{{false, "POST", "/again?status=503", 5}}
	for _, http2 := range []bool{false, true} {
		for _, path := range []string{"/h1", "/h2"} {
			requests = append(requests, sent{http2, "GET", path, 0}, sent{http2, "POST", path, 5}, sent{http2, "HEAD", path, 0})
			if http2 { // whose answer does not have to say whether it came before all of the body
				requests = append(requests, sent{http2, "POST", path, 300_000})
			}
		}
	}
	for _, proxy := range []*harness.Process{envoy, ours} {
		for _, r := range requests {
			transport := &http.Transport{Protocols: &http.Protocols{}, DisableCompression: true}
			transport.Protocols.SetHTTP1(!r.http2)
			transport.Protocols.SetUnencryptedHTTP2(r.http2)
			request, err := http.NewRequest(r.method, "http://"+proxy.Addr("ingress")+r.path, strings.NewReader(strings.Repeat("a", r.body)))
			require.NoError(t, err)
			request.Host = "mill"
			response, err := transport.RoundTrip(request)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			transport.CloseIdleConnections()
			eventually(t, "it is logged", func() bool { return harness.Stat(t, proxy, "http.ingress.downstream_cx_active") == 0 })
		}
	}
	envoy.Stop() // Envoy writes its logs each ten seconds
	ours.Stop()
	want, got := logLines(t, file("envoy")), logLines(t, file("ours"))
	require.Len(t, want, len(requests))
	require.Len(t, got, len(requests))
	for i, r := range requests {
		var wanted, found map[string]int
		require.NoError(t, json.Unmarshal([]byte(want[i]), &wanted))
		require.NoError(t, json.Unmarshal([]byte(got[i]), &found))
		for _, operator := range trafficOperators {
			of := fmt.Sprintf("%s of %v", operator, r)
			if strings.HasPrefix(r.path, "/again") && operator == "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" {
				// Envoy adds those of attempts before twice.
				assert.Equal(t, 3*wanted[operator]/6, found[operator], of)
				continue
			}
			if http2 := r.http2 && strings.HasPrefix(operator, "DOWN") || r.path == "/h2" && strings.HasPrefix(operator, "UP"); !http2 || strings.Contains(operator, "DECOMPRESSED") {
				assert.Equal(t, wanted[operator], found[operator], of)
				continue
			}
			// How well heads are compressed, and in how many frames a body goes, is each
			// side's own.
			assert.Positive(t, found[operator], of)
			assert.InDelta(t, wanted[operator], found[operator], 50+float64(r.body)/100, of)
		}
	}
}
