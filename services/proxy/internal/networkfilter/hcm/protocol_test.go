package hcm_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestTrailersPassWhereBothSidesHaveThem(t *testing.T) {
	const on = `"enable_trailers": true`
	for _, c := range []struct {
		name             string
		client, upstream bool
		want             string // of the request's and the response's trailers
	}{
		{"both", true, true, "x-up: 1\r\n|x-down: 2\r\n"},
		{"the client's side", true, false, "|"},
		{"the upstream's side", false, true, "|"},
		{"none", false, false, "|"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var settings config
			if c.client {
				settings.fields = `"http_protocol_options": {` + on + `},`
			}
			if c.upstream {
				settings.http1 = on
			}
			up := newUpstream(t)
			client := start(t, up.address(), settings).dial()
			client.send("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Up\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Up: 1\r\nTransfer-Encoding: gzip\r\n\r\n")
			server := up.accept()
			require.Contains(t, server.head(), "trailer: X-Up\r\n")
			requestTrailers, responseTrailers, _ := strings.Cut(c.want, "|")
			server.read("1\r\na\r\n0\r\n" + requestTrailers + "\r\n")
			server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\nX-Down: 2\r\n\r\n")
			client.head()
			client.read("1\r\nA\r\n0\r\n" + responseTrailers + "\r\n")
		})
	}
}

func TestInterimResponsesPassWhereExpectDoes(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"proxy_100_continue": true,`})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	server := up.accept()
	require.Contains(t, server.head(), "expect: 100-continue\r\n")
	server.send("HTTP/1.1 100 Continue\r\nConnection: x\r\nX-A: 1\r\n\r\n")
	client.read("HTTP/1.1 100 Continue\r\nx-a: 1\r\n\r\n")
	client.send("body")
	server.read("body")
	server.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	client.read("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\nHTTP/1.1 200 OK\r\n")
	client.head()
}

// A server that refuses the body is heard, and that costs the client's connection,
// since the body may come nevertheless.
func TestARefusedExpectationPassesAndEndsTheConnection(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"proxy_100_continue": true,`})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
	response, _ := client.response("POST")
	require.Equal(t, 417, response.StatusCode)
	require.True(t, response.Close)
	client.closed()
}

func TestInterimResponsesAreNotForHTTP10(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"proxy_100_continue": true, "http_protocol_options": {"accept_http_10": true},`})
	client := p.dial()
	client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	client.read("HTTP/1.0 200 OK\r\n")
}

func TestHTTP10IsServedWhereItIsAccepted(t *testing.T) {
	const (
		length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
	)
	for _, c := range []struct {
		name, request, answer, want string
		closes                      bool
	}{
		{"once", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", length, "connection: close\r\n", true},
		{"and again", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", length, "connection: keep-alive\r\n", false},
		{"without chunks", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", chunks, "connection: close\r\n", true},
		{"without an upgrade", "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", length, "connection: close\r\n", true},
		{"without a host", "GET / HTTP/1.0\r\n\r\n", length, "connection: close\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: withWebsockets + `"http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "a"},`})
			client := p.dial()
			client.send(c.request)
			server := up.accept()
			head := server.head()
			require.Contains(t, head, "GET / HTTP/1.1\r\nhost: a\r\n")
			require.NotContains(t, head, "upgrade")
			server.send(c.answer)
			head = client.head()
			require.Contains(t, head, "HTTP/1.0 200 OK\r\n")
			require.Contains(t, head, c.want)
			require.NotContains(t, head, "chunked")
			client.read("ok")
			if c.closes {
				client.closed()
			}
		})
	}
}

func TestNamesAreSpeltAsIsWanted(t *testing.T) {
	const preserve = `"header_key_format": {"stateful_formatter": {"name": "preserve_case", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"}}}`
	const proper = `"header_key_format": {"proper_case_words": {}}`
	for _, c := range []struct {
		name, client, upstream string
		request, response      string
	}{
		{"in lower case", "", "", "host: a\r\nx-my-id: 1\r\n", "x-your-id: 2\r\n"},
		{"as they came", preserve, preserve, "Host: a\r\nX-My-ID: 1\r\n", "X-YOUR-Id: 2\r\n"},
		{"in capitals", proper, proper, "Host: a\r\nX-My-Id: 1\r\n", "X-Your-Id: 2\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			settings := config{http1: c.upstream}
			if c.client != "" {
				settings.fields = `"http_protocol_options": {` + c.client + `},`
			}
			client := start(t, up.address(), settings).dial()
			client.send("GET / HTTP/1.1\r\nHost: a\r\nX-My-ID: 1\r\n\r\n")
			server := up.accept()
			require.Contains(t, server.head(), c.request)
			server.send("HTTP/1.1 200 OK\r\nX-YOUR-Id: 2\r\nContent-Length: 0\r\n\r\n")
			require.Contains(t, client.head(), c.response)
		})
	}
}

// What the proxy adds, or puts in the place of what came, is spelt as the message had
// the name, as in Envoy.
func TestOwnFieldsAreSpeltAsTheMessageHasThem(t *testing.T) {
	const preserve = `"header_key_format": {"stateful_formatter": {"name": "preserve_case", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"}}}`
	up := newUpstream(t)
	client := start(t, up.address(), config{
		fields: `"use_remote_address": true, "via": "v", "http_protocol_options": {` + preserve + `},`, http1: preserve,
		entry: `"request_headers_to_add": [{"header": {"key": "X-Own", "value": "b"}}, {"header": {"key": "X-New", "value": "c"}}],`,
	}).dial()
	client.send("GET / HTTP/1.1\r\nHOST: a\r\nX-FORWARDED-FOR: 1.2.3.4\r\nX-Request-ID: r\r\nTE: trailers\r\nVIA: u\r\nX-OWN: a\r\n\r\n")
	server := up.accept()
	head := server.head()
	for _, want := range []string{
		"\nHOST: a\r", "\nX-FORWARDED-FOR: 1.2.3.4,127.0.0.1\r", "\nX-Request-ID: ", "\nTE: trailers\r", "\nVIA: u, v\r", "\nX-OWN: a\r", "\nX-OWN: b\r",
		"\nx-new: c\r", "\nx-forwarded-proto: http\r",
	} {
		require.Contains(t, head, want)
	}
	server.send("HTTP/1.1 200 OK\r\nSERVER: mine\r\nVia: u\r\nContent-Length: 0\r\n\r\n")
	head = client.head()
	for _, want := range []string{"\nSERVER: weir\r", "\nVia: u, v\r", "\ndate: "} {
		require.Contains(t, head, want)
	}
}

func TestUnderscoresInNames(t *testing.T) {
	for _, c := range []struct{ action, stat string }{
		{"ALLOW", ""},
		{"DROP_HEADER", "http1.dropped_headers_with_underscores"},
		{"REJECT_REQUEST", "http1.requests_rejected_with_underscores_in_headers"},
	} {
		t.Run(c.action, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: `"common_http_protocol_options": {"headers_with_underscores_action": "` + c.action + `"},`})
			client := p.dial()
			client.send("GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n")
			if c.action == "REJECT_REQUEST" {
				response, _ := client.response("GET")
				require.Equal(t, 400, response.StatusCode)
			} else {
				require.Equal(t, c.action == "ALLOW", strings.Contains(up.accept().head(), "x_a: 1\r\n"))
			}
			if c.stat != "" {
				require.EqualValues(t, 1, p.stat(c.stat))
			}
		})
	}
}

func TestPathsAndHostsAreNormalised(t *testing.T) {
	for _, c := range []struct {
		name, fields, path, host string
		want                     string // the line and the host that the upstream gets, or the status
	}{
		{"as they are", "", "/a/../b", "a.:80", "GET /a/../b HTTP/1.1\r\nhost: a.:80\r\n"},
		{"by RFC 3986", `"normalize_path": true,`, "/a/../%62", "a", "GET /b HTTP/1.1\r\nhost: a\r\n"},
		{"a bad one", `"normalize_path": true,`, "/%00", "a", "400 "},
		{"one with a fragment", "", "/a?b#c", "a", "400 "},
		{"slashes", `"merge_slashes": true,`, "//a//b", "a", "GET /a/b HTTP/1.1\r\nhost: a\r\n"},
		{"escaped slashes, on", `"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",`, "/a%2Fb", "a", "GET /a/b HTTP/1.1\r\nhost: a\r\n"},
		{"escaped slashes, back", `"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",`, "/a%2Fb?c", "a", "307 /a/b?c"},
		{"escaped slashes, not", `"path_with_escaped_slashes_action": "REJECT_REQUEST",`, "/a%2Fb", "a", "400 "},
		{"escaped slashes, left", `"path_with_escaped_slashes_action": "KEEP_UNCHANGED",`, "/a%2Fb", "a", "GET /a%2Fb HTTP/1.1\r\nhost: a\r\n"},
		{"any port", `"strip_any_host_port": true,`, "/", "a:81", "GET / HTTP/1.1\r\nhost: a\r\n"},
		{"another port", `"strip_matching_host_port": true,`, "/", "a:81", "GET / HTTP/1.1\r\nhost: a:81\r\n"},
		{"the listener's port", `"strip_matching_host_port": true,`, "/", "a:PORT", "GET / HTTP/1.1\r\nhost: a\r\n"},
		{"a dot at the end", `"strip_trailing_host_dot": true,`, "/", "a.:81", "GET / HTTP/1.1\r\nhost: a:81\r\n"},
		{"no absolute form", `"http_protocol_options": {"allow_absolute_url": false},`, "http://b/", "a", "404 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: c.fields})
			client := p.dial()
			_, port, _ := strings.Cut(p.address, ":")
			client.send("GET " + c.path + " HTTP/1.1\r\nHost: " + strings.Replace(c.host, "PORT", port, 1) + "\r\n\r\n")
			if strings.HasPrefix(c.want, "GET") {
				require.Contains(t, up.accept().head(), c.want)
				return
			}
			response, _ := client.response("GET")
			require.Equal(t, c.want, fmt.Sprint(response.StatusCode, " ", response.Header.Get("Location")))
			if c.want == "400 " {
				require.EqualValues(t, 1, p.stat("http.test.downstream_rq_failed_path_normalization"))
				require.Zero(t, p.stat("http.test.downstream_cx_protocol_error"), "it is the path that is wrong")
			}
		})
	}
}

func TestInvalidRequestMayCostNoConnection(t *testing.T) {
	const fault = "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n"
	const reject = `"path_with_escaped_slashes_action": "REJECT_REQUEST",`
	for _, c := range []struct {
		name, fields string
		closes       bool
	}{
		{"by default it does", reject, true},
		{"unless it is to", reject + `"stream_error_on_invalid_http_message": true,`, false},
		{"which the codec's own setting overrides", reject + `"stream_error_on_invalid_http_message": true, "http_protocol_options": {"override_stream_error_on_invalid_http_message": false},`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, cannedUpstream(t), config{fields: c.fields})
			client := p.dial()
			client.send(fault)
			response, _ := client.response("GET")
			require.Equal(t, 400, response.StatusCode)
			require.Equal(t, c.closes, response.Close)
			if c.closes {
				client.closed()
				return
			}
			client.send(get)
			response, _ = client.response("GET")
			require.Equal(t, 200, response.StatusCode)
		})
	}
}

func TestServerViaAndRequestIDOfResponses(t *testing.T) {
	const theirs = "HTTP/1.1 200 OK\r\nServer: theirs\r\nVia: up\r\nX-Request-Id: other\r\nContent-Length: 0\r\n\r\n"
	const silent = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, c := range []struct{ name, fields, answer, server, via, id string }{
		{"by default", "", theirs, "weir", "up", "other"},
		{"the name is set", `"server_name": "edge",`, theirs, "edge", "up", "other"},
		{"if there is none", `"server_header_transformation": "APPEND_IF_ABSENT",`, silent, "weir", "", ""},
		{"there is one", `"server_header_transformation": "APPEND_IF_ABSENT",`, theirs, "theirs", "up", "other"},
		{"passed on", `"server_header_transformation": "PASS_THROUGH",`, theirs, "theirs", "up", "other"},
		{"passed on, if there is any", `"server_header_transformation": "PASS_THROUGH",`, silent, "", "", ""},
		{"via", `"via": "edge",`, theirs, "weir", "up, edge", "other"},
		{"the request's id", `"always_set_request_id_in_response": true,`, theirs, "weir", "up", "mine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			client := start(t, up.address(), config{fields: c.fields}).dial()
			client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n")
			server := up.accept()
			server.head()
			server.send(c.answer)
			response, _ := client.response("GET")
			require.Equal(t, c.server, response.Header.Get("Server"))
			require.Equal(t, c.via, response.Header.Get("Via"))
			require.Equal(t, c.id, response.Header.Get("X-Request-Id"))
		})
	}
}

func TestTEIsCutToTrailers(t *testing.T) {
	for te, want := range map[string]bool{"gzip": false, "trailers": true, "gzip;q=0.5, Trailers": true, "deflate\r\nTE: trailers": true} {
		up := newUpstream(t)
		client := start(t, up.address(), config{}).dial()
		client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: " + te + "\r\n\r\n")
		head := up.accept().head()
		require.Equal(t, want, strings.Contains(head, "te: trailers\r\n"), te)
		require.NotContains(t, head, "gzip")
		require.NotContains(t, head, "deflate")
	}
}

func TestConnectionThatNamesTooMuchIsRefused(t *testing.T) {
	p := start(t, cannedUpstream(t), config{})
	for _, names := range []string{"x-forwarded-for", "X-Forwarded-Proto", ":path", "close, Host", strings.Repeat("x,", 10), strings.Repeat("x,", 1000)} {
		client := p.dial()
		client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: " + names + "\r\n\r\n")
		response, _ := client.response("GET")
		require.Equal(t, 400, response.StatusCode, names)
	}
	for _, names := range []string{"Authorization", "Cookie", "Cache-Control", "x-own", "x-own,1,2,3,4,5,6,7,8"} {
		name, _, _ := strings.Cut(names, ",")
		up := newUpstream(t)
		client := start(t, up.address(), config{}).dial()
		client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: " + names + "\r\n" + name + ": 1\r\n\r\n")
		require.NotContains(t, up.accept().head(), strings.ToLower(name)+":")
	}
}

// gigabyte is a body that nobody could hold in memory without being noticed.
const gigabyte = 1 << 30

var noDeadline time.Time

// pour writes a gigabyte of zeros.
func pour(to io.Writer) error {
	piece := make([]byte, 1<<20)
	for range gigabyte / len(piece) {
		if _, err := to.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// TestLargeBodiesTakeNoMemory has a gigabyte pass in each direction to a reader
// that stops on the way until the sender can send no more.
func TestLargeBodiesTakeNoMemory(t *testing.T) {
	length := fmt.Sprint("Content-Length: ", gigabyte, "\r\n\r\n")
	for _, c := range []struct {
		name string
		pipe func(client, server *peer) (from, to *peer)
	}{
		{"up", func(client, server *peer) (from, to *peer) { return client, server }},
		{"down", func(client, server *peer) (from, to *peer) {
			server.send("HTTP/1.1 200 OK\r\n" + length)
			client.head()
			return server, client
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			client := start(t, up.address(), config{route: `, "timeout": "0s"`}).dial()
			if c.name == "up" {
				client.send("POST / HTTP/1.1\r\nHost: a\r\n" + length)
			} else {
				client.send(get)
			}
			server := up.accept()
			server.head()
			from, to := c.pipe(client, server)
			require.NoError(t, from.conn.SetDeadline(noDeadline))
			require.NoError(t, to.conn.SetDeadline(noDeadline))

			var sent atomic.Int64
			poured := make(chan error, 1)
			servicetest.AllocatedBytes(t, 16<<20, func() {
				before := heapInUse()
				go func() { poured <- pour(counting{from.conn, &sent}) }() // the test waits for it
				last := int64(-1)
				servicetest.Eventually(t, "the sender is stopped", func() bool {
					now := sent.Load()
					stopped := now == last && now > 0
					last = now
					return stopped
				})
				require.Less(t, sent.Load(), int64(gigabyte/4))
				require.Less(t, heapInUse(), before+16<<20, "while the sender is stopped")
				n, err := io.CopyN(io.Discard, to.r, gigabyte)
				require.NoError(t, err)
				require.EqualValues(t, gigabyte, n)
				require.NoError(t, <-poured)
			})
		})
	}
}

// heapInUse is how many bytes of memory are in use when garbage was collected.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

type counting struct {
	io.Writer
	n *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}
