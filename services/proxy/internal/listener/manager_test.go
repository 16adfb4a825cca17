package listener_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// speaker is a network filter that says its stat_prefix to who connects, and
// waits for the end. One that is called slow is not ready before it is told.
type speaker struct {
	mu     sync.Mutex
	starts map[string]func() // those that wait, by stat_prefix
	stops  []string
	places []string // "text in stat_prefix"
}

func (*speaker) ConfigType() protoreflect.FullName {
	return (&tcpproxyv3.TcpProxy{}).ProtoReflect().Descriptor().FullName()
}
func (s *speaker) Fields() strict.Fields {
	return strict.Fields{s.ConfigType(): {"stat_prefix", "cluster"}}
}
func (s *speaker) Parse(config proto.Message, at strict.Path, report *strict.Report) networkfilter.Filter {
	text := config.(*tcpproxyv3.TcpProxy).GetStatPrefix()
	if text == "bad" {
		report.Add(at.Field("stat_prefix"), "it is bad")
	}
	return &speech{s, text}
}

// ready lets a slow one be.
func (s *speaker) ready(t *testing.T, text string) {
	s.mu.Lock()
	start := s.starts[text]
	delete(s.starts, text)
	s.mu.Unlock()
	require.NotNil(t, start, text)
	start()
}

type speech struct {
	speaker *speaker
	text    string
}

func (s *speech) Start(_ coreconfig.Source, ready func()) func() {
	if !strings.HasPrefix(s.text, "slow") {
		return nil
	}
	s.speaker.mu.Lock()
	defer s.speaker.mu.Unlock()
	s.speaker.starts[s.text] = ready
	return func() {
		s.speaker.mu.Lock()
		defer s.speaker.mu.Unlock()
		s.speaker.stops = append(s.speaker.stops, s.text)
	}
}

func (s *speech) Place(place networkfilter.Place) {
	s.speaker.mu.Lock()
	defer s.speaker.mu.Unlock()
	text := s.text + " in " + place.StatPrefix
	if place.BufferLimit != 1<<20 { // the default
		text += fmt.Sprint(" with ", place.BufferLimit)
	}
	s.speaker.places = append(s.speaker.places, text)
}

func (s *speech) NewConnection(conn net.Conn) networkfilter.Connection {
	c := &talk{conn: conn, text: s.text, finish: make(chan struct{}), ended: make(chan struct{})}
	c.cut = sync.OnceFunc(func() { close(c.ended) })
	return c
}

// talk says "drained" when it is told to drain. One that is stubborn ends only when it
// is cut, and an echo says the line that the client has sent behind its text.
type talk struct {
	conn   net.Conn
	text   string
	finish chan struct{}
	ended  chan struct{} // closed by cut
	cut    func()
}

func (c *talk) Drain()  { _, _ = io.WriteString(c.conn, "drained\n") }
func (c *talk) Finish() { close(c.finish) }
func (c *talk) Cut()    { c.cut() }
func (c *talk) Serve(ctx context.Context) {
	text := c.text + "\n"
	if strings.HasPrefix(text, "echo") {
		line, _ := bufio.NewReader(c.conn).ReadString('\n')
		text = c.text + " " + line
	}
	_, _ = io.WriteString(c.conn, text)
	finish := c.finish
	if c.text == "stubborn" {
		finish = nil
	}
	select {
	case <-c.ended:
		<-ctx.Done() // it has ended by then
	case <-finish:
	}
	_ = c.conn.Close()
}

// manager is a Manager under test.
type manager struct {
	*listener.Manager
	t        *testing.T
	speaker  *speaker
	lookers  lookers
	registry *stats.Registry
	log      *logText
}

// logText is what a Manager has logged.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newManager(t *testing.T, waitForLDS bool, limit func() int64, others ...func(*listener.ManagerOptions)) *manager {
	t.Helper()
	m := &manager{t: t, speaker: &speaker{starts: map[string]func(){}}, registry: stats.NewRegistry(), log: &logText{}}
	schema, err := strict.NewSchema(listener.Fields(), coreconfig.Fields(), m.speaker.Fields(), m.lookers.Fields())
	require.NoError(t, err)
	options := listener.ManagerOptions{
		Filters: listener.Filters{Listener: []listenerfilter.Factory{&m.lookers}, Network: []networkfilter.Factory{m.speaker}},
		Schema:  schema, Stats: m.registry, Log: slog.New(slog.NewTextHandler(m.log, nil)),
		DrainTime: 10 * time.Millisecond, ConnectionLimit: func(string) func() int64 { return limit },
	}
	for _, set := range others {
		set(&options)
	}
	m.Manager = listener.NewManager(options, waitForLDS)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
		defer cancel()
		require.NoError(t, m.Stop(ctx))
	})
	return m
}

// serving is a Manager that accepts.
func serving(t *testing.T) *manager {
	m := newManager(t, false, nil)
	m.Start()
	m.Accept()
	return m
}

// says is a listener with a free port, fields in JSON.
func says(name, text string, more ...string) string {
	return fmt.Sprintf(`{"name": %q, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "filter_chains": [%s] %s}`,
		name, filterChain("c", text), strings.Join(more, ""))
}

func filterChain(name, text string, more ...string) string {
	return fmt.Sprintf(`{"name": %q, "filters": [{"name": "f", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": %q, "cluster": "c"}}] %s}`,
		name, text, strings.Join(more, ""))
}

func lds(t *testing.T, texts ...string) []xds.Resource {
	t.Helper()
	var list []xds.Resource
	for _, text := range texts {
		m := &listenerv3.Listener{}
		require.NoError(t, protojson.Unmarshal([]byte(text), m))
		list = append(list, xds.Resource{Name: m.GetName(), Version: "v", Message: m})
	}
	return list
}

// client is a connection that reads lines.
type client struct {
	net.Conn
	t *testing.T
}

func (m *manager) dial(name string) client {
	m.t.Helper()
	conn, err := net.Dial("tcp", m.Addr(name).String())
	require.NoError(m.t, err)
	m.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(m.t, conn.SetDeadline(time.Now().Add(servicetest.Patience)))
	return client{conn, m.t}
}

func (c client) line() string {
	c.t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := c.Read(b); err != nil {
			return string(line) + err.Error()
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func (m *manager) value(name string) (value int64) {
	m.registry.Each(func(metric stats.Metric) {
		if metric.Name == name {
			value = metric.Value
		}
	})
	return value
}

func TestAListenerOfLDSComesChangesAndGoes(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("l", "one")), true))
	address := m.Addr("l").String()
	first := m.dial("l")
	require.Equal(t, "one", first.line())

	require.NoError(t, m.Apply(lds(t, says("l", "two")), true))
	require.Equal(t, address, m.Addr("l").String(), "the socket stays")
	require.Equal(t, "drained", first.line())
	second := m.dial("l")
	require.Equal(t, "two", second.line())
	require.Equal(t, "EOF", first.line(), "it ends after the drain time")

	require.NoError(t, m.Apply(lds(t, says("l", "two")), true)) // the same again
	require.EqualValues(t, 1, m.value("listener_manager.listener_modified"))

	require.NoError(t, m.Apply(nil, true))
	require.Nil(t, m.Addr("l"))
	_, err := net.Dial("tcp", address)
	require.Error(t, err)
	require.Equal(t, "drained", second.line())
	require.Equal(t, "EOF", second.line())
	servicetest.Eventually(t, "its metrics go", func() bool {
		found := false
		m.registry.Each(func(metric stats.Metric) { found = found || strings.HasPrefix(metric.Name, "listener.") })
		return !found
	})
	for name, want := range map[string]int64{
		"listener_added": 1, "listener_removed": 1, "listener_in_place_updated": 1, "listener_create_success": 2,
		"total_listeners_active": 0, "total_listeners_draining": 0,
	} {
		require.Equal(t, want, m.value("listener_manager."+name), name)
	}
	servicetest.Eventually(t, "nothing drains any more", func() bool { return m.value("listener_manager.total_filter_chains_draining") == 0 })
}

func TestDeltaChangesOnlyWhatItNames(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("a", "a"), says("b", "b")), false))
	require.NoError(t, m.Apply([]xds.Resource{{Name: "a"}, {Name: "never"}}, false))
	require.Nil(t, m.Addr("a"))
	require.Equal(t, "b", m.dial("b").line())
}

func TestAChangedAddressIsServedBesideTheOldOneThatDrains(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("l", "one")), true))
	old := m.dial("l")
	require.Equal(t, "one", old.line())
	before := m.Addr("l").String()
	moved := strings.Replace(says("l", "one"), "127.0.0.1", "127.0.0.2", 1)
	require.NoError(t, m.Apply(lds(t, moved), true))
	require.Equal(t, "one", m.dial("l").line())
	require.True(t, strings.HasPrefix(m.Addr("l").String(), "127.0.0.2:"))
	require.Equal(t, "drained", old.line())
	_, err := net.Dial("tcp", before)
	require.Error(t, err)
}

func TestAWildcardOfIPv6TakesIPv4IfItIsToldTo(t *testing.T) {
	m := serving(t)
	only := strings.Replace(says("l", "one"), `"127.0.0.1"`, `"::"`, 1)
	both := strings.Replace(says("b", "two"), `"127.0.0.1"`, `"::", "ipv4_compat": true`, 1)
	err := m.Apply(lds(t, only, both), true)
	probe, failed := net.Listen("tcp6", "[::1]:0")
	if failed != nil {
		require.ErrorContains(t, err, "listen on [::]", "without IPv6 there is no such address")
		return
	}
	require.NoError(t, probe.Close())
	require.NoError(t, err)
	dial := func(name, host string) (string, error) {
		_, port, err := net.SplitHostPort(m.Addr(name).String())
		require.NoError(t, err)
		conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return bufio.NewReader(conn).ReadString('\n')
	}
	for _, c := range []struct{ name, host, want string }{{"l", "::1", "one\n"}, {"b", "::1", "two\n"}, {"b", "127.0.0.1", "two\n"}} {
		got, err := dial(c.name, c.host)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	_, err = dial("l", "127.0.0.1")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	err = m.Apply(lds(t, strings.Replace(says("b", "three"), `"127.0.0.1"`, `"::"`, 1)), false)
	require.ErrorContains(t, err, "address.socket_address.ipv4_compat: an open socket stays as it is: use another address or port")
	got, err := dial("b", "127.0.0.1")
	require.NoError(t, err)
	require.Equal(t, "two\n", got)
}

func TestConnectionsOfAListenerThatGoesMayDrainOneByOne(t *testing.T) {
	for name, over := range map[string]time.Duration{"soon": 20 * time.Millisecond, "late": 10000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, false, nil, func(o *listener.ManagerOptions) { o.DrainTime, o.DrainGradually = over, true })
			m.Start()
			m.Accept()
			require.NoError(t, m.Apply(lds(t, says("l", "one")), true))
			conn := m.dial("l")
			require.Equal(t, "one", conn.line())
			address := m.Addr("l").String()
			require.NoError(t, m.Apply(lds(t), true))
			if name == "soon" {
				require.Equal(t, "drained", conn.line())
				return
			}
			closed(t, address, "one")
			m.Drain() // which leaves those that are gone to their time
			require.EqualValues(t, 1, m.value("listener.127.0.0.1_0.downstream_cx_active"))
		})
	}
}

func TestWhatWarmsServesOnceItIsReady(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("l", "slow one")), true))
	require.EqualValues(t, 1, m.value("listener_manager.total_listeners_warming"))
	early := m.dial("l") // waits
	require.NotNil(t, m.States()[0].Warming)
	require.Nil(t, m.States()[0].Active)
	require.Empty(t, m.speaker.places, "it may not come to be used")
	m.speaker.ready(t, "slow one")
	require.Equal(t, "slow one", early.line())

	require.NoError(t, m.Apply(lds(t, says("l", "slow two")), true))
	require.Equal(t, "slow one", m.dial("l").line(), "the old one serves meanwhile")
	require.NoError(t, m.Apply(lds(t, says("l", "slow three")), true))
	require.Equal(t, []string{"slow two"}, m.speaker.stops, "it is not wanted any more")
	m.speaker.ready(t, "slow two")
	require.Equal(t, "slow one", m.dial("l").line())
	m.speaker.ready(t, "slow three")
	require.Equal(t, "slow three", m.dial("l").line())
	require.Equal(t, []string{"slow two", "slow one"}, m.speaker.stops)
	require.Equal(t, []string{"slow one in 127.0.0.1:0", "slow three in 127.0.0.1:0"}, m.speaker.places)
}

func TestOneThatChangesWhileItWarmsKeepsItsSocket(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("l", "slow")), true))
	early := m.dial("l")
	require.NoError(t, m.Apply(lds(t, says("l", "quick")), true))
	require.Equal(t, "quick", early.line())
	require.NoError(t, m.Apply(lds(t, says("m", "slow")), true))
	require.NoError(t, m.Apply(nil, true))
	require.Equal(t, []string{"slow", "slow"}, m.speaker.stops)
}

func TestOnlyChangedFilterChainsDrain(t *testing.T) {
	m := serving(t)
	both := func(local, others string) string {
		return `{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "filter_chains": [` +
			filterChain("local", local, `, "filter_chain_match": {"source_type": "SAME_IP_OR_LOOPBACK"}`) + `,` +
			filterChain("others", others, `, "filter_chain_match": {"source_type": "EXTERNAL"}`) + `]}`
	}
	require.NoError(t, m.Apply(lds(t, both("one", "x")), true))
	stays := m.dial("l")
	require.Equal(t, "one", stays.line())
	require.NoError(t, m.Apply(lds(t, both("one", "y")), true))
	require.NoError(t, m.Apply(lds(t, both("two", "y")), true))
	require.Equal(t, "two", m.dial("l").line())
	require.Equal(t, "drained", stays.line(), "once, at the second change")
	require.Equal(t, "EOF", stays.line())
}

func TestBadListenersAreRefusedByNameAndTheLastGoodStay(t *testing.T) {
	m := serving(t)
	report := &strict.Report{}
	static := listener.Parse(lds(t, says("static", "static"))[0].Message.(*listenerv3.Listener), "", listener.Filters{Network: []networkfilter.Factory{m.speaker}}, report)
	require.NoError(t, report.Err())
	require.NoError(t, m.AddStatic([]*listener.Config{static}))
	require.EqualValues(t, 1, m.value("listener_manager.listener_create_success"))
	m.Start()
	require.NoError(t, m.Apply(lds(t, says("l", "one")), true))
	port := m.Addr("l").(*net.TCPAddr).Port
	at := func(name string, port int) string {
		return strings.Replace(says(name, "at"), `"port_value": 0`, fmt.Sprintf(`"port_value": %d`, port), 1)
	}
	err := m.Apply(lds(t,
		says("l", "bad"), says("k", "fine"), at("i", port),
		says("static", "replaced"), `{"name": "h"}`,
	), true)
	require.EqualError(t, err, fmt.Sprintf(`listener "l": filter_chains[0].filters[0].typed_config.stat_prefix: it is bad
listener "i": listen on 127.0.0.1:%d: the port is in use; address moves it
listener "h": address: a socket_address is needed
filter_chains: there are none, and no default_filter_chain: one is needed`, port))
	require.Equal(t, "one", m.dial("l").line())
	require.Equal(t, "fine", m.dial("k").line())
	require.Equal(t, "static", m.dial("static").line())
	require.NoError(t, m.Apply(nil, true))
	require.Equal(t, "static", m.dial("static").line(), "it is not LDS's to remove")

	warnings := func() int { return strings.Count(m.log.String(), "level=WARN") }
	require.Contains(t, m.log.String(), `level=WARN msg="ignored a listener of the control plane: one of the bootstrap has its name" listener=static`)
	before := warnings()
	require.NoError(t, m.Apply(lds(t, says("static", "replaced")), true))
	require.NoError(t, m.Apply(lds(t, says("static", "replaced")), true))
	require.Equal(t, before+1, warnings(), "it is told once, and again when it is back")
	require.NoError(t, m.Apply(lds(t, says("static", "changed")), false))
	require.Equal(t, before+2, warnings(), "and at each change")
	require.Equal(t, "static", m.dial("static").line())
}

func TestNoTwoListenersHaveOneAddress(t *testing.T) {
	m := serving(t)
	_, port, err := net.SplitHostPort(servicetest.FreeAddress(t))
	require.NoError(t, err)
	at := func(name string) string {
		return strings.Replace(says(name, name), `"port_value": 0`, `"port_value": `+port, 1)
	}
	require.EqualError(t, m.Apply(lds(t, at("a"), at("b")), true), fmt.Sprintf(`listener "b": address: 127.0.0.1:%s is that of listener "a"`, port))
	require.Equal(t, "a", m.dial("a").line())
	require.NoError(t, m.Apply(lds(t, at("b")), true), "the address of one that goes is free")
	require.Equal(t, "b", m.dial("b").line())
}

func TestTheStartWaitsForLDSAndItsFilters(t *testing.T) {
	m := newManager(t, true, nil)
	report := &strict.Report{}
	static := listener.Parse(lds(t, says("static", "slow static"))[0].Message.(*listenerv3.Listener), "", listener.Filters{Network: []networkfilter.Factory{m.speaker}}, report)
	require.NoError(t, m.AddStatic([]*listener.Config{static}))
	m.Start()
	started := func() bool {
		select {
		case <-m.Started():
			return true
		default:
			return false
		}
	}
	require.False(t, started())
	m.speaker.ready(t, "slow static")
	require.False(t, started(), "LDS has not answered")
	require.NoError(t, m.Apply(lds(t, says("l", "slow dynamic")), true))
	require.False(t, started())
	m.speaker.ready(t, "slow dynamic")
	require.True(t, started())
	early := m.dial("l")
	require.Zero(t, m.value("listener_manager.workers_started"))
	m.Accept()
	require.Equal(t, "slow dynamic", early.line())
	require.EqualValues(t, 1, m.value("listener_manager.workers_started"))

	other := newManager(t, true, nil)
	other.Start()
	other.StopWaiting()
	<-other.Started()
}

func TestAChainWithoutFiltersAndNoChainClose(t *testing.T) {
	m := serving(t)
	const address = `"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}`
	require.NoError(t, m.Apply(lds(t,
		`{"name": "empty", "stat_prefix": "empty", `+address+`, "filter_chains": [{}]}`,
		`{"name": "none", "stat_prefix": "none", `+address+`, "filter_chains": [`+filterChain("c", "x", `, "filter_chain_match": {"source_type": "EXTERNAL"}`)+`]}`,
		`{"name": "default", `+address+`, "filter_chains": [`+filterChain("c", "x", `, "filter_chain_match": {"source_type": "EXTERNAL"}`)+`], "default_filter_chain": `+filterChain("d", "default")+`}`,
	), true))
	require.Equal(t, "EOF", m.dial("empty").line())
	require.Equal(t, "EOF", m.dial("none").line())
	require.Equal(t, "default", m.dial("default").line())
	require.EqualValues(t, 1, m.value("listener.none.no_filter_chain_match"))
	require.EqualValues(t, 1, m.value("listener.empty.downstream_cx_total"))
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	var limit atomic.Int64
	limit.Store(1)
	m := newManager(t, false, limit.Load)
	m.Start()
	m.Accept()
	require.NoError(t, m.Apply(lds(t, says("l", "one", `, "stat_prefix": "in", "tcp_backlog_size": 9, "tcp_keepalive": {"keepalive_time": 30}`)), true))
	first := m.dial("l")
	require.Equal(t, "one", first.line())
	require.Equal(t, "EOF", m.dial("l").line())
	require.EqualValues(t, 1, m.value("listener.in.downstream_cx_overflow"))

	limit.Store(2) // which holds at once
	require.Equal(t, "one", m.dial("l").line())
	require.Equal(t, "EOF", m.dial("l").line())
}

func TestEachListenerHasTheLimitForItself(t *testing.T) {
	const prefix = `, "stat_prefix": "in"`
	m := newManager(t, false, func() int64 { return 1 }, func(o *listener.ManagerOptions) { o.DrainTime = 10000 * time.Hour })
	m.Start()
	m.Accept()
	require.NoError(t, m.Apply(lds(t, says("a", "one", prefix), says("b", "two", prefix)), true))
	require.Equal(t, "one", m.dial("a").line())
	require.Equal(t, "two", m.dial("b").line())
	require.Equal(t, "EOF", m.dial("b").line())
	moved := strings.Replace(says("b", "two", prefix), "127.0.0.1", "127.0.0.2", 1)
	require.NoError(t, m.Apply(lds(t, moved), false))
	require.Equal(t, "two", m.dial("b").line(), "the connection that drains is not of this one")
	require.EqualValues(t, 3, m.value("listener.in.downstream_cx_active"))
	require.EqualValues(t, 1, m.value("listener.in.downstream_cx_overflow"))
}

// metricsOf are those of a listener's name in metrics.
func (m *manager) metricsOf(prefix string) (names []string) {
	m.registry.Each(func(metric stats.Metric) {
		if strings.HasPrefix(metric.Name, "listener."+prefix+".") {
			names = append(names, metric.Name)
		}
	})
	return names
}

func TestBufferLimitChangesAroundConnections(t *testing.T) {
	m := serving(t)
	for _, limit := range []string{"", `, "per_connection_buffer_limit_bytes": 1024`, `, "per_connection_buffer_limit_bytes": 0`} {
		require.NoError(t, m.Apply(lds(t, says("l", "one", `, "stat_prefix": "a"`, limit)), true))
		require.Equal(t, "one", m.dial("l").line())
	}
	require.Equal(t, []string{"one in a", "one in a with 1024", "one in a with 0"}, m.speaker.places)
}

func TestMetricsMoveWithTheStatPrefix(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("l", "one", `, "stat_prefix": "a"`)), true))
	conn := m.dial("l")
	require.Equal(t, "one", conn.line())
	require.ErrorContains(t, m.Apply(lds(t, says("l", "one", `, "stat_prefix": "bad", "tcp_backlog_size": 0`)), true), "tcp_backlog_size")
	require.NoError(t, m.Apply(lds(t, says("l", "one", `, "stat_prefix": "b"`)), true))
	require.Equal(t, []string{"one in a", "one in b"}, m.speaker.places)
	require.Empty(t, m.metricsOf("a"))
	require.EqualValues(t, 1, m.value("listener.b.downstream_cx_active"), "the connection stays")
	require.NoError(t, m.Apply(lds(t, says("l", "one", `, "stat_prefix": "b"`), says("k", "two", `, "stat_prefix": "b"`)), true))
	require.NoError(t, m.Apply(lds(t, says("l", "two", `, "stat_prefix": "c"`), says("k", "two", `, "stat_prefix": "b"`)), true))
	require.EqualValues(t, 0, m.value("listener.b.downstream_cx_active"))
	require.NotEmpty(t, m.metricsOf("b"), "another has them too")
	require.Equal(t, "drained", conn.line())
	require.Equal(t, "EOF", conn.line())
	servicetest.Eventually(t, "it is counted where the listener is", func() bool {
		return m.value("listener.c.downstream_cx_active") == 0 && m.value("listener.c.downstream_cx_destroy") == 1
	})
}

func TestMetricsGoWithTheLastListenerThatHasThem(t *testing.T) {
	const prefix = `, "stat_prefix": "in"`
	t.Run("none is active", func(t *testing.T) {
		m := serving(t)
		require.NoError(t, m.Apply(lds(t, says("l", "slow one", prefix)), true))
		require.NotEmpty(t, m.metricsOf("in"))
		require.NoError(t, m.Apply(lds(t, strings.Replace(says("l", "slow two", prefix), "127.0.0.1", "127.0.0.2", 1)), true))
		require.NotEmpty(t, m.metricsOf("in"), "what warms in its place has them")
		require.NoError(t, m.Apply(lds(t, strings.Replace(says("l", "slow two", `, "stat_prefix": "new"`), "127.0.0.1", "127.0.0.2", 1)), true))
		require.Empty(t, m.metricsOf("in"))
		require.NotEmpty(t, m.metricsOf("new"))
		require.NoError(t, m.Apply(nil, true))
		require.Empty(t, m.metricsOf("new"))
	})
	t.Run("one drains", func(t *testing.T) {
		m := newManager(t, false, nil, func(o *listener.ManagerOptions) { o.DrainTime = 10000 * time.Hour })
		m.Start()
		m.Accept()
		require.NoError(t, m.Apply(lds(t, says("l", "one", prefix), says("k", "two", prefix)), true))
		conn := m.dial("l")
		require.Equal(t, "one", conn.line())
		require.NoError(t, m.Apply(nil, true))
		servicetest.Eventually(t, "only one drains", func() bool { return m.value("listener_manager.total_listeners_draining") == 1 })
		require.Empty(t, m.States(), "which waits for what the other's end does")
		require.EqualValues(t, 1, m.value("listener.in.downstream_cx_active"))
	})
}

func TestAllListenersTogetherHaveALimit(t *testing.T) {
	var limit atomic.Int64
	limit.Store(2)
	m := newManager(t, false, nil, func(o *listener.ManagerOptions) { o.TotalLimit = limit.Load })
	m.Start()
	m.Accept()
	require.NoError(t, m.Apply(lds(t, says("a", "one", `, "stat_prefix": "a"`), says("b", "two", `, "stat_prefix": "b"`)), true))
	require.Equal(t, "one", m.dial("a").line())
	require.Equal(t, "two", m.dial("b").line())
	require.Equal(t, "EOF", m.dial("a").line())
	require.Equal(t, "EOF", m.dial("b").line())
	require.EqualValues(t, 1, m.value("listener.a.downstream_global_cx_overflow"))
	require.EqualValues(t, 1, m.value("listener.b.downstream_global_cx_overflow"))
	require.EqualValues(t, 0, m.value("listener.b.downstream_cx_overflow"))

	require.NoError(t, m.Apply(lds(t, says("b", "two", `, "stat_prefix": "b"`)), true))
	servicetest.Eventually(t, "the connection of the one that is gone has ended", func() bool { return m.value("listener.a.downstream_cx_active") == 0 })
	require.Equal(t, "two", m.dial("b").line(), "which makes room for another")
}

func TestOfTheProcessOnlyListenersThatDrainByDefaultDrain(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("default", "a"), says("modify", "b", `, "drain_type": "MODIFY_ONLY"`)), true))
	drains, stays := m.dial("default"), m.dial("modify")
	require.Equal(t, "a", drains.line())
	require.Equal(t, "b", stays.line())
	m.Drain()
	require.Equal(t, "drained", drains.line())
	require.NoError(t, m.Apply(nil, true))
	require.Equal(t, "drained", stays.line(), "by its removal")
}

func TestConnectionsThatAreCutOffAreTold(t *testing.T) {
	log := &logText{}
	m := newManager(t, false, nil, func(o *listener.ManagerOptions) { o.Log = slog.New(slog.NewJSONHandler(log, nil)) })
	m.Start()
	m.Accept()
	require.NoError(t, m.Apply(lds(t, says("l", "stubborn")), true))
	require.Contains(t, log.String(), `"msg":"listening","listener":"l","address":"`+m.Addr("l").String()+`"`)
	c := m.dial("l")
	require.Equal(t, "stubborn", c.line())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, m.Stop(ctx))
	require.Contains(t, log.String(), "cut off connections that had requests in flight")
	require.Contains(t, log.String(), `"connections":1`)
}
