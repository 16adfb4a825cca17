package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
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

// discovery is a fake that answers every call with a status, and notes it.
type discovery struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	forms  []url.Values
}

// hanging is a fake that answers beats, but no DELETE before its caller gave up
// or released was closed.
func hanging(t *testing.T, e *events, released <-chan struct{}) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// Read to its end, or the server would not see the caller give up.
		_ = r.ParseForm()
		e.add("hanging " + r.Method)
		if r.Method == http.MethodDelete {
			select {
			case <-r.Context().Done():
			case <-released:
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func newDiscovery(t *testing.T, e *events, status int) *discovery {
	d := &discovery{status: status}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.forms = append(d.forms, r.PostForm)
		e.add(fmt.Sprintf("%s %s %d", r.Method, r.URL, d.status))
		w.WriteHeader(d.status)
		fmt.Fprint(w, "the reason")
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *discovery) answer(status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = status
}

// agent is an agent that runs, with the test binary as its program.
type agent struct {
	signals chan os.Signal
	code    chan int
}

// start runs an agent; arguments are the program's. Its TTL is 3s, and it
// beats every 20ms.
func start(t *testing.T, e *events, urls []string, drain time.Duration, arguments ...string) *agent {
	address := netip.MustParseAddrPort(servicetest.FreeAddress(t))
	t.Setenv(programPort, fmt.Sprint(address.Port()))

	a := &agent{signals: make(chan os.Signal, 8), code: make(chan int, 1)}
	log := slog.New(slog.NewTextHandler(e, nil))
	o := Options{
		Discovery: urls, Service: "users", IP: address.Addr(), Port: address.Port(),
		InstanceID: "i-1", Revision: "r1", Zone: "eu-1", Region: "eu", Tags: map[string]string{"rack": "7"},
		TTL: 3 * time.Second, Interval: 20 * time.Millisecond, Drain: drain,
		Command: append([]string{os.Args[0]}, arguments...),
	}
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
	case <-time.After(10 * time.Second):
		t.Fatal("the agent does not end")
	}
}

func TestTheProgramIsRegisteredOnceItsPortAnswers(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "wait")
	e.await(t, "started")
	a.signals <- syscall.SIGUSR1
	servicetest.Eventually(t, "it beats", func() bool { return e.count("POST /v1/registration/users 200") >= 3 })
	e.order(t, "started", "user defined signal 1", "POST")
	require.Equal(t, 1, e.count("msg=registered"))
	d.mu.Lock()
	form := d.forms[0]
	d.mu.Unlock()
	require.Equal(t, os.Getenv(programPort), form.Get("port"))
	form.Del("port")
	require.Equal(t, url.Values{
		"ip": {"127.0.0.1"}, "revision": {"r1"}, "service_repo_name": {""}, "ttl": {"3"},
		"tags": {`{"az":"eu-1","instance_id":"i-1","rack":"7","region":"eu"}`}}, form)
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
}

func TestAtSIGTERMTheProgramIsDeregisteredBeforeItHearsOfIt(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 100*time.Millisecond, "listen")
	e.await(t, "POST")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "POST", "DELETE /v1/registration/users/127.0.0.1?port="+os.Getenv(programPort), "terminated")
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
	e.await(t, "DELETE")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Equal(t, 1, e.count("terminated"))
}

func TestASecondSIGTERMDoesNotWaitForADeregistrationThatHangs(t *testing.T) {
	var e events
	released := make(chan struct{})
	d := hanging(t, &e, released)
	a := start(t, &e, []string{d.URL}, time.Hour, "listen")
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
	e.order(t, "hanging DELETE", "DELETE /v1/registration/users", "msg=deregistered", "terminated")
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
			a := start(t, &e, []string{d.URL}, 0, "exit", "42")
			e.await(t, "POST")
			a.signals <- test.signal
			a.end(t, test.code)
			e.order(t, "POST", "DELETE")
		})
	}
}

func TestAProgramThatNeverListensIsNeverRegistered(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "wait")
	e.await(t, "started")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Zero(t, e.count("/v1/"))
}

func TestDiscoveryIsTriedUntilItAnswersAndThatIsLoggedOnce(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 503)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	servicetest.Eventually(t, "it tries on", func() bool { return e.count("POST /v1/registration/users 503") >= 3 })
	d.answer(200)
	e.await(t, "msg=registered")
	d.answer(400)
	e.await(t, "users 400") // the number alone may be in a port
	d.answer(200)
	servicetest.Eventually(t, "it is registered again", func() bool { return e.count("msg=registered") == 2 })
	require.Equal(t, 2, e.count("not registered, trying on"))
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
	e.order(t, "POST", "DELETE")
}

func TestAProgramThatCannotBeStartedIsAnError(t *testing.T) {
	var e events
	o := Options{Discovery: []string{"http://127.0.0.1:1"}, Port: 1, TTL: time.Second, Command: []string{"/none/such"}}
	code := Run(o, nil, &e, &e, slog.New(slog.NewTextHandler(&e, nil)))
	require.Equal(t, startFailed, code)
	require.Equal(t, 1, e.count("/none/such"))
}

func TestTheOwnAddressIsThatTowardsDiscovery(t *testing.T) {
	r := newRegistrar(Options{TTL: time.Second}, slog.New(slog.DiscardHandler))
	for _, base := range []string{"http://127.0.0.1:8090", "http://127.0.0.1", "https://127.0.0.1"} {
		ip, err := r.address(t.Context(), base)
		require.NoError(t, err)
		require.Equal(t, netip.MustParseAddr("127.0.0.1"), ip)
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

	require.NoError(t, output.SetReadDeadline(time.Now().Add(10*time.Second)))
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
