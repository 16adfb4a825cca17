package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// events is a log, in order, of what discovery was asked, what the program
// wrote and what the agent logged.
type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) add(event string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

// Write takes lines of the program or of the agent's log.
func (e *events) Write(lines []byte) (int, error) {
	for line := range bytes.Lines(lines) {
		e.add(strings.TrimSpace(string(line)))
	}
	return len(lines), nil
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.list...)
}

// count is how many events contain text.
func (e *events) count(text string) (n int) {
	for _, event := range e.all() {
		if strings.Contains(event, text) {
			n++
		}
	}
	return n
}

// order requires that the events contain texts, in this order.
func (e *events) order(t *testing.T, texts ...string) {
	t.Helper()
	list := e.all()
	for _, event := range list {
		if len(texts) > 0 && strings.Contains(event, texts[0]) {
			texts = texts[1:]
		}
	}
	require.Empty(t, texts, "not in this order in %q", list)
}

func (e *events) await(t *testing.T, text string) {
	t.Helper()
	servicetest.Eventually(t, fmt.Sprintf("%q happens", text), func() bool { return e.count(text) > 0 })
}

// discovery is a fake registry that notes every call.
type discovery struct {
	*httptest.Server
	events *events

	mu sync.Mutex
	// status is what every call is answered with, with retryAfter as
	// Retry-After; 200 is to do what is asked.
	status     int
	retryAfter string
	// hosts are the bodies of those that are registered, by path; leases counts
	// registrations.
	hosts  map[string]string
	leases int
	// bodies are those of all registrations.
	bodies []string
}

func newDiscovery(t *testing.T, e *events, status int) *discovery {
	d := &discovery{status: status, events: e, hosts: map[string]string{}}
	d.Server = httptest.NewServer(d)
	t.Cleanup(d.Close)
	return d
}

func (d *discovery) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	path := strings.TrimSuffix(r.URL.EscapedPath(), "/heartbeat")
	status := d.status
	switch {
	case status != 200:
		if d.retryAfter != "" {
			w.Header().Set("Retry-After", d.retryAfter)
		}
	case r.Method == http.MethodPut:
		d.leases++
		d.hosts[path] = string(body)
		d.bodies = append(d.bodies, string(body))
	case d.hosts[path] == "", r.Method == http.MethodPost && string(body) != fmt.Sprintf(`{"lease":"%016x"}`, d.leases):
		status = 404
	case r.Method == http.MethodDelete:
		status = 204
		delete(d.hosts, path)
	default:
		status = 204
	}
	d.events.add(fmt.Sprintf("%s %s %d %s", r.Method, r.URL, status, body))
	w.WriteHeader(status)
	switch status {
	case 200:
		fmt.Fprintf(w, `{"lease":"%016x","ttl":"3s"}`, d.leases)
	case 204:
	default:
		fmt.Fprint(w, `{"error":"the reason"}`)
	}
}

func (d *discovery) answer(status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = status
}

// forget has the fake know no host any more.
func (d *discovery) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hosts = map[string]string{}
}

// hanging is a fake that takes registrations and beats, but answers no DELETE
// before its caller gave up or released was closed.
func hanging(t *testing.T, e *events, released <-chan struct{}) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Read to its end, or the server would not see the caller give up.
		_, _ = io.Copy(io.Discard, r.Body)
		e.add("hanging " + r.Method)
		if r.Method == http.MethodDelete {
			select {
			case <-r.Context().Done():
			case <-released:
			}
		}
		fmt.Fprint(w, `{"lease":"1"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

// agent is an agent that runs, with the test binary as its program.
type agent struct {
	signals chan os.Signal
	code    chan int
}

// start runs an agent; arguments are the program's. Its TTL is 3s, and it
// beats every 20ms and checks as often.
func start(t *testing.T, e *events, urls []string, drain time.Duration, arguments ...string) *agent {
	return startWith(t, e, func(o *Options) { o.Discovery.Registries, o.Drain = urls, drain }, arguments...)
}

// startWith runs an agent with options that change has changed.
func startWith(t *testing.T, e *events, change func(*Options), arguments ...string) *agent {
	address := netip.MustParseAddrPort(servicetest.FreeAddress(t))
	t.Setenv(programPort, fmt.Sprint(address.Port()))

	a := &agent{signals: make(chan os.Signal, 8), code: make(chan int, 1)}
	log := slog.New(slog.NewTextHandler(e, nil))
	o := Options{
		Service: "users", ID: "i-1",
		Host: client.Registration{
			Address: address.Addr(), Port: address.Port(), Revision: "r1", Zone: "eu-1", Region: "eu",
			Tags: map[string]json.RawMessage{"rack": json.RawMessage("7")},
		},
		TTL: 3 * time.Second, Interval: 20 * time.Millisecond, Check: Check{Interval: 20 * time.Millisecond, Failures: 3},
		Command: append([]string{os.Args[0]}, arguments...),
	}
	change(&o)
	// Ends with the program; end waits for it.
	go func() { a.code <- Run(o, a.signals, e, e, log) }()
	return a
}

// end waits for the agent's exit code.
func (a *agent) end(t *testing.T, want int) {
	t.Helper()
	select {
	case code := <-a.code:
		require.Equal(t, want, code)
	case <-time.After(servicetest.Patience):
		t.Fatal("the agent does not end")
	}
}

// path is that of the host of an agent in these tests.
const path = "/v2/services/users/hosts/i-1"

func TestTheProgramIsRegisteredOnceItsPortAnswers(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "wait")
	e.await(t, "started")
	a.signals <- syscall.SIGUSR1
	servicetest.Eventually(t, "it beats", func() bool { return e.count("POST "+path+"/heartbeat 204") >= 3 })
	e.order(t, "started", "user defined signal 1", "PUT "+path+" 200", "POST "+path+"/heartbeat 204")
	require.Equal(t, 1, e.count("msg=registered"))
	require.Equal(t, 1, e.count("PUT"))
	d.mu.Lock()
	body := d.bodies[0]
	d.mu.Unlock()
	require.JSONEq(t, `{"address":"127.0.0.1","port":`+os.Getenv(programPort)+`,"zone":"eu-1","region":"eu","revision":"r1",
		"tags":{"rack":7},"ttl":"3s"}`, body)
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
}

func TestAtSIGTERMTheProgramIsDrainedThenDeregisteredBeforeItHearsOfIt(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 2*time.Second, "listen") // in which it beats on a busy machine too
	e.await(t, "POST")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "POST", `"draining":true`, "msg=draining", "POST", "DELETE "+path+"?lease=0000000000000002 204", "msg=deregistered", "terminated")
	require.Equal(t, 2, e.count("PUT"))
	require.Equal(t, 1, e.count("DELETE"))
	list := e.all()
	require.NotContains(t, list[len(list)-1], "POST", "no beat after the deregistration")
}

func TestASecondSIGTERMIsPassedOnAtOnce(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, time.Hour, "listen")
	e.await(t, "POST")
	a.signals <- syscall.SIGTERM
	e.await(t, "msg=draining")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Equal(t, 1, e.count("terminated"))
	require.Equal(t, 1, e.count("DELETE"))
}

func TestASecondSIGTERMDoesNotWaitForADeregistrationThatHangs(t *testing.T) {
	var e events
	released := make(chan struct{})
	d := hanging(t, &e, released)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "hanging POST")
	a.signals <- syscall.SIGTERM
	e.await(t, "hanging DELETE")
	a.signals <- syscall.SIGTERM
	e.await(t, "terminated")
	close(released)
	a.end(t, 7)
	e.order(t, "terminated", "msg=deregistered")
}

func TestADiscoveryThatHangsLeavesTimeToDeregisterWithAnother(t *testing.T) {
	var e events
	first, second := hanging(t, &e, nil), newDiscovery(t, &e, 200)
	a := start(t, &e, []string{first.URL, second.URL}, 0, "listen")
	e.await(t, "hanging POST")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "hanging DELETE", "DELETE "+path, "msg=deregistered", "terminated")
}

func TestARegistryThatIsAwayDoesNotHoldUpTheEnd(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 50*time.Millisecond, "listen")
	e.await(t, "POST")
	d.Close()
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "not deregistered; if it is still registered, that ends with the ttl", "terminated")
}

func TestAProgramThatEndsIsDeregisteredAndItsCodePassedOn(t *testing.T) {
	for name, test := range map[string]struct {
		signal syscall.Signal
		code   int
	}{
		"by itself":          {syscall.SIGUSR2, 42},
		"killed by a signal": {syscall.SIGKILL, 128 + 9},
	} {
		t.Run(name, func(t *testing.T) {
			var e events
			d := newDiscovery(t, &e, 200)
			a := start(t, &e, []string{d.URL}, time.Hour, "exit", "42")
			e.await(t, "POST")
			a.signals <- test.signal
			a.end(t, test.code)
			e.order(t, "POST", "DELETE")
			require.Zero(t, e.count("draining"), "it is too late for that")
		})
	}
}

func TestAProgramThatNeverListensIsNeverRegistered(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, time.Hour, "wait")
	e.await(t, "started")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Zero(t, e.count("/v2/"))
}

func TestAHostThatTheRegistryForgotIsRegisteredAgain(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "POST")
	d.forget()
	servicetest.Eventually(t, "it beats again", func() bool { return e.count(`204 {"lease":"0000000000000002"}`) > 0 })
	e.order(t, "POST "+path+"/heartbeat 404", "the registry does not know the host any more", "PUT "+path+" 200", "POST "+path+"/heartbeat 204")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
}

func TestAProgramWhoseCheckFailsIsDrainedUntilItPassesAgain(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	var status atomic.Int32
	status.Store(200)
	check := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(check.Close)
	a := startWith(t, &e, func(o *Options) {
		o.Discovery.Registries, o.Interval = []string{d.URL}, 2*time.Second // so it is not the next beat that says it
		o.Check.Kind, o.Check.URL = CheckHTTP, check.URL
	}, "listen")
	e.await(t, "started")
	e.await(t, "msg=registered")
	status.Store(500)
	e.await(t, `"draining":true`)
	status.Store(200)
	servicetest.Eventually(t, "it is taken back", func() bool { return e.count("msg=registered") == 2 })
	e.order(t, "msg=registered", "the program's check fails; it is drained", "PUT "+path, "passes again", "PUT "+path)
	require.Equal(t, 1, e.count("500 Internal Server Error"))
	require.Zero(t, e.count("DELETE"))
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
}

func TestDiscoveryIsTriedUntilItAnswersAndThatIsLoggedOnce(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 503)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	servicetest.Eventually(t, "it tries on", func() bool { return e.count("PUT "+path+" 503") >= 3 })
	d.answer(200)
	e.await(t, "msg=registered")
	d.answer(400)
	e.await(t, "heartbeat 400")
	d.answer(200)
	servicetest.Eventually(t, "it is registered again", func() bool { return e.count("msg=registered") == 2 })
	require.Equal(t, 1, e.count("503 Service Unavailable: the reason"))
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
}

func TestAnotherDiscoveryIsUsedWhereTheFirstIsAway(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{"http://127.0.0.1:1", d.URL}, 0, "listen") // nobody listens at port 1
	e.await(t, "msg=registered")
	require.Zero(t, e.count("not registered"))
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "PUT", "DELETE")
}

func TestAProgramThatCannotBeStartedIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		o      Options
		reason string
	}{
		"no such program":   {Options{}, "/none/such"},
		"no such file":      {Options{Discovery: client.Options{CA: "/none/ca"}}, "/none/ca"},
		"no such directory": {Options{HostsFile: "/none/such/hosts", HostsOf: []string{"a"}}, "/none/such/hosts"},
	} {
		t.Run(name, func(t *testing.T) {
			var e events
			test.o.Discovery.Registries, test.o.Command = []string{"http://127.0.0.1:1"}, []string{"/none/such"}
			test.o.Host.Port, test.o.TTL = 1, time.Second
			code := Run(test.o, nil, &e, &e, slog.New(slog.NewTextHandler(&e, nil)))
			require.Equal(t, startFailed, code)
			require.Equal(t, 1, e.count(test.reason))
		})
	}
}

func TestAProgramEndsWithAnAgentThatIsKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a program that its parent died")
	}
	e := &events{}
	d := newDiscovery(t, e, http.StatusOK)
	const port = "1" // on which nobody listens, and the program neither
	t.Setenv(programPort, port)
	output, ours, err := os.Pipe()
	require.NoError(t, err)
	defer output.Close()
	agent := exec.Command(os.Args[0], "run", "--service", "users", "--port", port, "--discovery", d.URL, "--", os.Args[0], "wait")
	agent.Stdout = ours
	require.NoError(t, agent.Start())
	require.NoError(t, ours.Close())

	require.NoError(t, output.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	said := bufio.NewReader(output)
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "started\n", line)
	require.NoError(t, agent.Process.Kill())
	require.Error(t, agent.Wait())
	rest, err := io.ReadAll(said) // to its end, which is the program's
	require.NoError(t, err)
	require.Equal(t, "terminated\n", string(rest))
}
