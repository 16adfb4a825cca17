package hcm_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

const (
	part   = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"
	answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

// TestARestThatTheClientDoesNotTakeIsGivenUp has a client that gives no credit for the
// second half of a response.
func TestARestThatTheClientDoesNotTakeIsGivenUp(t *testing.T) {
	t.Parallel() // it waits
	for _, c := range []struct{ name, fields, route string }{
		{"by stream_flush_timeout", `"stream_idle_timeout": "0s", "stream_flush_timeout": "1s",`, ""},
		{"by flush_timeout of the route", `"stream_idle_timeout": "0s", "stream_flush_timeout": "0s",`, `, "flush_timeout": "1s"`},
		{"by idle_timeout of the route", `"stream_idle_timeout": "0s",`, `, "idle_timeout": "1s"`},
		{"by stream_idle_timeout", `"stream_idle_timeout": "1s",`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: c.fields, route: c.route + `, "timeout": "0s"`})
			s := open(t, p.dialHTTP2With(http2.Options{StreamWindow: 10}), "GET /", true)
			server := up.accept()
			server.head()
			server.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789abcdefghij")
			servicetest.Eventually(t, "the rest is given up", func() bool { return p.stat("http2.tx_flush_timeout") == 1 })
			require.EqualValues(t, 0, p.stat("http.test.downstream_rq_idle_timeout"))
			require.NotContains(t, outcome(s), "abcdefghij")
		})
	}
}

func TestStreamOutOfTimeIsAnsweredByWhatWasMissing(t *testing.T) {
	t.Parallel() // it waits
	for _, c := range []struct {
		name, fields, request string
		status                int
		text, stat            string
	}{
		{"nobody says anything, within the request", `"stream_idle_timeout": "1s",`, part, 408, "stream timeout", "downstream_rq_idle_timeout"},
		{"nobody says anything, behind the request", `"stream_idle_timeout": "1s",`, get, 504, "stream timeout", "downstream_rq_idle_timeout"},
		{"the request is not whole in time", `"request_timeout": "1s",`, part, 408, "request timeout", "downstream_rq_timeout"},
		{"the stream is too long, within the request", `"common_http_protocol_options": {"max_stream_duration": "1s"},`, part, 408, "downstream duration timeout", "downstream_rq_max_duration_reached"},
		{"the stream is too long, behind the request", `"common_http_protocol_options": {"max_stream_duration": "1s"},`, get, 504, "downstream duration timeout", "downstream_rq_max_duration_reached"},
		{"a stream of gRPC is too long", `"common_http_protocol_options": {"max_stream_duration": "1s"},`,
			strings.Replace(get, "\r\n\r\n", "\r\nContent-Type: application/grpc\r\n\r\n", 1), 200, "", "downstream_rq_max_duration_reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: c.fields})
			client := p.dial()
			next := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
			whole := c.status != 408
			if whole { // and a part of the next request
				c.request += next[:10]
			}
			client.send(c.request)
			server := up.accept()
			response, body := client.response("GET")
			require.Equal(t, c.status, response.StatusCode)
			require.Equal(t, c.text, body)
			if c.status == 200 {
				require.Equal(t, "4", response.Header.Get("grpc-status"))
				require.Equal(t, "downstream duration timeout", response.Header.Get("grpc-message"))
			}
			server.ended() // the upstream's request is broken off
			if require.Equal(t, !whole, response.Close); response.Close {
				client.closed()
			} else { // nothing is left of the request
				client.send(next[10:])
				up.accept().head()
			}
			require.EqualValues(t, 1, p.stat("http.test."+c.stat))
			require.EqualValues(t, 0, p.stat("cluster.up.upstream_rq_resend"))
		})
	}
}

func TestRequestThatIsWholeInTimeMayTakeLongerForItsAnswer(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"request_timeout": "2s",`})
	client := p.dial()
	client.send(part + "67890")
	server := up.accept()
	server.head()
	pause := time.NewTimer(2500 * time.Millisecond)
	<-pause.C
	server.send(answer)
	response, _ := client.response("POST")
	require.Equal(t, 200, response.StatusCode)
}

func TestWhatMovesKeepsAStreamAliveInBothDirections(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"stream_idle_timeout": "5s",`, route: `, "timeout": "0s"`})
	client := p.dial()
	client.send(part) // and stays silent, while the server does not
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	client.head()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for range 24 { // six seconds
		<-ticker.C
		server.send("1\r\nx\r\n")
		client.read("1\r\nx\r\n")
	}
	require.EqualValues(t, 0, p.stat("http.test.downstream_rq_idle_timeout"))
	client.closed() // once the server is silent too
	require.EqualValues(t, 1, p.stat("http.test.downstream_rq_idle_timeout"))
	servicetest.Eventually(t, "its end is counted", func() bool { return p.stat("http.test.downstream_cx_destroy_local_active_rq") == 1 })
}

func TestStreamThatIsTooLongIsCutWithinItsResponse(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"common_http_protocol_options": {"max_stream_duration": "1s"},`})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1")
	client.head()
	client.read("1")
	client.closed()
	server.closed()
}

// waits is a filter that holds its request for as long as the stream is waited for.
type waits struct{ pass }

func (f waits) Parse(proto.Message, strict.Path, *strict.Report) httpfilter.Config { return f }
func (f waits) NewFilter() httpfilter.Filter                                       { return f }
func (waits) RequestHead(s *stream.Stream) *httpfilter.Reply {
	s.Sleep(s.Context, time.Hour)
	return nil
}

// TestAnswerThatTheClientDoesNotTakeIsGivenUp has a connection without any buffer, whose
// client reads nothing of the answer that its stream took too long.
func TestAnswerThatTheClientDoesNotTakeIsGivenUp(t *testing.T) {
	t.Parallel() // it waits
	p := start(t, newUpstream(t).address(), config{
		fields:  `"stream_idle_timeout": "0s", "common_http_protocol_options": {"max_stream_duration": "0.1s"},`,
		filters: []httpfilter.Factory{waits{}},
	})
	client, conn := net.Pipe()
	t.Cleanup(func() { _ = client.Close() })
	served := make(chan struct{})
	go func() { // ends with the connection; awaited below
		defer close(served)
		p.filter.NewConnection(conn).Serve(t.Context())
	}()
	_, err := io.WriteString(client, get)
	require.NoError(t, err)
	select {
	case <-served:
	case <-time.After(patience):
		t.Error("the connection is still there")
		_ = client.Close()
		<-served
	}
	require.EqualValues(t, 1, p.stat("http.test.downstream_rq_max_duration_reached"))
	require.EqualValues(t, 0, p.stat("cluster.up.upstream_cx_total"))
}

func TestConnectionEndsWithTheLastOfItsRequests(t *testing.T) {
	p := start(t, cannedUpstream(t), config{fields: `"common_http_protocol_options": {"max_requests_per_connection": 2},`})
	client := p.dial()
	client.send(get)
	response, _ := client.response("GET")
	require.False(t, response.Close)
	client.send(get)
	response, _ = client.response("GET")
	require.True(t, response.Close)
	client.closed()
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_max_requests_reached"))
}

func TestConnectionThatIsOldEnoughIsDrainedAndClosed(t *testing.T) {
	t.Parallel() // it waits
	p := start(t, cannedUpstream(t), config{fields: `"drain_timeout": "0.5s", "common_http_protocol_options": {"max_connection_duration": "0.5s"},`})
	client := p.dial()
	client.send(get)
	client.response("GET")
	client.closed()
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_max_duration_reached"))

	p = start(t, cannedUpstream(t), config{fields: `"drain_timeout": "3600s", "common_http_protocol_options": {"max_connection_duration": "1s"},`})
	client = p.dial()
	client.send(get)
	client.response("GET")
	servicetest.Eventually(t, "it is old", func() bool { return p.stat("http.test.downstream_cx_max_duration_reached") == 1 })
	client.send(get)
	response, _ := client.response("GET")
	require.True(t, response.Close)
	client.closed()
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_drain_close"))
}

func TestIdleConnectionIsClosed(t *testing.T) {
	p := start(t, cannedUpstream(t), config{fields: `"common_http_protocol_options": {"idle_timeout": "0.05s"},`})
	client := p.dial()
	client.closed()
	servicetest.Eventually(t, "it is counted", func() bool { return p.stat("http.test.downstream_cx_destroy_local") == 1 })
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_idle_timeout"))
}

func TestClientThatClosesIsCountedSo(t *testing.T) {
	p := start(t, cannedUpstream(t), config{})
	client := p.dial()
	client.send(get)
	client.response("GET")
	require.NoError(t, client.conn.Close())
	servicetest.Eventually(t, "it is counted", func() bool { return p.stat("http.test.downstream_cx_destroy_remote") == 1 })
	require.EqualValues(t, 0, p.stat("http.test.downstream_cx_destroy_active_rq"))
	require.EqualValues(t, len(get), p.stat("http.test.downstream_cx_rx_bytes_total"))
	require.Greater(t, p.stat("http.test.downstream_cx_tx_bytes_total"), int64(len(benchmarkResponse)))
}

func TestClientThatDoesNotCloseIsNotWaitedForLong(t *testing.T) {
	p := start(t, cannedUpstream(t), config{fields: `"delayed_close_timeout": "0.05s",`})
	client := p.dial()
	client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	client.response("GET")
	servicetest.Eventually(t, "it is closed", func() bool { return p.stat("http.test.downstream_cx_active") == 0 })
	require.EqualValues(t, 1, p.stat("http.test.downstream_cx_delayed_close_timeout"))
}

func TestHeadLimitsAreCounted(t *testing.T) {
	p := start(t, cannedUpstream(t), config{fields: `"max_request_headers_kb": 1, "common_http_protocol_options": {"max_headers_count": 3},`})
	for i, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1024) + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n",
	} {
		client := p.dial()
		client.send(request)
		response, _ := client.response("GET")
		require.Equal(t, 431, response.StatusCode)
		require.EqualValues(t, i+1, p.stat("http.test.downstream_rq_rx_reset"))
	}
}

// TestUploadThatBreaksTheProtocolIsTheClientsFault has what follows a first chunk, and
// what becomes of it before and within the response.
func TestUploadThatBreaksTheProtocolIsTheClientsFault(t *testing.T) {
	for _, c := range []struct {
		name, rest string
		status     int
		details    string
	}{
		{"no chunk", "x\r\n", 400, "http1.codec_error"},
		{"trailers of more bytes than a head", "0\r\nX: " + strings.Repeat("x", 70_000), 431, "http1.headers_too_large"},
		{"more trailers than fields of a head", "0\r\n" + strings.Repeat("X: 1\r\n", 101) + "\r\n", 431, "http1.too_many_headers"},
	} {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, ", within the response: ", begun), func(t *testing.T) {
				t.Parallel()
				l := newAccessLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")
				up := newUpstream(t)
				p := start(t, up.address(), config{fields: l.field + `"http_protocol_options": {"enable_trailers": true}, "delayed_close_timeout": "60s",`, logs: l.files})
				client := p.dial()
				client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
				server := up.accept()
				server.head()
				server.read("1\r\nx\r\n")
				if begun {
					server.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
					client.head()
					client.read("he")
				}
				client.send(c.rest)
				server.closed()
				status := 200
				if !begun {
					response, _ := client.response("POST")
					status = response.StatusCode
					require.Equal(t, c.status, status)
					require.True(t, response.Close)
				}
				client.closed()
				require.NoError(t, client.conn.Close())
				require.Equal(t, fmt.Sprintf("%d DPE %s", status, c.details), l.lines(1)[0])
				for name, want := range map[string]int64{
					"http.test.downstream_cx_protocol_error": 1, "http.test.downstream_rq_rx_reset": 1, "http.test.downstream_rq_tx_reset": 0,
					"http.test.downstream_rq_response_before_rq_complete": 1, fmt.Sprintf("http.test.downstream_rq_%dxx", status/100): 1,
					"cluster.up.upstream_rq_rx_reset": 0, "cluster.up.upstream_rq_completed": map[bool]int64{true: 1}[begun],
				} {
					require.Equal(t, want, p.stat(name), name)
				}
			})
		}
	}
}

// full is a filter that takes no body.
type full struct{ pass }

func (f full) Parse(proto.Message, strict.Path, *strict.Report) httpfilter.Config { return f }
func (f full) NewFilter() httpfilter.Filter                                       { return f }
func (full) RequestHead(s *stream.Stream) *httpfilter.Reply                       { return httpfilter.BodyTooLarge(s) }

func TestBodiesThatAreTooLargeAreCounted(t *testing.T) {
	l := newAccessLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")
	p := start(t, newUpstream(t).address(), config{fields: l.field, logs: l.files, filters: []httpfilter.Factory{full{}}})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
	response, body := client.response("POST")
	require.Equal(t, 413, response.StatusCode)
	require.Equal(t, "Payload Too Large", body)
	require.Contains(t, outcome(open(t, p.dialHTTP2(), "POST /", true)), "413")
	require.Equal(t, []string{"413 - request_payload_too_large", "413 - request_payload_too_large"}, l.lines(2))
	require.EqualValues(t, 2, p.stat("http.test.downstream_rq_too_large"))
}

func TestUpstreamThatDoesNotReadStopsTheClient(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	up.accept().head()
	piece := "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n"
	sent, most := 0, 64<<20
	for sent < most {
		require.NoError(t, client.conn.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		n, err := io.WriteString(client.conn, piece)
		sent += n
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	require.Less(t, sent, most)
}

func TestClientThatLeavesWhileItWaitsIsNoticed(t *testing.T) {
	for name, begun := range map[string]string{"before the response": "", "within the response": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{})
			client := p.dial()
			client.send(get)
			server := up.accept()
			server.head()
			if begun != "" {
				server.send(begun)
				client.head()
			}
			require.NoError(t, client.conn.Close())
			server.closed()
			servicetest.Eventually(t, "it is counted", func() bool { return p.stat("http.test.downstream_cx_destroy_remote_active_rq") == 1 })
			require.EqualValues(t, 1, p.stat("http.test.downstream_rq_rx_reset"))
		})
	}
}

func TestHeadThatStallsIsAnIdleStream(t *testing.T) {
	t.Parallel() // it waits
	for name, first := range map[string]string{"fresh": "G", "behind another request": get + "G"} {
		t.Run(name, func(t *testing.T) {
			p := start(t, cannedUpstream(t), config{fields: `"stream_idle_timeout": "1s",`})
			client := p.dial()
			client.send(first)
			if first != "G" {
				client.response("GET")
			}
			response, body := client.response("GET")
			require.Equal(t, 408, response.StatusCode)
			require.Equal(t, "stream timeout", body)
			require.True(t, response.Close)
			client.closed()
			require.EqualValues(t, 1, p.stat("http.test.downstream_rq_idle_timeout"))
		})
	}
}

// TestHeadThatStallsIsNoIdleConnection has another connection, which began later, tell
// when the first would have been idle for too long.
func TestHeadThatStallsIsNoIdleConnection(t *testing.T) {
	t.Parallel() // it waits
	p := start(t, cannedUpstream(t), config{fields: `"stream_idle_timeout": "0s", "common_http_protocol_options": {"idle_timeout": "1s"},`})
	client := p.dial()
	client.send(get[:1])
	p.dial().closed()
	client.send(get[1:])
	response, _ := client.response("GET")
	require.Equal(t, 200, response.StatusCode)
}

// TestBodiesAreKeptUpToTheBufferLimit has a server that always fails, so that a request
// is sent again for as long as its body is there.
func TestBodiesAreKeptUpToTheBufferLimit(t *testing.T) {
	const retries = `, "retry_policy": {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}`
	var tries atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(s.Close)
	for _, c := range []struct {
		name    string
		buffers uint32
		entry   string
		body    int
		tries   int64
	}{
		{"within it", 1024, "", 1024, 3},
		{"beyond it", 1024, "", 2000, 1},
		{"beyond the default", 1 << 20, "", 1<<20 + 1, 1},
		{"within that of the route", 1024, `"request_body_buffer_limit": 2000,`, 2000, 3},
		{"beyond that of the route", 4096, `"request_body_buffer_limit": 0,`, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tries.Store(0)
			p := start(t, s.Listener.Addr().String(), config{buffers: c.buffers, entry: c.entry, route: retries})
			client := p.dial()
			client.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", c.body, strings.Repeat("x", c.body)))
			response, _ := client.response("POST")
			require.Equal(t, 503, response.StatusCode)
			require.Equal(t, c.tries, tries.Load())
			require.Equal(t, c.tries == 1, p.stat("cluster.up.retry_or_shadow_abandoned") == 1)
		})
	}
	p := start(t, s.Listener.Addr().String(), config{route: retries})
	p.filter.(networkfilter.Placed).Place(networkfilter.Place{StatPrefix: "in"}) // without a limit
	tries.Store(0)
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" + strings.Repeat("x", 2_000_000))
	response, _ := client.response("POST")
	require.Equal(t, 503, response.StatusCode)
	require.EqualValues(t, 3, tries.Load())
}

func TestStreamWindowIsWithinTheBufferLimit(t *testing.T) {
	const configured = `"http2_protocol_options": {"initial_stream_window_size": 70000},`
	window := func(p *proxy) uint32 {
		client := p.dial()
		client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		head := make([]byte, 9)
		_, err := io.ReadFull(client.r, head)
		require.NoError(t, err)
		settings := make([]byte, int(head[1])<<8|int(head[2]))
		_, err = io.ReadFull(client.r, settings)
		require.NoError(t, err)
		for pair := range slices.Chunk(settings, 6) {
			if binary.BigEndian.Uint16(pair) == 4 { // SETTINGS_INITIAL_WINDOW_SIZE
				return binary.BigEndian.Uint32(pair[2:])
			}
		}
		return 65535 // the protocol's
	}
	for _, c := range []struct {
		buffers uint32
		fields  string
		want    uint32
	}{
		{1 << 20, "", 1 << 20},
		{100_000, "", 100_000},
		{1024, "", 65535}, // the least that Envoy lets be configured
		{64 << 20, "", 16 << 20},
		{1024, configured, 70000},
		{1 << 20, configured, 70000},
	} {
		require.Equal(t, c.want, window(start(t, "127.0.0.1:1", config{buffers: c.buffers, fields: c.fields})), "%+v", c)
	}
	p := start(t, "127.0.0.1:1", config{})
	require.EqualValues(t, 1<<20, window(p))
	p.filter.(networkfilter.Placed).Place(networkfilter.Place{StatPrefix: "in", BufferLimit: 80_000})
	require.EqualValues(t, 80_000, window(p), "a change holds for the next connection")
}
