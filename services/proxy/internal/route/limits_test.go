package route_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/route"
)

// TestRateLimitsOfTheVirtualHost: "OVERRIDE (default): vhost limits only when the
// route has none; INCLUDE: route then vhost; IGNORE: route only. Legacy
// include_vh_rate_limits: true acts as INCLUDE."
func TestRateLimitsOfTheVirtualHost(t *testing.T) {
	limit := func(value, more string) string {
		return `{"actions": [{"generic_key": {"descriptor_value": "` + value + `"}}]` + more + `}`
	}
	table, err := parse(t, `{"virtual_hosts": [{"name": "all", "domains": ["*"], "rate_limits": [`+limit("host", "")+`, `+limit("host-1", `, "stage": 1`)+`, `+limit("host-end", `, "apply_on_stream_done": true`)+`], "routes": [
		{"match": {"path": "/none"}, "route": {"cluster": "c"}},
		{"match": {"path": "/own"}, "route": {"cluster": "c", "rate_limits": [`+limit("route", "")+`]}},
		{"match": {"path": "/other"}, "route": {"cluster": "c", "rate_limits": [`+limit("route-2", `, "stage": 2`)+`]}},
		{"match": {"path": "/both"}, "route": {"cluster": "c", "rate_limits": [`+limit("route", "")+`], "include_vh_rate_limits": true}}]}]}`)
	require.NoError(t, err)
	const override, include, ignore = route.OverrideHostLimits, route.IncludeHostLimits, route.IgnoreHostLimits
	for _, c := range []struct {
		path  string
		rule  route.HostLimits
		stage int
		end   bool
		want  string
	}{
		{"/none", override, 0, false, "host"},
		{"/none", include, 0, false, "host"},
		{"/none", ignore, 0, false, ""},
		{"/own", override, 0, false, "route"},
		{"/own", include, 0, false, "route host"},
		{"/own", ignore, 0, false, "route"},
		{"/both", override, 0, false, "route host"},
		{"/both", include, 0, false, "route host"},
		{"/both", ignore, 0, false, "route host"},
		{"/other", override, 0, false, ""}, // it has some, though of another stage
		{"/other", override, 2, false, "route-2"},
		{"/none", override, 1, false, "host-1"},
		{"/none", override, 2, false, ""},
		{"/none", override, 0, true, "host-end"},
		{"/none", override, descriptor.AnyStage, false, "host host-1"},
	} {
		var list descriptor.List
		r := table.Match(request("h", c.path))
		r.AppendDescriptors(c.rule, c.stage, c.end, &list, &descriptor.Input{})
		var values []string
		for i := range list.Len() {
			values = append(values, string(list.At(i)[0].Value))
		}
		require.Equal(t, c.want, strings.Join(values, " "), "%+v", c)
	}
}

func TestTheRuntimeTurnsLimitsOff(t *testing.T) {
	limit := func(value, more string) string {
		return `{"actions": [{"generic_key": {"descriptor_value": "` + value + `"}}]` + more + `}`
	}
	table, err := parse(t, `{"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
		{"match": {"prefix": "/"}, "route": {"cluster": "c", "rate_limits": [`+limit("a", `, "disable_key": "users"`)+`, `+limit("b", "")+`]}}]}]}`)
	require.NoError(t, err)
	in := request("h", "/")
	r := table.Match(in)
	for values, want := range map[string]int{`{}`: 2, `{ratelimit.users.http_filter_enabled: 0}`: 1, `{ratelimit: {users: {http_filter_enabled: 100}}}`: 2} {
		var list descriptor.List
		in.Runtime = runtimetest.Values(t, values)
		r.AppendDescriptors(route.OverrideHostLimits, 0, false, &list, &descriptor.Input{Runtime: in.Runtime})
		require.Equal(t, want, list.Len(), values)
		require.Equal(t, want == 1, strings.Contains(table.Explain(in, nil), "none by policy 1: the runtime turns it off"), values)
	}
}
