package route_test

import (
	"net/netip"
	"strings"
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

// request is a GET with header fields.
func request(authority, path string, fields ...string) route.Input {
	r := &message.Request{Method: []byte("GET"), Authority: []byte(authority), Path: []byte(path)}
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == ":scheme" {
			r.Scheme = []byte(fields[i+1])
			continue
		}
		r.Headers.Add(fields[i], fields[i+1])
	}
	return route.Input{Request: r, ClientAddress: netip.MustParseAddr("192.0.2.1")}
}

// routes is a table with one virtual host for all domains.
func routes(list ...string) string {
	return `{"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [` + strings.Join(list, ",") + `]}]}`
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

func TestFaultsNameTheirPlaceAllAtOnce(t *testing.T) {
	_, err := parse(t, `{"max_direct_response_body_size_bytes": 3, "internal_only_headers": ["a", "b c"], "virtual_hosts": [
		{"name": "a", "domains": ["x.*.com", "same"], "routes": [
			{"match": {"safe_regex": {"regex": "("}}, "redirect": {"port_redirect": 65536}},
			{"match": {"prefix": "/", "headers": [{"name": "a", "string_match": {"safe_regex": {"regex": "["}}}]},
				"direct_response": {"status": 200, "body": {"inline_string": "four"}}},
			{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"filename": "/does/not/exist"}}}]},
		{"name": "a", "domains": ["Same", "*a*"], "routes": [
			{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "-1s", "idle_timeout": "-2s"}},
			{"match": {"prefix": "/"}, "route": {"cluster": "c", "prefix_rewrite": "/x", "regex_rewrite": {"pattern": {"regex": "x"}, "substitution": "\\1"}}},
			{"match": {"prefix": "/"}, "route": {"cluster": "c", "prefix_rewrite": "/x", "path_rewrite": "/%WHAT%", "host_rewrite": "%REQ%"}},
			{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "c"}, {"weight": 0}, {"name": "c", "cluster_header": "x", "weight": 0}]}}},
			{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 4294967295}, {"name": "d", "weight": 1}]}}}]}]}`)
	require.EqualError(t, err, `internal_only_headers[1]: "b c" is no name of a header
virtual_hosts[0].domains[0]: domain "x.*.com": a * stands at its beginning or its end, once
virtual_hosts[0].routes[0].match.safe_regex.regex: "(" is no regular expression: missing closing )
virtual_hosts[0].routes[0].redirect.port_redirect: 65536 is no port
virtual_hosts[0].routes[1].direct_response.body: the body has 4 bytes, more than the 3 of max_direct_response_body_size_bytes
virtual_hosts[0].routes[1].match.headers[0].string_match.safe_regex.regex: "[" is no regular expression: missing closing ]
virtual_hosts[0].routes[2].direct_response.body.filename: open /does/not/exist: no such file or directory
virtual_hosts[1].domains[0]: domain "same" is there twice
virtual_hosts[1].domains[1]: domain "*a*": a * stands at its beginning or its end, once
virtual_hosts[1].name: virtual host "a" is there twice
virtual_hosts[1].routes[0].route.idle_timeout: -2s is negative
virtual_hosts[1].routes[0].route.timeout: -1s is negative
virtual_hosts[1].routes[1].route.regex_rewrite: prefix_rewrite rewrites the path already
virtual_hosts[1].routes[1].route.regex_rewrite.substitution: "\\1": \1 is no group of the pattern, which has 0
virtual_hosts[1].routes[2].route.host_rewrite: format "%REQ%": column 1: REQ needs an argument
virtual_hosts[1].routes[2].route.path_rewrite: format "/%WHAT%": column 2: unknown operator WHAT
virtual_hosts[1].routes[2].route.path_rewrite: prefix_rewrite or regex_rewrite rewrites the path already
virtual_hosts[1].routes[3].route.weighted_clusters.clusters: the weights' sum is 0: not between 1 and 4294967295
virtual_hosts[1].routes[3].route.weighted_clusters.clusters[1]: a cluster is needed: name or cluster_header
virtual_hosts[1].routes[3].route.weighted_clusters.clusters[2]: name and cluster_header name a cluster both
virtual_hosts[1].routes[4].route.weighted_clusters.clusters: the weights' sum is 4294967296: not between 1 and 4294967295`)
}

func TestReferencesAreAllClustersThatRoutesName(t *testing.T) {
	table, err := parse(t, routes(
		`{"match": {"prefix": "/a"}, "route": {"cluster": "a"}}`,
		`{"match": {"prefix": "/b"}, "route": {"cluster_header": "x-cluster"}}`,
		`{"match": {"prefix": "/c"}, "redirect": {}}`,
		`{"match": {"prefix": "/d"}, "route": {"weighted_clusters": {"clusters": [{"cluster_header": "x", "weight": 1}, {"name": "d", "weight": 1}]}}}`))
	require.NoError(t, err)
	require.Equal(t, []route.Reference{
		{Cluster: "a", At: "virtual_hosts[0].routes[0].route.cluster"},
		{Cluster: "d", At: "virtual_hosts[0].routes[3].route.weighted_clusters.clusters[1].name"},
	}, table.References())
}

func TestInternalOnlyHeadersAreDroppedFromOtherRequests(t *testing.T) {
	table, err := parse(t, `{"internal_only_headers": ["X-Secret", "x-other"]}`)
	require.NoError(t, err)
	outside := request("h", "/", "x-secret", "1", "x-kept", "2")
	table.DropInternalOnly(outside.Request)
	require.False(t, outside.Request.Headers.Has("x-secret"))
	require.True(t, outside.Request.Headers.Has("x-kept"))
	inside := request("h", "/", "x-secret", "1", "x-envoy-internal", "true")
	table.DropInternalOnly(inside.Request)
	require.True(t, inside.Request.Headers.Has("x-secret"))
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

func TestARouteIsNamedForMetricsWithItsVirtualHost(t *testing.T) {
	table, err := parse(t, routes(
		`{"match": {"path": "/named"}, "stat_prefix": "orders", "route": {"cluster": "c"}}`,
		`{"match": {"path": "/weighted"}, "stat_prefix": "split", "route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 1}]}}}`,
		`{"match": {"path": "/"}, "route": {"cluster": "c"}}`))
	require.NoError(t, err)
	require.Equal(t, route.StatName{VirtualHost: "all", Prefix: "orders"}, table.Match(request("x", "/named")).StatName.Value())
	require.Equal(t, route.StatName{VirtualHost: "all", Prefix: "split"}, table.Match(request("x", "/weighted")).StatName.Value())
	require.Zero(t, table.Match(request("x", "/")).StatName)
}

func TestNamesOfHeadersAreOnesThatRequestsCanHave(t *testing.T) {
	for action, at := range map[string]string{
		`"cluster": "c", "host_rewrite_header": "a b"`:                                                                       "host_rewrite_header",
		`"cluster": "c", "hash_policy": [{"header": {"header_name": "a b"}}]`:                                                "hash_policy[0].header.header_name",
		`"cluster_header": "a b"`:                                                                                            "cluster_header",
		`"weighted_clusters": {"clusters": [{"name": "c", "weight": 1}], "header_name": "a b"}`:                              "weighted_clusters.header_name",
		`"weighted_clusters": {"clusters": [{"cluster_header": "a b", "weight": 1}]}`:                                        "weighted_clusters.clusters[0].cluster_header",
		`"cluster": "c", "rate_limits": [{"actions": [{"request_headers": {"header_name": "a b", "descriptor_key": "k"}}]}]`: "rate_limits[0].actions[0].request_headers.header_name",
	} {
		_, err := parse(t, `{"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {`+action+`}}]}]}`)
		require.ErrorContains(t, err, "virtual_hosts[0].routes[0].route."+at+`: "a b" is no name of a header`)
	}
}
