package hcm_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
)

func TestRoutesThatAnswer(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{routes: `
		{"match": {"prefix": "/moved"}, "redirect": {"https_redirect": true, "host_redirect": "new.example", "prefix_rewrite": "/to"}},
		{"match": {"prefix": "/fixed"}, "direct_response": {"status": 418, "body": {"inline_string": "short and stout"}}},
		{"match": {"prefix": "/unmodified"}, "direct_response": {"status": 304, "body": {"inline_string": "not sent"}}},
		{"match": {"prefix": "/found"}, "direct_response": {"status": 302}},
		{"match": {"prefix": "/made"}, "direct_response": {"status": 201, "body_format": {"json_format": {"path": "%REQ(:path)%"}}}},
		{"match": {"prefix": "/header"}, "route": {"cluster_header": "x-cluster", "cluster_not_found_response_code": "NOT_FOUND"}},
		{"match": {"prefix": "/weights"}, "route": {"weighted_clusters": {"clusters": [{"cluster_header": "x-cluster", "weight": 1}]}}}`})
	client := p.dial()
	for _, c := range []struct {
		method, path string
		status       int
		location     string
		body         string
	}{
		{"GET", "/moved/a?b", 301, "https://new.example/to/a?b", ""},
		{"POST", "/moved", 301, "https://new.example/to", ""},
		{"GET", "/fixed", 418, "", "short and stout"},
		{"HEAD", "/fixed", 418, "", ""},
		{"GET", "/found/x", 302, "http://a/found/x", ""},
		{"GET", "/unmodified", 304, "http://a/unmodified", ""},
		{"GET", "/made", 201, "http://a/made", "{\"path\":\"/made\"}\n"},
		{"GET", "/header", 404, "", ""},
		{"GET", "/weights", 503, "", ""},
		{"GET", "/else", 404, "", ""},
	} {
		client.send(c.method + " " + c.path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		response, body := client.response(c.method)
		require.Equal(t, c.status, response.StatusCode, c.path)
		require.Equal(t, c.location, response.Header.Get("Location"), c.path)
		require.Equal(t, c.body, body, c.path)
		if c.body != "" {
			require.Equal(t, map[bool]string{false: "text/plain", true: "application/json"}[c.path == "/made"], response.Header.Get("Content-Type"))
			require.EqualValues(t, len(c.body), response.ContentLength)
		}
		if c.method == "HEAD" {
			require.EqualValues(t, len("short and stout"), response.ContentLength, "that of a GET")
			require.Equal(t, "text/plain", response.Header.Get("Content-Type"))
		}
	}
	require.EqualValues(t, 2, p.stat("http.test.no_cluster"))
	require.EqualValues(t, 1, p.stat("http.test.no_route"))
	require.EqualValues(t, 10, p.stat("http.test.rq_total"))
	for class, count := range map[string]int{"2xx": 1, "3xx": 4, "4xx": 4, "5xx": 1, "completed": 10} {
		require.EqualValues(t, count, p.stat("http.test.downstream_rq_"+class), class)
		require.EqualValues(t, count, p.stat("listener.in.http.test.downstream_rq_"+class), class)
	}
	require.EqualValues(t, 7, p.stat("http.test.rq_direct_response"), "redirects too")
}

func TestAnswersAreCountedWhereTheListenerIs(t *testing.T) {
	p := start(t, "127.0.0.1:1", config{routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
	client := p.dial()
	for _, prefix := range []string{"in", "renamed"} {
		p.filter.(networkfilter.Placed).Place(networkfilter.Place{StatPrefix: prefix})
		client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		client.response("GET")
		servicetest.Eventually(t, "it is counted", func() bool { return p.stat("listener."+prefix+".http.test.downstream_rq_2xx") == 1 })
	}
	require.EqualValues(t, 1, p.stat("listener.in.http.test.downstream_rq_completed"))
	require.EqualValues(t, 2, p.stat("http.test.downstream_rq_completed"))
}

func TestRouteRewritesWhatTheUpstreamGets(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{fields: `"generate_request_id": false,`,
		routes: `{"match": {"prefix": "/old"}, "route": {"cluster_header": "x-cluster", "prefix_rewrite": "/new", "host_rewrite_literal": "internal", "append_x_forwarded_host": true, "timeout": "0s"}}`}).dial()
	client.send("GET /old/path?q HTTP/1.1\r\nHost: a\r\nX-Cluster: up\r\nX-Secret: 1\r\n\r\n")
	server := up.accept()
	require.Equal(t, "GET /new/path?q HTTP/1.1\r\nhost: internal\r\nx-cluster: up\r\nx-forwarded-proto: http\r\n"+
		"x-forwarded-host: a\r\nx-envoy-original-host: a\r\nx-envoy-original-path: /old/path?q\r\n\r\n", server.head())
	server.send("HTTP/1.1 204 No Content\r\n\r\n")
	response, _ := client.response("GET")
	require.Equal(t, 204, response.StatusCode)
}

func TestCookieOfAHashPolicyIsSetUnlessTheClientHasIt(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{route: `, "hash_policy": [{"cookie": {"name": "c", "ttl": "60s", "path": "/"}}]`}).dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 204 No Content\r\nSet-Cookie: theirs=1\r\n\r\n")
	response, _ := client.response("GET")
	cookies := response.Cookies()
	require.Len(t, cookies, 2)
	made := cookies[1]
	require.Equal(t, "c", made.Name)
	require.Equal(t, "/", made.Path)
	require.Equal(t, 60, made.MaxAge)
	require.True(t, made.HttpOnly)
	require.NotEmpty(t, made.Value)

	client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: c=" + made.Value + "\r\n\r\n")
	server.head()
	server.send("HTTP/1.1 204 No Content\r\n\r\n")
	response, _ = client.response("GET")
	require.Empty(t, response.Cookies())
}

func TestIdleTimeoutOfARouteTakesThePlaceOfTheManagers(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	client := start(t, up.address(), config{fields: `"stream_idle_timeout": "0s",`, route: `, "timeout": "0s", "idle_timeout": "1s"`}).dial()
	client.send(get)
	up.accept().head()
	response, _ := client.response("GET")
	require.Equal(t, 504, response.StatusCode)
}

func TestDurationOfARouteTakesThePlaceOfTheManagers(t *testing.T) {
	t.Parallel() // it waits
	const duration = `, "timeout": "0s", "max_stream_duration": {"max_stream_duration": "1s", "grpc_timeout_header_max": "0s"}`
	for name, header := range map[string]string{
		"max_stream_duration": "",
		"grpc-timeout":        "Grpc-Timeout: 1S\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{route: duration})
			client := p.dial()
			client.send("GET / HTTP/1.1\r\nHost: a\r\n" + header + "\r\n")
			up.accept().head()
			response, body := client.response("GET")
			require.Equal(t, 504, response.StatusCode)
			require.Equal(t, "downstream duration timeout", body)
			require.EqualValues(t, 1, p.stat("http.test.downstream_rq_max_duration_reached"))
		})
	}
}
