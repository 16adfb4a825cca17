package hcm_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// dialHTTP2 connects a client of HTTP/2 to the proxy.
func (p *proxy) dialHTTP2() *http2.Client { return p.dialHTTP2With(http2.Options{}) }

func (p *proxy) dialHTTP2With(options http2.Options) *http2.Client {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.address)
	require.NoError(p.t, err)
	c := http2.NewClient(conn, http2.NewClientOptions(options))
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// fieldList makes fields of "name: value" lines.
func fieldList(lines ...string) *http2.Fields {
	f := &http2.Fields{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}

// open sends the head of a request, "POST /path", to host a.
func open(t testing.TB, c *http2.Client, request string, end bool, lines ...string) *http2.Stream {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	s, err := c.Open(&http2.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte(path)}, fieldList(lines...), end)
	require.NoError(t, err)
	s.SetDeadline(time.Now().Add(patience))
	require.NoError(t, s.Flush())
	return s
}

func TestAClientOfTooManyBrokenStreamsIsCutOff(t *testing.T) {
	p := start(t, cannedUpstream(t), config{fields: `"stream_error_on_invalid_http_message": true,`})
	client := p.dialHTTP2()
	malformed := &http2.Request{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte("/")}
	for range 10_000 { // many more than are borne
		s, err := client.Open(malformed, fieldList("connection: close"), true)
		if err != nil {
			break
		}
		s.SetDeadline(time.Now().Add(patience))
		_ = s.Flush()
		var head http2.Head
		require.Error(t, s.ReadHead(&head))
		s.Close()
	}
	servicetest.Eventually(t, "it is counted", func() bool { return p.stat("http.test.downstream_rq_too_many_premature_resets") == 1 })
	require.True(t, strings.HasPrefix(outcome(open(t, p.dialHTTP2(), "GET /", true)), "200 "), "others are served")
}

// outcome is a response as text: status, the headers asked for, body, trailers,
// and the error that it ended with.
func outcome(s *http2.Stream, names ...string) string {
	defer s.Close()
	var told []string
	var head http2.Head
	for head.Status < 200 {
		if err := s.ReadHead(&head); err != nil {
			return strings.Join(append(told, err.Error()), " ")
		}
		told = append(told, fmt.Sprint(head.Status))
		for i := range head.Fields.Len() {
			if name, value := head.Fields.At(i); slices.Contains(names, string(name)) {
				told = append(told, fmt.Sprintf("%s=%s", name, value))
			}
		}
	}
	return strings.Join(append(told, rest(s)...), " ")
}

// rest is what follows a response's head.
func rest(s *http2.Stream) (told []string) {
	var body strings.Builder
	for {
		chunk, err := s.Next()
		body.Write(chunk)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return append(told, body.String(), err.Error())
		}
	}
	if body.Len() > 0 {
		told = append(told, body.String())
	}
	var trailers http2.Fields
	if s.ReadTrailers(&trailers) {
		for i := range trailers.Len() {
			name, value := trailers.At(i)
			told = append(told, fmt.Sprintf("%s:%s", name, value))
		}
	}
	return told
}

func TestBothVersionsOnOneListener(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"generate_request_id": false,`})
	client := p.dialHTTP2()
	s := open(t, client, "GET /x?y=1", true, "x-twice: a", "cookie: a=b", "cookie: c=d", "te: trailers", "x-envoy-max-retries: 9", "host: a")
	server := up.accept()
	require.Equal(t, "GET /x?y=1 HTTP/1.1\r\nhost: a\r\nx-twice: a\r\ncookie: a=b; c=d\r\nx-forwarded-proto: http\r\nte: trailers\r\n"+
		"x-envoy-expected-rq-timeout-ms: 15000\r\n\r\n", sortTE(server.head()))
	server.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: keep-alive\r\nServer: mine\r\nX-Answer: 1\r\n\r\nok")
	require.Equal(t, "200 content-length=2 server=weir x-answer=1 ok", outcome(s, "content-length", "x-answer", "server", "connection"))

	plain := p.dial()
	plain.send(get)
	server.head()
	server.send("HTTP/1.1 204 No Content\r\n\r\n")
	response, _ := plain.response("GET")
	require.Equal(t, 204, response.StatusCode)
	servicetest.Eventually(t, "both are counted", func() bool { return p.stat("http.test.downstream_rq_2xx") == 2 })
	for name, want := range map[string]int64{
		"downstream_cx_total": 2, "downstream_cx_http1_total": 1, "downstream_cx_http2_total": 1, "downstream_cx_http2_active": 1,
		"downstream_rq_total": 2, "downstream_rq_http1_total": 1, "downstream_rq_http2_total": 1,
	} {
		require.Equal(t, want, p.stat("http.test."+name), name)
	}
	_ = client.Close()
	servicetest.Eventually(t, "its end is counted", func() bool { return p.stat("http.test.downstream_cx_destroy_remote") == 1 })
	require.Zero(t, p.stat("http.test.downstream_cx_http2_active"))
	require.Positive(t, p.stat("http.test.downstream_cx_rx_bytes_total"))
}

func TestAConnectionOfHTTP2IsAsLongAsItWasOpen(t *testing.T) {
	p := start(t, newUpstream(t).address(), config{routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
	conn, err := net.Dial("tcp", p.address)
	require.NoError(t, err)
	p.dial()
	// They are accepted one after the other, so that the first is once the second counts.
	servicetest.Eventually(t, "both are accepted", func() bool { return p.stat("http.test.downstream_cx_total") == 2 })
	const silence = 50 * time.Millisecond
	accepted := time.Now()
	servicetest.Eventually(t, "the client is silent for a while", func() bool { return time.Since(accepted) >= silence })
	c := http2.NewClient(conn, http2.NewClientOptions(http2.Options{}))
	require.Equal(t, "200", outcome(open(t, c, "GET /", true)))
	_ = c.Close()
	var length *stats.Distribution
	servicetest.Eventually(t, "its length is counted", func() bool {
		p.registry.Each(func(m stats.Metric) {
			if m.Name == "http.test.downstream_cx_length_ms" {
				length = m.Distribution
			}
		})
		return length.Count == 1
	})
	require.GreaterOrEqual(t, length.Sum, float64(silence.Milliseconds()))
}

// sortTE puts te, which keeps its place from HTTP/2 alone, behind x-forwarded-proto.
func sortTE(head string) string {
	const te, proto = "te: trailers\r\n", "x-forwarded-proto: http\r\n"
	return strings.Replace(strings.Replace(head, te, "", 1), proto, proto+te, 1)
}

// TestHTTP2ToHTTP1 has one exchange a row: what the client sends behind its head,
// what the upstream gets and answers, and what the client gets.
func TestHTTP2ToHTTP1(t *testing.T) {
	for _, c := range []struct {
		name, request string
		lines         []string
		body, trailer string // body "-" is none
		wantUpstream  string
		response      string
		want          string
	}{
		{"a length both ways", "POST /", []string{"content-length: 5"}, "hello", "", "content-length: 5\r\n|hello",
			"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye", "200 content-length=3 bye"},
		{"no length either way", "POST /", nil, "hello", "", "transfer-encoding: chunked\r\n|5\r\nhello\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n", "200 bye"},
		{"trailers both ways", "POST /", nil, "hello", "t: v", "transfer-encoding: chunked\r\n|5\r\nhello\r\n0\r\nt: v\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\nGrpc-Status: 5\r\nKeep-Alive: 1\r\n\r\n", "200 bye grpc-status:5"},
		{"an empty body with trailers", "POST /", nil, "", "t: v", "transfer-encoding: chunked\r\n|0\r\nt: v\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 content-length=0"},
		{"a body ended by the close", "GET /", nil, "-", "", "|", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "200 until the end"},
		{"HEAD", "HEAD /", nil, "-", "", "|", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "200 content-length=10"},
		{"304", "GET /", nil, "-", "", "|", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", "304 content-length=10"},
		{"204", "GET /", nil, "-", "", "|", "HTTP/1.1 204 No Content\r\n\r\n", "204"},
		{"interim responses are not asked for", "GET /", nil, "-", "", "|", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!", "200 content-length=1 !"},
		{"a response cut short", "GET /", nil, "-", "", "|", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
			"stream 1: peer reset it with INTERNAL_ERROR"},
		{"a malformed response", "GET /", nil, "-", "", "|", "HTTP/1.1 20 OK\r\n\r\n",
			"502 content-length=87 upstream connect error or disconnect/reset before headers. reset reason: protocol error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: `"http_protocol_options": {"enable_trailers": true},`, http1: `"enable_trailers": true`})
			s := open(t, p.dialHTTP2(), c.request, c.body == "-", c.lines...)
			if c.body != "-" {
				require.NoError(t, s.WriteData([]byte(c.body), c.trailer == ""))
			}
			if c.trailer != "" {
				require.NoError(t, s.WriteTrailers(fieldList(c.trailer)))
			}
			server := up.accept()
			wantHead, wantBody, _ := strings.Cut(c.wantUpstream, "|")
			require.Contains(t, server.head(), wantHead)
			server.read(wantBody)
			server.send(c.response)
			require.NoError(t, server.conn.(*net.TCPConn).CloseWrite())
			got := outcome(s, "content-length")
			if strings.HasPrefix(c.want, "stream") { // a reset overtakes what was not read yet
				_, got, _ = strings.Cut(got, "stream")
				got = "stream" + got
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestHTTP2Refusals(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{
		fields: `"normalize_path": true, "path_with_escaped_slashes_action": "REJECT_REQUEST", "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},`,
		routes: `{"match": {"path": "/moved"}, "redirect": {"path_redirect": "/x"}}, {"match": {"path": "/direct"}, "direct_response": {"status": 503, "body": {"inline_string": "50% off\n"}}}`,
	})
	c := p.dialHTTP2()
	const grpc = "content-type: application/grpc+proto"
	for _, r := range []struct {
		request string
		lines   []string
		want    string
	}{
		{"GET /none", nil, "404"},
		{"GET /direct", nil, "503 content-type=text/plain 50% off\n"},
		{"GET /moved", nil, "301 location=http://a/x"},
		{"HEAD /direct", nil, "503 content-type=text/plain"},
		{"POST /none", []string{grpc}, "200 content-type=application/grpc grpc-status=12"},
		{"POST /direct", []string{grpc}, "200 content-type=application/grpc grpc-status=14 grpc-message=50%25 off%0A"},
		{"GET /a%2fb", nil, "400 content-type=text/plain a path that cannot be normalised\n"},
		{"GET /none", []string{"x_y: 1"}, "400 content-type=text/plain an underscore in a field name\n"},
	} {
		require.Equal(t, r.want, outcome(open(t, c, r.request, true, r.lines...), "content-type", "location", "grpc-status", "grpc-message"), r.request)
	}
	s, err := c.Open(&http2.Request{Method: []byte("GET"), Scheme: []byte("http"), Path: []byte("/")}, nil, true)
	require.NoError(t, err)
	require.Equal(t, "400 no host\n", outcome(s))
	s, err = c.Open(&http2.Request{Method: []byte("CONNECT"), Authority: []byte("a:1")}, nil, false)
	require.NoError(t, err)
	require.NoError(t, s.Flush())
	require.Contains(t, outcome(s), "403 CONNECT is not supported")
	require.EqualValues(t, 1, p.stat("http2.requests_rejected_with_underscores_in_headers"))

	// A malformed message ends the connection, as it does in HTTP/1.
	s, err = c.Open(&http2.Request{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte("no")}, nil, true)
	require.NoError(t, err)
	require.Contains(t, outcome(s), "PROTOCOL_ERROR")
	<-c.Done()
	servicetest.Eventually(t, "that is counted", func() bool { return p.stat("http.test.downstream_cx_destroy") == 1 })
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_destroy_local"))
}

func TestHTTP2StreamsAreIndependent(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	c := p.dialHTTP2()
	first := open(t, c, "GET /1", true)
	one := up.accept()
	one.head()
	second := open(t, c, "GET /2", true)
	two := up.accept()
	two.head()
	third := open(t, c, "POST /3", false)
	three := up.accept()
	three.head()

	two.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
	require.Equal(t, "200 2", outcome(second))
	third.Reset(http2.Cancel)
	third.Close()
	three.ended() // with its client
	servicetest.Eventually(t, "the reset is counted", func() bool { return p.stat("http.test.downstream_rq_rx_reset") == 1 })
	require.EqualValues(t, 1, p.stat("http2.rx_reset"))
	one.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
	require.Equal(t, "200 1", outcome(first))
	servicetest.Eventually(t, "nothing is left", func() bool { return p.stat("http.test.downstream_rq_active") == 0 })

	// One whose client goes while it waits for the response.
	gone := open(t, c, "GET /4", true)
	one.head()
	gone.Close()
	one.ended()
}

func TestHTTP2EarlyResponseAndContinue(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	c := p.dialHTTP2()
	s := open(t, c, "POST /", false, "content-length: 1000000")
	require.NoError(t, s.WriteData([]byte("begun"), false))
	require.NoError(t, s.Flush())
	server := up.accept()
	server.head()
	server.read("begun")
	server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
	require.Equal(t, "413 no", outcome(s))
	servicetest.Eventually(t, "it is counted", func() bool { return p.stat("http.test.downstream_rq_response_before_rq_complete") == 1 })

	// Our own 100 comes once the upstream takes the body.
	s = open(t, c, "POST /", false, "expect: 100-continue", "content-length: 5")
	var head http2.Head
	require.NoError(t, s.ReadHead(&head))
	require.Equal(t, 100, head.Status)
	require.NoError(t, s.WriteData([]byte("hello"), true))
	server = up.accept()
	require.NotContains(t, server.head(), "expect:")
	server.read("hello")
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	require.Equal(t, "200", outcome(s))
}

func TestHTTP2InterimResponsesArePassedOn(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"proxy_100_continue": true,`})
	s := open(t, p.dialHTTP2(), "POST /", false, "expect: 100-continue", "content-length: 2")
	server := up.accept()
	require.Contains(t, server.head(), "expect: 100-continue\r\n")
	server.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
	for _, want := range []int{100, 103} {
		var head http2.Head
		require.NoError(t, s.ReadHead(&head))
		require.Equal(t, want, head.Status)
	}
	require.NoError(t, s.WriteData([]byte("hi"), true))
	server.read("hi")
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	require.Equal(t, "200", outcome(s))
}

func TestHTTP2LimitsInTime(t *testing.T) {
	t.Parallel() // it waits
	for _, c := range []struct {
		name, fields string
		whole        bool
		want, stat   string
	}{
		{"a request that stops", `"stream_idle_timeout": "1s",`, false, "408 stream timeout", "downstream_rq_idle_timeout"},
		{"an upstream that says nothing", `"stream_idle_timeout": "1s",`, true, "504 stream timeout", "downstream_rq_idle_timeout"},
		{"a request that takes too long", `"request_timeout": "1s",`, false, "408 request timeout", "downstream_rq_timeout"},
		{"a stream that takes too long", `"common_http_protocol_options": {"max_stream_duration": "1s"},`, true, "504 downstream duration timeout", "downstream_rq_max_duration_reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: c.fields})
			client := p.dialHTTP2()
			s := open(t, client, "POST /", c.whole)
			up.accept().ended()
			require.Equal(t, c.want, outcome(s))
			require.EqualValues(t, 1, p.stat("http.test."+c.stat))
			require.NoError(t, client.Err()) // and the connection goes on
		})
	}
	t.Run("a response that stops", func(t *testing.T) {
		t.Parallel()
		up := newUpstream(t)
		p := start(t, up.address(), config{fields: `"stream_idle_timeout": "1s",`})
		s := open(t, p.dialHTTP2(), "GET /", true)
		server := up.accept()
		server.head()
		server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
		require.Contains(t, outcome(s), "stream 1: peer reset it with INTERNAL_ERROR")
		server.ended()
	})
	t.Run("a connection without streams", func(t *testing.T) {
		t.Parallel()
		p := start(t, newUpstream(t).address(), config{fields: `"drain_timeout": "0.01s", "common_http_protocol_options": {"idle_timeout": "0.5s"},`})
		client := p.dialHTTP2()
		<-client.Done()
		require.EqualValues(t, 1, p.stat("http.test.downstream_cx_idle_timeout"))
	})
	t.Run("an old connection", func(t *testing.T) {
		t.Parallel()
		p := start(t, newUpstream(t).address(), config{fields: `"drain_timeout": "0.01s", "common_http_protocol_options": {"max_connection_duration": "0.5s"},`})
		<-p.dialHTTP2().Done()
		require.EqualValues(t, 1, p.stat("http.test.downstream_cx_max_duration_reached"))
	})
}

func TestHTTP2ConnectionsDrain(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"drain_timeout": "0.05s",`})
	c := p.dialHTTP2()
	s := open(t, c, "GET /", true)
	server := up.accept()
	server.head()
	current := <-p.current
	current.Drain()
	servicetest.Eventually(t, "the client is told", c.Draining)
	_, err := c.Open(&http2.Request{}, nil, true)
	require.ErrorIs(t, err, http2.ErrUnavailable)
	current.Finish()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!")
	require.Equal(t, "200 !", outcome(s))
	<-c.Done()
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_drain_close"))

	// One that has asked nothing is told with its first request.
	c = p.dialHTTP2()
	(<-p.current).Drain()
	s = open(t, c, "GET /", true)
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!")
	require.Equal(t, "200 !", outcome(s))
	<-c.Done()
	require.EqualValues(t, 2, p.stat("http2.goaway_sent"))

	// And max_requests_per_connection counts.
	p = start(t, up.address(), config{fields: `"drain_timeout": "0.05s", "common_http_protocol_options": {"max_requests_per_connection": 1},`, routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
	c = p.dialHTTP2()
	require.Equal(t, "200", outcome(open(t, c, "GET /", true)))
	<-c.Done()
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_max_requests_reached"))
}

func TestCodecTypeSettlesTheVersion(t *testing.T) {
	p := start(t, newUpstream(t).address(), config{fields: `"codec_type": "HTTP1",`})
	c := p.dialHTTP2()
	<-c.Done()
	require.Error(t, c.Err())
	require.Zero(t, p.stat("http.test.downstream_cx_http2_total"))

	p = start(t, newUpstream(t).address(), config{fields: `"codec_type": "HTTP2",`, routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
	require.Equal(t, "200", outcome(open(t, p.dialHTTP2(), "GET /", true)))
	plain := p.dial()
	plain.send(get)
	plain.ended()
	require.Zero(t, p.stat("http.test.downstream_cx_http1_total"))
	servicetest.Eventually(t, "the other is counted", func() bool { return p.stat("http.test.downstream_cx_protocol_error") == 1 })
}

func TestWebSocketOverHTTP2(t *testing.T) {
	const upgrades = `"upgrade_configs": [{"upgrade_type": "websocket"}]`
	for name, c := range map[string]config{
		"as the manager allows": {fields: upgrades + `, "http2_protocol_options": {"allow_connect": true},`},
		"as the route allows":   {fields: `"http2_protocol_options": {"allow_connect": true},`, route: ", " + upgrades},
	} {
		t.Run(name, func(t *testing.T) { webSocketOverHTTP2(t, c) })
	}
}

func webSocketOverHTTP2(t *testing.T, settings config) {
	up := newUpstream(t)
	p := start(t, up.address(), settings)
	c := p.dialHTTP2()
	request := &http2.Request{Method: []byte("CONNECT"), Protocol: []byte("websocket"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte("/chat")}
	var s *http2.Stream
	servicetest.Eventually(t, "the proxy has said that it takes that", func() bool {
		var err error
		s, err = c.Open(request, fieldList("sec-websocket-protocol: chat"), false)
		return err == nil
	})
	s.SetDeadline(time.Now().Add(patience))
	require.NoError(t, s.Flush())
	server := up.accept()
	head := server.head()
	require.Contains(t, head, "GET /chat HTTP/1.1\r\n")
	require.Contains(t, head, "connection: Upgrade\r\nupgrade: websocket\r\n")
	require.Contains(t, head, "sec-websocket-key: ")
	server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
	var answered http2.Head
	require.NoError(t, s.ReadHead(&answered))
	require.Equal(t, 200, answered.Status)
	chunk, err := s.Next()
	require.NoError(t, err)
	require.Equal(t, "hello", string(chunk))
	require.NoError(t, s.WriteData([]byte("from the client"), false))
	require.NoError(t, s.Flush())
	server.read("from the client")
	require.NoError(t, server.conn.(*net.TCPConn).CloseWrite())
	_, err = s.Next()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, s.WriteData([]byte("and on"), true)) // its own direction goes on
	server.read("and on")
	server.closed()
	servicetest.Eventually(t, "it has ended", func() bool { return p.stat("http.test.downstream_rq_active") == 0 })
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_upgrades_total"))
	s.Close()
}

// TestAStoppedHTTP2ReaderHoldsTheUpstream has an upstream send without end to a
// client that reads nothing, and the other way round.
func TestAStoppedHTTP2ReaderHoldsTheUpstream(t *testing.T) {
	const most = 16 << 20
	chunk := make([]byte, 64<<10)
	endless := func(write func() error) (n int) {
		for n < 1<<30 {
			if write() != nil {
				break
			}
			n += len(chunk)
		}
		return n
	}
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	t.Run("response", func(t *testing.T) {
		up := newUpstream(t)
		p := start(t, up.address(), config{})
		before := inUse()
		s := open(t, p.dialHTTP2With(http2.Options{StreamWindow: 64 << 10}), "GET /", true)
		server := up.accept()
		server.head()
		server.send("HTTP/1.1 200 OK\r\n\r\n")
		require.NoError(t, server.conn.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
		n := endless(func() error { _, err := server.conn.Write(chunk); return err })
		require.Less(t, n, most)
		require.Less(t, inUse(), before+most)
		s.Close()
		server.ended()
	})
	t.Run("request", func(t *testing.T) {
		up := newUpstream(t)
		p := start(t, up.address(), config{})
		before := inUse()
		s := open(t, p.dialHTTP2(), "POST /", false)
		server := up.accept()
		server.head()
		s.SetDeadline(time.Now().Add(500 * time.Millisecond))
		n := endless(func() error { return s.WriteData(chunk, false) })
		require.Less(t, n, most)
		require.Less(t, inUse(), before+most)
		s.Close()
		server.ended()
	})
}
