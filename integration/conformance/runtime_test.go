package conformance

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// runtimeValues are values of a static_layer, each under "k.<name>" the key of a
// runtime_fraction.
var runtimeValues = map[string]string{
	"int": "100", "text": `"100"`, "float": "100.0", "spaced": `" 100 "`, "exponent": `"1e2"`, "big": "150", "huge": "5000000000",
	"half": "0.5", "negative": "-5", "bool": "true", "boolText": `"true"`, "word": "abc", "zero": "0",
	"share": "{numerator: 100}", "million": "{numerator: 1000000, denominator: MILLION}", "none": "{numerator: 0}", "empty": "{}",
	"shareText": `"{numerator: 100}"`,
}

// runtimeBootstrap is a proxy with a route for each of runtimeValues, of which the
// default of the fraction is nothing and, under another path, everything; with
// weights, and with faults, that the runtime sets.
func runtimeBootstrap(host string) string {
	var layer, routes strings.Builder
	for name, value := range runtimeValues {
		fmt.Fprintf(&layer, "k.%s: %s, ", name, value)
	}
	for _, name := range runtimeNames() {
		for _, share := range []int{0, 100} {
			path := fmt.Sprintf("/%s/%d", name, share)
			fmt.Fprintf(&routes, `
    - {match: {path: %[1]s, runtime_fraction: {default_value: {numerator: %[2]d}, runtime_key: k.%[3]s}}, direct_response: {status: 200}}
    - {match: {path: %[1]s}, direct_response: {status: 201}}`, path, share, name)
		}
	}
	return bootstrap{
		more: `
layered_runtime:
  layers:
  - {name: static, static_layer: {` + layer.String() + `w: {echo: 1, other: 0}}}
  - {name: admin, admin_layer: {}}
`,
		listeners: []listener{{
			manager: `
route_config:
  validate_clusters: false
  virtual_hosts:
  - name: all
    domains: ["*"]
    routes:` + routes.String() + `
    - match: {path: /weights}
      route: {weighted_clusters: {runtime_key_prefix: w, clusters: [{name: echo, weight: 0}, {name: nowhere, weight: 0}, {name: other, weight: 1}]}, cluster_not_found_response_code: NOT_FOUND}
    - {match: {prefix: /}, route: {cluster: echo}}
`,
			filters: filter("fault", "fault.v3.HTTPFault", "headers: [{name: x-fault, present_match: true}]",
				"abort: {http_status: 503, percentage: {}}", "max_active_faults_runtime: faults"),
		}},
		clusters: []string{cluster("echo", host)},
	}.String()
}

func runtimeNames() []string {
	names := []string{"unset"}
	for name := range runtimeValues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// runtimeStatus is the status of a GET that keeps no connection, "closed" without an
// answer.
func runtimeStatus(address, path string, header bool) string {
	request, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err.Error()
	}
	request.Close = true
	if header {
		request.Header.Set("x-fault", "yes")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "closed"
	}
	defer response.Body.Close()
	return response.Status[:3]
}

// modifyRuntime posts to an admin listener, and returns the status.
func modifyRuntime(t *testing.T, admin, query string) int {
	t.Helper()
	response, err := http.Post("http://"+admin+"/runtime_modify"+query, "", nil)
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	return response.StatusCode
}

func TestOurProxyAndARealEnvoyReadTheRuntimeAlike(t *testing.T) {
	bootstrap := runtimeBootstrap(harness.Echo(t, "one").Addr("http"))
	envoy, ours := harness.Envoy(t, bootstrap), harness.Proxy(t, bootstrap)
	type ask struct {
		path  string
		fault bool
	}
	asks := []ask{{"/weights", false}, {"/", true}}
	for _, name := range runtimeNames() {
		asks = append(asks, ask{"/" + name + "/0", false}, ask{"/" + name + "/100", false})
	}
	same := func(step string) {
		t.Helper()
		for _, a := range asks {
			// A worker of Envoy may hear of a change after the answer to it.
			var want, got string
			alike := awaited(func() bool {
				want, got = runtimeStatus(envoy.Addr("ingress"), a.path, a.fault), runtimeStatus(ours.Addr("ingress"), a.path, a.fault)
				return want == got
			})
			require.True(t, alike, "%s: %+v: Envoy %s, ours %s", step, a, want, got)
		}
	}
	same("by the static layer")
	const limit = "envoy.resource_limits.listener.ingress.connection_limit"
	for _, query := range []string{
		"?k.unset=100", "?k.unset=%20100", "?k.unset=100.0&k.zero=1e2", "?k.unset=%7Bnumerator:%20100%7D", "?k.unset=%7B%22numerator%22:100%7D",
		"?k.unset=true&k.int=0", "?k.unset=abc", "?k.unset=100&k.unset=0", "?k.unset=&k.int=&k.zero=",
		"?w.echo=0&w.nowhere=5&w.other=0", "?w.echo=&w.nowhere=&w.other=",
		"?upstream.maintenance_mode.echo=100", "?upstream.maintenance_mode.echo=0", "?upstream.maintenance_mode.echo=",
		"?fault.http.abort.abort_percent=100", "?fault.http.abort.http_status=418", "?faults=0", "?faults=&fault.http.abort.http_status=&fault.http.abort.abort_percent=",
		"?" + limit + "=0", "?" + limit + "=",
	} {
		require.Equal(t, http.StatusOK, modifyRuntime(t, envoy.Addr("admin"), query), query)
		require.Equal(t, http.StatusOK, modifyRuntime(t, ours.Addr("admin"), query), query)
		same(query)
	}
	require.Equal(t, http.StatusBadRequest, modifyRuntime(t, envoy.Addr("admin"), ""))
	require.Equal(t, http.StatusBadRequest, modifyRuntime(t, ours.Addr("admin"), ""))
}
