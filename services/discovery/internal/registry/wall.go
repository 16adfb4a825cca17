package registry

import (
	"sync/atomic"
	"time"
)

// wall turns times of the wall clock into those of the registry's clock and back.
// The latter counts from when the process began, and is not set by anybody; the
// former is for readers and for the Store, since other processes share it.
type wall struct {
	born time.Time        // the zero of the registry's clock
	zero atomic.Int64     // when that was by the wall clock as it is now, in Unix nanoseconds
	now  func() time.Time // time.Now; tests have a clock of their own
}

// slack is how far both clocks drift apart, as a good wall clock does while it is
// kept right, before a wall takes note of it. So it gives one answer for one time.
const slack = 50 * time.Millisecond

func newWall(born time.Time) *wall {
	w := &wall{born: born, now: time.Now}
	w.zero.Store(born.UnixNano())
	return w
}

// at is a time of the registry's clock by the wall clock.
func (w *wall) at(d time.Duration) time.Time { return time.Unix(0, w.zero.Load()).Add(d) }

// of is a time of the wall clock by the registry's clock.
func (w *wall) of(t time.Time) time.Duration { return t.Sub(time.Unix(0, w.zero.Load())) }

// set takes note of what the wall clock says now, and returns by how much it was
// set since the last call: above 0 if it was put forward.
func (w *wall) set(now time.Duration) (jump time.Duration) {
	jump = w.of(w.now().Round(0)) - now
	if jump.Abs() < slack {
		return 0
	}
	w.zero.Add(int64(jump))
	return jump
}

// Instant is a time of the wall clock in a third of the memory of time.Time: Unix
// nanoseconds, or 0 for none.
type Instant int64

// InstantOf is t, which may be zero.
func InstantOf(t time.Time) Instant {
	if t.IsZero() {
		return 0
	}
	return Instant(t.UnixNano())
}

// Time is i in UTC, or the zero time for none.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}
