package healthcheck

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// hostMetadata has "blue" as the color of a host, in the namespace "ns".
var hostMetadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
	"ns": {Fields: map[string]*structpb.Value{"color": structpb.NewStringValue("blue")}},
}}

// prepare makes the prober of a check for a server at address.
func prepare(t testing.TB, check, address string) prober {
	t.Helper()
	config := mustParse(t, "{"+common+check+"}")
	p := config.check.newProber(hostConfig{
		address: address, reuse: config.ReuseConnection, stats: newStats(stats.NewRegistry().Scope("health_check")),
		host: netip.MustParseAddrPort("192.0.2.7:80"), metadata: func() *corev3.Metadata { return hostMetadata },
		dial: func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		name: func(configured string) string {
			if configured == "" {
				return "cluster"
			}
			return configured
		},
	})
	t.Cleanup(p.close)
	return p
}

// probe checks once, within a time that no good check needs.
func probe(t testing.TB, p prober) result {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return p.probe(ctx)
}

// served is a server that counts its connections and keeps its requests.
type served struct {
	address     string
	mu          sync.Mutex
	connections int
	requests    []string
}

// serve answers with a handler until the test ends.
func serve(t testing.TB, handle http.HandlerFunc) *served {
	t.Helper()
	s := &served{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		names := []string{"User-Agent", "X-A", "Content-Length"}
		text := r.Method + " " + r.URL.RequestURI() + " host=" + r.Host
		for _, name := range names {
			if v := r.Header.Values(name); len(v) > 0 {
				text += fmt.Sprintf(" %s=%s", strings.ToLower(name), strings.Join(v, ","))
			}
		}
		if len(body) > 0 {
			text += " body=" + string(body)
		}
		s.mu.Lock()
		s.requests = append(s.requests, text)
		s.mu.Unlock()
		handle(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.connections++
			s.mu.Unlock()
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

func TestHTTPVerdict(t *testing.T) {
	answer := func(status int, body string, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const service = "path: /, service_name_matcher: {prefix: users}"
	for _, c := range []struct {
		name   string
		check  string
		answer http.HandlerFunc
		want   result
	}{
		{"200 passes", "path: /", answer(200, ""), result{}},
		{"another status fails at once", "path: /", answer(204, ""), result{verdict: failed, why: "status 204"}},
		{"expected statuses are half open", "path: /, expected_statuses: [{start: 200, end: 204}, {start: 300, end: 400}]", answer(203, ""), result{}},
		{"and replace 200", "path: /, expected_statuses: [{start: 201, end: 204}]", answer(200, ""), result{verdict: failed, why: "status 200"}},
		{"the end is not in the range", "path: /, expected_statuses: [{start: 200, end: 203}]", answer(203, ""), result{verdict: failed, why: "status 203"}},
		{"a retriable status counts by the threshold", "path: /, retriable_statuses: [{start: 500, end: 504}]", answer(503, ""), result{verdict: retriable, why: "status 503"}},
		{"expected goes before retriable", "path: /, retriable_statuses: [{start: 200, end: 504}]", answer(200, ""), result{}},
		{"a host can exclude itself", "path: /", answer(503, "", immediateFail, "true"), result{verdict: failed, why: "status 503", excluded: true}},
		{"but not with a good status", "path: /", answer(200, "", immediateFail, "true"), result{}},
		{"the body has what is to be received", "path: /, receive: [{text: '6162'}, {binary: eg==}]", answer(200, "xabyz"), result{}},
		{"or not", "path: /, receive: [{text: '6162'}, {text: '78'}]", answer(200, "xabyz"), result{verdict: failed, why: "the body has not what is to be received"}},
		{"within its first 1024 bytes", "path: /, receive: [{text: '61'}]", answer(200, strings.Repeat("x", 1024)+"a"), result{verdict: failed, why: "the body has not what is to be received"}},
		{"or within more of them", "path: /, response_buffer_size: 1025, receive: [{text: '61'}]", answer(200, strings.Repeat("x", 1024)+"a"), result{}},
		{"or in all of it", "path: /, response_buffer_size: 0, receive: [{text: '61'}]", answer(200, strings.Repeat("x", 100_000)+"a"), result{}},
		{"a HEAD", "path: /, method: HEAD", answer(200, "body"), result{}},
		{"the service is that", service, answer(200, "", serviceHeader, "users-a"), result{}},
		{"it is another", service, answer(200, "", serviceHeader, "orders"), result{verdict: failed, why: serviceHeader + ` "orders" is another service`}},
		{"it does not say", service, answer(200, ""), result{verdict: failed, why: serviceHeader + ` "" is another service`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := prepare(t, "http_health_check: {"+c.check+"}", serve(t, c.answer).address)
			require.Equal(t, c.want, probe(t, p))
		})
	}
}

func TestVerificationsAreCounted(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(serviceHeader, "users") })
	p := prepare(t, "http_health_check: {path: /, service_name_matcher: {exact: users}}", s.address).(*httpProber)
	require.Equal(t, result{}, probe(t, p))
	require.EqualValues(t, 1, p.stats.verifications.Value())
}

func TestHTTPRequest(t *testing.T) {
	for _, c := range []struct{ check, want string }{
		{"path: '/healthy?a=b'", "GET /healthy?a=b host=cluster user-agent=Envoy/HC"},
		{"path: /, host: b.example", "GET / host=b.example user-agent=Envoy/HC"},
		{"path: /, method: POST, send: {text: '6869'}", "POST / host=cluster user-agent=Envoy/HC content-length=2 body=hi"},
		{"path: /, method: PUT, send: {binary: aGk=}", "PUT / host=cluster user-agent=Envoy/HC content-length=2 body=hi"},
		{"path: /, method: DELETE", "DELETE / host=cluster user-agent=Envoy/HC"},
		{"path: /, request_headers_to_remove: [User-Agent], request_headers_to_add: [{header: {key: X-A, value: b}}, {header: {key: x-a, value: c}}]",
			"GET / host=cluster x-a=b,c"},
		{"path: /, request_headers_to_add: [{header: {key: user-agent, value: me}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]", "GET / host=cluster user-agent=me"},
		{"path: /, request_headers_to_add: [{header: {key: x-a, value: '%PROTOCOL% of %UPSTREAM_HOST%, %UPSTREAM_METADATA(ns:color)%, 100%%'}}, {header: {key: x-b, value: '%REQ(:PATH)%'}}]",
			"GET / host=cluster user-agent=Envoy/HC x-a=HTTP/1.1 of 192.0.2.7:80, blue, 100%"},
	} {
		s := serve(t, func(http.ResponseWriter, *http.Request) {})
		p := prepare(t, "http_health_check: {"+c.check+"}", s.address)
		require.Equal(t, result{}, probe(t, p))
		require.Equal(t, []string{c.want}, s.requests)
	}
}

func TestHTTPConnections(t *testing.T) {
	const path = "http_health_check: {path: /}"
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "well") }
	closes := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("connection", "close") }
	for _, c := range []struct {
		name   string
		check  string
		answer http.HandlerFunc
		want   int
	}{
		{"one is kept", path, ok, 1},
		{"none is kept if so configured", "reuse_connection: false, " + path, ok, 3},
		{"none is kept that the server closes", path, closes, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.answer)
			p := prepare(t, c.check, s.address)
			for range 3 {
				require.Equal(t, result{}, probe(t, p))
			}
			require.Equal(t, c.want, s.connections)
		})
	}
}

// talk accepts connections and runs a script on each until the test ends.
func talk(t testing.TB, script func(n int, conn net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				script(n, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// readHead reads the head of a request.
func readHead(conn net.Conn) {
	head := make([]byte, 0, 1024)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		n, err := conn.Read(head[len(head) : len(head)+1])
		if err != nil {
			return
		}
		head = head[:len(head)+n]
	}
}

func TestAConnectionThatTheServerClosedMeanwhileIsMadeAnew(t *testing.T) {
	closed := make(chan struct{})
	address := talk(t, func(n int, conn net.Conn) {
		readHead(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
		if n == 0 {
			_ = conn.Close()
			close(closed)
		}
	})
	p := prepare(t, "http_health_check: {path: /}", address)
	require.Equal(t, result{}, probe(t, p))
	<-closed
	require.Equal(t, result{}, probe(t, p))
}

func TestHTTPNetworkFailures(t *testing.T) {
	nobody := servicetest.FreeAddress(t)
	for _, c := range []struct{ name, answer, why string }{
		{"the server closes", "", "the connection was closed before the answer"},
		{"within the head", "HTTP/1.1 200", "the connection ended within the head"},
		{"within the body", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "unexpected EOF"},
		{"the server speaks another protocol", "\x00\x00", "character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := talk(t, func(_ int, conn net.Conn) {
				readHead(conn)
				_, _ = io.WriteString(conn, c.answer)
			})
			r := probe(t, prepare(t, "http_health_check: {path: /}", address))
			require.Equal(t, network, r.verdict)
			require.Contains(t, r.why, c.why)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		r := probe(t, prepare(t, "http_health_check: {path: /}", nobody))
		require.Equal(t, network, r.verdict)
		require.Contains(t, r.why, "connect: ")
	})
	t.Run("no answer until the check's time is over", func(t *testing.T) {
		address := talk(t, func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		p := prepare(t, "http_health_check: {path: /}", address)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.Equal(t, network, p.probe(ctx).verdict)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
}

// TestACheckOverSockets is all of it at work: config, checker and server.
func TestACheckOverSockets(t *testing.T) {
	var mu sync.Mutex
	status := 200
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(status)
	})
	config := mustParse(t, "{timeout: 60s, interval: 0.005s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: {path: /}}")
	told := make(chan Health, 16)
	c := New(config, Options[string]{
		Cluster: "a", Changed: func(_ string, h Health) { told <- h }, Used: func() bool { return true },
		Scope: stats.NewRegistry().Scope("cluster.a"), Log: discard,
	})
	defer c.Close()
	c.SetHosts(map[string]Target{"x": {Address: addrPort(s.address)}})
	require.Equal(t, Health{}, <-told)
	mu.Lock()
	status = 503
	mu.Unlock()
	require.Equal(t, Health{Failed: true}, <-told)
	mu.Lock()
	status = 200
	mu.Unlock()
	require.Equal(t, Health{}, <-told)
}
