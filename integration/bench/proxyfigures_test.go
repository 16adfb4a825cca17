package bench

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// figures are what the loads say about the goals, and what is measured beside.
func (b *proxyBench) figures(t testing.TB, p plan) []figure {
	t.Helper()
	figures := b.goals()
	figures = append(figures,
		figure{title: "an access log adds", value: b.adds(t, loggedWay, p), unit: "µs", goal: 3},
		figure{title: fmt.Sprintf("%d routes add", routesOfOne), value: b.adds(t, routedWay, p), unit: "µs", goal: 1})
	figures = append(figures, b.allocations(t, p.once)...)
	for _, name := range []string{ours, byEnvoy, byHaproxy, byNginx} {
		if program, ok := b.program(t, name); ok {
			one := figure{title: "memory of an idle connection, " + name, value: b.idle(t, program) / 1024, unit: "kB"}
			if name == ours {
				one.goal = 8
			}
			figures = append(figures, one)
		}
	}
	b.openLoops(t, p.once)
	return figures
}

// tables are the delays, and the profile if profiles are taken.
func (b *proxyBench) tables(t testing.TB) []table {
	t.Helper()
	list := []table{{
		title: "Delays in the open loop, HTTP/1.1",
		head:  []string{"program", "requests/s", "of its ceiling", "p50, µs", "p99, µs", "p99.9, µs"},
		rows:  b.delays,
	}}
	if directory := os.Getenv("PROFILE"); directory != "" {
		list = append(list, b.heaviest(t, directory))
	}
	return list
}

// goals are the ratios that the service is to reach, medians of the rounds' own.
func (b *proxyBench) goals() []figure {
	own := func(key string) *scenario { return b.rows[key][ours] }
	withPeer := b.rows[byEnvoyChain(b.peer != nil)][byEnvoy]
	return []figure{
		{title: "HTTP/1.1 → HTTP/1.1, of haproxy", value: byRound(own(plainWay), b.rows[plainWay][byHaproxy]), goal: 1.4},
		{title: "HTTP/1.1 → HTTP/1.1, of Envoy", value: byRound(own(plainWay), b.rows[plainWay][byEnvoy]), goal: 0.5},
		{title: "HTTP/2 → HTTP/1.1, of haproxy", value: byRound(own(h2ToH1), b.rows[h2ToH1][byHaproxy]), goal: 1.4},
		{title: "HTTP/2 → HTTP/1.1, of Envoy", value: byRound(own(h2ToH1), b.rows[h2ToH1][byEnvoy]), goal: 0.5},
		{title: "HTTP/2 → HTTP/2, of Envoy", value: byRound(own(h2ToH2), b.rows[h2ToH2][byEnvoy]), goal: 0.8},
		{title: "gRPC unary, of Envoy", value: byRound(own(grpcWay), b.rows[grpcWay][byEnvoy]), goal: 0.6},
		{title: "64 KB bodies, of haproxy", value: byRound(own(largeBodies), b.rows[largeBodies][byHaproxy]), goal: 1.1},
		{title: "after a rate-limit call, of Envoy", value: byRound(own(limitedWay), b.rows[limitedWay][byEnvoy]), goal: 0.4},
		{title: "the whole chain, of " + withPeer.program, value: byRound(own(chainWay), withPeer), goal: 0.3},
	}
}

// adds is how much more CPU time our proxy takes for a request on one way than on
// the plain one, in microseconds; NaN where it can't.
func (b *proxyBench) adds(t testing.TB, key string, p plan) float64 {
	t.Helper()
	other := b.rows[key][ours]
	if other.refused != "" {
		return math.NaN()
	}
	turns := turnsOfRound * p.rounds
	if testing.Short() {
		turns = 1
	}
	program := b.proxies[ours]
	difference, err := inTurns(program.PID(), program.Addr(plainWay), program.Addr(key), turns)
	require.NoError(t, err, "loads on %s and %s in turns", plainWay, key)
	return difference
}

// byEnvoyChain is the key of Envoy's whole chain: with the peer's limiter, or
// with ours where there is no peer.
func byEnvoyChain(peer bool) string {
	if peer {
		return peerChainWay
	}
	return chainWay
}

// byRound is the median of the ratios of the two CPU times of each round; NaN where
// one of the rows was not measured.
func byRound(a, b *scenario) float64 {
	if a == nil || b == nil || len(a.samples) == 0 || len(b.samples) == 0 {
		return math.NaN()
	}
	var values []float64
	for i := range a.samples {
		values = append(values, a.samples[i].cpu/b.samples[i].cpu)
	}
	_, median, _ := spread(values)
	return median
}

// program is a new process of a proxy; false where it is not installed.
func (b *proxyBench) program(t testing.TB, name string) (*harness.Process, bool) {
	t.Helper()
	var program harness.Program
	ok := true
	switch name {
	case ours:
		b.accepted.Log = b.logs[ours]
		program = oursWith(t, b.accepted)
	case byEnvoy:
		program = envoyWith(t, b.config)
	case byHaproxy:
		program, ok = haproxyWith(t, b.config)
	case byNginx:
		program, ok = nginxWith(t, b.config)
	}
	if !ok {
		return nil, false
	}
	return b.m.start(t, b.m.measured, program), true
}

// allocations are those of our proxy for a plain request, as its runtime counts
// them.
func (b *proxyBench) allocations(t testing.TB, d time.Duration) []figure {
	t.Helper()
	objects, bytes := allocated(t, b.proxies[ours])
	requests := float64(b.rows[plainWay][ours].load(t, d))
	objectsAfter, bytesAfter := allocated(t, b.proxies[ours])
	return []figure{
		{title: "allocations of a plain request", value: (objectsAfter - objects) / requests, goal: 2},
		{title: "of so many bytes", value: (bytesAfter - bytes) / requests, unit: "B", goal: 300},
	}
}

// allocated is how many objects and bytes a program of Go has allocated.
func allocated(t testing.TB, p *harness.Process) (objects, bytes float64) {
	t.Helper()
	text := profileText(t, p, "allocs?debug=1")
	return float64(find(t, text, `# Mallocs = (\d+)`)), float64(find(t, text, `# TotalAlloc = (\d+)`))
}

// profileText is what a program of Go tells below /debug/pprof/.
func profileText(t testing.TB, p *harness.Process, what string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + p.Addr("admin") + "/debug/pprof/" + what)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(text)
}

// idle is the memory that a connection costs which had a request, in bytes.
func (b *proxyBench) idle(t testing.TB, p *harness.Process) float64 {
	t.Helper()
	connections := 10_000
	if testing.Short() {
		connections = 1000
	}
	raiseFiles(t, connections+1000)
	resident := func() float64 {
		if p.Program.Name == ours {
			profileText(t, p, "heap?gc=1")
		}
		return float64(residentKB(t, p)) * 1024
	}
	b.ask(t, p).Close()
	before := resident()
	for range connections {
		defer b.ask(t, p).Close()
	}
	return (resident() - before) / float64(connections)
}

// ask makes a request on a new connection, which is the caller's.
func (b *proxyBench) ask(t testing.TB, p *harness.Process) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr(plainWay))
	require.NoError(t, err)
	_, err = io.WriteString(conn, loopRequest)
	require.NoError(t, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, answer.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.StatusCode)
	return conn
}

// openLoops measures delays at half of what each proxy can do by its CPU time,
// and ours also at half of what Envoy can.
func (b *proxyBench) openLoops(t testing.TB, d time.Duration) {
	t.Helper()
	b.m.keep(t)
	// One more than keep leaves: the sender sleeps in the kernel.
	runtime.GOMAXPROCS(2)
	ceiling := func(program string) float64 {
		_, median, _ := b.rows[plainWay][program].spread(func(s sample) float64 { return s.cpu })
		return 1e6 / median
	}
	for _, one := range [][2]string{{ours, ours}, {ours, byEnvoy}, {byEnvoy, byEnvoy}, {byHaproxy, byHaproxy}} {
		program, of := one[0], one[1]
		if b.proxies[program] == nil {
			continue
		}
		rate := ceiling(of) / 2
		delays := openLoop(t, b.proxies[program].Addr(plainWay), rate, 3*d)
		slices.Sort(delays)
		at := func(share float64) string {
			return fmt.Sprint(delays[int(share*float64(len(delays)-1))].Microseconds())
		}
		b.delays = append(b.delays, []string{program, thousands(rate), fmt.Sprintf("%.0f %%", 100*rate/ceiling(program)), at(0.5), at(0.99), at(0.999)})
	}
}

// heaviest is the ten functions of our proxy that take the most time of a plain
// request.
func (b *proxyBench) heaviest(t testing.TB, directory string) table {
	t.Helper()
	d := 10 * time.Second
	if testing.Short() {
		d = 2 * time.Second
	}
	path := takeProfile(t, b.rows[plainWay][ours], directory, d)
	text, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=10", path).Output()
	require.NoError(t, err, "go tool pprof -top %s", path)
	one := table{title: "The ten heaviest functions of our proxy, HTTP/1.1 → HTTP/1.1", head: []string{"function", "its own", "with what it calls"}}
	for _, line := range regexp.MustCompile(`(?m)^ *[0-9.]+m?s? +(\S+%) +\S+% +[0-9.]+m?s? +(\S+%) +(.+)$`).FindAllStringSubmatch(string(text), -1) {
		name := strings.TrimPrefix(strings.TrimSuffix(line[3], " (inline)"), "github.com/weirproxy/weir/services/proxy/internal/")
		one.rows = append(one.rows, []string{"`" + name + "`", line[1], line[2]})
	}
	require.Len(t, one.rows, 10, "%s", text)
	return one
}

// proxyParts are those of our proxy.
func proxyParts() []part {
	const own = `^github\.com/weirproxy/weir/services/proxy/internal/`
	return []part{
		{"system calls", regexp.MustCompile(`^(syscall|internal/poll|internal/runtime/syscall)\.`)},
		{"HTTP/1.1 (internal/http1, internal/message)", regexp.MustCompile(own + `(http1|message)\.`)},
		{"HTTP/2 (internal/http2)", regexp.MustCompile(`^github\.com/weirproxy/weir/internal/http2`)},
		{"connection manager (internal/networkfilter/hcm, internal/stream)", regexp.MustCompile(own + `(networkfilter/hcm|stream|normalize|identity)\.`)},
		{"routes (internal/route)", regexp.MustCompile(own + `(route|pathindex|matcher)\.`)},
		{"router and filters (internal/httpfilter)", regexp.MustCompile(own + `(httpfilter|rlsclient|grpccall|grpcwire|headermutation)[./]`)},
		{"hosts and connections (internal/cluster, internal/connpool)", regexp.MustCompile(own + `(cluster|connpool|upstream)[./]`)},
		collection, scheduler, theRest,
	}
}
