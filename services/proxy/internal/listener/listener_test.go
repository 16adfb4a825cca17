package listener_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// greeter is a network filter that greets and waits for the end, its own or
// the client's.
type greeter struct {
	drained  chan struct{}
	accepted func() // called for each connection, unless nil
}

func (greeter) ConfigType() protoreflect.FullName { return "google.protobuf.Empty" }
func (greeter) Fields() strict.Fields             { return nil }
func (g greeter) Parse(proto.Message, strict.Path, *strict.Report) networkfilter.Filter {
	return g
}
func (g greeter) NewConnection(conn net.Conn) networkfilter.Connection {
	if g.accepted != nil {
		g.accepted()
	}
	c := &greeting{conn: conn, drained: g.drained, finish: make(chan struct{}), ended: make(chan struct{})}
	c.cut = sync.OnceFunc(func() { close(c.ended) })
	return c
}

type greeting struct {
	conn    net.Conn
	drained chan struct{}
	finish  chan struct{}
	ended   chan struct{} // closed by cut
	cut     func()
}

func (g *greeting) Drain()  { g.drained <- struct{}{} }
func (g *greeting) Finish() { close(g.finish) }
func (g *greeting) Cut()    { g.cut() }
func (g *greeting) Serve(ctx context.Context) {
	_, _ = io.WriteString(g.conn, "hello")
	select {
	case <-g.ended:
		<-ctx.Done() // it has ended by then
	case <-g.finish:
	}
	_ = g.conn.Close()
}

func parse(t *testing.T, text string, filter greeter) (*listener.Config, error) {
	t.Helper()
	message := &listenerv3.Listener{}
	require.NoError(t, protojson.Unmarshal([]byte(text), message))
	report := &strict.Report{}
	config := listener.Parse(message, "", listener.Filters{Listener: []listenerfilter.Factory{&lookers{}}, Network: []networkfilter.Factory{filter}}, report)
	return config, report.Err()
}

const at = `{"name": "l", "address": {"socket_address": {"address": "::1", "port_value": 1}}, `

const chain = `"filter_chains": [{"filters": [{"name": "g", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}}]}]`

func open(t *testing.T, registry *stats.Registry, filter greeter) *listener.Listener {
	t.Helper()
	config, err := parse(t, `{"name": "l", "stat_prefix": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, `+chain+`}`, filter)
	require.NoError(t, err)
	l, err := listener.Open(config, registry, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return l
}

// greeted connects and waits for the greeting.
func greeted(t *testing.T, l *listener.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(servicetest.Patience)))
	_, err = io.ReadFull(conn, make([]byte, 5))
	require.NoError(t, err)
	return conn
}

// TestDrainMayTakeItsTime has each connection drained at a moment of its own, and
// at once if that is wanted meanwhile.
func TestDrainMayTakeItsTime(t *testing.T) {
	drained := make(chan struct{}, 20)
	l := open(t, stats.NewRegistry(), greeter{drained: drained})
	served := make(chan error)
	go func() { served <- l.Serve() }() // ends with Stop
	for range 8 {
		greeted(t, l)
	}
	l.Drain(10000 * time.Hour)
	greeted(t, l)
	require.Empty(t, drained)
	l.Drain(time.Millisecond)
	l.Drain(10000 * time.Hour) // does not take that back
	greeted(t, l)
	<-drained // the last one at least: the others have moments already
	l.Drain(0)
	for range 9 {
		<-drained
	}
	l.Drain(time.Millisecond)
	require.NoError(t, l.Stop(t.Context()))
	require.NoError(t, <-served)
	require.Empty(t, drained, "none is drained twice")
}

func TestDrainTellsConnectionsAndStopEndsThem(t *testing.T) {
	registry := stats.NewRegistry()
	drained := make(chan struct{}, 2)
	l := open(t, registry, greeter{drained: drained})
	served := make(chan error)
	go func() { served <- l.Serve() }() // ends with Stop
	conns := []net.Conn{greeted(t, l)}
	l.Drain(0)
	conns = append(conns, greeted(t, l)) // still accepted, and told to drain
	for range conns {
		<-drained
	}
	require.NoError(t, l.Stop(t.Context()))
	for _, conn := range conns {
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	require.NoError(t, <-served)
	_, err := net.Dial("tcp", l.Addr().String())
	require.Error(t, err)
	found := map[string]int64{}
	registry.Each(func(m stats.Metric) { found[m.Name] = m.Value })
	require.Equal(t, map[string]int64{
		"listener.in.downstream_cx_total": 2, "listener.in.downstream_cx_active": 0, "listener.in.downstream_cx_destroy": 2,
		"listener.in.downstream_global_cx_overflow": 0, "listener.in.downstream_pre_cx_active": 0, "listener.in.downstream_pre_cx_timeout": 0,
		"listener.in.downstream_listener_filter_error": 0, "listener.in.downstream_listener_filter_remote_close": 0,
		"listener.in.downstream_cx_overflow": 0, "listener.in.no_filter_chain_match": 0, "listener.in.downstream_cx_length_ms": 0,
	}, found)
}

// TestStopServesWhatCameBeforeIt queues connections that Serve has no time for:
// the first of them to be accepted stops the listener.
func TestStopServesWhatCameBeforeIt(t *testing.T) {
	var l *listener.Listener
	stopped := make(chan error, 1)
	stop := sync.OnceFunc(func() {
		go func() { stopped <- l.Stop(context.Background()) }() // ends with the connections
	})
	l = open(t, stats.NewRegistry(), greeter{accepted: func() {
		stop()
		runtime.Gosched() // while others are still queued
	}})
	conns := make([]net.Conn, 100)
	for i := range conns {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(servicetest.Patience)))
		conns[i] = conn
	}
	require.NoError(t, l.Serve())
	for _, conn := range conns {
		greeting, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Equal(t, "hello", string(greeting))
	}
	require.NoError(t, <-stopped)
	_, err := net.Dial("tcp", l.Addr().String())
	require.Error(t, err)
}

func TestStopCutsOffWhatIsLeftAtItsDeadline(t *testing.T) {
	l := open(t, stats.NewRegistry(), greeter{})
	served := make(chan error)
	go func() { served <- l.Serve() }() // ends with Stop
	conn := greeted(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, l.Stop(ctx))
	require.NoError(t, <-served)
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestPortInUseIsNamedWithTheFieldThatMovesIt(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	config, err := parse(t, fmt.Sprintf(`{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}, `+chain+`}`, port), greeter{})
	require.NoError(t, err)
	_, err = listener.Open(config, stats.NewRegistry(), slog.New(slog.DiscardHandler))
	require.EqualError(t, err, fmt.Sprintf(`listen on 127.0.0.1:%d: the port is in use; address moves it`, port))
}

func TestFaultsNameTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no name": {`{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, ` + chain + `}`, `name: a listener needs a name`},
		"a host name": {`{"name": "l", "address": {"socket_address": {"address": "localhost", "port_value": 1}}, ` + chain + `}`,
			`address.socket_address.address: "localhost" is not an IP address, and names are not resolved`},
		"no chains": {`{"name": "l", "address": {"socket_address": {"address": "::1", "port_value": 1}}}`,
			`filter_chains: there are none, and no default_filter_chain: one is needed`},
		"chains alike": {at + `"filter_chains": [{"name": "a"}, {"name": "a", "filter_chain_match": {}}]}`,
			`filter_chains[1].filter_chain_match: it matches what filter_chains[0] does, and is not more specific` + "\n" +
				`filter_chains[1].name: filter chain "a" is there twice`},
		"chains alike in part": {at + `"filter_chains": [
			{"filter_chain_match": {"source_ports": [1, 2], "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}},
			{"filter_chain_match": {"source_ports": [2, 3], "prefix_ranges": [{"address_prefix": "10.1.1.1", "prefix_len": 8}]}}]}`,
			`filter_chains[1].filter_chain_match: it matches what filter_chains[0] does, and is not more specific`},
		"a match that is none": {at + `"filter_chains": [{"filter_chain_match": {"transport_protocol": "tls",
			"prefix_ranges": [{"address_prefix": "a"}], "source_prefix_ranges": [{"address_prefix": "10.0.0.1", "prefix_len": 33}]}}]}`,
			`filter_chains[0].filter_chain_match.prefix_ranges[0].address_prefix: "a" is not an IP address` + "\n" +
				`filter_chains[0].filter_chain_match.source_prefix_ranges[0].prefix_len: 33 is more than an address of this family has` + "\n" +
				`filter_chains[0].filter_chain_match.transport_protocol: "tls": TLS is not there yet, and so it matches nothing`},
		"a default with a match": {at + `"default_filter_chain": {"filter_chain_match": {}}}`,
			`default_filter_chain.filter_chain_match: the default filter chain takes what no other matches, and has no match of its own`},
		"two filters": {at + `"filter_chains": [{"filters": [{"name": "a"}, {"name": "b"}]}]}`,
			`filter_chains[0].filters: 2 network filters are not supported: use one`},
		"a handshake in no time": {at + `"filter_chains": [{"transport_socket_connect_timeout": "-1s"}]}`, `filter_chains[0].transport_socket_connect_timeout: -1s is negative`},
		"no listener filter": {at + `"listener_filters": [{"name": "l"}, {"name": "m", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}}], ` + chain + `}`,
			`listener_filters[0]: listener filter "l" needs a typed_config` + "\n" +
				`listener_filters[1].typed_config: google.protobuf.Empty is no listener filter known here; those are: envoy.extensions.filters.listener.http_inspector.v3.HttpInspector`},
		"listener filters in no time": {at + `"listener_filters_timeout": "-1s", ` + chain + `}`, `listener_filters_timeout: -1s is negative`},
		"protocols of TLS": {at + `"filter_chains": [{"filter_chain_match": {"application_protocols": ["h2c", "h2"]}}]}`,
			`filter_chains[0].filter_chain_match.application_protocols[1]: "h2": TLS is not there yet, and so nothing tells of it; what http_inspector tells of is http/1.0, http/1.1, h2c`},
		"no backlog": {at + `"tcp_backlog_size": 0, ` + chain + `}`, `tcp_backlog_size: 0 is not between 1 and 65535`},
		"a filter unknown here": {`{"name": "l", "address": {"socket_address": {"address": "::1", "port_value": 1}}, "filter_chains": [{"filters": [{"name": "f", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}]}]}`,
			`filter_chains[0].filters[0].typed_config: google.protobuf.Duration is no network filter known here; those are: google.protobuf.Empty`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, c.text, greeter{})
			require.EqualError(t, err, c.want)
		})
	}
}
