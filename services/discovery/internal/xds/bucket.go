package xds

import (
	"context"
	"time"
)

// bucket lets so many through each second, and as many at once after a second
// of rest. The others wait, in the order in which they came. Who goes before its
// time takes nothing from those behind it.
type bucket struct {
	interval time.Duration // between two; 0 for no limit
	burst    time.Duration // how far ahead of its time one may be

	// turn is full while somebody is the first of those who wait; they alone use
	// next.
	turn chan struct{}
	next time.Time // when the last one's time was
}

// newBucket makes one of a rate per second, 0 for no limit.
func newBucket(rate int) *bucket {
	if rate <= 0 {
		return &bucket{}
	}
	return &bucket{interval: time.Second / time.Duration(rate), burst: time.Second, turn: make(chan struct{}, 1)}
}

// reserve takes a place, and returns how long to wait for it.
func (b *bucket) reserve(now time.Time) time.Duration {
	if b.interval == 0 {
		return 0
	}
	if earliest := now.Add(-b.burst); b.next.Before(earliest) {
		b.next = earliest
	}
	b.next = b.next.Add(b.interval)
	return b.next.Sub(now)
}

// giveBack undoes the last reserve.
func (b *bucket) giveBack() { b.next = b.next.Add(-b.interval) }

// wait returns when it is the caller's time, and reports whether that came
// before ctx ended.
func (b *bucket) wait(ctx context.Context) bool {
	if b.interval == 0 || ctx.Err() != nil {
		return ctx.Err() == nil
	}
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-b.turn }()
	left := b.reserve(time.Now())
	if left <= 0 {
		return true
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		b.giveBack()
		return false
	}
}
