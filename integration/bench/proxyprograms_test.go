package bench

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// way is how a request goes through a proxy: a listener with one chain.
type way struct {
	Name  string
	HTTP2 bool // of clients; else they speak HTTP/1.1
	// Cluster gets the requests, and Limiter, unless empty, is asked before.
	Cluster, Limiter string
	Logged           bool     // into the access log
	Prefixes         []string // of routes before the one that matches
}

// upstream is a cluster of one host.
type upstream struct {
	Name, Port string
	HTTP2      bool
}

// proxies is what the proxies' configurations are made of.
type proxies struct {
	Ways     []way
	Clusters []upstream
	Backend  string            // the cluster of routes that are never taken
	Log      string            // path of the access log
	Bound    map[string]string // addresses of listeners, where the program can't choose them
}

// file is the text of a template of testdata/proxy.
func file(t testing.TB, name string, data any) string {
	t.Helper()
	parsed, err := template.ParseFiles(filepath.Join("testdata", "proxy", name))
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, parsed.Execute(&b, data))
	return b.String()
}

// of are those of the ways that a test keeps, and the clusters that they name.
func (p proxies) of(keep func(way) bool) proxies {
	var ways []way
	named := map[string]bool{p.Backend: true}
	for _, w := range p.Ways {
		if keep(w) {
			ways = append(ways, w)
			named[w.Cluster], named[w.Limiter] = true, true
		}
	}
	var clusters []upstream
	for _, c := range p.Clusters {
		if named[c.Name] {
			clusters = append(clusters, c)
		}
	}
	p.Ways, p.Clusters = ways, clusters
	return p
}

// plain are the ways of programs with other configurations: those without
// filters, logs and lists of routes, and that do not lead to a cluster.
func (p proxies) plain(leftOut string) proxies {
	return p.of(func(w way) bool {
		return w.Limiter == "" && !w.Logged && w.Prefixes == nil && w.Cluster != leftOut
	})
}

// accepted are the ways that our proxy can be configured with; of the others it
// returns why not.
func (p proxies) accepted(t testing.TB) (accepted proxies, refused map[string]string) {
	t.Helper()
	refused = map[string]string{}
	path := filepath.Join(t.TempDir(), "way.yaml")
	for _, w := range p.Ways {
		text := file(t, "bootstrap.yaml", p.of(func(other way) bool { return other.Name == w.Name }))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		told, code := harness.Validate(t, path)
		if code != 0 {
			first, _, _ := strings.Cut(strings.TrimSpace(told), "\n")
			_, fault, _ := strings.Cut(first, path+":")
			refused[w.Name] = strings.ReplaceAll(cmp.Or(fault, first), "|", "/")
		}
	}
	return p.of(func(w way) bool { return refused[w.Name] == "" }), refused
}

// envoyWith and oursWith are the proxies that take Envoy's bootstrap, one worker
// each.
func envoyWith(t testing.TB, p proxies) harness.Program {
	t.Helper()
	return harness.EnvoyProgram(t, file(t, "bootstrap.yaml", p))
}

func oursWith(t testing.TB, p proxies) harness.Program {
	t.Helper()
	return harness.ProxyProgram(t, file(t, "bootstrap.yaml", p), "GOMAXPROCS=1")
}

// haproxyWith is haproxy with one thread; false where it is not installed.
func haproxyWith(t testing.TB, p proxies) (harness.Program, bool) {
	t.Helper()
	return foreign(t, "haproxy", "haproxy.cfg", p.plain(""), "-db", "-f")
}

// nginxWith is nginx as one process; false where it is not installed. It has no
// HTTP/2 on its upstream side.
func nginxWith(t testing.TB, p proxies) (harness.Program, bool) {
	t.Helper()
	return foreign(t, "nginx", "nginx.conf", p.plain("h2-backend"), "-p", ".", "-c")
}

// foreign is a proxy of other people with a configuration, whose path follows
// the arguments.
func foreign(t testing.TB, name, config string, p proxies, arguments ...string) (harness.Program, bool) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		return harness.Program{}, false
	}
	p.Bound = map[string]string{}
	for _, w := range p.Ways {
		p.Bound[w.Name] = servicetest.FreeAddress(t)
	}
	directory := t.TempDir()
	configured := filepath.Join(directory, config)
	require.NoError(t, os.WriteFile(configured, []byte(file(t, config, p)), 0o644))
	return harness.Program{
		Name: name,
		Path: path,
		Command: func(harness.Addresses, string) (command, environment []string) {
			return append(slices.Clip(arguments), configured), nil
		},
		Ready: func(*harness.Process) harness.Addresses {
			for _, address := range p.Bound {
				awaitPort(t, name, address)
			}
			return p.Bound
		},
	}, true
}

// awaitPort waits until an address takes connections.
func awaitPort(t testing.TB, name, address string) {
	t.Helper()
	servicetest.Eventually(t, name+" answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// backends are what the proxies forward to.
type backends struct {
	http1, http2 string // addresses
	what         string // the program
}

// Targets of the backends, by the length of the answer's body.
const (
	target66  = "/?bytes=66"
	target64K = "/64k?bytes=65536"
)

// startBackends starts nginx where it is installed, and our echo elsewhere.
func startBackends(t testing.TB, m *machine) backends {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		address := m.start(t, m.other, harness.EchoProgram(t, "backend")).Addr("http")
		return backends{address, address, "our echo"}
	}
	b := backends{servicetest.FreeAddress(t), servicetest.FreeAddress(t), version(t, path, "-v")}
	directory := t.TempDir()
	config := filepath.Join(directory, "nginx.conf")
	text := file(t, "backend.conf", map[string]string{"HTTP1": b.http1, "HTTP2": b.http2})
	require.NoError(t, os.WriteFile(config, []byte(text), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(directory, "64k"), []byte(strings.Repeat("x", 64<<10)), 0o644))
	m.start(t, m.other, harness.Program{
		Name: "nginx",
		Path: path,
		Command: func(harness.Addresses, string) (arguments, environment []string) {
			return []string{"-p", directory, "-c", config}, nil
		},
		Ready: func(*harness.Process) harness.Addresses {
			awaitPort(t, "nginx", b.http1)
			awaitPort(t, "nginx", b.http2)
			return harness.Addresses{"http": b.http1, "h2": b.http2}
		},
	})
	return b
}

// versionOf is a program's version line, or that it is missing.
func versionOf(t testing.TB, name, argument string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Sprintf("%s: not installed, its rows are left out", name)
	}
	return version(t, path, argument)
}
