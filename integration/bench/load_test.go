package bench

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/integration/harness"
)

// wrkConnections are those of the loads on proxies.
const wrkConnections = 64

// run runs a load generator to its end, on the core that is not measured.
func (m *machine) run(t testing.TB, path string, arguments ...string) string {
	t.Helper()
	if m.taskset != "" {
		path, arguments = m.taskset, append([]string{"--cpu-list", strconv.Itoa(m.other), path}, arguments...)
	}
	text, err := exec.Command(path, arguments...).CombinedOutput()
	require.NoError(t, err, "%s", text)
	return string(text)
}

// wrk loads an address, or one with a target, over kept connections. script is a
// program in Lua that makes the requests, with its arguments; without one they are
// GETs of the target.
func (m *machine) wrk(t testing.TB, path, address string, connections int, d time.Duration, script ...string) (requests int) {
	t.Helper()
	arguments := []string{"-t1", "-c" + strconv.Itoa(connections), "-d" + seconds(d)}
	if len(script) > 0 {
		arguments = append(arguments, "-s", script[0])
	}
	arguments = append(arguments, "http://"+address)
	if len(script) > 0 {
		arguments = append(append(arguments, "--"), script[1:]...)
	}
	text := m.run(t, path, arguments...)
	require.NotContains(t, text, "Socket errors", "wrk")
	require.NotContains(t, text, "Non-2xx", "wrk")
	return find(t, text, `(\d+) requests in`)
}

// h2load is a load of calls to an address over gRPC.
func (m *machine) h2load(t testing.TB, path, address string, c calls) load {
	t.Helper()
	message, err := proto.Marshal(c.request())
	require.NoError(t, err)
	framed := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	body := filepath.Join(t.TempDir(), "call.bin")
	require.NoError(t, os.WriteFile(body, append(framed, message...), 0o644))
	return func(t testing.TB, d time.Duration) int {
		t.Helper()
		return m.h2requests(t, path, c.connections, c.streams, d,
			"-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
			"http://"+address+"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
	}
}

// h2requests has h2load make requests over so many connections of so many streams.
func (m *machine) h2requests(t testing.TB, path string, connections, streams int, d time.Duration, arguments ...string) (requests int) {
	t.Helper()
	text := m.run(t, path, append([]string{"-t1", "-c" + strconv.Itoa(connections), "-m" + strconv.Itoa(streams), "-D" + seconds(d)}, arguments...)...)
	done, failed := find(t, text, `(\d+) succeeded`), find(t, text, `(\d+) failed`)
	require.Zero(t, failed, "h2load: %s", text)
	require.NotZero(t, done, "h2load: %s", text)
	return done
}

// rules is the directory of the rule files.
func rules(t testing.TB) string {
	t.Helper()
	return harness.Path(t, "integration", "bench", "testdata", "rules")
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// find returns the number that a pattern's group matches.
func find(t testing.TB, text, pattern string) int {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	require.NotNil(t, match, "%s in: %s", pattern, text)
	n, err := strconv.Atoi(match[1])
	require.NoError(t, err)
	return n
}

// version is the line in which a program says which one it is.
func version(t testing.TB, path string, argument string) string {
	t.Helper()
	text, _ := exec.Command(path, argument).CombinedOutput() // wrk exits with 1
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return strings.TrimSpace(line)
}
