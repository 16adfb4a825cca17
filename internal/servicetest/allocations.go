package servicetest

import (
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
