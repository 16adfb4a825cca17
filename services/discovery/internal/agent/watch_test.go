package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// lists is a fake registry of readers, in the place of the network: it answers
// with the list of each service, and lets a reader that has it wait.
type lists struct {
	mu      sync.Mutex
	changed chan struct{}
	answers map[string]string
	// status is what all calls are answered with; 200 for the lists.
	status int
	// partial says that hosts may be missing yet.
	partial bool
	calls   int
}

func newLists() *lists {
	return &lists{changed: make(chan struct{}), answers: map[string]string{}, status: 200}
}

// set changes the list of a service: hosts by their ids, serving or draining.
func (l *lists) set(service, index string, hosts map[string]string) {
	list := `{"service":"` + service + `","known":true,"index":"` + index + `","hosts":[`
	for id, state := range hosts {
		list += fmt.Sprintf(`{"id":%q,"address":"10.0.0.1","port":80,"state":%q,"tags":{"more":1}},`, id, state)
	}
	l.say(service, list+`{"id":"gone","address":"10.0.0.1","port":80,"state":"out"}]}`)
}

func (l *lists) say(service, list string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[service] = list
	close(l.changed)
	l.changed = make(chan struct{})
}

// answer has all calls answered with a status; those that wait are cut off.
func (l *lists) answer(status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = status
	close(l.changed)
	l.changed = make(chan struct{})
}

// RoundTrip implements http.RoundTripper.
func (l *lists) RoundTrip(request *http.Request) (*http.Response, error) {
	service := filepath.Base(filepath.Dir(request.URL.Path))
	index := request.URL.Query().Get("index")
	wait, _ := time.ParseDuration(request.URL.Query().Get("wait"))
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	for {
		l.mu.Lock()
		status, list, changed := l.status, l.answers[service], l.changed
		if l.partial && index != "" {
			status = 503
		}
		l.mu.Unlock()
		switch {
		case status == 0:
			return nil, errors.New("connection refused")
		case status != 200:
			return answer(status, `{"error":"not loaded"}`)
		case list == "":
			list = `{"known":false,"index":"0000000000000000","hosts":[]}`
		}
		var said client.Hosts
		_ = json.Unmarshal([]byte(list), &said)
		if said.Index != index {
			return answer(200, list)
		}
		select {
		case <-changed:
		case <-timeout.C:
			return answer(304, "")
		case <-request.Context().Done():
			return nil, request.Context().Err()
		}
	}
}

// watching is a watcher that runs, in a bubble, with its file and its log.
type watching struct {
	events
	path string
}

func startWatching(t *testing.T, l *lists, path string, services ...string) *watching {
	w := &watching{path: path}
	stop, err := watchHosts(Options{
		Discovery: client.Options{Registries: []string{"http://one"}, Transport: l}, HostsFile: path, HostsOf: services,
	}, slog.New(slog.NewTextHandler(&w.events, nil)))
	require.NoError(t, err)
	t.Cleanup(stop)
	return w
}

// known reads the file and returns what it says of a service: ids of hosts, of
// draining ones, and how old that is.
func (w *watching) known(t *testing.T, service string) (hosts, draining []string, age time.Duration) {
	t.Helper()
	text, err := os.ReadFile(w.path)
	require.NoError(t, err)
	content, err := decodeHostsFile(text)
	require.NoError(t, err)
	known, ok := content.Services[service]
	require.True(t, ok, "of %s in %s", service, text)
	for _, h := range known.Hosts {
		hosts = append(hosts, h.ID)
	}
	for _, h := range known.Draining {
		draining = append(draining, h.ID)
	}
	return hosts, draining, time.Since(known.AsOf)
}

// settle lets d pass, and all be done that is to be done by then.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestTheFileHoldsWhatTheRegistrySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists()
		l.set("users", "1", map[string]string{"a": "serving", "b": "draining"})
		w := startWatching(t, l, filepath.Join(t.TempDir(), "hosts.json"), "users", "orders")
		settle(time.Second)
		hosts, draining, _ := w.known(t, "users")
		require.Equal(t, []string{"a"}, hosts)
		require.Equal(t, []string{"b"}, draining)
		text, err := os.ReadFile(w.path)
		require.NoError(t, err)
		require.NotContains(t, string(text), "orders", "no registry has known it")
		require.NotContains(t, string(text), "gone", "it is out")
		require.Contains(t, string(text), `"more": 1`, "all that the registry says of a host is there")

		l.set("users", "2", nil)
		settle(time.Second)
		hosts, draining, age := w.known(t, "users")
		require.Empty(t, hosts, "the registry says that there are none")
		require.Empty(t, draining)
		require.LessOrEqual(t, age, time.Second)
		require.Empty(t, w.all())
	})
}

func TestTheFileSaysHowOldItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists()
		l.set("users", "1", map[string]string{"a": "serving"})
		w := startWatching(t, l, filepath.Join(t.TempDir(), "hosts.json"), "users")
		settle(10 * time.Minute)
		_, _, age := w.known(t, "users")
		require.LessOrEqual(t, age, pollWait+time.Second, "it is confirmed while nothing changes")
		require.LessOrEqual(t, l.calls, 21, "two calls a minute")
		l.answer(0)
		settle(10 * time.Minute)
		_, _, age = w.known(t, "users")
		require.GreaterOrEqual(t, age, 10*time.Minute)
	})
}

func TestNoListIsLostWhileTheRegistryIsAwayOrHasLostItsMemory(t *testing.T) {
	for name, trouble := range map[string]func(*lists){
		"it does not answer":       func(l *lists) { l.answer(0) },
		"it is not loaded":         func(l *lists) { l.answer(503) },
		"it refuses":               func(l *lists) { l.answer(403) },
		"it knows no service":      func(l *lists) { l.say("users", "") },
		"somebody else answers":    func(l *lists) { l.say("users", "<html>") },
		"somebody answers nothing": func(l *lists) { l.say("users", "{}") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLists()
				l.set("users", "1", map[string]string{"a": "serving", "b": "draining"})
				path := filepath.Join(t.TempDir(), "hosts.json")
				w := startWatching(t, l, path, "users")
				settle(time.Second)
				trouble(l)
				settle(5 * time.Minute)
				hosts, draining, age := w.known(t, "users")
				require.Equal(t, []string{"a"}, hosts)
				require.Equal(t, []string{"b"}, draining)
				require.GreaterOrEqual(t, age, 5*time.Minute)
				require.Equal(t, 1, w.count("kept"), "it is said once: %q", w.all())

				// Nor does a new agent that finds the registry so.
				next := startWatching(t, l, path, "users")
				settle(time.Minute)
				hosts, _, _ = next.known(t, "users")
				require.Equal(t, []string{"a"}, hosts)

				l.answer(200)
				l.set("users", "2", map[string]string{"c": "serving"})
				settle(2 * refusedLongest)
				hosts, draining, _ = w.known(t, "users")
				require.Equal(t, []string{"c"}, hosts)
				require.Empty(t, draining)
			})
		})
	}
}

func TestAFileLosesNoHostToARegistryThatHasYetToHearOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists()
		three := map[string]string{"a": "serving", "b": "serving", "c": "draining"}
		l.set("users", "3", three)
		path := filepath.Join(t.TempDir(), "hosts.json")
		stop, err := watchHosts(Options{
			Discovery: client.Options{Registries: []string{"http://one"}, Transport: l}, HostsFile: path, HostsOf: []string{"users"},
		}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		settle(time.Second)
		stop()

		// The agent and the registry both start anew.
		begun := newLists()
		begun.partial = true
		begun.set("users", "1", map[string]string{"a": "serving"})
		w := startWatching(t, begun, path, "users")
		settle(15 * time.Second)
		hosts, draining, _ := w.known(t, "users")
		require.ElementsMatch(t, []string{"a", "b"}, hosts)
		require.Equal(t, []string{"c"}, draining)

		begun.mu.Lock()
		begun.partial = false
		begun.mu.Unlock()
		settle(refusedLongest)
		hosts, draining, _ = w.known(t, "users")
		require.Equal(t, []string{"a"}, hosts, "now it says that there are no others")
		require.Empty(t, draining)
	})
}

func TestAFileThatCannotBeWrittenIsTriedOnAndThatIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists()
		dir := filepath.Join(t.TempDir(), "run")
		require.NoError(t, os.Mkdir(dir, 0o755))
		w := startWatching(t, l, filepath.Join(dir, "hosts.json"), "users")
		settle(time.Second)
		require.NoError(t, os.RemoveAll(dir))
		l.set("users", "1", map[string]string{"a": "serving"})
		settle(time.Minute)
		require.Equal(t, 1, w.count("hosts not written, trying on"))
		require.NoError(t, os.Mkdir(dir, 0o755))
		settle(2 * retryLongest)
		hosts, _, _ := w.known(t, "users")
		require.Equal(t, []string{"a"}, hosts)
	})
}

func TestWhatWasNotWrittenYetIsWrittenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists()
		l.set("users", "1", map[string]string{"a": "serving"})
		w := &watching{path: filepath.Join(t.TempDir(), "hosts.json")}
		stop, err := watchHosts(Options{
			Discovery: client.Options{Registries: []string{"http://one"}, Transport: l}, HostsFile: w.path, HostsOf: []string{"users"},
		}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		settle(writeInterval / 2)
		l.set("users", "2", map[string]string{"b": "serving"})
		settle(0)
		hosts, _, _ := w.known(t, "users")
		require.Equal(t, []string{"a"}, hosts, "two writes are apart")
		stop()
		hosts, _, _ = w.known(t, "users")
		require.Equal(t, []string{"b"}, hosts)
	})
}

func TestAFileOfSomebodyElseIsRefusedAndLeftAsItIs(t *testing.T) {
	for name, test := range map[string]struct {
		text    string
		refused bool
	}{
		"of somebody else":         {"127.0.0.1 localhost\n", true},
		"JSON of somebody else":    {`{"format": "other"}`, true},
		"made to be written to":    {"", false},
		"cut short":                {fileBeginning + `, "version": 1, "serv`, false},
		"of a version to come":     {fileBeginning + `, "version": 2, "services": {"users": {"hosts": [{"id": "a", "state": "serving"}]}}}`, false},
		"with hosts of wrong type": {fileBeginning + `, "version": 1, "services": {"users": {"hosts": [1]}}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var e events
			path := filepath.Join(t.TempDir(), "hosts")
			require.NoError(t, os.WriteFile(path, []byte(test.text), 0o600))
			f, err := openHostsFile(path, []string{"users"}, slog.New(slog.NewTextHandler(&e, nil)))
			left, read := os.ReadFile(path)
			require.NoError(t, read)
			require.Equal(t, test.text, string(left))
			if test.refused {
				require.ErrorContains(t, err, path+": something else lies there")
				return
			}
			require.NoError(t, err)
			require.Empty(t, f.services)
			require.Equal(t, test.text != "", e.count("cannot be understood") == 1)
		})
	}
}

func TestTheFileOfARunningAgentIsKeptWithTheProgram(t *testing.T) {
	var e events
	l := newLists()
	l.set("orders", "1", map[string]string{"a": "serving"})
	path := filepath.Join(t.TempDir(), "hosts.json")
	a := startWith(t, &e, func(o *Options) {
		o.Discovery = client.Options{Registries: []string{"http://one"}, Transport: l}
		o.HostsFile, o.HostsOf = path, []string{"orders"}
	}, "wait")
	e.await(t, "started")
	servicetest.Eventually(t, "the file is there", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	hosts, _, _ := (&watching{path: path}).known(t, "orders")
	require.Equal(t, []string{"a"}, hosts)
}

func TestWatchKeepsAFileUntilItIsAskedToEnd(t *testing.T) {
	l := newLists()
	l.set("users", "1", map[string]string{"a": "serving"})
	path := filepath.Join(t.TempDir(), "hosts.json")
	action := &watchAction{file: path, services: lines{"users"}}
	action.options = client.Options{Registries: []string{"http://one"}, Transport: l}
	signals, code := make(chan os.Signal, 2), make(chan int, 1)
	// Ends at the signal; waited for below.
	go func() { code <- action.do(process{signals: signals, log: slog.New(slog.DiscardHandler)}) }()
	servicetest.Eventually(t, "the file is there", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	signals <- syscall.SIGHUP
	signals <- syscall.SIGTERM
	require.Equal(t, done, <-code)

	action.file = "/none/such/hosts.json"
	var e events
	require.Equal(t, notDone, action.do(process{log: slog.New(slog.NewTextHandler(&e, nil))}))
	require.Equal(t, 1, e.count("/none/such/hosts.json"))
}

// FuzzHostsFile holds that no file harms the agent, and that one which is
// understood says the same when it is written again.
func FuzzHostsFile(f *testing.F) {
	f.Add([]byte(fileBeginning + `, "version": 1, "written": "2026-11-26T00:00:00Z", "services": {"users": {"index": "1",
		"as_of": "2026-11-26T00:00:00Z", "hosts": [{"id": "a", "address": "10.0.0.1", "port": 80, "state": "serving"}], "draining": []}}}`))
	f.Add([]byte(`{"format": 1}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		content, err := decodeHostsFile(text)
		if err != nil || len(text) == 0 {
			return
		}
		again, err := json.Marshal(content)
		require.NoError(t, err)
		second, err := decodeHostsFile(again)
		require.NoError(t, err)
		require.Len(t, second.Services, len(content.Services))
		for name, known := range content.Services {
			require.Len(t, second.Services[name].Hosts, len(known.Hosts))
		}
	})
}

func TestTheWatcherEndsWithItsContextWhileACallHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := openHostsFile(filepath.Join(t.TempDir(), "hosts.json"), nil, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		c, err := client.New(client.Options{Registries: []string{"http://one"}, Transport: transport(func(request *http.Request) (*http.Response, error) {
			<-request.Context().Done()
			return nil, request.Context().Err()
		})})
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		begin := time.Now()
		(&watcher{discovery: c, file: f, log: slog.New(slog.DiscardHandler)}).watch(ctx, []string{"a", "b"})
		require.Equal(t, time.Second, time.Since(begin))
	})
}
