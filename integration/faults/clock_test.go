package faults

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// clockedRedis is a redis-server with a clock that a test sets.
type clockedRedis struct {
	t       *testing.T
	address string
	offset  string // the file that says how far its clock is put forward
	server  *harness.Process
}

// newClockedRedis starts one, the clock of which is right. It needs a C compiler,
// and a redis-server that asks libc for the time; without one the test is skipped
// as by servicetest.Peer.
func newClockedRedis(t *testing.T) *clockedRedis {
	t.Helper()
	compiler := servicetest.Peer(t, "cc", "CC", "apt-get install gcc libc6-dev")
	directory := t.TempDir()
	library := filepath.Join(directory, "clock.so")
	text, err := exec.Command(compiler, "-shared", "-fPIC", "-O1", "-o", library, filepath.Join("testdata", "clock.c")).CombinedOutput()
	require.NoError(t, err, "%s", text)
	r := &clockedRedis{t: t, offset: filepath.Join(directory, "offset")}
	r.set(0)
	program := harness.RedisProgram(t)
	command := program.Command
	program.Command = func(bound harness.Addresses, readyFile string) (arguments, environment []string) {
		arguments, environment = command(bound, readyFile)
		return arguments, append(environment, "LD_PRELOAD="+library, "CLOCK_OFFSET="+r.offset)
	}
	r.server = harness.Start(t, program)
	r.address = r.server.Addr("redis")
	return r
}

// set puts the clock forward by so much, in all, and sees that it is.
func (r *clockedRedis) set(forward time.Duration) {
	r.t.Helper()
	file, err := os.OpenFile(r.offset, os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(r.t, err)
	defer file.Close()
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(forward.Microseconds())), 0)
	require.NoError(r.t, err)
	if r.server != nil {
		require.InDelta(r.t, time.Now().Add(forward).Unix(), r.now(), 30, "seconds by the clock of Redis")
	}
}

// now is what the clock says, in seconds since 1970.
func (r *clockedRedis) now() int64 {
	r.t.Helper()
	conn, err := net.DialTimeout("tcp", r.address, time.Second)
	require.NoError(r.t, err)
	defer conn.Close()
	require.NoError(r.t, conn.SetDeadline(time.Now().Add(time.Second)))
	_, err = io.WriteString(conn, "TIME\r\n")
	require.NoError(r.t, err)
	var parts, length int
	var seconds int64
	_, err = fmt.Fscanf(bufio.NewReader(conn), "*%d\r\n$%d\r\n%d\r\n", &parts, &length, &seconds)
	require.NoError(r.t, err)
	return seconds
}
