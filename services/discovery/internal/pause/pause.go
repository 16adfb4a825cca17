// Package pause waits for some time, as loops do that try something again. The
// registry, the fallback store and the agent call it; it starts no goroutine and leaves no timer.
package pause

import (
	"context"
	"time"
)

// For waits for d and reports whether it passed before ctx ended.
func For(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
