package route_test

import (
	"fmt"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/route"
)

// forward is the route of a request to a table of one route with that action,
// which matches prefixes of /old.
func forward(t testing.TB, action string, in route.Input) *route.Route {
	t.Helper()
	table, err := parse(t, routes(`{"match": {"prefix": "/old"}, "route": {`+action+`}}`))
	require.NoError(t, err)
	r := table.Match(in)
	require.NotNil(t, r)
	return r
}

func TestUpgradesThatARouteNames(t *testing.T) {
	in := request("h", "/old")
	r := forward(t, `"cluster": "c", "upgrade_configs": [{"upgrade_type": "WebSocket"}, {"upgrade_type": "other", "enabled": false}]`, in)
	for protocol, want := range map[string][2]bool{"websocket": {true, true}, "WEBSOCKET": {true, true}, "other": {false, true}, "third": {false, false}} {
		enabled, said := r.Upgrade([]byte(protocol))
		require.Equal(t, want, [2]bool{enabled, said}, protocol)
	}
	enabled, said := (*route.Route)(nil).Upgrade([]byte("websocket"))
	require.False(t, enabled || said)
	require.False(t, (*route.Table)(nil).Upgrades())

	_, err := parse(t, routes(`{"match": {"prefix": "/"}, "route": {"cluster": "c", "upgrade_configs": [
		{"upgrade_type": "CONNECT"}, {"upgrade_type": "a"}, {"upgrade_type": "A"}]}}`))
	require.EqualError(t, err, `virtual_hosts[0].routes[0].route.upgrade_configs[0].upgrade_type: "CONNECT" is not supported: use websocket or another protocol that HTTP/1.1 servers switch to
virtual_hosts[0].routes[0].route.upgrade_configs[2].upgrade_type: "A" is there twice`)
}

func TestClusterName(t *testing.T) {
	const header = `"cluster_header": "X-Cluster"`
	for _, c := range []struct {
		action string
		fields []string
		want   string
	}{
		{`"cluster": "c"`, nil, "c"},
		{header, []string{"x-cluster", "a", "x-cluster", "b"}, "a"},
		{header, nil, ""},
		{`"cluster_header": ":authority"`, nil, "h"},
	} {
		in := request("h", "/old", c.fields...)
		require.Equal(t, c.want, forward(t, c.action, in).ClusterName(in.Request))
	}
}

func TestClusterNotFound(t *testing.T) {
	for code, want := range map[string]int{"": 503, "SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500} {
		action := `"cluster": "c"`
		if code != "" {
			action += `, "cluster_not_found_response_code": "` + code + `"`
		}
		require.Equal(t, want, forward(t, action, request("h", "/old")).ClusterNotFound, code)
	}
}

const weighted = `"weighted_clusters": {"runtime_key_prefix": "k", "clusters": [
	{"name": "a", "weight": 10}, {"name": "none"}, {"name": "b", "weight": 20}, {"cluster_header": "x-c", "weight": 70}]%s}`

func TestWeightsChooseByTheRandomNumber(t *testing.T) {
	table, err := parse(t, routes(`{"match": {"prefix": "/"}, "route": {`+fmt.Sprintf(weighted, "")+`, "timeout": "3s"}}`))
	require.NoError(t, err)
	in := request("h", "/", "x-c", "c")
	seen := map[string]int{}
	for i := range uint64(1000) {
		in.Random = i
		r := table.Match(in)
		require.Equal(t, 3*time.Second, r.Timeout)
		seen[r.ClusterName(in.Request)]++
	}
	require.Equal(t, map[string]int{"a": 100, "b": 200, "c": 700}, seen)
}

func TestTheRuntimeSetsWeights(t *testing.T) {
	table, err := parse(t, routes(`{"match": {"prefix": "/"}, "route": {`+fmt.Sprintf(weighted, "")+`}}`))
	require.NoError(t, err)
	for values, want := range map[string]map[string]int{
		`{k.a: 0, k.none: 30}`:                       {"none": 270, "b": 170, "c": 560}, // 8 rounds of 120, and 40
		`{k: {a: 1, b: 0}, k.: 0}`:                   {"a": 1000},
		`{k.a: 0, k.b: 0, k.: 0}`:                    {"a": 100, "b": 200, "c": 700}, // the configured ones
		`{k.a: many, other.b: 5}`:                    {"a": 100, "b": 200, "c": 700},
		`{k.a: 99999999999, k.b: 0, k.: 4294967295}`: {"a": 1000},
	} {
		in := request("h", "/", "x-c", "c")
		in.Runtime = runtimetest.Values(t, values)
		seen := map[string]int{}
		for i := range uint64(1000) {
			in.Random = i
			seen[table.Match(in).ClusterName(in.Request)]++
		}
		require.Equal(t, want, seen, values)
		servicetest.Allocations(t, 0, func() { table.Match(in) })
	}
	in := request("h", "/")
	in.Runtime = runtimetest.Values(t, `{k.a: 5}`)
	require.Equal(t, []string{"a 5", "none 0", "b 20", "that of header x-c 70"}, table.Walk(in).Weights)
}

func TestWeightsChooseByTheHeader(t *testing.T) {
	action := fmt.Sprintf(weighted, `, "header_name": "X-Number"`)
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{[]string{"x-number", "9"}, "a"},
		{[]string{"x-number", "10"}, "b"},
		{[]string{"x-number", "129"}, "b"},
		{[]string{"x-number", "18446744073709551615"}, "b"}, // 2⁶⁴−1, of which 15 is left
		// By the random number, which is 0:
		{[]string{"x-number", "18446744073709551616"}, "a"},
		{[]string{"x-number", "-10"}, "a"},
		{[]string{"x-number", "10", "x-number", "10"}, "a"},
		{[]string{"x-number", ""}, "a"},
		{nil, "a"},
	} {
		in := request("h", "/old", c.fields...)
		require.Equal(t, c.want, forward(t, action, in).Cluster, c.fields)
	}
}

func TestWeightsChooseByTheHash(t *testing.T) {
	action := fmt.Sprintf(weighted, `, "use_hash_policy": true`) + `, "hash_policy": [{"header": {"header_name": "x-user"}}]`
	seen := map[string]bool{}
	for i := range 100 {
		in := request("h", "/old", "x-user", fmt.Sprint(i), "x-c", "c")
		first := forward(t, action, in)
		in.Random = 99
		require.Equal(t, first.Cluster, forward(t, action, in).Cluster)
		seen[first.Cluster] = true
	}
	require.Len(t, seen, 3)
	in := request("h", "/old")
	in.Random = 10
	require.Equal(t, "b", forward(t, action, in).Cluster, "by the random number without a hash")
}

func TestMatchByWeightsAllocatesNothing(t *testing.T) {
	table, err := parse(t, routes(`{"match": {"prefix": "/", "grpc": {}, "headers": [{"name": "x-user"}], "runtime_fraction": {"default_value": {"numerator": 100}}},
		"route": {`+fmt.Sprintf(weighted, `, "use_hash_policy": true`)+`, "hash_policy": [{"header": {"header_name": "x-user"}}]}}`))
	require.NoError(t, err)
	in := request("h", "/", "x-user", "ann", "content-type", "application/grpc")
	servicetest.Allocations(t, 0, func() {
		if table.Match(in) == nil {
			t.Fatal("no route")
		}
	})
}

func TestWhatElseAnActionSays(t *testing.T) {
	r := forward(t, `"cluster": "c"`, request("h", "/old"))
	require.Negative(t, r.IdleTimeout)
	require.Negative(t, r.FlushTimeout)
	require.Equal(t, corev3.RoutingPriority_DEFAULT, r.Priority)
	require.True(t, r.HashPolicy.Empty())

	in := request("h", "/old")
	r = forward(t, `"cluster": "c", "idle_timeout": "0s", "flush_timeout": "3s", "priority": "HIGH", "hash_policy": [{"connection_properties": {"source_ip": true}}]`, in)
	require.Zero(t, r.IdleTimeout)
	require.Equal(t, 3*time.Second, r.FlushTimeout)
	require.Equal(t, corev3.RoutingPriority_HIGH, r.Priority)
	_, ok, _ := r.HashPolicy.Hash(hashpolicy.Input{Request: in.Request, ClientAddress: in.ClientAddress, Random: in.Random})
	require.True(t, ok)
}

func TestMaxStreamDuration(t *testing.T) {
	for _, c := range []struct {
		name, config string
		header       string // grpc-timeout
		want         time.Duration
		ok           bool
	}{
		{"not set", `{}`, "", 0, false},
		{"set", `{"max_stream_duration": "5s"}`, "", 5 * time.Second, true},
		{"0 is without end", `{"max_stream_duration": "0s"}`, "", 0, true},
		{"grpc-timeout alone says nothing", `{"max_stream_duration": "5s"}`, "1S", 5 * time.Second, true},
		{"it says with a maximum", `{"grpc_timeout_header_max": "10s"}`, "1S", time.Second, true},
		{"up to that", `{"grpc_timeout_header_max": "10s"}`, "1M", 10 * time.Second, true},
		{"or as it is", `{"grpc_timeout_header_max": "0s"}`, "1H", time.Hour, true},
		{"and else nothing", `{"max_stream_duration": "5s", "grpc_timeout_header_max": "10s"}`, "", 5 * time.Second, true},
		{"less an offset", `{"grpc_timeout_header_max": "10s", "grpc_timeout_header_offset": "0.2s"}`, "1S", 800 * time.Millisecond, true},
		{"of the maximum too", `{"grpc_timeout_header_max": "10s", "grpc_timeout_header_offset": "1s"}`, "20S", 9 * time.Second, true},
		{"at once", `{"grpc_timeout_header_max": "10s", "grpc_timeout_header_offset": "1s"}`, "500m", 1, true},
		{"more than there is", `{"grpc_timeout_header_max": "1s"}`, "99999999H", time.Second, true},
		{"what is malformed says nothing", `{"grpc_timeout_header_max": "0s"}`, "-1S", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := request("h", "/old")
			if c.header != "" {
				in.Request.Headers.Add("grpc-timeout", c.header)
			}
			limit, ok := forward(t, `"cluster": "c", "max_stream_duration": `+c.config, in).MaxStreamDuration(in.Request)
			require.Equal(t, c.ok, ok)
			require.Equal(t, c.want, limit)
		})
	}
}
