package hcm_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// accessLog is a log of a format that a proxy writes to a file.
type accessLog struct {
	t     testing.TB
	path  string
	files *accesslog.Files
	field string // access_log, for config.fields
}

func newAccessLog(t testing.TB, format string) *accessLog {
	t.Helper()
	l := &accessLog{t: t, path: filepath.Join(t.TempDir(), "access.log")}
	l.files = accesslog.NewFiles(stats.NewRegistry(), slog.New(slog.DiscardHandler))
	if format != "" {
		format = fmt.Sprintf(`, "log_format": {"text_format_source": {"inline_string": %q}}`, format)
	}
	l.field = fmt.Sprintf(`"access_log": [{"name": "file", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": %q %s}}],`, l.path, format)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.files.Run(ctx) }() // ends with ctx; the cleanup waits for it
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return l
}

// lines waits for so many lines.
func (l *accessLog) lines(n int) (lines []string) {
	l.t.Helper()
	servicetest.Eventually(l.t, fmt.Sprint(n, " lines are there"), func() bool {
		text, _ := os.ReadFile(l.path) // there is none before the first line
		lines = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		return strings.Count(string(text), "\n") >= n
	})
	require.Len(l.t, lines, n)
	return lines
}

func TestAccessLogTellsHowEachRequestEnded(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	answer := func(text string) func(*peer) { return func(p *peer) { p.head(); p.send(text) } }
	answerAndEnd := func(text string) func(*peer) {
		return func(p *peer) {
			p.head()
			p.send(text)
			require.NoError(t, p.conn.Close())
		}
	}
	cases := []struct {
		name, fields, route, request string
		upstream                     func(*peer) // nil: it is not asked
		want                         string
	}{
		{"an answer", "", "", get, answer(ok), "GET / HTTP/1.1 200 - via_upstream 0 5 up r HTTP/1.1 1 1"},
		{"a body that goes up", "", "", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello body", answer(ok), "POST /p HTTP/1.1 200 - via_upstream 10 5 up r HTTP/1.1 1 1"},
		{"a malformed head", "", "", "GET / HTTP/1.1\r\nHo st: a\r\n\r\n", nil, `- - HTTP/1.1 400 DPE http1.codec_error 0 48 - - - 0 0`},
		{"both lengths", "", "", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", nil, `- - HTTP/1.1 400 DPE http1.content_length_and_chunked_not_allowed 0 42 - - - 0 0`},
		{"a coding", "", "", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", nil, `- - HTTP/1.1 501 DPE http1.invalid_transfer_encoding 0 43 - - - 0 0`},
		{"too many fields", "", "", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: 1\r\n", 100) + "\r\n", nil, `- - HTTP/1.1 431 DPE http1.too_many_headers 0 34 - - - 0 0`},
		{"an old version", "", "", "GET / HTTP/1.0\r\n\r\n", nil, "- - HTTP/1.0 426 DPE low_version 0 17 - - - 0 0"},
		{"a head that is too large", "", "", "GET /" + strings.Repeat("x", 70_000), nil, "- - HTTP/1.1 431 DPE http1.headers_too_large 0 34 - - - 0 0"},
		{"an upgrade", "", "", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", nil, "GET / HTTP/1.1 403 - upgrade_failed 0 30 up r - 0 0"},
		{"a path with a fragment", "", "", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", nil, "GET /a#b HTTP/1.1 400 - path_normalization_failed 0 23 - - - 0 0"},
		{"a path that cannot be normalised", `"normalize_path": true,`, "", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "GET /%00 HTTP/1.1 400 - path_normalization_failed 0 33 - - - 0 0"},
		{"no route", "", "", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", nil, "OPTIONS * HTTP/1.1 404 NR route_not_found 0 0 - - - 0 0"},
		{"a reset before the response", "", "", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", answerAndEnd(""),
			"POST / HTTP/1.1 503 UC upstream_reset_before_response_started{connection_termination} 0 95 up r HTTP/1.1 1 1"},
		{"a malformed response", "", "", get, answerAndEnd("HTTP/1.1 what\r\n\r\n"),
			"GET / HTTP/1.1 502 UPE upstream_reset_before_response_started{protocol_error} 0 87 up r HTTP/1.1 1 1"},
		{"a reset within the response", "", "", get, answerAndEnd("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
			"GET / HTTP/1.1 200 UPE upstream_reset_after_response_started{protocol_error} 0 5 up r HTTP/1.1 1 1"},
		{"a late response", "", `, "timeout": "1s"`, get, answer(""), "GET / HTTP/1.1 504 UT response_timeout 0 24 up r HTTP/1.1 1 1"},
		{"an idle stream", `"stream_idle_timeout": "1s",`, `, "timeout": "0s"`, get, answer(""), "GET / HTTP/1.1 504 SI stream_idle_timeout 0 14 up r HTTP/1.1 1 1"},
		{"a stream that lasts too long", `"common_http_protocol_options": {"max_stream_duration": "1s"},`, `, "timeout": "0s"`, get, answer(""),
			"GET / HTTP/1.1 504 - max_duration_timeout 0 27 up r HTTP/1.1 1 1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newAccessLog(t, "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% "+
				"%UPSTREAM_CLUSTER% %ROUTE_NAME% %UPSTREAM_PROTOCOL% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CONNECTION_ID%\n")
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: l.field + c.fields, route: c.route, entry: `"name": "r",`, logs: l.files})
			client := p.dial()
			client.send(c.request)
			if c.upstream != nil {
				c.upstream(up.accept())
			}
			require.Equal(t, c.want, l.lines(1)[0])
		})
	}
}

// TestAccessLogTellsOfClientsThatLeft has clients of both versions of HTTP leave in
// different ways. None gets an answer, and no line tells of one.
func TestAccessLogTellsOfClientsThatLeft(t *testing.T) {
	const half = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
	closeWrite := func(t *testing.T, client *peer) { require.NoError(t, client.conn.(*net.TCPConn).CloseWrite()) }
	for _, c := range []struct {
		name, request string
		leave         func(*testing.T, *peer)
		want          string
	}{
		{"while its request waits", get, func(t *testing.T, client *peer) { require.NoError(t, client.conn.Close()) }, "GET / HTTP/1.1 0 DC downstream_remote_disconnect 0 0"},
		{"within its request", half, func(t *testing.T, client *peer) { require.NoError(t, client.conn.Close()) }, "POST /p HTTP/1.1 0 DC downstream_remote_disconnect 5 0"},
		{"by the end of its direction, while its request waits", get, closeWrite, "GET / HTTP/1.1 0 DC downstream_remote_disconnect 0 0"},
		{"by the end of its direction, within its request", half, closeWrite, "POST /p HTTP/1.1 0 DC downstream_remote_disconnect 5 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it waits
			l, up := newAccessLog(t, leftFormat), newUpstream(t)
			p := start(t, up.address(), config{fields: l.field, logs: l.files, route: `, "timeout": "0s"`})
			client := p.dial()
			client.send(c.request)
			server := up.accept()
			server.head()
			c.leave(t, client)
			server.ended()
			require.Equal(t, c.want, l.lines(1)[0])
			if strings.Contains(c.name, "direction") {
				client.closed()
			}
			require.EqualValues(t, 1, p.stat("http.test.downstream_rq_rx_reset"))
			require.EqualValues(t, 0, p.stat("http.test.downstream_rq_completed"))
		})
	}
}

// TestAccessLogTellsOfStreamsThatTheProxyEnds has connections come to the end of their
// time at a shutdown, which is no client's doing.
func TestAccessLogTellsOfStreamsThatTheProxyEnds(t *testing.T) {
	const (
		switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
		settings = `"upgrade_configs": [{"upgrade_type": "websocket"}], "http2_protocol_options": {"allow_connect": true},`
	)
	for _, c := range []struct {
		name, request, answer string
		http2                 bool
		want                  string
	}{
		{"a request", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello", "", false, "POST /p HTTP/1.1 0 DC downstream_local_disconnect 5 0"},
		{"a request that waits", get, "", false, "GET / HTTP/1.1 0 DC downstream_local_disconnect 0 0"},
		{"an upgrade", "GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", switched, false, "GET /u HTTP/1.1 101 DC downstream_local_disconnect 0 5"},
		{"a request of HTTP/2", "POST /p", "", true, "POST /p HTTP/2 0 DC downstream_local_disconnect 0 0"},
		{"an answer", get, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", false, "GET / HTTP/1.1 200 DC downstream_local_disconnect 0 5"},
		{"an answer over HTTP/2", "POST /p", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", true, "POST /p HTTP/2 200 DC downstream_local_disconnect 0 5"},
		{"an upgrade of HTTP/2", "CONNECT /u", switched, true, "GET /u HTTP/2 101 DC downstream_local_disconnect 0 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, up := newAccessLog(t, leftFormat), newUpstream(t)
			p := start(t, up.address(), config{fields: l.field + settings, logs: l.files})
			if c.http2 {
				s := openNamed(t, p.dialHTTP2(), c.request)
				server := up.accept()
				server.head()
				if c.answer != "" {
					server.send(c.answer)
					var head http2.Head
					require.NoError(t, s.ReadHead(&head))
					require.Equal(t, 200, head.Status)
					_, err := s.Next()
					require.NoError(t, err)
				}
			} else {
				client := p.dial()
				client.send(c.request)
				server := up.accept()
				server.head()
				if c.answer != "" {
					server.send(c.answer)
					client.head()
					client.read("hello")
				} else if strings.HasPrefix(c.request, "POST") {
					server.read("hello")
				}
			}
			connection := <-p.current
			connection.Cut()
			require.Equal(t, c.want, l.lines(1)[0])
			servicetest.Eventually(t, "the connection has ended", func() bool { return p.stat("http.test.downstream_cx_destroy_local") == 1 })
		})
	}
}

// openNamed opens a stream for a method and a path, which is an upgrade to WebSocket if
// the method is CONNECT.
func openNamed(t *testing.T, client *http2.Client, line string) (s *http2.Stream) {
	method, path, _ := strings.Cut(line, " ")
	request := &http2.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte(path)}
	if method == "CONNECT" {
		request.Protocol = []byte("websocket")
	}
	servicetest.Eventually(t, "the proxy has said what it takes", func() bool {
		var err error
		s, err = client.Open(request, nil, false)
		return err == nil
	})
	require.NoError(t, s.Flush())
	s.SetDeadline(time.Now().Add(patience))
	return s
}

// lingering is a filter whose Done step lasts until something becomes of the stream.
type lingering struct {
	pass
	t *testing.T
}

func (f lingering) Parse(proto.Message, strict.Path, *strict.Report) httpfilter.Config { return f }
func (f lingering) NewFilter() httpfilter.Filter                                       { return f }
func (f lingering) Done(s *stream.Stream) {
	servicetest.Eventually(f.t, "the client's leaving is known", func() bool { return s.Expired() != nil })
}

// TestAccessLogTellsOfWholeAnswersWhoseClientsLeft has clients leave behind their answer,
// while the exchange is not quite over.
func TestAccessLogTellsOfWholeAnswersWhoseClientsLeft(t *testing.T) {
	t.Parallel() // it waits
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	for _, c := range []struct {
		name  string
		ask   func(p *proxy) (leave func())
		early int64
		want  string
	}{
		{"by a reset of the request that is not whole", func(p *proxy) func() {
			s := open(t, p.dialHTTP2(), "POST /", false)
			return func() { require.Equal(t, "200 hello", outcome(s)) } // which resets it
		}, 1, "POST / HTTP/2 200 - via_upstream 0 5"},
		{"by a close", func(p *proxy) func() {
			client := p.dial()
			client.send(get)
			return func() {
				_, body := client.response("GET")
				require.Equal(t, "hello", body)
				require.NoError(t, client.conn.Close())
			}
		}, 0, "GET / HTTP/1.1 200 - via_upstream 0 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, up := newAccessLog(t, leftFormat), newUpstream(t)
			p := start(t, up.address(), config{fields: l.field, logs: l.files, filters: []httpfilter.Factory{lingering{t: t}}})
			leave := c.ask(p)
			server := up.accept()
			server.head()
			server.send(answer)
			leave()
			require.Equal(t, c.want, l.lines(1)[0])
			for name, want := range map[string]int64{"completed": 1, "2xx": 1, "rx_reset": 0, "tx_reset": 0, "response_before_rq_complete": c.early} {
				require.Equal(t, want, p.stat("http.test.downstream_rq_"+name), name)
			}
		})
	}
}

const leftFormat = "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%\n"

func TestAccessLogTellsOfStreamsThatClientsReset(t *testing.T) {
	for _, c := range []struct {
		name  string
		whole bool
		sent  string // of the answer, by then
		close bool   // the connection
		want  string
	}{
		{"while the request waits", true, "", false, "POST / HTTP/2 0 DR http2.remote_reset 0 0"},
		{"within the request", false, "", false, "POST / HTTP/2 0 DR http2.remote_reset 5 0"},
		{"within the response", true, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", false, "POST / HTTP/2 200 DR http2.remote_reset 0 5"},
		{"with its connection", true, "", true, "POST / HTTP/2 0 DC downstream_remote_disconnect 0 0"},
		{"with its connection, within the request", false, "", true, "POST / HTTP/2 0 DC downstream_remote_disconnect 5 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, up := newAccessLog(t, leftFormat), newUpstream(t)
			p := start(t, up.address(), config{fields: l.field, logs: l.files, route: `, "timeout": "0s"`})
			client := p.dialHTTP2()
			s := open(t, client, "POST /", c.whole)
			if !c.whole {
				require.NoError(t, s.WriteData([]byte("hello"), false))
				require.NoError(t, s.Flush())
			}
			server := up.accept()
			server.head()
			if !c.whole {
				server.read("5\r\nhello\r\n")
			}
			if c.sent != "" {
				server.send(c.sent)
				var head http2.Head
				require.NoError(t, s.ReadHead(&head))
				body, err := s.Next()
				require.NoError(t, err)
				require.Equal(t, "hello", string(body))
			}
			if c.close {
				client.Close()
			}
			s.Close()
			server.ended()
			require.Equal(t, c.want, l.lines(1)[0])
			require.EqualValues(t, 1, p.stat("http.test.downstream_rq_rx_reset"))
		})
	}
	t.Run("at once, whether it was served by then or not", func(t *testing.T) {
		l, up := newAccessLog(t, leftFormat), newUpstream(t)
		p := start(t, up.address(), config{fields: l.field, logs: l.files})
		const streams = 100
		client := p.dialHTTP2()
		for range streams {
			s, err := client.Open(&http2.Request{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte("/")}, nil, true)
			require.NoError(t, err)
			s.Close() // which sends head and reset together
		}
		for _, line := range l.lines(streams) {
			require.Equal(t, "GET / HTTP/2 0 DR http2.remote_reset 0 0", line)
		}
		require.EqualValues(t, streams, p.stat("http.test.downstream_rq_rx_reset"))
	})
}

func TestAccessLogTellsOfBeginningsIfItIsTo(t *testing.T) {
	const options = `"access_log_options": {"flush_access_log_on_new_request": true, "flush_log_on_tunnel_successfully_established": true},`
	begin := func(t *testing.T) (*accessLog, *upstream, *proxy) {
		l, up := newAccessLog(t, "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %ROUTE_NAME% %UPSTREAM_CLUSTER%\n"), newUpstream(t)
		return l, up, start(t, up.address(), config{fields: l.field + options + withWebsockets, entry: `"name": "r",`, logs: l.files})
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		l, up, p := begin(t)
		client := p.dial()
		client.send(get)
		server := up.accept()
		server.head()
		require.Equal(t, []string{"DownstreamStart 0 r up"}, l.lines(1), "there is no answer yet")
		server.send("HTTP/1.1 204 No Content\r\n\r\n")
		client.response("GET")
		require.Equal(t, "DownstreamEnd 204 r up", l.lines(2)[1])

		client.send(websocket)
		server.head()
		require.Equal(t, "DownstreamStart 0 r up", l.lines(3)[2])
		server.send(switching)
		client.head()
		require.Equal(t, "DownstreamTunnelSuccessfullyEstablished 101 r up", l.lines(4)[3])
		require.NoError(t, client.conn.Close())
		require.NoError(t, server.conn.Close())
		require.Equal(t, "DownstreamEnd 101 r up", l.lines(5)[4])
	})
	t.Run("HTTP/2", func(t *testing.T) {
		l, up, p := begin(t)
		s := open(t, p.dialHTTP2(), "GET /", true)
		server := up.accept()
		server.head()
		require.Equal(t, []string{"DownstreamStart 0 r up"}, l.lines(1), "there is no answer yet")
		server.send("HTTP/1.1 204 No Content\r\n\r\n")
		require.Equal(t, "204", strings.TrimSpace(outcome(s)))
		require.Equal(t, "DownstreamEnd 204 r up", l.lines(2)[1])
	})
	t.Run("a request that is refused has no beginning", func(t *testing.T) {
		l, _, p := begin(t)
		p.dial().send("GET / HTTP/1.1\r\nHo st: a\r\n\r\n")
		require.Equal(t, []string{"DownstreamEnd 400 - -"}, l.lines(1))
	})
}

// await waits for a line and returns those up to it.
func (l *accessLog) await(line string) (before []string) {
	l.t.Helper()
	servicetest.Eventually(l.t, line, func() bool {
		text, _ := os.ReadFile(l.path) // there is none before the first line
		lines := strings.Split(string(text), "\n")
		found := slices.Index(lines, line)
		before = lines[:found+1]
		return found >= 0
	})
	return before
}

func TestAccessLogsTellOfWhatGoesOn(t *testing.T) {
	l, up := newAccessLog(t, "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %BYTES_RECEIVED%/%BYTES_SENT% %UPSTREAM_REMOTE_ADDRESS% %REQ(X-A)% %RESP(X-B)%\n"), newUpstream(t)
	p := start(t, up.address(), config{
		fields: l.field + `"access_log_options": {"access_log_flush_interval": "0.005s"},`, logs: l.files,
		router: `, ` + strings.Replace(l.field, "access_log", "upstream_log", 1) + ` "upstream_log_options": {"upstream_log_flush_interval": "0.005s"}`,
	})
	head := " " + up.address() + " "
	for name, c := range map[string]struct {
		open func() (send func(text string, end bool), read func(want string))
	}{
		"HTTP/1.1": {func() (func(string, bool), func(string)) {
			client := p.dial()
			client.send("POST / HTTP/1.1\r\nHost: a\r\nX-A: HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
			return func(text string, end bool) {
					if end {
						client.send("0\r\n\r\n")
						return
					}
					client.send(fmt.Sprintf("%x\r\n%s\r\n", len(text), text))
				}, func(want string) {
					client.head()
					client.read(fmt.Sprintf("%x\r\n%s\r\n", len(want), want))
				}
		}},
		"HTTP/2": {func() (func(string, bool), func(string)) {
			s := open(t, p.dialHTTP2(), "POST /", false, "x-a: HTTP/2")
			return func(text string, end bool) {
					require.NoError(t, s.WriteData([]byte(text), end))
					require.NoError(t, s.Flush())
				}, func(want string) {
					require.NoError(t, s.ReadHead(&http2.Head{}))
					got, err := s.Next()
					require.NoError(t, err)
					require.Equal(t, want, string(got))
				}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			send, read := c.open()
			send("hello", false)
			server := up.accept()
			server.head()
			server.read("5\r\nhello\r\n")
			l.await("DownstreamPeriodic 0 5/0" + head + name + " -")
			l.await("UpstreamPeriodic 0 0/5" + head + name + " -")

			server.send("HTTP/1.1 200 OK\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
			read("abc")
			l.await("DownstreamPeriodic 200 5/3" + head + name + " 2")
			l.await("UpstreamPeriodic 200 3/5" + head + name + " 2")
			send("world", false)
			server.read("5\r\nworld\r\n")
			l.await("DownstreamPeriodic 200 10/3" + head + name + " 2")
			l.await("UpstreamPeriodic 200 3/10" + head + name + " 2")

			send("", true)
			server.read("0\r\n\r\n")
			server.send("0\r\n\r\n")
			l.await("UpstreamEnd 200 3/10" + head + name + " 2")
			ended := len(l.await("DownstreamEnd 200 10/3" + head + name + " 2"))
			later := p.dial()
			later.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: behind " + name + "\r\n\r\n")
			server.head()
			for _, line := range l.await("DownstreamPeriodic 0 0/0" + head + "behind " + name + " -")[ended:] {
				require.NotContains(t, line, head+name, "what has ended goes on no more")
			}
			server.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			later.response("GET")
			require.NoError(t, server.conn.Close())
		})
	}
}

func TestAccessLogTellsAddressesTimesAndIDs(t *testing.T) {
	l := newAccessLog(t, "%DOWNSTREAM_REMOTE_ADDRESS%|%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%|%DOWNSTREAM_LOCAL_ADDRESS%|%UPSTREAM_HOST%|%UPSTREAM_REMOTE_ADDRESS%|%CONNECTION_ID%|"+
		"%STREAM_ID%|%REQ(X-REQUEST-ID)%|%DURATION%|%REQUEST_DURATION%|%REQUEST_TX_DURATION%|%RESPONSE_DURATION%|%RESPONSE_TX_DURATION%|"+
		"%COMMON_DURATION(US_CX_BEG:US_CX_END:ns)%|%COMMON_DURATION(US_TX_BEG:US_RX_END:ns)%|%COMMON_DURATION(DS_TX_BEG:DS_TX_END:ns)%|%UPSTREAM_LOCAL_PORT%\n")
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: l.field, logs: l.files})
	client := p.dial()
	client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n")
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	client.response("GET")
	got := strings.Split(l.lines(1)[0], "|")
	require.Equal(t, []string{"192.0.2.9:0", client.conn.LocalAddr().String(), p.address, up.address(), up.address(), "1"}, got[:6])
	require.Len(t, got[6], 36)
	require.Equal(t, got[6], got[7])
	for i, text := range got[8:16] {
		require.Regexp(t, `^\d+$`, text, "duration %d", i)
	}
	require.Equal(t, fmt.Sprint(server.conn.RemoteAddr().(*net.TCPAddr).Port), got[16])
}

func TestAccessLogOfARefusedConnectAndOfAClientThatLeft(t *testing.T) {
	l := newAccessLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_HOST% %UPSTREAM_LOCAL_ADDRESS%\n")
	gone := servicetest.FreeAddress(t)
	p := start(t, gone, config{fields: l.field, logs: l.files})
	client := p.dial()
	client.send(get)
	response, _ := client.response("GET")
	require.Equal(t, 503, response.StatusCode)
	const reason = "delayed_connect_error:_Connection_refused"
	require.Equal(t, "503 UF upstream_reset_before_response_started{remote_connection_failure|"+reason+"} "+reason+" "+gone+" -", l.lines(1)[0])

	client = p.dial()
	client.send("GET / HT")
	require.NoError(t, client.conn.Close())
	require.Equal(t, "0 DC downstream_remote_disconnect - - -", l.lines(2)[1])
}

func TestResponsesOfUpstreamsAndOurOwnAreChangedAsTheRouteWants(t *testing.T) {
	const entry = `"name": "r", "request_headers_to_add": [{"header": {"key": "x-up", "value": "%REQ(:PATH)% %ROUTE_NAME% %RESPONSE_CODE%"}}], "request_headers_to_remove": ["x-secret"],
		"response_headers_to_add": [{"header": {"key": "x-down", "value": "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER%"}}], "response_headers_to_remove": ["x-powered-by"],`
	up := newUpstream(t)
	client := start(t, up.address(), config{entry: entry}).dial()
	client.send("GET /p HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\n\r\n")
	server := up.accept()
	head := server.head()
	require.Contains(t, head, "x-up: /p r 0\r\n")
	require.NotContains(t, head, "x-secret")
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Powered-By: it\r\n\r\n")
	response, _ := client.response("GET")
	require.Equal(t, "200 - up", response.Header.Get("X-Down"))
	require.Empty(t, response.Header.Get("X-Powered-By"))

	client.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n")
	server.head()
	require.NoError(t, server.conn.Close())
	response, _ = client.response("GET")
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "0 UC up", response.Header.Get("X-Down"))

	client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
	response, _ = client.response("GET")
	require.Equal(t, 404, response.StatusCode)
	require.Empty(t, response.Header.Get("X-Down"), "there is no route")
}

func TestAccessLogAllocatesNothing(t *testing.T) {
	l := newAccessLog(t, "")
	exchange := exchangerOf(t, config{fields: l.field, logs: l.files})
	for range 2000 { // to grow the buffers
		exchange()
	}
	servicetest.Allocations(t, 0, exchange)
}

// BenchmarkServeWithAccessLog is BenchmarkServe with a line of the default
// format.
func BenchmarkServeWithAccessLog(b *testing.B) {
	l := newAccessLog(b, "")
	exchange := exchangerOf(b, config{fields: l.field, logs: l.files})
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}
