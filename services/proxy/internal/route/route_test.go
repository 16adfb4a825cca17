package route_test

import (
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// parse makes a table of a RouteConfiguration in JSON.
func parse(t testing.TB, text string) (*route.Table, error) {
	t.Helper()
	config := &routev3.RouteConfiguration{}
	require.NoError(t, protojson.Unmarshal([]byte(text), config))
	report := &strict.Report{}
	table := route.Parse(config, "", report)
	return table, report.Err()
}

func request(authority, path string) *message.Request {
	return &message.Request{Method: []byte("GET"), Authority: []byte(authority), Path: []byte(path)}
}

const hosts = `{"virtual_hosts": [
	{"name": "exact", "domains": ["www.foo.com", "port.com:8080"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "exact"}}]},
	{"name": "suffix", "domains": ["*.foo.com", "*-bar.foo.com"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "suffix"}}]},
	{"name": "long suffix", "domains": ["*.a.foo.com"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "long suffix"}}]},
	{"name": "prefix", "domains": ["foo.*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "prefix"}}]},
	{"name": "long prefix", "domains": ["foo.co.*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "long prefix"}}]},
	{"name": "any", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "any"}}]}]}`

func TestVirtualHostIsTheMostExactDomain(t *testing.T) {
	table, err := parse(t, hosts)
	require.NoError(t, err)
	for authority, want := range map[string]string{
		"www.foo.com":    "exact",
		"WWW.Foo.COM":    "exact",
		"port.com:8080":  "exact",
		"port.com":       "any",
		"x.foo.com":      "suffix",
		"x-bar.foo.com":  "suffix",
		"b.a.foo.com":    "long suffix",
		".foo.com":       "any", // a * is at least one character
		"foo.net":        "prefix",
		"foo.co.uk":      "long prefix",
		"foo.":           "any",
		"something.else": "any",
		"":               "any",
	} {
		r := table.Match(request(authority, "/"))
		require.NotNil(t, r, authority)
		require.Equal(t, want, r.Cluster, authority)
	}
}

func TestNoVirtualHostMeansNoRoute(t *testing.T) {
	table, err := parse(t, `{"virtual_hosts": [{"name": "a", "domains": ["a"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]}]}`)
	require.NoError(t, err)
	require.Nil(t, table.Match(request("b", "/")))
	require.NotNil(t, table.Match(request("a", "/")))
}

func TestFirstRouteThatMatchesThePathWins(t *testing.T) {
	table, err := parse(t, `{"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
		{"match": {"path": "/exact"}, "route": {"cluster": "path"}},
		{"match": {"prefix": "/api/"}, "route": {"cluster": "api", "timeout": "0s"}},
		{"match": {"prefix": "/api"}, "route": {"cluster": "shadowed by the first only in part", "timeout": "1.5s"}},
		{"name": "last", "match": {"prefix": "/x"}, "route": {"cluster": "x"}}]}]}`)
	require.NoError(t, err)
	for path, want := range map[string]string{
		"/exact":       "path",
		"/exact?a=b/c": "path",
		"/exact/":      "",
		"/Exact":       "",
		"/api/v1":      "api",
		"/api":         "shadowed by the first only in part",
		"/xyz":         "x",
		"/":            "",
		"*":            "",
	} {
		r := table.Match(request("h", path))
		if want == "" {
			require.Nil(t, r, path)
			continue
		}
		require.NotNil(t, r, path)
		require.Equal(t, want, r.Cluster, path)
	}
	require.Equal(t, 15*time.Second, table.Match(request("h", "/exact")).Timeout)
	require.Zero(t, table.Match(request("h", "/api/")).Timeout)
	require.Equal(t, 1500*time.Millisecond, table.Match(request("h", "/api")).Timeout)
}

func TestRateLimitsOfTheVirtualHostApplyWhereTheRouteHasNoneOrIncludesThem(t *testing.T) {
	limit := func(value string) string {
		return `{"actions": [{"generic_key": {"descriptor_value": "` + value + `"}}]}`
	}
	table, err := parse(t, `{"virtual_hosts": [{"name": "all", "domains": ["*"], "rate_limits": [`+limit("host")+`], "routes": [
		{"match": {"path": "/none"}, "route": {"cluster": "c"}},
		{"match": {"path": "/own"}, "route": {"cluster": "c", "rate_limits": [`+limit("route")+`]}},
		{"match": {"path": "/both"}, "route": {"cluster": "c", "rate_limits": [`+limit("route")+`], "include_vh_rate_limits": true}}]}]}`)
	require.NoError(t, err)
	require.Len(t, table.Match(request("h", "/none")).RateLimits, 1)
	require.Len(t, table.Match(request("h", "/own")).RateLimits, 1)
	require.Len(t, table.Match(request("h", "/both")).RateLimits, 2)
}

func TestFaultsNameTheirPlaceAllAtOnce(t *testing.T) {
	_, err := parse(t, `{"virtual_hosts": [
		{"name": "a", "domains": ["x.*.com", "same"], "routes": [{"match": {"prefix": "/"}, "redirect": {}}]},
		{"name": "a", "domains": ["Same", "*a*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "-1s"}}]}]}`)
	require.EqualError(t, err, `virtual_hosts[0].domains[0]: domain "x.*.com": a * stands at its beginning or its end, once
virtual_hosts[0].routes[0]: a route needs the action route: {cluster: …}
virtual_hosts[1].domains[0]: domain "same" is there twice
virtual_hosts[1].domains[1]: domain "*a*": a * stands at its beginning or its end, once
virtual_hosts[1].name: virtual host "a" is there twice
virtual_hosts[1].routes[0].route.timeout: -1s is negative`)
}

func TestMatchAllocatesNothing(t *testing.T) {
	table, err := parse(t, hosts)
	require.NoError(t, err)
	r := request("B.a.foo.com", "/some/path?query")
	servicetest.Allocations(t, 0, func() { table.Match(r) })
}

func BenchmarkMatch(b *testing.B) {
	table, err := parse(b, hosts)
	require.NoError(b, err)
	r := request("b.a.foo.com", "/some/path?query")
	b.ReportAllocs()
	for b.Loop() {
		table.Match(r)
	}
}
