package hcm_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// TestStreamOfAnUpstreamEndsByItsClustersDuration has an upstream that leaves a
// response, or a tunnel, unfinished. Statuses, texts and counters are Envoy's.
func TestStreamOfAnUpstreamEndsByItsClustersDuration(t *testing.T) {
	const forever = `"timeout": "0s"`
	for _, c := range []struct {
		name, request, route string
		lasts                int      // seconds
		answers              []string // of the attempts, of which one that is whole may be the last
		want                 string   // what the client gets
		log                  string
		streams              int64 // that ended so
	}{
		{"before its answer", get, forever, 1, []string{""}, "504 upstream max stream duration reached", "504 UMSDR upstream_max_stream_duration_reached", 1},
		{"in each attempt", get, forever + `, "retry_policy": {"retry_on": "reset"}`, 1, []string{"", ""},
			"504 upstream max stream duration reached", "504 URX,UMSDR upstream_max_stream_duration_reached", 2},
		{"in the first attempt", get, forever + `, "retry_policy": {"retry_on": "5xx"}`, 1, []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
			"200 ok", "200 - via_upstream", 1},
		{"before the end of the request", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbegun", forever, 1, []string{""},
			"408 upstream max stream duration reached", "408 UMSDR upstream_max_stream_duration_reached", 1},
		{"within its answer", get, forever, 1, []string{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"}, "200 begun: unexpected EOF", "200 UMSDR upstream_max_stream_duration_reached", 1},
		{"within its answer, later than the try was to have one", get, forever + `, "retry_policy": {"per_try_timeout": "3s"}`, 4,
			[]string{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"}, "200 begun: unexpected EOF", "200 UMSDR upstream_max_stream_duration_reached", 1},
		{"within a tunnel", websocket, forever, 1, []string{switching}, "101 ", "101 UMSDR upstream_max_stream_duration_reached", 1},
		{"within a tunnel, later than its route's timeout", websocket, `"timeout": "3s"`, 4, []string{switching}, "101 ", "101 UMSDR upstream_max_stream_duration_reached", 1},
		{"within a tunnel whose client speaks, and may not fall silent before the answer", websocket + "hello",
			`"timeout": "3s", "retry_policy": {"per_try_idle_timeout": "3s"}`, 4, []string{switching}, "101 ", "101 UMSDR upstream_max_stream_duration_reached", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it waits
			l := newAccessLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")
			up := newUpstream(t)
			p := start(t, up.address(), config{
				fields: withWebsockets + l.field, logs: l.files, route: ", " + c.route,
				version: fmt.Sprintf(`"common_http_protocol_options": {"max_stream_duration": "%ds"}, "explicit_http_config": {"http_protocol_options": {}}`, c.lasts),
			})
			client := p.dial()
			client.send(c.request)
			for i, answer := range c.answers {
				server := up.accept()
				server.head()
				server.send(answer)
				if int64(i) < c.streams {
					server.ended()
				}
			}
			response, err := http.ReadResponse(client.r, nil)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			got := fmt.Sprintf("%d %s", response.StatusCode, body)
			if err != nil {
				got += ": " + err.Error()
			}
			require.Equal(t, c.want, got)
			require.Equal(t, c.log, l.lines(1)[0])
			require.Equal(t, c.streams, p.stat("cluster.up.upstream_rq_max_duration_reached"))
			require.Zero(t, p.stat("cluster.up.upstream_rq_timeout"))
			require.Zero(t, p.stat("cluster.up.upstream_rq_5xx"), "it is no answer of the cluster")
		})
	}
}

// TestStreamOfHTTP2IsResetByItsClustersDuration has a server that never answers.
func TestStreamOfHTTP2IsResetByItsClustersDuration(t *testing.T) {
	t.Parallel() // it waits
	a := &answerer{}
	s := httptest.NewUnstartedServer(a)
	s.Config.Protocols = protocols(2)
	s.Start()
	t.Cleanup(s.Close)
	p := start(t, s.Listener.Addr().String(), config{
		route:   `, "timeout": "0s"`,
		version: `"common_http_protocol_options": {"max_stream_duration": "1s"}, ` + speaksHTTP2,
	})
	client := p.dial()
	client.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
	response, body := client.response("GET")
	require.Equal(t, 504, response.StatusCode)
	require.Equal(t, "upstream max stream duration reached", body)
	servicetest.Eventually(t, "the server hears of it", func() bool { return a.ended.Load() == 1 })
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_rq_max_duration_reached"))
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_active"), "its connection goes on")
}
