package harness

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/servicetest"
)

// RedisProgram is a real redis-server, empty and without persistence. Its
// listener is redis.
func RedisProgram(t testing.TB) Program {
	t.Helper()
	address := servicetest.FreeAddress(t) // it does not say which port it took
	return Program{
		Name: "redis-server",
		Path: servicetest.Peer(t, "redis-server", "REDIS_SERVER", "make peers, or apt-get install redis-server"),
		Command: func(Addresses, string) (arguments, environment []string) {
			host, port, _ := net.SplitHostPort(address)
			return []string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--loglevel", "warning"}, nil
		},
		Ready: func(p *Process) Addresses {
			p.t.Helper()
			p.await("answers on "+address, func() bool { return pings(address) })
			return Addresses{"redis": address}
		},
	}
}

// pings says whether a Redis answers.
func pings(address string) bool {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	answer := make([]byte, 7)
	_, writeErr := conn.Write([]byte("PING\r\n"))
	_, readErr := conn.Read(answer)
	return writeErr == nil && readErr == nil && string(answer[:5]) == "+PONG"
}

// ratelimitPeerVariable names the binary of another rate limiter that has the
// settings of envoyproxy/ratelimit, where the tester has one.
const ratelimitPeerVariable = "RATELIMIT_PEER"

// RatelimitPeer returns the path of the peer's binary; empty without one.
func RatelimitPeer() string { return os.Getenv(ratelimitPeerVariable) }

// RatelimitPeerProgram is that peer, without statistics, with the rules that
// lie in a directory, a Redis at an address and further settings, NAME=value.
// Its listeners are grpc and http.
func RatelimitPeerProgram(t testing.TB, rules, redis string, settings ...string) Program {
	t.Helper()
	grpc, http, debug := servicetest.FreeAddress(t), servicetest.FreeAddress(t), servicetest.FreeAddress(t)
	return Program{
		Name: "peer",
		Path: RatelimitPeer(),
		Command: func(Addresses, string) (arguments, environment []string) {
			environment = []string{
				"USE_STATSD=false", "DISABLE_STATS=true", "LOG_LEVEL=error",
				"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + redis,
				// Watching the root would want a subdirectory too.
				"RUNTIME_ROOT=" + filepath.Dir(rules), "RUNTIME_APPDIRECTORY=" + filepath.Base(rules), "RUNTIME_WATCH_ROOT=false",
			}
			for prefix, address := range map[string]string{"": http, "GRPC_": grpc, "DEBUG_": debug} {
				host, port, _ := net.SplitHostPort(address)
				environment = append(environment, prefix+"HOST="+host, prefix+"PORT="+port)
			}
			return nil, append(environment, settings...)
		},
		Ready: func(p *Process) Addresses {
			p.t.Helper()
			// It opens its ports once it has Redis and rules.
			p.await("is healthy", func() bool { return ask(http, "/healthcheck") == "OK" })
			return Addresses{"grpc": grpc, "http": http}
		},
	}
}

// RLSFloorProgram is a gRPC service of rate limits whose answer never changes,
// with so many stream workers, 0 for none, and a GOGC. Its listener is grpc.
func RLSFloorProgram(t testing.TB, workers, gogc string, settings ...string) Program {
	t.Helper()
	return Program{Name: "rlsfloor", Path: binary(t, "rlsfloor"), Command: func(_ Addresses, readyFile string) (arguments, environment []string) {
		return []string{"--ready-file", readyFile, "--stream-workers", workers}, append([]string{"GOGC=" + gogc}, settings...)
	}}
}

// HTTPFloorProgram is an HTTP service that does nothing. Its listener is http.
func HTTPFloorProgram(t testing.TB, settings ...string) Program {
	t.Helper()
	return Program{Name: "httpfloor", Path: binary(t, "httpfloor"), Command: func(_ Addresses, readyFile string) (arguments, environment []string) {
		return []string{"--ready-file", readyFile}, settings
	}}
}

// LinearCacheProgram is go-control-plane's xDS server, with no endpoints yet. Its
// listeners are xds and admin, which takes them.
func LinearCacheProgram(t testing.TB, settings ...string) Program {
	t.Helper()
	return Program{Name: "linearcache", Path: binary(t, "linearcache"), Command: func(_ Addresses, readyFile string) (arguments, environment []string) {
		return []string{"--ready-file", readyFile}, settings
	}}
}
