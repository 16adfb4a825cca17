package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// newProxyGroup is our proxy and a real Envoy on one bootstrap.
func newProxyGroup(t testing.TB, m *machine) *group {
	t.Helper()
	wrk := servicetest.Peer(t, "wrk", "WRK", "make peers")
	limiter := m.start(t, m.other, harness.RatelimitProgram(t, rules(t), "BACKEND_TYPE=memory"))
	text, err := os.ReadFile("testdata/proxy.yaml")
	require.NoError(t, err)
	backend, backendIs := startBackend(t, m)
	bootstrap := strings.NewReplacer("BACKEND", port(t, backend), "RATELIMIT", port(t, limiter.Addr("grpc"))).Replace(string(text))
	envoy := m.start(t, m.measured, harness.EnvoyProgram(t, bootstrap))
	ours := m.start(t, m.measured, harness.ProxyProgram(t, bootstrap, "GOMAXPROCS=1"))
	g := &group{references: []string{"envoy"}, beside: "ratelimit's own"}
	for _, s := range []struct{ listener, title string }{
		{"plain", "HTTP/1.1, forwarded"},
		{"limited", "HTTP/1.1, forwarded after one rate-limit call"},
	} {
		row := func(proxy *harness.Process) *scenario {
			one := &scenario{title: s.title, program: proxy.Program.Name, process: proxy}
			one.load = func(t testing.TB, d time.Duration) int {
				return m.wrk(t, wrk, proxy.Addr(s.listener), wrkConnections, d)
			}
			if s.listener == "limited" {
				one.load = asking(proxy, one.load)
				one.beside = limiter
			}
			return one
		}
		peer, own := row(envoy), row(ours)
		own.against = map[string]*scenario{"envoy": peer}
		g.scenarios = append(g.scenarios, own, peer)
	}
	g.method = fmt.Sprintf(`One worker each: Envoy with --concurrency 1, ours with GOMAXPROCS=1.
wrk, %d kept connections, GET; both proxies run testdata/proxy.yaml. The rate
limiter counts in memory; every request of the second load was asked about and
answered.`, wrkConnections)
	g.versions = []string{
		envoyVersion(t),
		"backend: " + backendIs,
		"load: " + version(t, wrk, "-v"),
		"built with " + runtime.Version(),
	}
	return g
}

// asking is a load each of whose requests the proxy must have asked the rate
// limiter about, and got an answer.
func asking(proxy *harness.Process, next load) load {
	return func(t testing.TB, d time.Duration) int {
		const ok = "cluster.backend.ratelimit.ok"
		before := harness.Stat(t, proxy, ok)
		requests := next(t, d)
		require.GreaterOrEqual(t, harness.Stat(t, proxy, ok)-before, requests, "answers of the rate limiter to %s", proxy.Program.Name)
		return requests
	}
}

// envoyVersion is Envoy's number, which its version line has between slashes.
func envoyVersion(t testing.TB) string {
	t.Helper()
	parts := strings.Split(version(t, harness.EnvoyPath(t), "--version"), "/")
	require.GreaterOrEqual(t, len(parts), 4, "Envoy's version line")
	return "Envoy " + parts[len(parts)-4]
}
