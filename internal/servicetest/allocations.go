package servicetest

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// AllocationsCount says whether what is allocated tells anything. Under the race detector,
// which makes sync.Pool forget at random and takes memory itself, it does not: that is
// logged, and the test goes on with all that it asserts besides.
func AllocationsCount(t testing.TB) bool {
	t.Helper()
	if raceDetector {
		t.Log("what is allocated does not count under the race detector: run without -race")
	}
	return !raceDetector
}

// Allocations fails the test if a call of f allocates more often than most, on
// average. Where AllocationsCount says no, f is called as often all the same.
func Allocations(t testing.TB, most float64, f func()) {
	t.Helper()
	if average := testing.AllocsPerRun(500, f); AllocationsCount(t) {
		require.LessOrEqual(t, average, most, "allocations per call")
	}
}

// AllocatedBytes fails the test if this process allocates more bytes than most while
// f runs, whatever of them it lets go. Where AllocationsCount says no, f runs all the
// same.
func AllocatedBytes(t testing.TB, most uint64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if AllocationsCount(t) {
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, most, "bytes allocated")
	}
}
