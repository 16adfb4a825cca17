package hcm_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// switcher is a server of HTTP/2 that takes requests for upgrades: it says early,
// then what comes, and bye at its end.
type switcher struct {
	requests chan string // method, protocol, authority and path
	ended    chan error  // how each stream ended: nil with both directions' ends
}

// ServeStream implements http2.Handler.
func (u *switcher) ServeStream(s *http2.Stream) {
	var head http2.Head
	if s.ReadHead(&head) != nil {
		return
	}
	u.requests <- fmt.Sprintf("%s %s %s %s", head.Method, head.Protocol, head.Authority, head.Path)
	for _, name := range []string{"upgrade", "connection", "sec-websocket-key", "content-length", "transfer-encoding"} {
		if value, ok := head.Fields.Get(name); ok {
			u.requests <- fmt.Sprintf("unwanted %s: %s", name, value)
		}
	}
	if string(head.Path) == "/not" {
		if s.WriteHead(403, fieldList("x-why: not"), false) == nil {
			_ = s.WriteData([]byte("no"), true)
		}
		return
	}
	err := s.WriteHead(200, fieldList("sec-websocket-protocol: chat"), false)
	for chunk := []byte("early"); err == nil; chunk, err = s.Next() {
		if err = s.WriteData(chunk, false); err == nil {
			err = s.Flush()
		}
		if err == nil && string(chunk) == "break" {
			s.Reset(http2.InternalError)
		}
	}
	if errors.Is(err, io.EOF) {
		err = s.WriteData([]byte("bye"), true)
	}
	u.ended <- err
}

// newSwitcher serves until its clients are gone. takes says whether it tells them
// that it takes extended CONNECT.
func newSwitcher(t *testing.T, takes bool) (u *switcher, address string) {
	t.Helper()
	u = &switcher{make(chan string, 10), make(chan error, 10)}
	l := listen(t)
	server := http2.NewServer(http2.Options{ConnectProtocol: takes})
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener; the clean-up waits for it
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = server.Conn(conn, u).Serve(nil) }) // ends with the pool
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
		server.Close()
	})
	return u, l.Addr().String()
}

// next is what a switcher tells next.
func next[T any](t *testing.T, told <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-told:
	case <-time.After(2 * patience):
		require.Fail(t, "the upstream tells nothing")
	}
	return v
}

const (
	tunnels = withWebsockets + `"http2_protocol_options": {"allow_connect": true},`
	// accepted is sec-websocket-accept of the key k (RFC 6455 §4.2.2).
	accepted = "sec-websocket-accept: cai0HFWL7DEHZkyHxdyv1Pn3R6M=\r\n"
)

// openTunnel asks for WebSocket by extended CONNECT, once the proxy has said that
// it takes it.
func openTunnel(t *testing.T, c *http2.Client, path string) *http2.Stream {
	t.Helper()
	require.NoError(t, c.AwaitSettings(t.Context()))
	s, err := c.Open(&http2.Request{Method: []byte("CONNECT"), Protocol: []byte("websocket"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte(path)},
		fieldList("sec-websocket-protocol: chat"), false)
	require.NoError(t, err)
	s.SetDeadline(time.Now().Add(2 * patience))
	require.NoError(t, s.Flush())
	return s
}

// The first request of a connection is there before the server has said that it
// takes extended CONNECT; it must wait for that.
func TestUpgradeGoesToAnUpstreamOfHTTP2(t *testing.T) {
	u, address := newSwitcher(t, true)
	p := start(t, address, config{fields: tunnels, version: `"explicit_http_config": {"http2_protocol_options": {"allow_connect": true}}`})
	for range 2 { // on a new connection, and on that
		client := p.dial()
		client.send(websocket)
		head := client.head()
		require.Contains(t, head, "HTTP/1.1 101 Switching Protocols\r\n")
		require.Contains(t, head, "upgrade: websocket\r\n")
		require.Contains(t, head, "connection: Upgrade\r\n")
		require.Contains(t, head, "sec-websocket-protocol: chat\r\n")
		require.Contains(t, head, accepted)
		require.NotContains(t, head, "content-length")
		require.NotContains(t, head, "transfer-encoding")
		require.Equal(t, "CONNECT websocket a /chat", next(t, u.requests))
		client.read("early")
		client.send("up")
		client.read("up")
		require.NoError(t, client.conn.(*net.TCPConn).CloseWrite())
		client.read("bye")
		client.closed()
		require.NoError(t, next(t, u.ended))
	}
	servicetest.Eventually(t, "nothing is in flight", func() bool {
		return p.stat("cluster.up.upstream_rq_active") == 0 && p.stat("http.test.downstream_cx_upgrades_active") == 0
	})
	require.EqualValues(t, 2, p.stat("http.test.downstream_cx_upgrades_total"))
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_total"))
	require.Empty(t, u.requests)
}

func TestExtendedConnectGoesToAnUpstreamOfHTTP2(t *testing.T) {
	u, address := newSwitcher(t, true)
	p := start(t, address, config{fields: tunnels, version: speaksHTTP2})
	c := p.dialHTTP2()
	for range 2 {
		s := openTunnel(t, c, "/chat")
		var head http2.Head
		require.NoError(t, s.ReadHead(&head))
		require.Equal(t, 200, head.Status)
		for _, name := range []string{"upgrade", "connection", "sec-websocket-accept", "content-length"} {
			_, there := head.Fields.Get(name)
			require.False(t, there, name)
		}
		protocol, _ := head.Fields.Get("sec-websocket-protocol")
		require.Equal(t, "chat", string(protocol))
		require.Equal(t, "CONNECT websocket a /chat", next(t, u.requests))
		readChunks(t, s, "early")
		require.NoError(t, s.WriteData([]byte("up"), false))
		require.NoError(t, s.Flush())
		readChunks(t, s, "up")
		require.NoError(t, s.WriteData(nil, true))
		require.Equal(t, []string{"bye"}, rest(s))
		require.NoError(t, next(t, u.ended))
		s.Close()
	}
	servicetest.Eventually(t, "nothing is in flight", func() bool {
		return p.stat("cluster.up.upstream_rq_active") == 0 && p.stat("http.test.downstream_cx_upgrades_active") == 0
	})
	require.EqualValues(t, 2, p.stat("http.test.downstream_cx_upgrades_total"))
	require.Empty(t, u.requests)
}

// readChunks reads a text, however it was cut.
func readChunks(t *testing.T, s *http2.Stream, want string) {
	t.Helper()
	var got strings.Builder
	for got.Len() < len(want) {
		chunk, err := s.Next()
		require.NoError(t, err)
		got.Write(chunk)
	}
	require.Equal(t, want, got.String())
}

func TestUpgradesThatAnUpstreamOfHTTP2DoesNotTake(t *testing.T) {
	for _, c := range []struct {
		name, path string
		takes      bool
		status     int
		body       string
	}{
		{"its answer is passed on", "/not", true, 403, "no"},
		{"it takes no extended CONNECT", "/chat", false, 503, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, address := newSwitcher(t, c.takes)
			p := start(t, address, config{fields: tunnels, version: speaksHTTP2})
			client := p.dial()
			client.send(strings.Replace(websocket, "/chat", c.path, 1))
			response, body := client.response("GET")
			require.Equal(t, c.status, response.StatusCode)
			require.False(t, response.Close)
			s := openTunnel(t, p.dialHTTP2(), c.path)
			told := outcome(s)
			require.True(t, strings.HasPrefix(told, fmt.Sprintf("%d %s", c.status, c.body)), told)
			if c.body != "" {
				require.Equal(t, c.body, body)
			}
			require.EqualValues(t, 0, p.stat("http.test.downstream_cx_upgrades_total"))
		})
	}
}

func TestTunnelToAnUpstreamOfHTTP2BreaksOnBothSides(t *testing.T) {
	u, address := newSwitcher(t, true)
	p := start(t, address, config{fields: tunnels, version: speaksHTTP2})
	connect := func() *peer {
		client := p.dial()
		client.send(websocket)
		client.head()
		client.read("early")
		return client
	}
	stream := func() *http2.Stream {
		s := openTunnel(t, p.dialHTTP2(), "/chat")
		var head http2.Head
		require.NoError(t, s.ReadHead(&head))
		readChunks(t, s, "early")
		return s
	}

	// The client leaves.
	client := connect()
	require.NoError(t, client.conn.(*net.TCPConn).SetLinger(0))
	require.NoError(t, client.conn.Close())
	require.Error(t, next(t, u.ended))
	s := stream()
	s.Reset(http2.Cancel)
	require.Error(t, next(t, u.ended))
	s.Close()

	// The server breaks off.
	client = connect()
	client.send("break")
	client.ended()
	require.Error(t, next(t, u.ended))
	s = stream()
	require.NoError(t, s.WriteData([]byte("break"), false))
	require.NoError(t, s.Flush())
	for err := error(nil); err == nil; {
		_, err = s.Next()
		require.NotErrorIs(t, err, io.EOF)
	}
	require.Error(t, next(t, u.ended))
	s.Close()
	servicetest.Eventually(t, "nothing is in flight", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
}
