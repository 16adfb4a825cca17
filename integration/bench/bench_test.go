// Package bench measures the built binaries under load, beside other people's
// programs in the same run, and writes what it found to RESULTS.md. make bench
// runs it. It wants no figure to be better than another: only broken answers
// fail it.
package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { harness.Main(m) }

// plan is how much is measured.
type plan struct {
	rounds   int
	duration time.Duration // of one load, in whole seconds
}

// scenario is one row of the results: a load on one process, whose CPU time is
// counted.
type scenario struct {
	title, program string
	process        *harness.Process
	// load runs for a duration and returns how many requests were answered; any
	// that was not answered well fails the test.
	load func(t testing.TB, d time.Duration) int
	// beside is another process whose CPU time is of interest; may be nil.
	beside *harness.Process
}

// BenchmarkScenarios runs once: -benchtime 1x. With -short it shows that the
// scenarios work and keeps nothing.
func BenchmarkScenarios(b *testing.B) {
	for range b.N {
		run(b)
	}
}

func run(t testing.TB) {
	t.Helper()
	p := plan{rounds: 3, duration: 5 * time.Second}
	if testing.Short() {
		p = plan{rounds: 1, duration: time.Second}
	}
	m := newMachine(t)
	scenarios := append(proxyScenarios(t, m), limiterScenarios(t, m)...)
	for _, s := range scenarios { // connections, caches and heaps get their size
		s.load(t, time.Second)
	}
	figures := make([]figure, len(scenarios))
	for range p.rounds {
		// Interleaved, so that what else the machine does falls on all alike.
		for i, s := range scenarios {
			figures[i].add(measure(t, s, p.duration))
		}
	}
	text := results(t, m, p, scenarios, figures)
	fmt.Println(text)
	if testing.Short() {
		return // too little to be kept
	}
	require.NoError(t, os.WriteFile("RESULTS.md", []byte(text), 0o644))
}

// proxyScenarios are our proxy and a real Envoy on one bootstrap.
func proxyScenarios(t testing.TB, m *machine) []scenario {
	t.Helper()
	wrk := servicetest.Peer(t, "wrk", "WRK", "make peers")
	limiter := m.start(t, m.other, harness.RatelimitProgram(t, harness.Path(t, "integration", "bench", "testdata", "rules"), "BACKEND_TYPE=memory"))
	text, err := os.ReadFile("testdata/proxy.yaml")
	require.NoError(t, err)
	bootstrap := strings.NewReplacer("BACKEND", port(t, m.backend), "RATELIMIT", port(t, limiter.Addr("grpc"))).Replace(string(text))
	proxies := []*harness.Process{
		m.start(t, m.measured, harness.ProxyProgram(t, bootstrap, "GOMAXPROCS=1")),
		m.start(t, m.measured, harness.EnvoyProgram(t, bootstrap)),
	}
	var scenarios []scenario
	for _, s := range []struct{ listener, title string }{
		{"plain", "HTTP/1.1, forwarded"},
		{"limited", "HTTP/1.1, forwarded after one rate-limit call"},
	} {
		for _, proxy := range proxies {
			one := scenario{title: s.title, program: proxy.Program.Name, process: proxy}
			one.load = func(t testing.TB, d time.Duration) int {
				return m.wrk(t, wrk, proxy.Addr(s.listener), d)
			}
			if s.listener == "limited" {
				one.load = asking(proxy, one.load)
				one.beside = limiter
			}
			scenarios = append(scenarios, one)
		}
	}
	return scenarios
}

// asking is a load each of whose requests the proxy must have asked the rate
// limiter about, and got an answer.
func asking(proxy *harness.Process, load func(testing.TB, time.Duration) int) func(testing.TB, time.Duration) int {
	return func(t testing.TB, d time.Duration) int {
		const ok = "cluster.backend.ratelimit.ok"
		before := harness.Stat(t, proxy, ok)
		requests := load(t, d)
		require.GreaterOrEqual(t, harness.Stat(t, proxy, ok)-before, requests, "answers of the rate limiter to %s", proxy.Program.Name)
		return requests
	}
}

// limiterScenarios are our rate limiter alone, called over gRPC.
func limiterScenarios(t testing.TB, m *machine) []scenario {
	t.Helper()
	h2load := servicetest.Peer(t, "h2load", "H2LOAD", "make peers")
	limiter := m.start(t, m.measured, harness.RatelimitProgram(t,
		harness.Path(t, "integration", "bench", "testdata", "rules"), "BACKEND_TYPE=memory", "GOMAXPROCS=1"))
	var scenarios []scenario
	for _, descriptors := range []int{1, 4} {
		body := writeCall(t, descriptors)
		scenarios = append(scenarios, scenario{
			title: fmt.Sprintf("gRPC ShouldRateLimit, descriptors: %d", descriptors), program: "ratelimit", process: limiter,
			load: func(t testing.TB, d time.Duration) int {
				return m.h2load(t, h2load, limiter.Addr("grpc"), body, d)
			},
		})
	}
	return scenarios
}

func port(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return port
}

// machine is where the measurement runs: cores, load, and a cheap backend.
type machine struct {
	taskset string // empty: nothing is pinned
	// measured is the core of the program under test, other that of all else.
	measured, other int
	backend         string // address
	backendIs       string // what it is, for the results
	loadBefore      string // load average when the run began
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{measured: 0, other: 1, loadBefore: loadAverage()}
	if path, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() >= 2 {
		m.taskset = path
	}
	m.startBackend(t)
	return m
}

// start starts a program on a core.
func (m *machine) start(t testing.TB, core int, program harness.Program) *harness.Process {
	t.Helper()
	if m.taskset != "" {
		program = program.Pinned(m.taskset, core)
	}
	return harness.Start(t, program)
}
