package file

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

// openSecond opens a store over a file that may be another's.
func openSecond(path string) (*Store, error) {
	return Open(path, never, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func TestOneProcessWritesASnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	s := open(t, path, never, io.Discard)
	load(t, s)
	put(t, s, storetest.Record("users", "a", 1))
	require.NoError(t, s.snapshot())
	before := tree(t, filepath.Dir(path))

	_, err := openSecond(path)
	host, _ := os.Hostname()
	require.EqualError(t, err, fmt.Sprintf("snapshot %s: %s.lock is held by process %d on %s, which writes this snapshot", path, path, os.Getpid(), host))
	require.NoError(t, os.Truncate(lockName(path), 0))
	_, err = openSecond(path)
	require.EqualError(t, err, fmt.Sprintf("snapshot %s: %s.lock is held: another process writes this snapshot", path, path))
	require.Equal(t, before, tree(t, filepath.Dir(path)))

	other := open(t, filepath.Join(filepath.Dir(path), "others.snapshot"), never, io.Discard)
	require.NoError(t, other.Close(), "another file in that directory is another's")

	require.NoError(t, s.Close())
	s = open(t, path, never, io.Discard)
	require.Len(t, load(t, s), 1, "it is free, with what the first wrote at its end")
	require.NoError(t, s.Close())
}

// lockedIn names, in the environment of a process of its own, the file that it is
// to hold until it is killed.
const lockedIn = "FILE_TEST_LOCKED"

func TestAProcessThatIsKilledHoldsNoLock(t *testing.T) {
	if path := os.Getenv(lockedIn); path != "" {
		open(t, path, never, io.Discard)
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	holder := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	holder.Env = append(os.Environ(), lockedIn+"="+path)
	stdin, err := holder.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	defer func() { _ = holder.Process.Kill() }()
	_, err = io.ReadFull(stdout, make([]byte, len("held")))
	require.NoError(t, err)
	_, err = openSecond(path)
	require.ErrorContains(t, err, fmt.Sprintf("is held by process %d on ", holder.Process.Pid))

	require.NoError(t, holder.Process.Kill())
	require.Error(t, holder.Wait(), "it was killed")
	s := open(t, path, never, io.Discard)
	text, err := os.ReadFile(lockName(path))
	require.NoError(t, err)
	require.Contains(t, string(text), fmt.Sprintf("process %d on ", os.Getpid()), "the lock is ours")
	require.NoError(t, s.Close())
}

func TestWhatCannotBeLockedIsReadAndNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	s := open(t, path, never, io.Discard)
	load(t, s)
	put(t, s, storetest.Record("users", "a", 1))
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(lockName(path)))
	require.NoError(t, os.Mkdir(lockName(path), 0o755))
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	var log bytes.Buffer
	s = open(t, path, never, &log)
	require.Contains(t, log.String(), lockName(path)+": is a directory")
	require.Len(t, load(t, s), 1)
	put(t, s, storetest.Record("users", "b", 2))
	require.ErrorContains(t, s.snapshot(), lockName(path))
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.errors))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.NoError(t, os.Remove(lockName(path)))
	require.NoError(t, s.Close())
	s = open(t, path, never, io.Discard)
	require.Len(t, load(t, s), 2)
	require.NoError(t, s.Close())
}
