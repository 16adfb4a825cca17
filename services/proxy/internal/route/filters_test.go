package route_test

import (
	"testing"
	"unique"

	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// parseLimit takes a Buffer for the config of a filter, and makes a number of it.
func parseLimit(m proto.Message, at strict.Path, report *strict.Report) (any, bool) {
	buffer, ok := m.(*bufferv3.Buffer)
	if !ok {
		return nil, false
	}
	if buffer.GetMaxRequestBytes().GetValue() == 13 {
		report.Add(at.Field("max_request_bytes"), "unlucky")
	}
	return int(buffer.GetMaxRequestBytes().GetValue()), true
}

// filterSchema has Buffer, and no other filter.
func filterSchema(t *testing.T) *strict.Schema {
	schema, err := strict.NewSchema(route.Fields(), route.FilterFields(), strict.Fields{"envoy.extensions.filters.http.buffer.v3.Buffer": {"max_request_bytes"}})
	require.NoError(t, err)
	return schema
}

func parseFiltered(t *testing.T, yaml string) (*route.Table, *strict.Report) {
	m := &routev3.RouteConfiguration{}
	report := strict.Load("routes.yaml", []byte(yaml), m, filterSchema(t))
	return route.ParseFor(parseLimit, m, "", report), report
}

const (
	bufferOf  = `{"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: `
	wrapped   = `{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, `
	otherType = `{"@type": type.googleapis.com/envoy.extensions.filters.http.nobody.v3.Knows, a: 1}`
)

// TestTheNearestConfigOfAFilterCounts: "most specific wins, never merged".
func TestTheNearestConfigOfAFilterCounts(t *testing.T) {
	table, report := parseFiltered(t, `
typed_per_filter_config: {a: `+bufferOf+`1}, b: `+bufferOf+`2}, c: `+wrapped+`disabled: true}}
virtual_hosts:
- name: all
  domains: ["*"]
  typed_per_filter_config: {b: `+bufferOf+`3}}
  routes:
  - {match: {path: /host}, route: {cluster: up}}
  - {match: {path: /route}, route: {cluster: up}, typed_per_filter_config: {a: `+bufferOf+`4}, c: `+wrapped+`config: {}}}}
  - {match: {path: /off}, direct_response: {status: 200}, typed_per_filter_config: {b: `+wrapped+`disabled: true}}}
  - {match: {path: /on}, route: {cluster: up}, typed_per_filter_config: {b: `+wrapped+`config: {}}, d: `+wrapped+`is_optional: true, config: `+otherType+`}}}
  - match: {path: /weight}
    route: {weighted_clusters: {clusters: [{name: up, weight: 1, typed_per_filter_config: {a: `+wrapped+`config: `+bufferOf+`6}}}}]}}
    typed_per_filter_config: {a: `+bufferOf+`5}, b: `+bufferOf+`5}}
`)
	require.NoError(t, report.Err())
	for path, want := range map[string]map[string]route.FilterConfig{
		"/host":   {"a": {Config: 1}, "b": {Config: 3}, "c": {Disabled: true}},
		"/route":  {"a": {Config: 4}, "b": {Config: 3}, "c": {}},
		"/off":    {"a": {Config: 1}, "b": {Config: 3, Disabled: true}, "c": {Disabled: true}},
		"/on":     {"a": {Config: 1}, "b": {Config: 3}, "c": {Disabled: true}, "d": {}},
		"/weight": {"a": {Config: 6}, "b": {Config: 5}, "c": {Disabled: true}},
	} {
		r := table.Match(route.Input{Request: &message.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte(path)}})
		got := map[string]route.FilterConfig{}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			if config := r.FilterConfig(unique.Make(name)); config != nil {
				got[name] = *config
			}
		}
		require.Equal(t, want, got, path)
	}
	var none *route.Route
	require.Nil(t, none.FilterConfig(unique.Make("a")))

	const buffer = protoreflect.FullName("envoy.extensions.filters.http.buffer.v3.Buffer")
	require.Contains(t, table.FilterReferences(), route.FilterReference{Name: "b", Config: buffer, At: `virtual_hosts[0].typed_per_filter_config["b"]`})
	require.Contains(t, table.FilterReferences(), route.FilterReference{Name: "c", At: `typed_per_filter_config["c"]`})
}

func TestFilterConfigsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"by the filter", bufferOf + "13}", `virtual_hosts[0].routes[0].typed_per_filter_config["a"].max_request_bytes: unlucky`},
		{"by the filter, wrapped", wrapped + "config: " + bufferOf + "13}}", `typed_per_filter_config["a"].config.max_request_bytes: unlucky`},
		{"an unknown type", otherType, `typed_per_filter_config["a"]`},
		{"an unknown type that is wrapped", wrapped + "config: " + otherType + "}", `typed_per_filter_config["a"].config`},
		{"an unknown field", bufferOf + `1, b: 2}`, `typed_per_filter_config["a"].b: unknown field`},
		{"nothing in it", wrapped + "is_optional: true}", `typed_per_filter_config["a"]: the config of filter "a" is empty`},
		{"a wrapper in a wrapper", wrapped + "config: " + wrapped + "disabled: true}}", `typed_per_filter_config["a"].config: envoy.config.route.v3.FilterConfig configures no filter of a route`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, report := parseFiltered(t, `{virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: up}, typed_per_filter_config: {a: `+c.config+`}}]}]}`)
			require.ErrorContains(t, report.Err(), c.want)
			require.Len(t, report.Faults(), 1, "%v", report.Err())
		})
	}
	_, report := parseFiltered(t, `{virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: up}}]}]}`)
	require.NoError(t, report.Err())
}
