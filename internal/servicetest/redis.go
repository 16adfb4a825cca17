package servicetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Redis starts a real redis-server on a free port of loopback, empty and
// without persistence, and returns its address; it ends with the test. Without
// redis-server the test is skipped as by Peer. args are more of its options.
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	r := newRedis(t)
	host, port, _ := net.SplitHostPort(r.Address)
	r.args = append([]string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", r.dir}, args...)
	r.Start()
	return r
}

// newRedis is a server that is yet to be told its options and started.
func newRedis(t testing.TB) *RedisServer {
	t.Helper()
	path := Peer(t, "redis-server", "REDIS_SERVER", "make peers, or apt-get install redis-server")
	r := &RedisServer{t: t, path: path, dir: t.TempDir(), Address: FreeAddress(t)}
	t.Cleanup(r.Kill)
	return r
}

// RedisServer is a redis-server that a test can kill and start again.
type RedisServer struct {
	// Address is "127.0.0.1:port", the same after a restart.
	Address string

	t       testing.TB
	path    string
	dir     string
	args    []string
	process *exec.Cmd
}

// Start runs the server and waits until it answers.
func (r *RedisServer) Start() {
	r.t.Helper()
	r.process = exec.Command(r.path, r.args...)
	require.NoError(r.t, r.process.Start())
	Eventually(r.t, "redis-server answers on "+r.Address, func() bool {
		answer, err := r.command("PING")
		return err == nil && answer == "PONG"
	})
}

// Kill ends the server at once. Killing one that has ended does nothing.
func (r *RedisServer) Kill() {
	if r.process != nil {
		_ = r.process.Process.Kill()
		_ = r.process.Wait()
		r.process = nil
	}
}

// Process is the running server, for a test that stops and continues it.
func (r *RedisServer) Process() *os.Process { return r.process.Process }

// Command has the server carry out a command, given as words with spaces
// between, and returns the answer, a text or a number.
func (r *RedisServer) Command(line string) string {
	r.t.Helper()
	answer, err := r.command(line)
	require.NoError(r.t, err, "%s to redis at %s", line, r.Address)
	return answer
}

func (r *RedisServer) command(line string) (string, error) {
	c, err := net.DialTimeout("tcp", r.Address, Patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(Patience))
	if _, err := io.WriteString(c, line+"\r\n"); err != nil {
		return "", err
	}
	in := bufio.NewReader(c)
	answer, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	answer = strings.TrimSpace(answer)
	switch answer[:1] {
	case "-":
		return "", fmt.Errorf("answer %q", answer)
	case "$":
		n, err := strconv.Atoi(answer[1:])
		if err != nil || n < 0 {
			return "", err
		}
		text := make([]byte, n)
		_, err = io.ReadFull(in, text)
		return string(text), err
	}
	return answer[1:], nil
}

// reports waits until the server's answer to a command holds all of parts.
func (r *RedisServer) reports(line string, parts ...string) {
	r.t.Helper()
	Eventually(r.t, fmt.Sprintf("%s of redis at %s says %q", line, r.Address, parts), func() bool {
		answer, err := r.command(line)
		for _, part := range parts {
			if err != nil || !strings.Contains(answer, part) {
				return false
			}
		}
		return true
	})
}

// RedisCluster starts a Redis Cluster of three masters without replicas, each
// with a third of the slots, and returns them once they agree on that. One that
// is away does not keep the others from serving. It ends with the test; without
// redis-server the test is skipped as by Peer.
func RedisCluster(t testing.TB) []*RedisServer {
	t.Helper()
	slots := []string{"0 5460", "5461 10922", "10923 16383"}
	var masters []*RedisServer
	var buses []string
	for range slots {
		_, bus, _ := net.SplitHostPort(FreeAddress(t))
		masters = append(masters, Redis(t, "--cluster-enabled", "yes", "--cluster-port", bus,
			"--cluster-node-timeout", "10000", "--cluster-require-full-coverage", "no"))
		buses = append(buses, bus)
	}
	for i, m := range masters {
		m.Command(fmt.Sprint("CLUSTER SET-CONFIG-EPOCH ", i+1))
		m.Command("CLUSTER ADDSLOTSRANGE " + slots[i])
		if i > 0 {
			host, port, _ := net.SplitHostPort(m.Address)
			masters[0].Command(strings.Join([]string{"CLUSTER MEET", host, port, buses[i]}, " "))
		}
	}
	for _, m := range masters {
		m.reports("CLUSTER INFO", "cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3", "cluster_size:3")
	}
	return masters
}

// RedisSentinel is a Sentinel that watches a master with one replica. It takes
// the master for dead after five seconds, more than a busy machine holds it up, and
// decides alone.
type RedisSentinel struct {
	// Name is what the Sentinel calls the master, Address its own.
	Name, Address   string
	Master, Replica *RedisServer

	sentinel *RedisServer
}

// Sentinel starts a RedisSentinel, and returns when the replica follows the
// master and the Sentinel knows both. It ends with the test; without
// redis-server the test is skipped as by Peer.
func Sentinel(t testing.TB) *RedisSentinel {
	t.Helper()
	s := &RedisSentinel{Name: "main", Master: Redis(t, "--repl-diskless-sync-delay", "0")}
	host, port, _ := net.SplitHostPort(s.Master.Address)
	s.Replica = Redis(t, "--replicaof", host+" "+port)
	s.Master.reports("INFO replication", "state=online")

	s.sentinel = newRedis(t)
	s.Address = s.sentinel.Address
	_, own, _ := net.SplitHostPort(s.Address)
	settings := filepath.Join(s.sentinel.dir, "sentinel.conf")
	require.NoError(t, os.WriteFile(settings, []byte(strings.Join([]string{
		"bind " + host,
		"port " + own,
		"dir " + s.sentinel.dir,
		"sentinel monitor " + s.Name + " " + host + " " + port + " 1",
		"sentinel down-after-milliseconds " + s.Name + " 5000",
		"sentinel failover-timeout " + s.Name + " 3000",
		"",
	}, "\n")), 0o600))
	s.sentinel.args = []string{settings, "--sentinel"}
	s.sentinel.Start()
	s.sentinel.reports("INFO sentinel", "status=ok", "slaves=1")
	return s
}
