package harness

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// HostTTL is how long a host of the harness stays registered without a beat: so
// long that one whose beats a busy machine holds up is not taken for dead. BriefTTL
// is for a test in which one is. HostInterval is the time between beats.
const (
	HostTTL      = time.Minute
	BriefTTL     = 3 * time.Second
	HostInterval = 500 * time.Millisecond
)

// Stack is the three services, wired as the demo is.
type Stack struct {
	Discovery, Ratelimit *Process
	// Proxy is ours, or a real Envoy in its place.
	Proxy *Process

	t      testing.TB
	client *http.Client
	rules  string // the file
}

// Options chooses how a stack is made. The zero value is the demo's.
type Options struct {
	// Rules is the text of the rule file; empty for the demo's.
	Rules string
	// Discovery and Ratelimit are further settings, NAME=value.
	Discovery, Ratelimit []string
	// Envoy puts a real Envoy in the place of our proxy.
	Envoy bool
}

// NewStack starts the three services, without hosts.
func NewStack(t testing.TB, o Options) *Stack {
	t.Helper()
	if o.Envoy {
		EnvoyPath(t) // skips before anything has started
	}
	if o.Rules == "" {
		o.Rules = DemoRules(t)
	}
	s := &Stack{t: t, client: Client(t), rules: writeFile(t, "rules.yaml", o.Rules)}
	s.Discovery = Start(t, warmInItsFirstRun(DiscoveryProgram(t, o.Discovery...)))
	s.Ratelimit = Ratelimit(t, filepath.Dir(s.rules), o.Ratelimit...)
	bootstrap := DemoBootstrap(t, s.Discovery.Addr("xds"), s.Ratelimit.Addr("grpc"))
	if o.Envoy {
		s.Proxy = Envoy(t, bootstrap)
	} else {
		s.Proxy = Proxy(t, bootstrap)
	}
	return s
}

// warmInItsFirstRun has a discovery take what it knows for all there is while
// there are no hosts yet: a proxy would wait for its first assignment
// otherwise. One that starts again has hosts to hear of first.
func warmInItsFirstRun(discovery Program) Program {
	command := discovery.Command
	discovery.Command = func(bound Addresses, readyFile string) (arguments, environment []string) {
		arguments, environment = command(bound, readyFile)
		if len(bound) == 0 {
			environment = append(environment, "DISCOVERY_WARM_UP=0s")
		}
		return arguments, environment
	}
	return discovery
}

// DemoRules is the demo's rule file.
func DemoRules(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(Path(t, "deploy", "ratelimit", "config", "demo.yaml"))
	require.NoError(t, err)
	return string(text)
}

// Ingress is the address that the proxy takes requests at.
func (s *Stack) Ingress() string { return s.Proxy.Addr("ingress") }

// AddHost starts a backend that registers itself, and waits until it takes
// traffic.
func (s *Stack) AddHost(name string) *Process {
	s.t.Helper()
	return s.AddHostOf(name, HostTTL)
}

// AddHostOf is AddHost with another TTL.
func (s *Stack) AddHostOf(name string, ttl time.Duration) *Process {
	s.t.Helper()
	p := Host(s.t, name, s.Discovery.Addr("http"), ttl)
	s.AwaitHosts(name)
	return p
}

// AwaitHosts waits until all of these hosts answer requests.
func (s *Stack) AwaitHosts(names ...string) {
	s.t.Helper()
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	servicetest.Eventually(s.t, "all of "+strings.Join(names, ", ")+" take traffic", func() bool {
		answer, err := Send(s.client, Request{URL: "http://" + s.Ingress() + "/"})
		if err == nil {
			delete(missing, answer.Instance)
		}
		return len(missing) == 0
	})
}

// AwaitControlPlane waits until the proxy has a stream to discovery again. Both
// our proxy and Envoy pause for up to thirty seconds between their tries.
func (s *Stack) AwaitControlPlane() {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.Stat("control_plane.connected_state") == 1 },
		30*time.Second+patience, 5*time.Millisecond, "the proxy is back at discovery")
}

// Get sends one request to the ingress, as a user where one is named, and wants
// an answer of any status.
func (s *Stack) Get(target, user string) Answer {
	s.t.Helper()
	request := Request{URL: "http://" + s.Ingress() + target, Header: http.Header{}}
	if user != "" {
		request.Header.Set("X-User", user)
	}
	answer, err := Send(s.client, request)
	require.NoError(s.t, err)
	return answer
}

// Register registers a host of the service echo by hand, for ten minutes.
func (s *Stack) Register(name, address string) {
	s.t.Helper()
	ip, port, _ := strings.Cut(address, ":")
	response, err := s.client.PostForm("http://"+s.Discovery.Addr("http")+"/v1/registration/echo", url.Values{
		"ip": {ip}, "port": {port}, "revision": {"1"},
		"tags": {`{"az":"here","region":"here","instance_id":` + strconv.Quote(name) + `}`},
	})
	require.NoError(s.t, err)
	defer response.Body.Close()
	require.Equal(s.t, http.StatusOK, response.StatusCode)
}

// SetRules replaces the rule file in one step, as a careful editor does.
func (s *Stack) SetRules(text string) {
	s.t.Helper()
	aside := s.rules + ".new"
	require.NoError(s.t, os.WriteFile(aside, []byte(text), 0o644))
	require.NoError(s.t, os.Rename(aside, s.rules))
}

// Stat returns a counter or gauge of the proxy by its Envoy name, 0 if it does
// not exist yet.
func (s *Stack) Stat(name string) int {
	s.t.Helper()
	return Stat(s.t, s.Proxy, name)
}

// Stat returns a counter or gauge of a proxy, ours or Envoy, by its Envoy name,
// 0 if it does not exist yet.
func Stat(t testing.TB, proxy *Process, name string) int {
	t.Helper()
	text := ask(proxy.Addr("admin"), "/stats")
	require.NotEmpty(t, text, "the proxy's /stats")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			require.NoError(t, err, "stat %s", name)
			return n
		}
	}
	return 0
}

// Metric returns a Prometheus metric of a process, its labels as written there,
// 0 if it does not exist yet.
func Metric(t testing.TB, p *Process, name string) float64 {
	t.Helper()
	text := ask(p.Addr("admin"), "/metrics")
	require.NotEmpty(t, text, "metrics of %s", p.Program.Name)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(t, err, "metric %s", name)
			return n
		}
	}
	return 0
}
