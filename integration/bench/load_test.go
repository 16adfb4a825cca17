package bench

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// connections and streams of the loads.
const (
	wrkConnections    = 64
	h2loadConnections = 4
	h2loadStreams     = 16
)

// nginxConfig answers every request with 66 bytes.
const nginxConfig = `
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  keepalive_requests 1000000000;
  server {
    listen ADDRESS;
    location / { return 200 "0123456789012345678901234567890123456789012345678901234567890123\r\n"; }
  }
}
`

// startBackend starts nginx where it is installed, and our echo elsewhere.
func (m *machine) startBackend(t testing.TB) {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		m.backend, m.backendIs = m.start(t, m.other, harness.EchoProgram(t, "backend")).Addr("http"), "our echo"
		return
	}
	m.backend, m.backendIs = servicetest.FreeAddress(t), version(t, path, "-v")
	directory := t.TempDir()
	config := filepath.Join(directory, "nginx.conf")
	require.NoError(t, os.WriteFile(config, []byte(strings.Replace(nginxConfig, "ADDRESS", m.backend, 1)), 0o644))
	m.start(t, m.other, harness.Program{
		Name: "nginx",
		Path: path,
		Command: func(harness.Addresses, string) (arguments, environment []string) {
			return []string{"-p", directory, "-c", config}, nil
		},
		Ready: func(*harness.Process) harness.Addresses {
			servicetest.Eventually(t, "nginx answers", func() bool {
				conn, err := net.Dial("tcp", m.backend)
				if err != nil {
					return false
				}
				return conn.Close() == nil
			})
			return harness.Addresses{"http": m.backend}
		},
	})
}

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

// wrk loads an address over kept connections.
func (m *machine) wrk(t testing.TB, path, address string, d time.Duration) (requests int) {
	t.Helper()
	text := m.run(t, path, "-t1", "-c"+strconv.Itoa(wrkConnections), "-d"+seconds(d), "http://"+address+"/")
	require.NotContains(t, text, "Socket errors", "wrk")
	require.NotContains(t, text, "Non-2xx", "wrk")
	return find(t, text, `(\d+) requests in`)
}

// h2load calls an address over gRPC; body is the file of the message.
func (m *machine) h2load(t testing.TB, path, address, body string, d time.Duration) (requests int) {
	t.Helper()
	text := m.run(t, path, "-t1", "-c"+strconv.Itoa(h2loadConnections), "-m"+strconv.Itoa(h2loadStreams), "-D"+seconds(d),
		"-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
		"http://"+address+"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
	done, failed := find(t, text, `(\d+) succeeded`), find(t, text, `(\d+) failed`)
	require.Zero(t, failed, "h2load: %s", text)
	return done
}

// writeCall writes a gRPC message that asks about so many descriptors into a
// file of the test.
func writeCall(t testing.TB, descriptors int) string {
	t.Helper()
	request := &rlspb.RateLimitRequest{Domain: "bench"}
	for i := range descriptors {
		request.Descriptors = append(request.Descriptors, &commonpb.RateLimitDescriptor{
			Entries: []*commonpb.RateLimitDescriptor_Entry{{Key: "generic_key", Value: "bench-" + strconv.Itoa(i)}},
		})
	}
	message, err := proto.Marshal(request)
	require.NoError(t, err)
	framed := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	path := filepath.Join(t.TempDir(), "call.bin")
	require.NoError(t, os.WriteFile(path, append(framed, message...), 0o644))
	return path
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
