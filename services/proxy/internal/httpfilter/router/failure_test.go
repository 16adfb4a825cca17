package router_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

const part = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthree" // behind which nothing comes

func TestResponsesBreakOff(t *testing.T) {
	for _, c := range []struct {
		name, policy, script string
		want                 string // status, flags, details, and what the client got
		counter              string // of the cluster, that is 1
	}{
		{"by the route's timeout", `"timeout": "1s"`, part, "200 UT response_timeout three", "upstream_rq_timeout"},
		{"as they stand still", `"timeout": "0s", "retry_policy": {"retry_on": "reset", "per_try_idle_timeout": "1s"}`, part, "200 UT upstream_per_try_idle_timeout three", "upstream_rq_per_try_idle_timeout"},
		{"not as they are slow", `"timeout": "0s", "retry_policy": {"per_try_timeout": "1.5s", "per_try_idle_timeout": "3s"}`, trickling, "200 - via_upstream fine", "upstream_rq_completed"},
		{"by a reset of their connection", `"timeout": "0s"`, aborted, "200 UPE upstream_reset_after_response_started{protocol_error} fin", "upstream_cx_protocol_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // since many wait
			up, registry := clusterOf(t, `"connect_timeout": "5s"`, newScripted(t, c.script).address)
			s := send(t, up, routeOf(t, "", ", "+c.policy), nil)
			status, _, _ := strings.Cut(s.summary(), ":")
			require.Equal(t, c.want, status+" "+s.Facts.Details+" "+s.body)
			require.EqualValues(t, 1, counted(registry, c.counter))
			if c.script == aborted {
				require.EqualValues(t, 1, counted(registry, "upstream_cx_destroy_remote_with_active_rq"))
			}
		})
	}
}

// TestHostsOfGRPCHaveDoneWellByGRPC has hosts answer calls, and counts which of the answers
// are good ones: as in Envoy that is for grpc-status to say, at the end.
func TestHostsOfGRPCHaveDoneWellByGRPC(t *testing.T) {
	const (
		head     = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nGrpc-Status: "
		trailing = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
		end      = "\r\n\r\n"
	)
	for _, c := range []struct {
		name, script, policy string
		good, bad            uint64
		brokenOff            int
	}{
		{name: "a head alone", script: head + "0" + end, good: 1},
		{name: "one that the client is to blame for", script: head + "5" + end, good: 1},
		{name: "one that the host is to blame for", script: head + "14" + end, bad: 1},
		{name: "one without a status", script: "HTTP/1.1 200 OK\r\nContent-Length: 0" + end, bad: 1},
		{name: "trailers", script: trailing + "grpc-status: 0" + end, good: 1},
		{name: "bad trailers", script: trailing + "grpc-status: 14" + end, bad: 1},
		{name: "an unknown status", script: trailing + "grpc-status: 99" + end, bad: 1},
		{name: "a status in a head that a body follows", script: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nGrpc-Status: 0" + end + "abc", bad: 1},
		{name: "no trailers", script: trailing + "\r\n", bad: 1},
		{name: "a status of HTTP", script: strings.Replace(trailing, "200", "503", 1) + "grpc-status: 0" + end, bad: 1},
		{name: "an end before the status", script: aborted, bad: 1, brokenOff: 1},
		{name: "the route's time", script: part, policy: `, "timeout": "1s"`},
		{name: "what stands still", script: part, policy: `, "timeout": "0s", "retry_policy": {"per_try_idle_timeout": "1s"}`, bad: 1, brokenOff: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // since some wait
			up, _ := clusterOf(t, `"connect_timeout": "5s", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
				"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}}}`, newScripted(t, c.script).address)
			config := router.Factory{}.Parse(nil, "", &strict.Report{})
			counts := filtertest.Measure(config)
			sendThrough(t, config, nil, up, routeOf(t, "", c.policy), nil, "content-type", "application/grpc")
			host := &up.Hosts().Members[0].Host.Stats
			require.Equal(t, []uint64{c.good, c.bad}, []uint64{host.RequestsSucceeded.Load(), host.RequestErrors.Load()})
			require.Equal(t, c.brokenOff, counts()["rq_reset_after_downstream_response_started"])
		})
	}
}
