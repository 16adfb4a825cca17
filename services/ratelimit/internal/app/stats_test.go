package app

import (
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestTheShareOfGarbageCollectionIsThatOfTheRuntime(t *testing.T) {
	share := newGCShare()
	for {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := testutil.ToFloat64(share)
		runtime.ReadMemStats(&after)
		if before.NumGC != after.NumGC {
			continue // another collection came between
		}
		require.InDelta(t, before.GCCPUFraction, got, 1e-9)
		require.Positive(t, got)
		return
	}
}
