package servicetest

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Allocations fails the test if a call of f allocates more often than most, on
// average. Under the race detector, which makes sync.Pool forget at random,
// the rest of the test is skipped.
func Allocations(t testing.TB, most float64, f func()) {
	t.Helper()
	if raceDetector {
		t.Skip("allocations are not counted under the race detector: run without -race")
	}
	require.LessOrEqual(t, testing.AllocsPerRun(500, f), most, "allocations per call")
}

// AllocatedBytes fails the test if this process allocates more bytes than most while
// f runs, whatever of them it lets go. Under the race detector, for the reason that
// Allocations has, they are not counted; f runs all the same.
func AllocatedBytes(t testing.TB, most uint64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if raceDetector {
		t.Log("allocated bytes are not counted under the race detector: run without -race")
		return
	}
	require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, most, "bytes allocated")
}
