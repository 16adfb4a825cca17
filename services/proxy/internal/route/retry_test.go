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
		action, header string // grpc-timeout
		timeout        time.Duration
		grpc           time.Duration // 0 is that it stays
	}{
		{``, "1S", 15 * time.Second, 0},
		{`, "timeout": "3s"`, "1S", 3 * time.Second, 0},
		{`, "timeout": "3s", "max_stream_duration": {}`, "1S", 0, 0},
		{`, "max_stream_duration": {"max_stream_duration": "5s"}`, "9S", 0, 5 * time.Second},
		{`, "max_stream_duration": {"grpc_timeout_header_max": "5s", "grpc_timeout_header_offset": "1s"}`, "9S", 0, 4 * time.Second},
		{`, "max_stream_duration": {"grpc_timeout_header_max": "0s"}`, "9S", 0, 9 * time.Second},
		{`, "max_stream_duration": {"grpc_timeout_header_max": "0s"}`, "never", 0, 0},
		{`, "max_stream_duration": {"max_stream_duration": "0s"}`, "9S", 0, 0},
	} {
		in := request("h", "/old", "grpc-timeout", c.header)
		r := forward(t, `"cluster": "c"`+c.action, in)
		require.Equal(t, c.timeout, r.Timeout, c.action)
		left, ok := r.GRPCTimeout(in.Request)
		require.Equal(t, c.grpc > 0, ok, c.action)
		require.Equal(t, c.grpc, left, c.action)
	}
}
