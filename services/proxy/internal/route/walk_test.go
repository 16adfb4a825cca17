package route_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

const walked = `{"virtual_hosts": [
	{"name": "api", "domains": ["*.example"], "rate_limits": [
		{"actions": [{"remote_address": {}}, {"destination_cluster": {}}]}, {"actions": [{"request_headers": {"header_name": "x-none", "descriptor_key": "k"}}]}], "routes": [
		{"name": "health", "match": {"path": "/health"}, "direct_response": {"status": 200, "body": {"inline_string": "fine"}}},
		{"match": {"prefix": "/old"}, "redirect": {"https_redirect": true, "path_redirect": "/new"}},
		{"match": {"prefix": "/users/", "headers": [{"name": "x-canary", "string_match": {"exact": "yes"}}]}, "route": {"cluster": "canary"}},
		{"name": "users", "match": {"prefix": "/users/", "query_parameters": [{"name": "v"}]}, "route": {
			"weighted_clusters": {"clusters": [{"name": "users", "weight": 90}, {"cluster_header": "x-c", "weight": 10}]},
			"prefix_rewrite": "/", "host_rewrite_literal": "users.internal", "timeout": "0s", "idle_timeout": "7s", "flush_timeout": "8s", "priority": "HIGH",
			"max_stream_duration": {"max_stream_duration": "60s"}, "hash_policy": [{"query_parameter": {"name": "v"}}, {"cookie": {"name": "c", "ttl": "5s"}}]}},
		{"match": {"prefix": "/header"}, "route": {"cluster_header": "x-c", "hash_policy": [{"header": {"header_name": "x-none"}}]}}]},
	{"name": "", "domains": ["tls.test"], "require_tls": "ALL", "routes": []}]}`

func TestExplain(t *testing.T) {
	table, err := parse(t, walked)
	require.NoError(t, err)
	text := ""
	for _, r := range [][]string{
		{"a.example", "/users/7?v=1"},
		{"a.example", "/users/7?v=1", "x-canary", "yes"},
		{"a.example", "/health"},
		{"a.example", "/health", "content-type", "application/grpc"},
		{"a.example", "/old/thing?q"},
		{"a.example", "/old/thing?q", "content-type", "application/grpc+proto"},
		{"a.example", "/header"},
		{"a.example", "/header", "x-c", "named", "x-none", "1"},
		{"a.example", "/header", "content-type", "application/grpc"},
		{"a.example", "/nothing"},
		{"a.example", "/nothing", "content-type", "application/grpc"},
		{"tls.test", "/"},
		{"unknown", "/"},
	} {
		text += "# " + r[0] + r[1] + "\n" + table.Explain(request(r[0], r[1], r[2:]...), nil) + "\n"
	}
	servicetest.Golden(t, "testdata/explain.txt", []byte(text))
}
