package route_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
)

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		match   string
		yes, no []string // paths
	}{
		{`"prefix": "/api"`, []string{"/api", "/apix", "/api/a?b"}, []string{"/Api", "/ap", "/?/api"}},
		{`"prefix": "/Api", "case_sensitive": false`, []string{"/api", "/APIx"}, []string{"/ap"}},
		{`"prefix": "/Api", "case_sensitive": true`, []string{"/Api"}, []string{"/api"}},
		{`"prefix": ""`, []string{"/", "*", "/a"}, []string{""}},
		{`"path": "/api"`, []string{"/api", "/api?a=/b"}, []string{"/api/", "/Api", "/ap"}},
		{`"path": "/Api", "case_sensitive": false`, []string{"/api", "/API?"}, []string{"/api/"}},
		{`"path_separated_prefix": "/api"`, []string{"/api", "/api/", "/api/v1", "/api?x"}, []string{"/apix", "/ap", "/API"}},
		{`"path_separated_prefix": "/Api", "case_sensitive": false`, []string{"/api/V1", "/API"}, []string{"/apix"}},
		{`"safe_regex": {"regex": "/b[io]t"}`, []string{"/bit", "/bot", "/bit?x"}, []string{"/bite", "/x/bit", "/BIT"}},
		{`"safe_regex": {"regex": "(?i)/b[io]t"}, "case_sensitive": false`, []string{"/BIT"}, []string{"/bat"}},
	} {
		table, err := parse(t, routes(`{"match": {`+c.match+`}, "route": {"cluster": "c"}}`))
		require.NoError(t, err)
		for _, path := range c.yes {
			require.NotNil(t, table.Match(request("h", path)), "%s matches %s", c.match, path)
		}
		for _, path := range c.no {
			require.Nil(t, table.Match(request("h", path)), "%s does not match %s", c.match, path)
		}
	}
}

func TestAllConditionsHaveToHold(t *testing.T) {
	table, err := parse(t, routes(
		`{"match": {"prefix": "/", "headers": [{"name": "a", "present_match": true}, {"name": "b", "string_match": {"exact": "1"}}], "query_parameters": [{"name": "q"}]}, "route": {"cluster": "all"}}`,
		`{"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "grpc"}}`,
		`{"match": {"prefix": "/"}, "route": {"cluster": "rest"}}`))
	require.NoError(t, err)
	for _, c := range []struct {
		want, path string
		fields     []string
	}{
		{"all", "/?q", []string{"a", "", "b", "1"}},
		{"rest", "/?q", []string{"a", "", "b", "2"}},
		{"rest", "/?q", []string{"b", "1"}},
		{"rest", "/", []string{"a", "", "b", "1"}},
		{"grpc", "/", []string{"content-type", "application/grpc"}},
		{"rest", "/", []string{"content-type", "application/grpc;a=b"}},
		{"grpc", "/", []string{"content-type", "application/grpc+proto"}},
		{"rest", "/", []string{"content-type", "application/grpc-web"}},
		{"rest", "/", []string{"content-type", "text/plain"}},
	} {
		require.Equal(t, c.want, table.Match(request("h", c.path, c.fields...)).Cluster, c)
	}
}

// TestRuntimeFractions has two routes that each match half of the requests that
// get to them.
func TestRuntimeFractions(t *testing.T) {
	half := `{"match": {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 50}, "runtime_key": "k"}}, "route": {"cluster": %q}}`
	table, err := parse(t, routes(fmt.Sprintf(half, "a"), fmt.Sprintf(half, "b"), `{"match": {"prefix": "/"}, "route": {"cluster": "c"}}`))
	require.NoError(t, err)
	const all = 100_000
	seen := map[string]int{}
	in := request("h", "/")
	for i := range all {
		in.Random = uint64(i)
		seen[table.Match(in).Cluster]++
	}
	require.InDelta(t, all/2, seen["a"], all/100)
	require.InDelta(t, all/4, seen["b"], all/100)
	require.InDelta(t, all/4, seen["c"], all/100)
}

func TestTheRuntimeSetsAFractionOfARoute(t *testing.T) {
	table, err := parse(t, routes(`{"match": {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 50}, "runtime_key": "k"}}, "route": {"cluster": "a"}}`,
		`{"match": {"prefix": "/"}, "route": {"cluster": "b"}}`))
	require.NoError(t, err)
	for values, want := range map[string]int{`{k: 0}`: 0, `{k: 100}`: 1000, `{other: 1}`: 500, `{k: {numerator: 2500, denominator: TEN_THOUSAND}}`: 250} {
		in := request("h", "/")
		in.Runtime = runtimetest.Values(t, values)
		seen := 0
		for i := range uint64(1000) {
			in.Random = i
			if table.Match(in).Cluster == "a" {
				seen++
			}
		}
		require.InDelta(t, want, seen, 50, values)
		require.True(t, want != 0 && want != 1000 || seen == want, "all and none are not by chance")
		servicetest.Allocations(t, 0, func() { table.Match(in) })
	}
}

func TestRequireTLS(t *testing.T) {
	for _, c := range []struct {
		require string
		fields  []string
		want    string // location, "" for the route
	}{
		{"NONE", nil, ""},
		{"ALL", nil, "https://h/a?b"},
		{"ALL", []string{"x-forwarded-proto", "http"}, "https://h/a?b"},
		{"ALL", []string{"x-forwarded-proto", "https"}, ""},
		{"ALL", []string{"x-envoy-internal", "true"}, "https://h/a?b"},
		{"ALL", []string{":scheme", "https"}, "https://h/a?b"}, // a client says of itself what it likes
		{"EXTERNAL_ONLY", nil, "https://h/a?b"},
		{"EXTERNAL_ONLY", []string{"x-forwarded-proto", "https"}, ""},
		{"EXTERNAL_ONLY", []string{"x-envoy-internal", "true"}, ""},
	} {
		table, err := parse(t, `{"virtual_hosts": [{"name": "a", "domains": ["*"], "require_tls": "`+c.require+`", "routes": [
			{"match": {"path": "/a"}, "route": {"cluster": "c"}}]}]}`)
		require.NoError(t, err)
		in := request("h", "/a?b", c.fields...)
		r := table.Match(in)
		require.NotNil(t, r)
		if c.want == "" {
			require.Equal(t, "c", r.Cluster)
			continue
		}
		require.Equal(t, 301, r.Redirect.Status)
		require.Equal(t, c.want, r.Redirect.Location(in.Request, nil))
	}
}
