package hcm_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter/hcm"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// patience bounds each read and write of a test's sockets.
const patience = servicetest.Patience

// proxy is an http_connection_manager on a socket, whose one cluster "up" has
// the test's upstream as its host.
type proxy struct {
	t        testing.TB
	address  string
	registry *stats.Registry
	filter   networkfilter.Filter
	current  chan networkfilter.Connection
	// cancel ends the context of all connections.
	cancel context.CancelFunc
}

// config is what the tests add to the manager's configuration.
type config struct {
	fields  string // of http_connection_manager, JSON, each followed by a comma
	route   string // fields of the route action, each after a comma
	routes  string // in place of the one to "up", JSON
	http1   string // fields of the cluster's http_protocol_options
	version string // in place of explicit_http_config of HTTP/1, JSON
	entry   string // fields of the route, each followed by a comma
	logs    *accesslog.Files
	router  string // fields of the router, JSON, each after a comma
	filters []httpfilter.Factory
	buffers uint32 // per_connection_buffer_limit_bytes, 1 MiB if 0
}

// start serves a proxy in front of the upstream at an address.
func start(t testing.TB, upstream string, c config) *proxy {
	t.Helper()
	registry := stats.NewRegistry()
	host := netip.MustParseAddrPort(upstream)
	policies := []cluster.Policy{lb.RoundRobin()}
	report := &strict.Report{}
	if c.version == "" {
		c.version = `"explicit_http_config": {"http_protocol_options": {` + c.http1 + `}}`
	}
	message := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal(fmt.Appendf(nil, `{"name": "up", "type": "STATIC", "load_assignment": {"cluster_name": "up",
		"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %d}}}}]}]},
		"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", %s}}}`,
		host.Addr(), host.Port(), c.version), message))
	up := cluster.Parse(message, "", policies, report)
	require.NoError(t, report.Err())
	clusters := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Stats: registry, Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	clusters.AddStatic([]*cluster.Config{up})

	filters := append([]httpfilter.Factory{}, c.filters...)
	factory := &hcm.Factory{Filters: append(filters, router.Factory{AccessLogs: c.logs}), Clusters: clusters, StaticCluster: func(string) *cluster.Config { return up }, AccessLogs: c.logs, Stats: registry}
	var chain strings.Builder
	for _, f := range factory.Filters {
		value := ""
		switch f.ConfigType() {
		case "google.protobuf.Duration": // which JSON has as a text
			value = `, "value": "1s"`
		case router.Factory{}.ConfigType():
			value = c.router
		}
		fmt.Fprintf(&chain, `{"name": %[1]q, "typed_config": {"@type": "type.googleapis.com/%[1]s"%[2]s}},`, f.ConfigType(), value)
	}
	if c.routes == "" {
		c.routes = `{` + c.entry + `"match": {"prefix": "/"}, "route": {"cluster": "up" ` + c.route + `}}`
	}
	manager := &hcmv3.HttpConnectionManager{}
	require.NoError(t, protojson.Unmarshal(fmt.Appendf(nil, `{"stat_prefix": "test", %s "route_config": {"internal_only_headers": ["x-secret"],
		"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [%s]}]}, "http_filters": [%s]}`,
		c.fields, c.routes, strings.TrimSuffix(chain.String(), ",")), manager))
	filter := factory.Parse(manager, "", report)
	require.NoError(t, report.Err())

	filter.(networkfilter.Placed).Place(networkfilter.Place{Chain: &listenerv3.FilterChain{Name: "chain"}, StatPrefix: "in", BufferLimit: cmp.Or(c.buffers, 1<<20)})
	p := &proxy{t: t, registry: registry, filter: filter, current: make(chan networkfilter.Connection, 100)}
	l := listen(t)
	p.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	done := make(chan struct{})
	go func() { // ends with the listener; the cleanup waits for it
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := filter.NewConnection(conn)
			p.current <- c
			go func() { // ends with ctx at the latest
				defer context.AfterFunc(ctx, c.Cut)()
				c.Serve(ctx)
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, l.Close())
		<-done
		for _, c := range clusters.All() {
			for _, m := range c.Hosts().Members {
				m.Host.CloseConnections()
			}
		}
	})
	return p
}

// stat is the value of the metric of that name, which must be there.
func (p *proxy) stat(name string) (value int64) {
	p.t.Helper()
	known := false
	p.registry.Each(func(m stats.Metric) {
		if m.Name == name {
			value, known = m.Value, true
		}
	})
	assert.True(p.t, known, "there is no metric %s", name)
	return value
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// upstream is a server whose connections the test handles itself.
type upstream struct {
	t        testing.TB
	listener net.Listener
}

func newUpstream(t testing.TB) *upstream {
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	return &upstream{t, l}
}

func (u *upstream) address() string { return u.listener.Addr().String() }

// accept returns the next connection of the proxy.
func (u *upstream) accept() *peer {
	u.t.Helper()
	require.NoError(u.t, u.listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	conn, err := u.listener.Accept()
	require.NoError(u.t, err)
	return newPeer(u.t, conn)
}

// dial connects a client to the proxy.
func (p *proxy) dial() *peer {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.address)
	require.NoError(p.t, err)
	return newPeer(p.t, conn)
}

// peer is the test's end of a connection.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{t, conn, bufio.NewReader(conn)}
}

func (p *peer) send(text string) {
	p.t.Helper()
	_, err := io.WriteString(p.conn, text)
	require.NoError(p.t, err)
}

// head reads up to and with an empty line.
func (p *peer) head() string {
	p.t.Helper()
	var head strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		require.NoError(p.t, err, "after %q", head.String())
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// read reads exactly the text.
func (p *peer) read(want string) {
	p.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(p.r, got)
	require.NoError(p.t, err, "got %q", got[:n])
	require.Equal(p.t, want, string(got))
}

// response reads a whole response to a request of that method.
func (p *peer) response(method string) (*http.Response, string) {
	p.t.Helper()
	response, err := http.ReadResponse(p.r, &http.Request{Method: method})
	require.NoError(p.t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(p.t, err)
	return response, string(body)
}

// closed waits for the other side's close.
func (p *peer) closed() {
	p.t.Helper()
	rest, err := io.ReadAll(p.r)
	if err != nil {
		require.ErrorContains(p.t, err, "reset")
	}
	require.Empty(p.t, string(rest))
}

// ended is closed, whatever comes before.
func (p *peer) ended() {
	p.t.Helper()
	if _, err := io.Copy(io.Discard, p.r); err != nil {
		require.ErrorContains(p.t, err, "reset")
	}
}

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

func TestRequestReachesTheUpstreamWithItsHeadersMended(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"generate_request_id": false,`})
	client := p.dial()
	client.send("GET /x?y=1 HTTP/1.1\r\nHost: Example.com:80\r\nConnection: keep-alive\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n" +
		"X-Other: 2\r\nX-Envoy-Max-Retries: 9\r\nTE: gzip\r\nX-Twice: a\r\nX-Twice: b\r\n\r\n")
	server := up.accept()
	require.Equal(t, "GET /x?y=1 HTTP/1.1\r\nhost: Example.com:80\r\nx-other: 2\r\nx-twice: a\r\nx-twice: b\r\n"+
		"x-forwarded-proto: http\r\nx-envoy-expected-rq-timeout-ms: 15000\r\n\r\n", server.head())
	server.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: keep-alive\r\nServer: mine\r\nX-Answer: 1\r\n\r\nok")
	response, body := client.response("GET")
	require.Equal(t, "ok", body)
	require.Equal(t, "200 OK", response.Status)
	require.Equal(t, "weir", response.Header.Get("Server"))
	require.Equal(t, "1", response.Header.Get("X-Answer"))
	require.NotEmpty(t, response.Header.Get("X-Envoy-Upstream-Service-Time"))
	require.False(t, response.Close)

	// The same connections carry the next request, pipelined ones too.
	client.send(get + get)
	for range 2 {
		server.head()
		server.send("HTTP/1.1 204 No Content\r\n\r\n")
		response, _ = client.response("GET")
		require.Equal(t, 204, response.StatusCode)
	}
	servicetest.Eventually(t, "all three are counted", func() bool { return p.stat("http.test.downstream_rq_2xx") == 3 })
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_total"))
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_rq_200"))
	require.EqualValues(t, 0, p.stat("cluster.up.upstream_rq_active"))
}

func TestRemoteAddressIsAppendedAndTrusted(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"use_remote_address": true,`})
	client := p.dial()
	client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Request-Id: theirs\r\n\r\n")
	head := up.accept().head()
	require.Contains(t, head, "x-forwarded-for: 1.2.3.4,127.0.0.1\r\n")
	require.Contains(t, head, "x-envoy-external-address: 127.0.0.1\r\n")
	require.Contains(t, head, "x-forwarded-proto: http\r\n")
	require.NotContains(t, head, "theirs")
	require.Regexp(t, `x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r\n`, head)
}

func TestBodiesAreFramedAnew(t *testing.T) {
	cases := []struct{ name, request, wantUpstream, response, wantBody, method string }{
		{"length both ways", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "content-length: 5\r\n|hello",
			"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye", "bye", "POST"},
		{"chunked both ways", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\n",
			"transfer-encoding: chunked\r\n|3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n", "bye", "POST"},
		{"response ended by close", get, "|", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", "GET"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "|", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "", "HEAD"},
		{"304", get, "|", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", "", "GET"},
		{"interim responses", get, "|", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!", "!", "GET"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			client := start(t, up.address(), config{}).dial()
			client.send(c.request)
			server := up.accept()
			head := server.head()
			wantHead, wantBody, _ := strings.Cut(c.wantUpstream, "|")
			require.Contains(t, head, wantHead)
			require.NotContains(t, head, "expect:")
			server.read(wantBody)
			server.send(c.response)
			require.NoError(t, server.conn.(*net.TCPConn).CloseWrite())
			response, body := client.response(c.method)
			require.Equal(t, c.wantBody, body)
			if c.method == "HEAD" {
				require.Equal(t, "10", response.Header.Get("Content-Length"))
			}
		})
	}
}

func TestDateIsAddedWhereTheUpstreamSentNone(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send(get + get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	response, _ := client.response("GET")
	_, err := http.ParseTime(response.Header.Get("Date"))
	require.NoError(t, err)
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: theirs\r\n\r\n")
	response, _ = client.response("GET")
	require.Equal(t, []string{"theirs"}, response.Header.Values("Date"))
}

func TestMalformedRequestsAreRefusedAndTheConnectionClosed(t *testing.T) {
	cases := []struct {
		name, request string
		status        int
		text          string
	}{
		{"no request line", "hello\r\n\r\n", 400, "a request line that is not method, target and version"},
		{"a TLS handshake", "\x16\x03\x01\x02\x00\x01", 400, "character 0x16 at the start of a message"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", 426, "version HTTP/1.0"},
		{"bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400, "a line that ends in LF without CR"},
		{"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, `space between the field name "host" and its colon`},
		{"length and chunked", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "both content-length and transfer-encoding"},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "a transfer-encoding other than one chunked"},
		{"head too long", "GET /" + strings.Repeat("x", 70_000), 431, "the head is longer than the limit"},
		{"connection names host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400, "connection names host"},
	}
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			client := p.dial()
			client.send(c.request)
			response, body := client.response("GET")
			require.Equal(t, c.status, response.StatusCode)
			require.Equal(t, c.text+"\n", body)
			require.True(t, response.Close)
			client.closed()
			require.EqualValues(t, i+1, p.stat("http.test.downstream_cx_protocol_error"))
			require.EqualValues(t, i+1, p.stat("http.test.downstream_rq_completed"))
			require.EqualValues(t, i+1, p.stat("http.test.downstream_rq_total"))
		})
	}
}

func TestRefusedConnectEndsTheConnection(t *testing.T) {
	client := start(t, cannedUpstream(t), config{}).dial()
	client.send("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + get)
	response, _ := client.response("GET")
	require.Equal(t, http.StatusNotFound, response.StatusCode)
	require.True(t, response.Close)
	client.closed()
}

func TestFieldsThatAResponsesConnectionNamesStayBehind(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close, X-Hop, Content-Length\r\nX-Hop: 1\r\nX-End: 2\r\n" +
		"Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\n\r\n")
	response, _ := client.response("GET")
	require.Empty(t, response.Header.Get("Keep-Alive"))
	require.Empty(t, response.Header.Get("Proxy-Connection"))
	require.Equal(t, "Basic", response.Header.Get("Proxy-Authenticate"), "it concerns the client")
	require.Empty(t, response.Header.Get("X-Hop"))
	require.Equal(t, "2", response.Header.Get("X-End"))
	require.Zero(t, response.ContentLength)
}

func TestUpgradeToH2CIsIgnored(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n")
	head := up.accept().head()
	require.NotContains(t, head, "upgrade")
	require.NotContains(t, head, "http2-settings")
}

func TestMalformedChunkIsRefusedWith400AndTheUpstreamCutOff(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	server := up.accept()
	server.head()
	client.send("1\r\nx\r\nzz\r\n")
	response, body := client.response("POST")
	require.Equal(t, 400, response.StatusCode)
	require.Equal(t, `chunk size "zz"`, body)
	client.closed()
	rest, _ := io.ReadAll(server.r)
	require.NotContains(t, string(rest), "0\r\n\r\n", "the upstream must not get an end of the body")
}

func TestClientThatLeavesWithinItsBodyLeavesNoWholeRequestBehind(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
	server := up.accept()
	server.head()
	server.read("12345")
	require.NoError(t, client.conn.Close())
	server.closed()
	servicetest.Eventually(t, "nothing is in flight", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
}

func TestContinueIsSentWhenTheBodyIsWanted(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	client.read("HTTP/1.1 100 Continue\r\n\r\n")
	client.send("body")
	server := up.accept()
	require.NotContains(t, server.head(), "expect:")
	server.read("body")
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	response, _ := client.response("POST")
	require.Equal(t, 200, response.StatusCode)
	require.False(t, response.Close)
}

func TestResponseMayBeginBeforeTheRequestEnded(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
	server := up.accept()
	server.head()
	server.read("1\r\na\r\n")
	server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
	require.Contains(t, client.head(), "connection: close\r\n")
	client.read("1\r\nA\r\n")
	// Both go on beside one another, each piece as it comes.
	client.send("1\r\nb\r\n")
	server.read("1\r\nb\r\n")
	server.send("1\r\nB\r\n")
	client.read("1\r\nB\r\n")
	client.send("0\r\n\r\n")
	server.read("0\r\n\r\n")
	server.send("0\r\n\r\n")
	client.read("0\r\n\r\n")
	client.closed() // as was announced, since the request had not ended
}

func TestAnswerBeforeTheWholeRequestEndsTheConnection(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin")
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
	response, body := client.response("POST")
	require.Equal(t, 413, response.StatusCode)
	require.Equal(t, "no", body)
	require.True(t, response.Close)
	client.closed()
	servicetest.Eventually(t, "the upstream connection is closed", func() bool { return p.stat("cluster.up.upstream_cx_active") == 0 })
}

func TestUpstreamFaultsBecomeTheStatusesOfEnvoy(t *testing.T) {
	cases := []struct {
		name   string
		answer string // then the upstream closes
		status int
		text   string
		stat   string
	}{
		{"closes without an answer", "", 503, "connection termination", "upstream_cx_destroy_remote_with_active_rq"},
		{"closes within the head", "HTTP/1.1 200 OK\r\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"sends an empty line", "\r\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"has no head", "hello", 502, "protocol error", "upstream_cx_protocol_error"},
		{"has no head, but a line", "<p>hello</p>\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"speaks HTTP/0.9", "HTTP/0.9 200 OK\r\n\r\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"malformed", "HTTP/1.1 2x0 OK\r\n\r\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"switches protocols unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, "protocol error", "upstream_cx_protocol_error"},
		{"endless interim responses", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10), 502, "protocol error", "upstream_cx_protocol_error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{})
			client := p.dial()
			client.send(get)
			server := up.accept()
			server.head()
			server.send(c.answer)
			require.NoError(t, server.conn.Close())
			response, body := client.response("GET")
			require.Equal(t, c.status, response.StatusCode)
			require.Contains(t, body, c.text)
			require.EqualValues(t, 1, p.stat("cluster.up."+c.stat))
			require.False(t, response.Close, "the client's connection goes on")
		})
	}
}

// TestEndsOfUpstreamConnectionsAreCounted has an upstream answer one request, and close
// then or wait for the proxy to.
func TestEndsOfUpstreamConnectionsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		closes       bool
		want         map[string]int64 // those of the rest are 0
	}{
		{"it says that it closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", false,
			map[string]int64{"close_notify": 1, "destroy": 1, "destroy_local": 1}},
		{"it speaks HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", false,
			map[string]int64{"close_notify": 1, "destroy": 1, "destroy_local": 1}},
		{"its close ends the body", "HTTP/1.1 200 OK\r\n\r\nhi", true,
			map[string]int64{"destroy": 1, "destroy_remote": 1}},
		{"it closes within the body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", true,
			map[string]int64{"destroy": 1, "destroy_remote": 1, "destroy_with_active_rq": 1, "destroy_remote_with_active_rq": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{})
			client := p.dial()
			client.send(get)
			server := up.accept()
			sent := server.head()
			server.send(c.answer)
			if c.closes {
				require.NoError(t, server.conn.Close())
			}
			servicetest.Eventually(t, "it has ended", func() bool { return p.stat("cluster.up.upstream_cx_destroy") == 1 })
			require.EqualValues(t, 1, p.stat("cluster.up.default.total_match_count"))
			for _, name := range []string{
				"close_notify", "destroy", "destroy_local", "destroy_remote",
				"destroy_with_active_rq", "destroy_local_with_active_rq", "destroy_remote_with_active_rq",
			} {
				require.Equal(t, c.want[name], p.stat("cluster.up.upstream_cx_"+name), name)
			}
			require.Equal(t, c.want["destroy_with_active_rq"], p.stat("cluster.up.upstream_cx_protocol_error"))
			require.EqualValues(t, len(sent), p.stat("cluster.up.upstream_cx_tx_bytes_total"))
			require.EqualValues(t, len(c.answer), p.stat("cluster.up.upstream_cx_rx_bytes_total"))
		})
	}
}

func TestUpstreamThatRefusesConnectionsIs503(t *testing.T) {
	p := start(t, servicetest.FreeAddress(t), config{})
	client := p.dial()
	client.send(get)
	response, body := client.response("GET")
	require.Equal(t, 503, response.StatusCode)
	require.Contains(t, body, "remote connection failure")
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_connect_fail"))
	for name, want := range map[string]int64{"total": 1, "http1_total": 1, "destroy": 1, "destroy_remote": 1, "active": 0} { // as in Envoy
		require.Equal(t, want, p.stat("cluster.up.upstream_cx_"+name), name)
	}
}

func TestUpstreamThatIsLateIs504(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{route: `, "timeout": "1s"`})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	response, body := client.response("GET")
	require.Equal(t, 504, response.StatusCode)
	require.Equal(t, "upstream request timeout", body)
	server.closed()
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_rq_timeout"))
}

func TestUpstreamWithoutATimeoutMayBeIdleAsLongAsAStream(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"stream_idle_timeout": "1s",`, route: `, "timeout": "0s"`})
	client := p.dial()
	client.send(get)
	up.accept().head()
	response, _ := client.response("GET")
	require.Equal(t, 504, response.StatusCode)
}

func TestClientThatTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"stream_idle_timeout": "1s",`})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
	_, err := io.Copy(server.conn, strings.NewReader(strings.Repeat("x", 100_000_000)))
	require.Error(t, err, "the proxy closes")
	servicetest.Eventually(t, "the connection is closed", func() bool { return p.stat("http.test.downstream_cx_active") == 0 })
}

func TestUpstreamThatTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"stream_idle_timeout": "1s",`})
	client := p.dial()
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
	up.accept() // and never read
	_, err := io.Copy(client.conn, strings.NewReader(strings.Repeat("x", 100_000_000)))
	if err == nil {
		client.response("POST")
	}
	servicetest.Eventually(t, "nothing is in flight", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
}

func TestUpstreamThatBreaksOffWithinTheBodyEndsTheClientsConnection(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n")
	require.NoError(t, server.conn.Close())
	client.head()
	client.read("3\r\nhal\r\n")
	client.closed()
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_protocol_error"))
}

func TestRequestOnAConnectionThatItsServerClosedIsSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		after  time.Duration // how long the server then takes
		again  bool
	}{
		"at once": {"GET", 0, true}, "and is not idempotent": {"POST", 0, false}, "later": {"GET", 600 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			p := start(t, up.address(), config{})
			client := p.dial()
			client.send(get)
			server := up.accept()
			server.head()
			server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			client.response("GET")

			// The server reads the next request, and closes as if it had not.
			client.send(c.method + " /again HTTP/1.1\r\nHost: a\r\n\r\n")
			server.head()
			time.Sleep(c.after) // no order hangs on it
			require.NoError(t, server.conn.Close())
			if c.again {
				server = up.accept()
				require.Contains(t, server.head(), "GET /again")
				server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			response, _ := client.response(c.method)
			require.Equal(t, c.again, response.StatusCode == http.StatusOK, response.Status)
			require.Equal(t, c.again, p.stat("cluster.up.upstream_rq_resend") == 1)
		})
	}
}

func TestConnectionThatItsServerClosedWhileIdleIsNotUsed(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsurplus")
	client.response("GET")
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	server = up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	response, _ := client.response("POST")
	require.Equal(t, 200, response.StatusCode)
	require.EqualValues(t, 0, p.stat("cluster.up.upstream_rq_resend"))
}

func TestRequestFindsAnotherConnectionThanThoseThatServersClosed(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	var clients [3]*peer
	var servers [3]*peer
	for i := range clients { // at once, so that each has a connection of its own
		clients[i] = p.dial()
		clients[i].send(get)
		servers[i] = up.accept()
		servers[i].head()
	}
	for i, server := range servers {
		server.send(answer)
		clients[i].response("GET")
	}
	for _, server := range servers {
		conn := server.conn.(*net.TCPConn)
		require.NoError(t, conn.CloseWrite())
		raw, err := conn.SyscallConn()
		require.NoError(t, err)
		servicetest.Eventually(t, "the other end has seen it", func() bool {
			const finWait2 = 5 // of tcp(7); the state is the first byte of TCP_INFO
			state := 0
			require.NoError(t, raw.Control(func(fd uintptr) { state, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) }))
			require.NoError(t, err)
			return state&0xff == finWait2
		})
	}
	clients[0].send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") // which is not sent twice
	server := up.accept()
	server.head()
	server.send(answer)
	response, _ := clients[0].response("POST")
	require.Equal(t, 200, response.StatusCode)
	require.EqualValues(t, 0, p.stat("cluster.up.upstream_rq_resend"))
	require.EqualValues(t, 4, p.stat("cluster.up.upstream_rq_total"))
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_active"))
}

func TestEndOfTheContextLetsGoOfAnUpstreamThatHangs(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	p.cancel()
	client.closed()
	server.closed()
	servicetest.Eventually(t, "nothing is in flight", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
}

func TestContinueIsSentOnAConnectionThatWasIdleForLong(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"stream_idle_timeout": "2s",`})
	client := p.dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	client.response("GET")
	pause := time.NewTimer(2500 * time.Millisecond) // longer than a stream may be idle
	<-pause.C
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	client.read("HTTP/1.1 100 Continue\r\n\r\n")
}

func TestLimitsBeginWithTheFirstByteHoweverItCame(t *testing.T) {
	t.Parallel() // it waits
	for _, c := range []struct{ name, fields, text, stat string }{
		{"request_headers_timeout", `"request_headers_timeout": "1s", "stream_idle_timeout": "0s",`, "request header timeout", "header_timeout"},
		{"request_timeout", `"request_timeout": "1s",`, "request timeout", "timeout"},
		{"max_stream_duration", `"common_http_protocol_options": {"max_stream_duration": "1s"},`, "downstream duration timeout", "max_duration_reached"},
		{"stream_idle_timeout", `"stream_idle_timeout": "1s",`, "stream timeout", "idle_timeout"},
		{"the first of them", `"request_headers_timeout": "20s", "request_timeout": "1s", "stream_idle_timeout": "30s",`, "request timeout", "timeout"},
	} {
		for behind, first := range map[string]string{"fresh": "G", "behind another request": get + "G"} {
			t.Run(c.name+", "+behind, func(t *testing.T) {
				t.Parallel()
				p := start(t, "127.0.0.1:1", config{fields: c.fields, routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 204}}`})
				client := p.dial()
				client.send(first)
				if first != "G" {
					client.response("GET")
				}
				response, body := client.response("GET")
				require.Equal(t, http.StatusRequestTimeout, response.StatusCode)
				require.Equal(t, c.text, body)
				client.closed()
				require.EqualValues(t, 1, p.stat("http.test.downstream_rq_"+c.stat))
			})
		}
	}
}

func TestTimesBeginWithTheFirstByte(t *testing.T) {
	l := newAccessLog(t, "%REQUEST_DURATION% %DURATION%\n")
	p := start(t, cannedUpstream(t), config{fields: l.field, logs: l.files})
	client := p.dial()
	client.send(get[:5])
	servicetest.Eventually(t, "the request has begun", func() bool { return p.stat("http.test.downstream_rq_total") == 1 })
	pause := time.NewTimer(50 * time.Millisecond)
	<-pause.C
	client.send(get[5:])
	client.response("GET")
	var head, all int
	_, err := fmt.Sscan(l.lines(1)[0], &head, &all)
	require.NoError(t, err)
	require.GreaterOrEqual(t, head, 50)
	require.GreaterOrEqual(t, all, head)
}

func TestARequestWithoutAHostIsRefused(t *testing.T) {
	for _, c := range []struct {
		fields, request string
		closes          bool
		want            string
	}{
		{"", "POST /p HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", true, "POST /p 400 - missing_host_header"},
		{"", "GET http://a/p HTTP/1.1\r\n\r\n", true, "GET /p 400 - missing_host_header"},
		{`"stream_error_on_invalid_http_message": true,`, "POST /p HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", false, "POST /p 400 - missing_host_header"},
	} {
		l := newAccessLog(t, "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")
		p := start(t, cannedUpstream(t), config{fields: l.field + c.fields, logs: l.files})
		client := p.dial()
		client.send(c.request)
		response, body := client.response("GET")
		require.Equal(t, 400, response.StatusCode)
		require.Equal(t, "no host\n", body)
		require.Equal(t, c.want, l.lines(1)[0])
		require.EqualValues(t, 0, p.stat("http.test.downstream_cx_protocol_error"))
		if require.Equal(t, c.closes, response.Close); c.closes {
			client.closed()
			continue
		}
		client.send(get)
		response, _ = client.response("GET")
		require.Equal(t, 200, response.StatusCode)
	}
}

// pass is a filter that looks at each chunk of a request.
type pass struct{}

func (pass) ConfigType() protoreflect.FullName { return "google.protobuf.Duration" }
func (pass) Fields() strict.Fields             { return nil }
func (p pass) Parse(proto.Message, strict.Path, *strict.Report) httpfilter.Config {
	return p
}
func (p pass) NewFilter() httpfilter.Filter { return p }
func (pass) RequestBody(_ *stream.Stream, chunk []byte) ([]byte, error) {
	return chunk, nil
}

func TestAnswerWithinABodyThatAFilterLooksAtEndsTheExchange(t *testing.T) {
	for range 20 {
		up := newUpstream(t)
		p := start(t, up.address(), config{filters: []httpfilter.Factory{pass{}}})
		client := p.dial()
		client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 100))
		server := up.accept()
		server.head()
		server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		// The client goes on sending, in pieces, until the proxy has enough.
		go func() { // ends with the connection
			for {
				if _, err := io.WriteString(client.conn, "1\r\nx\r\n"); err != nil {
					return
				}
			}
		}()
		response, _ := client.response("POST")
		require.Equal(t, http.StatusRequestEntityTooLarge, response.StatusCode)
		servicetest.Eventually(t, "the exchange is over", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
		require.NoError(t, client.conn.Close())
	}
}

func TestDrainLetsARequestInFlightEndAndClosesIdleConnections(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	working := p.dial()
	working.send(get)
	inFlight := <-p.current
	server := up.accept()
	server.head()
	inFlight.Drain()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	response, body := working.response("GET")
	require.Equal(t, "ok", body)
	require.True(t, response.Close)
	working.closed()

	waiting := p.dial()
	waiting.send(get)
	idle := <-p.current
	server.head() // the upstream connection is used again
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	waiting.response("GET")
	servicetest.Eventually(t, "the exchange is over", func() bool { return p.stat("http.test.downstream_rq_active") == 0 })
	idle.Finish()
	waiting.closed()
}

func TestIdleConnectionIsServedWhileDrainingAndThenLetGo(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	client.send(get)
	connection := <-p.current
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	response, _ := client.response("GET")
	require.False(t, response.Close)
	connection.Drain()
	client.send(get)
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	response, _ = client.response("GET")
	require.True(t, response.Close)
	client.closed()
}

func TestFinishLeavesAFreshConnectionTimeForARequest(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{})
	client := p.dial()
	(<-p.current).Finish()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	response, body := client.response("GET")
	require.Equal(t, "ok", body)
	require.True(t, response.Close)
	client.closed()

	silent := p.dial()
	(<-p.current).Finish()
	silent.closed() // once the time has passed
}

func TestSlowReaderStopsTheUpstream(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{}).dial()
	client.send(get)
	server := up.accept()
	server.head()
	server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	client.head()
	// The client reads nothing, so that what the upstream can send is bounded
	// by the sockets' buffers, far below what it has.
	piece := "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n"
	sent, most := 0, 64<<20
	for sent < most {
		require.NoError(t, server.conn.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		n, err := io.WriteString(server.conn, piece)
		sent += n
		if err != nil {
			break
		}
	}
	require.Less(t, sent, most)
}
