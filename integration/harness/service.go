package harness

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// Discovery starts the discovery service with these settings, NAME=value.
// Its listeners are http, xds and admin.
func Discovery(t testing.TB, settings ...string) *Process {
	t.Helper()
	return Start(t, DiscoveryProgram(t, settings...))
}

// DiscoveryProgram is the discovery service. The settings win over the
// harness's own, which are free ports, a short end, and a warm-up for hosts that
// beat each few seconds.
func DiscoveryProgram(t testing.TB, settings ...string) Program {
	t.Helper()
	return Program{Name: "discovery", Path: binary(t, "discovery"), Command: func(bound Addresses, readyFile string) (arguments, environment []string) {
		return []string{"--ready-file", readyFile}, append([]string{
			"DISCOVERY_HTTP_ADDRESS=" + bound.of("http"),
			"DISCOVERY_XDS_ADDRESS=" + bound.of("xds"),
			"DISCOVERY_ADMIN_ADDRESS=" + bound.of("admin"),
			"DISCOVERY_DRAIN_GRACE=0s",
			"DISCOVERY_WARM_UP=15s",
		}, settings...)
	}}
}

// Ratelimit starts the rate limiter with the rules that lie in a directory and
// further settings, NAME=value. Its listeners are grpc, http and admin.
func Ratelimit(t testing.TB, rules string, settings ...string) *Process {
	t.Helper()
	return Start(t, RatelimitProgram(t, rules, settings...))
}

// RatelimitProgram is the rate limiter.
func RatelimitProgram(t testing.TB, rules string, settings ...string) Program {
	t.Helper()
	return Program{Name: "ratelimit", Path: binary(t, "ratelimit"), Command: func(bound Addresses, readyFile string) (arguments, environment []string) {
		return []string{"--ready-file", readyFile}, append([]string{
			"HOST=127.0.0.1", "PORT=" + bound.port("http"),
			"GRPC_HOST=127.0.0.1", "GRPC_PORT=" + bound.port("grpc"),
			"DEBUG_HOST=127.0.0.1", "DEBUG_PORT=" + bound.port("admin"),
			"RUNTIME_ROOT=" + filepath.Dir(rules), "RUNTIME_APPDIRECTORY=" + filepath.Base(rules),
			"RATELIMIT_DRAIN_GRACE=0s",
		}, settings...)
	}}
}

// Proxy starts our proxy with a bootstrap. Its listeners are admin and those of
// the bootstrap.
func Proxy(t testing.TB, bootstrap string, settings ...string) *Process {
	t.Helper()
	return Start(t, ProxyProgram(t, bootstrap, settings...))
}

// ProxyProgram is our proxy. The settings are of its environment, NAME=value.
func ProxyProgram(t testing.TB, bootstrap string, settings ...string) Program {
	t.Helper()
	file := writeFile(t, "proxy.yaml", bootstrap)
	return Program{Name: "proxy", Path: binary(t, "proxy"), Command: func(_ Addresses, readyFile string) (arguments, environment []string) {
		return []string{"-c", file, "--ready-file", readyFile}, settings
	}}
}

// Echo starts a backend that is not registered. Its listener is http.
func Echo(t testing.TB, name string) *Process {
	t.Helper()
	return Start(t, EchoProgram(t, name))
}

// EchoProgram is a backend that is not registered.
func EchoProgram(t testing.TB, name string) Program {
	t.Helper()
	return Program{Name: name, Path: binary(t, "echo"), Command: func(bound Addresses, readyFile string) (arguments, environment []string) {
		return []string{"--listen", bound.of("http"), "--name", name, "--ready-file", readyFile}, nil
	}}
}

// Host starts a backend of the service echo that registers itself through
// discovery-agent, by its name as id, and beats. At a SIGTERM it drains for a
// minute; a second one ends it.
func Host(t testing.TB, name, discovery string, ttl time.Duration) *Process {
	t.Helper()
	address := servicetest.FreeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	return Start(t, Program{Name: name, Path: binary(t, "discovery-agent"), Command: func(_ Addresses, readyFile string) (arguments, environment []string) {
		return []string{
			"run", "--service", "echo", "--address", host, "--port", port, "--id", name,
			"--discovery", "http://" + discovery, "--ttl", ttl.String(), "--interval", HostInterval.String(), "--drain", "1m",
			"--", binary(t, "echo"), "--listen", address, "--name", name, "--ready-file", readyFile,
		}, nil
	}})
}

// Agent runs a subcommand of discovery-agent to its end and returns what it
// printed and the exit code.
func (s *Stack) Agent(arguments ...string) (text string, code int) {
	s.t.Helper()
	p := Launch(s.t, Program{Name: "discovery-agent", Path: binary(s.t, "discovery-agent"), Command: func(Addresses, string) ([]string, []string) {
		return append(arguments, "--discovery", "http://"+s.Discovery.Addr("http")), nil
	}})
	code = p.Wait()
	return p.Log(), code
}

// Validate runs our proxy's check of a bootstrap and returns what it printed
// and the exit code.
func Validate(t testing.TB, bootstrap string) (text string, code int) {
	t.Helper()
	p := Launch(t, Program{Name: "proxy", Path: binary(t, "proxy"), Command: func(Addresses, string) (arguments, environment []string) {
		return []string{"--mode", "validate", "-c", bootstrap}, nil
	}})
	code = p.Wait()
	return p.Log(), code
}

// DemoBootstrap returns the demo's bootstrap, changed in nothing but its ports:
// the listeners take free ones, discovery and ratelimit are where they are said
// to be, "host:port".
func DemoBootstrap(t testing.TB, xds, rls string) string {
	t.Helper()
	text, err := os.ReadFile(Path(t, "deploy", "proxy.yaml"))
	require.NoError(t, err)
	return WithPorts(t, string(text), map[string]string{
		"9901":  "0",
		"10000": "0",
		"18000": Addresses{"": xds}.port(""),
		"8081":  Addresses{"": rls}.port(""),
	})
}

// WithPorts returns a bootstrap with other ports. Each of the old ones must be
// there once, and no port may be left as it was.
func WithPorts(t testing.TB, bootstrap string, ports map[string]string) string {
	t.Helper()
	seen := map[string]int{}
	text := regexp.MustCompile(`port_value: \d+`).ReplaceAllStringFunc(bootstrap, func(field string) string {
		old := strings.TrimPrefix(field, "port_value: ")
		seen[old]++
		require.Contains(t, ports, old, "the bootstrap has a port that nothing is said of")
		return "port_value: " + ports[old]
	})
	for old := range ports {
		require.Equal(t, 1, seen[old], "times that the bootstrap names port %s", old)
	}
	return text
}

// writeFile writes a file into a new directory of the test.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}
