package listener_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// lookers make listener filters that wait for a line. "close" and "fail" do what they
// say, any other is the application protocol.
type lookers struct {
	looking atomic.Int64 // at connections, now
	// holds has a looker that has a line wait for its end; nil has none.
	holds chan struct{}
}

func (*lookers) ConfigType() protoreflect.FullName {
	return (&inspectorv3.HttpInspector{}).ProtoReflect().Descriptor().FullName()
}
func (l *lookers) Fields() strict.Fields { return strict.Fields{l.ConfigType(): {}} }
func (l *lookers) Parse(proto.Message, strict.Path, *strict.Report) listenerfilter.Filter {
	return &looker{lookers: l}
}

type looker struct {
	lookers *lookers
	looked  *stats.Counter
}

func (l *looker) Measure(registry *stats.Registry) {
	if l.looked != nil {
		panic("it has its metrics already")
	}
	l.looked = registry.Scope("looker").Counter("looked")
}

func (l *looker) Inspect(s *listenerfilter.Socket) error {
	l.lookers.looking.Add(1)
	defer l.lookers.looking.Add(-1)
	l.looked.Inc()
	for n := 1; ; {
		received, err := s.Peek(n)
		if err != nil {
			return err
		}
		line, _, whole := bytes.Cut(received, []byte("\n"))
		if !whole {
			n = len(received) + 1
			continue
		}
		if l.lookers.holds != nil {
			<-l.lookers.holds
		}
		switch {
		case string(line) == "close":
			return listenerfilter.ErrClose
		case string(line) == "fail":
			return errors.New("it fails")
		}
		s.Applications = []string{string(line)}
		return nil
	}
}

// looks is a listener whose filters look at connections, with a chain "echo 1" for
// http/1.1 and "echo" for all others, fields in JSON.
func looks(timeout string, more ...string) string {
	return fmt.Sprintf(`{"name": "l", "stat_prefix": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
		"listener_filters": [%s], "listener_filters_timeout": %q, "filter_chains": [%s, %s] %s}`,
		look(""), timeout, filterChain("one", "echo 1", `, "filter_chain_match": {"application_protocols": ["http/1.1"]}`), filterChain("any", "echo"), strings.Join(more, ""))
}

// look is a listener filter, with fields in JSON.
func look(more string) string {
	return `{"name": "look", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}` + more + `}`
}

// lookedAt waits until listener filters look at so many connections.
func (m *manager) lookedAt(n int64) {
	m.t.Helper()
	servicetest.Eventually(m.t, fmt.Sprintf("%d connections are looked at", n), func() bool {
		return m.lookers.looking.Load() == n && m.value("listener.in.downstream_pre_cx_active") == n
	})
}

func (c client) send(text string) client {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(c.t, err)
	return c
}

func TestListenerFiltersTellWhichChainAndLeaveTheBytesToIt(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, looks("0s")), true))
	require.Equal(t, "echo 1 http/1.1", m.dial("l").send("http/1.1\n").line())
	require.Equal(t, "echo h2c", m.dial("l").send("h2c\nmore").line())
	slow := m.dial("l").send("http")
	m.lookedAt(1)
	require.Equal(t, "echo 1 http/1.1", slow.send("/1.1\n").line())
	m.lookedAt(0)
	long := strings.Repeat("a", 100_000)
	require.Equal(t, "echo "+long, m.dial("l").send(long+"\n").line())
	require.EqualValues(t, 4, m.value("listener.in.downstream_cx_total"))
	require.EqualValues(t, 4, m.value("looker.looked"))
}

func TestListenerFiltersMayCloseAConnection(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		gone bool // the client closes its direction behind the line
		want string
	}{
		"by themselves":              {"close\n", false, ""},
		"by a failure":               {"fail\n", false, "downstream_listener_filter_error"},
		"as the client says nothing": {"", true, "downstream_listener_filter_remote_close"},
		"as the client says no more": {"http", true, "downstream_listener_filter_remote_close"},
	} {
		t.Run(name, func(t *testing.T) {
			m := serving(t)
			require.NoError(t, m.Apply(lds(t, looks("0s")), true))
			conn := m.dial("l").send(c.line)
			if c.gone {
				require.NoError(t, conn.Conn.(interface{ CloseWrite() error }).CloseWrite())
			}
			require.NotContains(t, conn.line(), "echo")
			m.lookedAt(0)
			for _, counter := range []string{"downstream_listener_filter_error", "downstream_listener_filter_remote_close", "downstream_pre_cx_timeout", "downstream_cx_total", "downstream_cx_destroy"} {
				want := int64(0)
				if counter == c.want {
					want = 1
				}
				require.Equal(t, want, m.value("listener.in."+counter), counter)
			}
		})
	}
}

func TestListenerFiltersHaveATimeout(t *testing.T) {
	t.Run("which ends the connection", func(t *testing.T) {
		m := serving(t)
		require.NoError(t, m.Apply(lds(t, looks("0.010s")), true))
		require.Equal(t, "EOF", m.dial("l").line())
		require.EqualValues(t, 1, m.value("listener.in.downstream_pre_cx_timeout"))
		require.EqualValues(t, 0, m.value("listener.in.downstream_cx_total"))
	})
	t.Run("or has it go on", func(t *testing.T) {
		m := serving(t)
		require.NoError(t, m.Apply(lds(t, looks("0.010s", `, "continue_on_listener_filters_timeout": true`)), true))
		conn := m.dial("l").send("http")
		servicetest.Eventually(t, "its chain has it", func() bool { return m.value("listener.in.downstream_cx_active") == 1 })
		require.EqualValues(t, 1, m.value("listener.in.downstream_pre_cx_timeout"))
		require.Equal(t, "echo http/1.1", conn.send("/1.1\n").line(), "which has all that it sent, in any time")
	})
}

func TestConnectionLimitsCountFromTheAccept(t *testing.T) {
	m := newManager(t, false, func() int64 { return 1 })
	m.Start()
	m.Accept()
	require.NoError(t, m.Apply(lds(t, looks("0s")), true))
	first := m.dial("l")
	m.lookedAt(1)
	require.Equal(t, "EOF", m.dial("l").line())
	require.EqualValues(t, 1, m.value("listener.in.downstream_cx_overflow"))
	require.EqualValues(t, 0, m.value("listener.in.downstream_cx_active"))
	require.NotContains(t, first.send("close\n").line(), "echo")
	servicetest.Eventually(t, "which makes room for another", func() bool { return m.dial("l").send("h2c\n").line() == "echo h2c" })
}

func TestStopEndsWhatListenerFiltersLookAt(t *testing.T) {
	t.Run("what has come is served", func(t *testing.T) {
		m := serving(t)
		m.lookers.holds = make(chan struct{})
		require.NoError(t, m.Apply(lds(t, looks("0s")), true))
		address := m.Addr("l").String()
		silent, late := m.dial("l"), m.dial("l").send("h2c\n")
		m.lookedAt(2)
		stopped := make(chan error)
		go func() { stopped <- m.Stop(context.Background()) }() // ends with the connections
		closed(t, address, "")
		close(m.lookers.holds)
		require.Equal(t, "echo h2c", late.line())
		require.Equal(t, "EOF", late.line(), "it is finished")
		require.Equal(t, "EOF", silent.line())
		require.NoError(t, <-stopped)
		require.EqualValues(t, 0, m.value("listener.in.downstream_pre_cx_timeout"))
		m.lookedAt(0)
	})
	t.Run("or cut off at its deadline", func(t *testing.T) {
		m := serving(t)
		require.NoError(t, m.Apply(lds(t, looks("0s")), true))
		silent := m.dial("l")
		m.lookedAt(1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, m.Stop(ctx))
		require.Equal(t, "EOF", silent.line())
		require.EqualValues(t, 0, m.value("listener.in.downstream_listener_filter_error"))
	})
}

func TestADrainReachesWhatListenerFiltersLookAt(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, looks("0s")), true))
	conn := m.dial("l")
	m.lookedAt(1)
	m.Drain()
	conn.send("h2c\n")
	require.Equal(t, "drained", conn.line())
}

func TestAListenerThatIsGoneLetsItsFiltersLookOn(t *testing.T) {
	m := newManager(t, false, nil, func(o *listener.ManagerOptions) { o.DrainTime = 10000 * time.Hour })
	m.Start()
	m.Accept()
	require.NoError(t, m.Apply(lds(t, looks("0s")), true))
	conn := m.dial("l")
	m.lookedAt(1)
	require.NoError(t, m.Apply(nil, true))
	conn.send("h2c\n")
	require.Equal(t, "drained", conn.line())
	require.Equal(t, "echo h2c", conn.line())
}

func TestChangedChainsLeaveListenerFiltersAlone(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, looks("0s")), true))
	stays := m.dial("l").send("h2c\n")
	require.Equal(t, "echo h2c", stays.line())
	waits := m.dial("l")
	m.lookedAt(1)
	changed := strings.Replace(strings.Replace(looks("5s"), `"echo 1"`, `"echo one"`, 1), `"stat_prefix": "in"`, `"stat_prefix": "new"`, 1)
	require.NoError(t, m.Apply(lds(t, changed), true))
	require.EqualValues(t, 1, m.value("listener.new.downstream_pre_cx_active"))
	require.EqualValues(t, 1, m.value("listener.new.downstream_cx_active"))
	require.Equal(t, "echo one http/1.1", waits.send("http/1.1\n").line(), "the new chain has it")
	require.EqualValues(t, 1, m.value("listener_manager.listener_in_place_updated"))
	require.EqualValues(t, 0, m.value("listener.new.downstream_cx_destroy"), "what did not change stays")
}

func TestChangedListenerFiltersDrainAllConnections(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, looks("0s")), true))
	address := m.Addr("l").String()
	old := m.dial("l").send("h2c\n")
	require.Equal(t, "echo h2c", old.line())
	waits := m.dial("l")
	m.lookedAt(1)
	require.NoError(t, m.Apply(lds(t, strings.Replace(looks("0s"), look(""), look(`, "filter_disabled": {"any_match": true}`), 1)), true))
	require.Equal(t, "drained", old.line())
	require.Equal(t, "EOF", old.line())
	require.Equal(t, address, m.Addr("l").String(), "the socket stays")
	require.EqualValues(t, 0, m.value("listener_manager.listener_in_place_updated"))
	require.Equal(t, "echo http/1.1", m.dial("l").send("http/1.1\n").line(), "nothing looks at it")
	require.Equal(t, "echo 1 http/1.1", waits.send("http/1.1\n").line(), "it is looked at as when it came")
}

func TestAListenerFilterIsDisabledByPort(t *testing.T) {
	m := serving(t)
	port := func(start, end int) string {
		return fmt.Sprintf(`{"destination_port_range": {"start": %d, "end": %d}}`, start, end)
	}
	here, elsewhere := port(1, 65536), port(0, 1)
	for _, c := range []struct {
		disabled string
		want     bool
	}{
		{here, true},
		{elsewhere, false},
		{`{"any_match": true}`, true},
		{`{"not_match": ` + here + `}`, false},
		{`{"not_match": ` + elsewhere + `}`, true},
		{`{"or_match": {"rules": [` + elsewhere + `, ` + here + `]}}`, true},
		{`{"or_match": {"rules": [` + elsewhere + `, ` + elsewhere + `]}}`, false},
		{`{"and_match": {"rules": [` + elsewhere + `, ` + here + `]}}`, false},
		{`{"and_match": {"rules": [` + here + `, {"any_match": true}]}}`, true},
	} {
		require.NoError(t, m.Apply(lds(t, strings.Replace(looks("0s"), look(""), look(`, "filter_disabled": `+c.disabled), 1)), true))
		want := "echo 1 http/1.1"
		if c.want {
			want = "echo http/1.1"
		}
		require.Equal(t, want, m.dial("l").send("http/1.1\n").line(), c.disabled)
	}
}
