package listener_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// closed waits until nobody who connects to an address is told text.
func closed(t *testing.T, address, text string) {
	t.Helper()
	servicetest.Eventually(t, address+" is closed", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return true
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false // which tells nothing: look again
		}
		// It may be another process's by now.
		return line != text+"\n" && line != "drained\n"
	})
}

func TestUndrainLetsConnectionsLastAgain(t *testing.T) {
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("l", "hello"), says("fixed", "hello", `, "drain_type": "MODIFY_ONLY"`)), true))
	m.Drain()
	require.Equal(t, "drained", m.dial("l").line())
	require.NoError(t, m.Apply(lds(t, says("later", "hello")), false))
	require.Equal(t, "drained", m.dial("later").line(), "it came while all drain")
	require.Equal(t, "hello", m.dial("fixed").line())
	m.Undrain()
	require.Equal(t, "hello", m.dial("l").line())
	require.Equal(t, "hello", m.dial("later").line())
}

func TestUndrainLeavesListenersThatDrainListenersDrains(t *testing.T) {
	const inbound = `, "traffic_direction": "INBOUND"`
	m := serving(t)
	require.NoError(t, m.Apply(lds(t, says("in", "in", inbound), says("out", "out")), true))
	m.DrainListeners(true, false, true)
	m.Drain()
	require.Equal(t, "drained", m.dial("out").line())
	m.Undrain()
	require.Equal(t, "out", m.dial("out").line())
	require.Equal(t, "drained", m.dial("in").line())
	require.NoError(t, m.Apply(lds(t, says("late", "late", inbound), says("other", "other")), false))
	require.Equal(t, "drained", m.dial("late").line(), "it is like those that drain")
	require.Equal(t, "other", m.dial("other").line())
}

func TestDrainListeners(t *testing.T) {
	const inbound = `, "traffic_direction": "INBOUND"`
	begin := func(t *testing.T) (m *manager, in, out client, address string) {
		m = serving(t)
		require.NoError(t, m.Apply(lds(t, says("in", "in", inbound), says("out", "out")), true))
		in, out = m.dial("in"), m.dial("out")
		require.Equal(t, "in", in.line())
		require.Equal(t, "out", out.line())
		return m, in, out, m.Addr("in").String()
	}
	t.Run("closes sockets, and connections go on", func(t *testing.T) {
		m, in, _, address := begin(t)
		m.DrainListeners(false, false, false)
		m.DrainListeners(false, false, false)
		closed(t, address, "in")
		closed(t, m.Addr("out").String(), "out")
		require.EqualValues(t, 2, m.value("listener_manager.listener_stopped"), "once each")
		require.NoError(t, m.Apply(lds(t, says("late", "late")), false))
		closed(t, m.Addr("late").String(), "late")
		require.NotContains(t, m.log.String(), "msg=listening listener=late")
		require.NoError(t, in.SetReadDeadline(time.Now().Add(-time.Second)))
		_, err := in.Read(make([]byte, 1))
		require.ErrorContains(t, err, "timeout", "it is open, and was not told to end")

		require.NoError(t, m.Apply(lds(t, says("late", "later", `, "tcp_backlog_size": 5`)), false))
		require.NotContains(t, m.log.String(), "backlog", "there is no socket to set it of")
		require.NoError(t, m.Apply(nil, true))
		require.EqualValues(t, 3, m.value("listener_manager.listener_stopped"), "once each, though they are gone as well")
	})
	t.Run("inboundonly leaves the others", func(t *testing.T) {
		m, _, _, address := begin(t)
		m.DrainListeners(true, false, false)
		closed(t, address, "in")
		require.Equal(t, "out", m.dial("out").line())
		require.NoError(t, m.Apply(lds(t, says("late", "late", inbound), says("other", "other")), false))
		closed(t, m.Addr("late").String(), "late")
		require.Equal(t, "other", m.dial("other").line())
	})
	t.Run("graceful tells connections to end, and closes later", func(t *testing.T) {
		m, in, out, address := begin(t)
		m.DrainListeners(false, true, false)
		require.Equal(t, "drained", in.line())
		require.Equal(t, "drained", out.line())
		closed(t, address, "in")
	})
	t.Run("skip_exit never closes", func(t *testing.T) {
		m, in, _, _ := begin(t)
		m.DrainListeners(false, false, true) // with graceful or without it
		m.DrainListeners(false, true, true)
		require.Equal(t, "drained", in.line())
		require.Equal(t, "drained", m.dial("out").line())
		require.EqualValues(t, 0, m.value("listener_manager.listener_stopped"))
	})
	t.Run("graceful ends with the manager", func(t *testing.T) {
		m, _, _, _ := begin(t)
		m.DrainListeners(false, true, false)
		require.NoError(t, m.Stop(t.Context()))
		m.DrainListeners(false, true, false)
	})
}
