package route_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/route"
)

func TestRetriesOfARouteAndOfItsVirtualHost(t *testing.T) {
	table, err := parse(t, `{"virtual_hosts": [{"name": "v", "domains": ["*"], "include_request_attempt_count": true, "request_body_buffer_limit": 7,
		"retry_policy": {"retry_on": "5xx,reset", "num_retries": 3}, "routes": [
			{"match": {"path": "/own"}, "route": {"cluster": "c", "retry_policy": {"retry_on": "unavailable", "per_try_timeout": "2s"}}, "request_body_buffer_limit": 8},
			{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]},
		{"name": "w", "domains": ["w"], "include_attempt_count_in_response": true, "include_is_timeout_retry_header": true,
			"routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]}`)
	require.NoError(t, err)
	for _, c := range []struct {
		host, path, retry string
		attempts          route.AttemptHeaders
		limit             int64
	}{
		{"v", "/own", "1 on unavailable, each try 2s", route.AttemptHeaders{Request: true}, 8},
		{"v", "/", "3 on 5xx,reset", route.AttemptHeaders{Request: true}, 7},
		{"w", "/", "", route.AttemptHeaders{Response: true, IsTimeout: true}, -1},
	} {
		r := table.Match(request(c.host, c.path))
		require.Equal(t, c.attempts, r.Attempts)
		require.Equal(t, c.limit, r.BodyBufferLimit)
		if c.retry == "" {
			require.Nil(t, r.Retry)
			continue
		}
		require.Equal(t, c.retry, r.Retry.String())
	}
	require.Contains(t, table.Explain(request("v", "/own"), nil), "retries          1 on unavailable, each try 2s\n")
}

func TestFaultsOfRetryPoliciesAreTold(t *testing.T) {
	_, err := parse(t, `{"virtual_hosts": [{"name": "v", "domains": ["*"], "retry_policy": {"retry_on": "never"},
		"routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c", "retry_policy": {"retry_on": "nor this"}}}]}]}`)
	require.ErrorContains(t, err, `virtual_hosts[0].retry_policy.retry_on: "never" is no condition`)
	require.ErrorContains(t, err, `virtual_hosts[0].routes[0].route.retry_policy.retry_on: "nor this" is no condition`)
}

func TestMaxStreamDurationStandsForTheTimeout(t *testing.T) {
	for _, c := range []struct {
		action  string
		timeout time.Duration
		tells   bool // a grpc-timeout
	}{
		{``, 15 * time.Second, false},
		{`, "timeout": "3s"`, 3 * time.Second, false},
		{`, "timeout": "3s", "max_stream_duration": {}`, 0, true},
		{`, "max_stream_duration": {"max_stream_duration": "5s"}`, 0, true},
	} {
		r := forward(t, `"cluster": "c"`+c.action, request("h", "/old"))
		require.Equal(t, c.timeout, r.Timeout, c.action)
		require.Equal(t, c.tells, r.TellsGRPCTimeout(), c.action)
	}
}
