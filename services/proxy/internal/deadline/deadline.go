// Package deadline moves the deadlines of connections no more often than they
// need to: setting one costs more than most steps of a request. The connection
// manager uses it for its idle timeouts; it reads and writes nothing.
package deadline

import (
	"sync/atomic"
	"time"
)

// Deadline is the read or the write deadline of one connection. It belongs to
// one goroutine at a time.
type Deadline struct {
	set func(time.Time) error
	at  time.Time // what is set; zero is none
	cut atomic.Bool
}

// Of makes a Deadline of a connection's SetReadDeadline or SetWriteDeadline.
// The connection must have none set.
func Of(set func(time.Time) error) Deadline { return Deadline{set: set} }

// Set sets the deadline, the zero time for none.
func (d *Deadline) Set(at time.Time) {
	if d.at.Equal(at) {
		return
	}
	d.at = at
	_ = d.set(at) // fails only once closed, as the next read or write will
	if d.cut.Load() {
		_ = d.set(past)
	}
}

// Cut has it passed for good, whatever is set. Other than the rest it may be called from
// any goroutine.
func (d *Deadline) Cut() {
	d.cut.Store(true) // first, so that who sets it now sees that, or is overruled by what follows
	_ = d.set(past)
}

// past is a time that has passed.
var past = time.Unix(1, 0)

// Extend sees to it that the deadline is at least timeout from now, 0 for
// none. One that is up to a quarter later than that is left alone, so that a
// timeout may come a quarter late, and never early.
func (d *Deadline) Extend(now time.Time, timeout time.Duration) {
	if timeout == 0 {
		d.Set(time.Time{})
		return
	}
	if left := d.at.Sub(now); left < timeout || left > timeout+timeout/4 {
		d.Set(now.Add(timeout + timeout/4))
	}
}
