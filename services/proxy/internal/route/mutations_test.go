package route_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// mutating is a configuration in which each level overwrites x-who, appends to
// x-all, and removes a field of its own, in both directions; a weight appends.
func mutating(routeWins, weighted bool) string {
	lists := func(level string) string {
		add := fmt.Sprintf(`[{"header": {"key": "x-who", "value": %[1]q}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}, {"header": {"key": "x-all", "value": %[1]q}}]`, level)
		return fmt.Sprintf(`"request_headers_to_add": %[2]s, "response_headers_to_add": %[2]s, "request_headers_to_remove": ["x-%[1]s"], "response_headers_to_remove": ["x-%[1]s"]`, level, add)
	}
	to := `"cluster": "c"`
	if weighted {
		const add = `[{"header": {"key": "x-all", "value": "weight"}}]`
		to = `"weighted_clusters": {"clusters": [{"name": "c", "weight": 1, "request_headers_to_add": ` + add + `, "response_headers_to_add": ` + add + `}]}`
	}
	return fmt.Sprintf(`{"most_specific_header_mutations_wins": %v, %s, "virtual_hosts": [{"name": "all", "domains": ["*"], %s,
		"routes": [{"match": {"prefix": "/"}, "route": {%s}, %s}]}]}`, routeWins, lists("config"), lists("vhost"), to, lists("route"))
}

func TestMutationsOfAllLevelsInTheirOrder(t *testing.T) {
	for _, c := range []struct {
		routeWins bool
		weighted  bool
		want      string
	}{
		{false, false, "x-other=1 x-all=route x-all=vhost x-who=config x-all=config"},
		{true, false, "x-other=1 x-all=config x-all=vhost x-who=route x-all=route"},
		{false, true, "x-other=1 x-all=weight x-all=route x-all=vhost x-who=config x-all=config"},
		{true, true, "x-other=1 x-all=weight x-all=config x-all=vhost x-who=route x-all=route"},
	} {
		t.Run(fmt.Sprint(c.routeWins, c.weighted), func(t *testing.T) {
			table, err := parse(t, mutating(c.routeWins, c.weighted))
			require.NoError(t, err)
			r := table.Match(request("h", "/"))
			for _, mutate := range []func(*message.Headers, *format.Facts){r.MutateRequest, r.MutateResponse} {
				var h message.Headers
				for _, name := range []string{"x-config", "x-vhost", "x-route", "x-other"} {
					h.Add(name, "1")
				}
				mutate(&h, &format.Facts{})
				got := ""
				for i := range h.Len() {
					name, value := h.At(i)
					got += fmt.Sprintf(" %s=%s", name, value)
				}
				require.Equal(t, " "+c.want, got)
			}
		})
	}
}

func TestFaultsOfMutationsNameTheirLevel(t *testing.T) {
	const bad = `"response_headers_to_add": [{"header": {"key": "a", "value": "%NOPE%"}}]`
	_, err := parse(t, `{`+bad+`, "virtual_hosts": [{"name": "all", "domains": ["*"], `+bad+`, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}, `+bad+`}]}]}`)
	const text = `response_headers_to_add[0].header.value: format "%NOPE%": column 1: unknown operator NOPE`
	require.EqualError(t, err, text+"\nvirtual_hosts[0]."+text+"\nvirtual_hosts[0].routes[0]."+text)
}
