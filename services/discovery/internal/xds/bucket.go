package xds

import (
	"context"
	"sync"
	"time"
)

// bucket lets so many through each second, and as many at once after a second
// of rest. The others wait, in the order in which they came.
type bucket struct {
	interval time.Duration // between two; 0 for no limit
	burst    time.Duration // how far ahead of its time one may be

	mu   sync.Mutex
	next time.Time // when the next one's time is
}

// newBucket makes one of a rate per second, 0 for no limit.
func newBucket(rate int) *bucket {
	if rate <= 0 {
		return &bucket{}
	}
	return &bucket{interval: time.Second / time.Duration(rate), burst: time.Second}
}

// reserve takes a place, and returns how long to wait for it.
func (b *bucket) reserve(now time.Time) time.Duration {
	if b.interval == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if earliest := now.Add(-b.burst); b.next.Before(earliest) {
		b.next = earliest
	}
	b.next = b.next.Add(b.interval)
	return b.next.Sub(now)
}

// wait returns when it is the caller's time, and reports whether that came
// before ctx ended.
func (b *bucket) wait(ctx context.Context) bool {
	left := b.reserve(time.Now())
	if left <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
