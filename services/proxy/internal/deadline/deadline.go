// Package deadline moves the deadlines of connections no more often than they
// need to: setting one costs more than most steps of a request. The connection
// manager and the router use it for their idle timeouts; it reads and writes
// nothing.
package deadline

import "time"

// Deadline is the read or the write deadline of one connection. It belongs to
// one goroutine at a time.
type Deadline struct {
	set func(time.Time) error
	at  time.Time // what is set; zero is none
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
}

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
