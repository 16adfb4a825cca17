package harness

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// record is a testing.TB that keeps how a helper failed it.
type record struct {
	testing.TB
	text string
}

func (r *record) Helper()                   {}
func (r *record) Errorf(f string, a ...any) { r.text += fmt.Sprintf(f, a...) }
func (r *record) FailNow()                  { panic(r) }

// failing runs a helper and returns what it failed its test with, empty if it
// did not.
func failing(t *testing.T, helper func(testing.TB)) (text string) {
	r := &record{TB: t}
	defer func() {
		if got := recover(); got != nil {
			require.Same(t, r, got)
		}
		text = r.text
	}()
	helper(r)
	return ""
}

// shell is a program that a shell runs; $READY is its ready file.
func shell(script string) Program {
	return Program{Name: "script", Path: "/bin/sh", Command: func(bound Addresses, readyFile string) (arguments, environment []string) {
		return []string{"-c", script}, []string{"READY=" + readyFile, "BOUND=" + bound.of("http")}
	}}
}

// serving is the script of a program that says where it listens and runs on.
const serving = `echo started at $BOUND; echo '{"http":"127.0.0.1:40001"}' >$READY; exec sleep 600`

func TestAProgramIsReadyOnceItsReadyFileIsThere(t *testing.T) {
	p := Start(t, shell(serving))
	require.Equal(t, "127.0.0.1:40001", p.Addr("http"))
	require.False(t, p.Ended())
	require.Contains(t, failing(t, func(tb testing.TB) {
		p.t = tb
		p.Addr("xds")
	}), "script has no listener of that name")
}

func TestAnAddressOfEveryInterfaceIsReachedOverLoopback(t *testing.T) {
	for bound, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", "[::1]:80": "[::1]:80",
	} {
		require.Equal(t, want, reachable(bound))
	}
}

func TestAProgramThatEndsBeforeItIsReadyFailsTheTestWithItsLog(t *testing.T) {
	text := failing(t, func(tb testing.TB) { Start(tb, shell("echo the mill is on fire >&2; exit 3")) })
	require.Contains(t, text, "script ended with code 3 before it is ready")
	require.Contains(t, text, "the mill is on fire")
}

func TestARestartBindsTheSameAddresses(t *testing.T) {
	p := Start(t, shell(serving))
	p.Kill()
	p.Restart()
	servicetest.Eventually(t, "both runs are in the log", func() bool {
		return p.Log() == "started at 127.0.0.1:0\nstarted at 127.0.0.1:40001\n"
	})
}

func TestAKillReachesTheChildrenToo(t *testing.T) {
	p := Start(t, shell(`sleep 600 & echo $! >$READY.child; `+serving))
	text, err := os.ReadFile(p.readyFile() + ".child")
	require.NoError(t, err)
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(child, 0))
	p.Kill()
	servicetest.Eventually(t, "the child is gone", func() bool { return !runs(child) })
}

// runs says whether a process is there and is more than an entry that its
// parent has not yet read.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func TestAStopWantsCodeZero(t *testing.T) {
	good := Start(t, shell(`trap 'exit 0' TERM; echo '{}' >$READY; while :; do sleep 0.01; done`))
	require.Empty(t, failing(t, func(tb testing.TB) {
		good.t = tb
		good.Stop()
	}))
	bad := Start(t, shell(`trap 'exit 4' TERM; echo '{}' >$READY; while :; do sleep 0.01; done`))
	require.Contains(t, failing(t, func(tb testing.TB) {
		bad.t = tb
		bad.Stop()
	}), "exit code of script after SIGTERM")
}

func TestPortsAreReplacedOnceEachAndAllOfThem(t *testing.T) {
	const text = "a: {port_value: 1}\nb: {port_value: 2}\n"
	require.Equal(t, "a: {port_value: 0}\nb: {port_value: 77}\n", WithPorts(t, text, map[string]string{"1": "0", "2": "77"}))
	for name, ports := range map[string]map[string]string{
		"a_port_that_nothing_is_said_of": {"1": "0"},
		"a_port_that_is_not_there":       {"1": "0", "2": "0", "3": "0"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, failing(t, func(tb testing.TB) { WithPorts(tb, text, ports) }))
		})
	}
	require.NotEmpty(t, failing(t, func(tb testing.TB) { WithPorts(tb, text+text, map[string]string{"1": "0", "2": "0"}) }))
}

func TestTheDemosFilesAreWhereTheHarnessLooks(t *testing.T) {
	require.Contains(t, DemoRules(t), "domain: demo")
	text := DemoBootstrap(t, "127.0.0.1:71", "127.0.0.1:72")
	require.Contains(t, text, "port_value: 71}")
	require.Contains(t, text, "port_value: 72}")
}

func TestRawAnswersAreReadToTheirEnd(t *testing.T) {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Echo-Instance", "one")
		_, _ = w.Write([]byte(r.Method))
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends at Close, below
	servicetest.Eventually(t, "the server answers", func() bool { return ask(address, "/") == "GET" })
	for text, want := range map[string]struct {
		body   string
		closed bool
	}{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                      {"GET", false},
		"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n":                     {"", false},
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n": {"GET", true},
	} {
		answer, closed := SendRaw(t, address, text)
		require.Equal(t, http.StatusOK, answer.Status)
		require.Equal(t, "one", answer.Instance)
		require.Equal(t, want.body, answer.Body)
		require.Equal(t, want.closed, closed)
	}
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}
