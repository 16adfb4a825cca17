package rlsclient

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// steadyAfter is how long no call may have failed before a service counts as
// one that answers again: a service that answers some calls and others not
// must not fill the log.
const steadyAfter = 10 * time.Second

// outage tells the log when a service begins to fail and when it answers again.
type outage struct {
	log *slog.Logger
	// failed is when a call failed last, in nanoseconds since 1970; 0 while the
	// service answers.
	failed atomic.Int64
}

// note takes the end of a call, nil being an answer.
func (o *outage) note(err error) {
	if err != nil {
		if o.failed.Swap(time.Now().UnixNano()) == 0 {
			o.log.Warn("rate-limit service fails", "error", err)
		}
		return
	}
	last := o.failed.Load()
	if last != 0 && time.Since(time.Unix(0, last)) >= steadyAfter && o.failed.CompareAndSwap(last, 0) {
		o.log.Info("rate-limit service answers again")
	}
}
