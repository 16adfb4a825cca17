//go:build !race

// The race detector makes sync.Pool forget at random, which then allocates.

package limiter_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

func TestCheckOnTheMemoryStoreDoesNotAllocate(t *testing.T) {
	l := open(t, newMemory())
	req, a := usual(), limiter.Answer{}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if err := l.Check(context.Background(), req, &a); err != nil {
			t.Error(err)
		}
	}))
}
