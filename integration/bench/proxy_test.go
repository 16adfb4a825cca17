package bench

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// The programs: ours, and the columns of the references.
const (
	ours      = "proxy"
	byEnvoy   = "envoy"
	byHaproxy = "haproxy"
	byNginx   = "nginx"
)

// The ways through the proxies, as their listeners are called.
const (
	plainWay      = "plain"
	h2ToH1        = "h2-h1"
	h2ToH2        = "h2-h2"
	grpcWay       = "grpc" // as ask names the listener
	limitedWay    = "limited"
	routedWay     = "routed"
	loggedWay     = "logged"
	chainWay      = "chain"
	peerChainWay  = "peer-chain"
	routesOfOne   = 1000 // on the way with many
	connectionsH2 = 4
	streamsH2     = 16 // of each connection
)

// proxyBench is the programs of the proxy's group.
type proxyBench struct {
	m           *machine
	wrk, h2load string
	config      proxies
	accepted    proxies           // what of it our proxy accepts
	refused     map[string]string // why it does not, by the way
	logs        map[string]string // paths of access logs
	// The programs, without those that are not installed.
	proxies map[string]*harness.Process
	// limiter counts in memory, counting in redis, and peer in peerRedis, which
	// are nil without one.
	limiter, counting, redis, peer, peerRedis *harness.Process
	group                                     *group
	delays                                    [][]string // rows of their table
	// rows are those of ours and of others for each way, and for large bodies.
	rows map[string]map[string]*scenario
}

// newProxyGroup is our proxy, a real Envoy on the same bootstrap, and haproxy and
// nginx where they are installed.
func newProxyGroup(t testing.TB, m *machine) *group {
	t.Helper()
	b := &proxyBench{
		m:       m,
		wrk:     servicetest.Peer(t, "wrk", "WRK", "make peers"),
		h2load:  servicetest.Peer(t, "h2load", "H2LOAD", "make peers"),
		proxies: map[string]*harness.Process{},
		rows:    map[string]map[string]*scenario{},
	}
	const oneCore = "GOMAXPROCS=1"
	b.limiter = m.start(t, m.other, harness.RatelimitProgram(t, rules(t), "BACKEND_TYPE=memory"))
	b.redis = m.start(t, m.other, harness.RedisProgram(t))
	b.counting = m.start(t, m.other, harness.RatelimitProgram(t, rules(t), "REDIS_URL=redis://"+b.redis.Addr("redis"), "REDIS_TIMEOUT=5s", oneCore))
	peerIs := "none, RATELIMIT_PEER names no binary"
	if path := harness.RatelimitPeer(); path != "" {
		peerIs = built(t, path)
		b.peerRedis = m.start(t, m.other, harness.RedisProgram(t))
		b.peer = m.start(t, m.other, harness.RatelimitPeerProgram(t, rules(t), b.peerRedis.Addr("redis"), oneCore))
	}
	calls := m.start(t, m.other, harness.RLSFloorProgram(t, "64", "400", oneCore))
	behind := startBackends(t, m)
	b.configure(t, behind, calls)
	b.start(t)

	b.group = &group{references: []string{byEnvoy, byHaproxy, byNginx}, beside: "ratelimit's own", parts: proxyParts()}
	b.addRows(t)
	b.group.figures = b.figures
	b.group.tables = b.tables
	b.group.method = fmt.Sprintf(`One worker each: Envoy with --concurrency 1, ours with GOMAXPROCS=1, haproxy
with one thread, nginx as one process. Their configurations are those of
testdata/proxy; ours and Envoy's are the same file. HTTP/1.1 is wrk with %d kept
connections, HTTP/2 and gRPC are h2load with %d connections of %d streams. A GET
is answered with 66 bytes, or with 64 KB; a gRPC call by grpc-go with an answer
that is made beforehand. The rate limiter counts in memory, but for the whole
chains, whose CPU time is that of proxy, limiter and Redis together; every request
of these loads was asked about and answered. Of %d routes the last one matches.
Access logs have the default format and go to a file. What a log and what routes
add is the median of the differences of pairs of turns, %d pairs a round and %d
requests a turn, that the plain way and the other one take; either has %d kept
connections of one request at a time. "Not yet" is said of a load whose configuration our proxy refuses, with its first fault.
Memory of a connection is resident memory with 10,000 of them that had one
request each, less that before them, of a program that did nothing else. Allocations
are counted by the runtime. In the open loop requests are sent at random times,
however late answers are, and delays counted from the time at which a request was
due; its client is in the process of the benchmark, with the other core.`,
		wrkConnections, connectionsH2, streamsH2, routesOfOne,
		turnsOfRound, batchesOfTurn*wrkConnections, wrkConnections)
	b.group.versions = []string{
		envoyVersion(t),
		versionOf(t, byHaproxy, "-v"),
		versionOf(t, byNginx, "-v"),
		"limiter of the peer's chain: " + peerIs,
		"Redis: " + version(t, harness.RedisProgram(t).Path, "--version"),
		"backend: " + behind.what,
		"load: " + version(t, b.wrk, "-v") + "; " + version(t, b.h2load, "--version"),
		"built with " + runtime.Version(),
	}
	return b.group
}

// configure lays out the ways and clusters.
func (b *proxyBench) configure(t testing.TB, behind backends, calls *harness.Process) {
	t.Helper()
	const backend, h2Backend, grpcBackend = "backend", "h2-backend", "calls"
	prefixes := make([]string, routesOfOne-1)
	for i := range prefixes {
		prefixes[i] = fmt.Sprintf("/service-%d/", i)
	}
	b.config = proxies{
		Backend: backend,
		Ways: []way{
			{Name: plainWay, Cluster: backend},
			{Name: h2ToH1, Cluster: backend, HTTP2: true},
			{Name: h2ToH2, Cluster: h2Backend, HTTP2: true},
			{Name: grpcWay, Cluster: grpcBackend, HTTP2: true},
			{Name: limitedWay, Cluster: backend, Limiter: "limiter"},
			{Name: routedWay, Cluster: backend, Prefixes: prefixes},
			{Name: loggedWay, Cluster: backend, Logged: true},
			{Name: chainWay, Cluster: backend, Limiter: "counting"},
		},
		Clusters: []upstream{
			{Name: backend, Port: port(t, behind.http1)},
			{Name: h2Backend, Port: port(t, behind.http2), HTTP2: true},
			{Name: grpcBackend, Port: port(t, calls.Addr("grpc")), HTTP2: true},
			{Name: "limiter", Port: port(t, b.limiter.Addr("grpc")), HTTP2: true},
			{Name: "counting", Port: port(t, b.counting.Addr("grpc")), HTTP2: true},
		},
	}
	if b.peer != nil {
		b.config.Ways = append(b.config.Ways, way{Name: peerChainWay, Cluster: backend, Limiter: "peer"})
		b.config.Clusters = append(b.config.Clusters, upstream{Name: "peer", Port: port(t, b.peer.Addr("grpc")), HTTP2: true})
	}
}

// start starts the proxies.
func (b *proxyBench) start(t testing.TB) {
	t.Helper()
	directory := t.TempDir()
	b.logs = map[string]string{ours: filepath.Join(directory, "ours.log"), byEnvoy: filepath.Join(directory, "envoy.log")}
	b.config.Log = b.logs[ours]
	b.accepted, b.refused = b.config.accepted(t)
	b.proxies[ours] = b.m.start(t, b.m.measured, oursWith(t, b.accepted))
	b.config.Log = b.logs[byEnvoy]
	b.proxies[byEnvoy] = b.m.start(t, b.m.measured, envoyWith(t, b.config))
	for name, with := range map[string]func(testing.TB, proxies) (harness.Program, bool){byHaproxy: haproxyWith, byNginx: nginxWith} {
		program, ok := with(t, b.config)
		if !ok {
			fmt.Println(name + ": not installed: its rows are left out")
			continue
		}
		b.proxies[name] = b.m.start(t, b.m.measured, program)
	}
}

// loader makes the load on one listener of a program.
type loader func(program string, p *harness.Process, address string) load

// largeBodies is, among the rows, those of plainWay with 64 KB.
const largeBodies = "large"

// addRows adds a row for each load and each proxy that has a listener for it.
func (b *proxyBench) addRows(t testing.TB) {
	t.Helper()
	small := b.http1(target66, loopLength)
	b.row(t, plainWay, "HTTP/1.1 → HTTP/1.1", plainWay, small)
	b.row(t, h2ToH1, "HTTP/2 → HTTP/1.1", h2ToH1, b.http2)
	b.row(t, h2ToH2, "HTTP/2 → HTTP/2", h2ToH2, b.http2)
	b.row(t, grpcWay, "gRPC unary", grpcWay, b.grpc)
	b.row(t, largeBodies, "64 KB bodies, HTTP/1.1", plainWay, b.http1(target64K, 64<<10))
	b.row(t, routedWay, fmt.Sprintf("HTTP/1.1, the last of %d routes", routesOfOne), routedWay, small)
	b.row(t, loggedWay, "HTTP/1.1, access log", loggedWay, b.logging(small))
	b.row(t, limitedWay, "HTTP/1.1, after a rate-limit call", limitedWay, b.asking(small))
	b.row(t, chainWay, "the whole chain, HTTP/1.1", chainWay, b.asking(small))
	for _, s := range b.rows[limitedWay] {
		s.beside = b.limiter
	}
	b.rows[plainWay][ours].profiled = true
	for _, s := range b.rows[chainWay] {
		s.program, s.also = s.program+" + ratelimit + Redis", []*harness.Process{b.counting, b.redis}
	}
	if b.peer != nil {
		b.row(t, peerChainWay, "the whole chain, HTTP/1.1", peerChainWay, b.asking(small))
		theirs := b.rows[peerChainWay][byEnvoy]
		theirs.program, theirs.also = "envoy + envoyproxy/ratelimit + Redis", []*harness.Process{b.peer, b.peerRedis}
		b.rows[chainWay][ours].against[byEnvoy] = theirs
	}
}

// row adds a load's rows under a key: of each proxy that has the listener, and of
// ours that refuses it. The peer's chain is Envoy's alone.
func (b *proxyBench) row(t testing.TB, key, title, listener string, load loader) {
	t.Helper()
	rows := map[string]*scenario{}
	for _, name := range []string{ours, byEnvoy, byHaproxy, byNginx} {
		p := b.proxies[name]
		if p == nil || key == peerChainWay && name != byEnvoy {
			continue
		}
		s := &scenario{title: title, program: name, process: p}
		switch address, ok := p.Addresses[listener]; {
		case ok:
			s.load = load(name, p, address)
		case name == ours:
			s.refused = b.refused[listener]
			require.NotEmpty(t, s.refused, "why our proxy has no listener %s", listener)
		default:
			continue
		}
		rows[name] = s
		b.group.scenarios = append(b.group.scenarios, s)
	}
	if own := rows[ours]; own != nil {
		own.against = map[string]*scenario{byEnvoy: rows[byEnvoy], byHaproxy: rows[byHaproxy], byNginx: rows[byNginx]}
	}
	b.rows[key] = rows
}

// http1 loads a target that is answered with so many bytes.
func (b *proxyBench) http1(target string, length int) loader {
	return func(program string, _ *harness.Process, address string) load {
		return func(t testing.TB, d time.Duration) int {
			t.Helper()
			answer, err := harness.Send(harness.Client(t), harness.Request{URL: "http://" + address + target})
			require.NoError(t, err, program)
			require.Equal(t, http.StatusOK, answer.Status, program)
			require.Len(t, answer.Body, length, program)
			return b.m.wrk(t, b.wrk, address+target, wrkConnections, d)
		}
	}
}

// http2 loads "/" over HTTP/2.
func (b *proxyBench) http2(_ string, _ *harness.Process, address string) load {
	return func(t testing.TB, d time.Duration) int {
		t.Helper()
		return b.m.h2requests(t, b.h2load, connectionsH2, streamsH2, d, "http://"+address+target66)
	}
}

// grpc loads with calls, which are answered with OK.
func (b *proxyBench) grpc(program string, p *harness.Process, address string) load {
	c := calls{domain: "bench", descriptors: 1, connections: connectionsH2, streams: streamsH2}
	return func(t testing.TB, d time.Duration) int {
		t.Helper()
		return answered(&scenario{program: program, process: p}, c, b.m.h2load(t, b.h2load, address, c))(t, d)
	}
}

// asking is a load each of whose requests the proxy must have asked a rate
// limiter about, and got an answer.
func (b *proxyBench) asking(next loader) loader {
	return func(program string, p *harness.Process, address string) load {
		load := next(program, p, address)
		return func(t testing.TB, d time.Duration) int {
			t.Helper()
			const ok = "cluster.backend.ratelimit.ok"
			before := harness.Stat(t, p, ok)
			requests := load(t, d)
			require.GreaterOrEqual(t, harness.Stat(t, p, ok)-before, requests, "answers of the rate limiter to %s", program)
			return requests
		}
	}
}

// logging is a load that is logged, which empties the log.
func (b *proxyBench) logging(next loader) loader {
	return func(program string, p *harness.Process, address string) load {
		load := next(program, p, address)
		return func(t testing.TB, d time.Duration) int {
			t.Helper()
			requests := load(t, d)
			text, err := os.ReadFile(b.logs[program])
			require.NoError(t, err)
			// What is still in the program's buffer comes later.
			const buffered = 64 << 10 / len("[2026-01-02T03:04:05.678Z]")
			require.Greater(t, bytes.Count(text, []byte("\n")), requests-buffered, "lines of %s", program)
			require.NoError(t, os.Truncate(b.logs[program], 0))
			return requests
		}
	}
}

// envoyVersion is Envoy's number, which its version line has between slashes.
func envoyVersion(t testing.TB) string {
	t.Helper()
	parts := strings.Split(version(t, harness.EnvoyPath(t), "--version"), "/")
	require.GreaterOrEqual(t, len(parts), 4, "Envoy's version line")
	return "Envoy " + parts[len(parts)-4]
}
