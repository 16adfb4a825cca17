// Package servicetest helps the services' tests: goroutine-leak checks, golden
// files, waiting for a condition, and real peers such as redis-server where
// they are installed. It is imported by tests only.
package servicetest

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// update rewrites golden files instead of comparing: go test ./... -update.
var update = flag.Bool("update", false, "rewrite golden files with what the tests got")

// Main runs a package's tests and fails them if goroutines are left at the
// end. Call it from TestMain.
func Main(m goleak.TestingM, options ...goleak.Option) { goleak.VerifyTestMain(m, options...) }

// Golden compares got with the file at path, below testdata by custom.
func Golden(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "write it with: go test -run '^%s$' . -update", t.Name())
	if !bytes.Equal(want, got) {
		require.Equal(t, string(want), string(got), "differs from %s; if the new text is right: go test -run '^%s$' . -update", path, t.Name())
	}
}

// GoldenFaults reads each file that matches pattern, like "testdata/bad/*.yaml",
// as a test of its own, and compares the error, of which there must be one, with
// the .txt file beside it.
func GoldenFaults(t *testing.T, pattern string, read func(t *testing.T, name string, text []byte) error) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files, pattern)
	for _, file := range files {
		name, ending := filepath.Base(file), filepath.Ext(file)
		t.Run(strings.TrimSuffix(name, ending), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			err = read(t, name, text)
			require.Error(t, err)
			Golden(t, strings.TrimSuffix(file, ending)+".txt", []byte(err.Error()+"\n"))
		})
	}
}

// Patience is how long a test waits for what comes at once on a machine that
// has nothing else to do, before it fails. A test that passes never waits so
// long; one that ran out of less would tell of the machine, not of the code.
const Patience = time.Minute

// Eventually asks condition every few milliseconds, on the goroutine of the
// test, and fails it when the condition does not hold within Patience. What is
// said as a sentence: "the host is listed".
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for late := time.Now().Add(Patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// CPUTime is how long processors have worked for this process since it began:
// the difference of two tells what code costs, however busy the machine is. All that
// the process does meanwhile counts, in other goroutines and parallel tests too.
func CPUTime(t testing.TB) time.Duration {
	t.Helper()
	var used syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Peer returns the path of a program that a test needs but the project does
// not bring. Where it is missing the test is skipped with a line that says how
// to install it, or fails if WEIR_REQUIRE_PEERS is set, as it is in CI. The
// variable named by override, if set, is the path instead.
func Peer(t testing.TB, program, override, install string) string {
	t.Helper()
	if path := os.Getenv(override); path != "" {
		return path
	}
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("WEIR_REQUIRE_PEERS") != "" {
		t.Fatalf("%s is not installed, and WEIR_REQUIRE_PEERS is set: %s", program, install)
	}
	t.Skipf("%s is not installed: %s (or set %s to its path)", program, install, override)
	return ""
}
