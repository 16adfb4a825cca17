package rls

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// outageEvery is the least time between two lines of the log about calls that the
// store did not answer.
const outageEvery = 10 * time.Second

// outages logs why the store does not answer. Callers are not told, since it names
// addresses and differs from call to call, and each call a line would be too many.
type outages struct {
	log   *slog.Logger
	next  atomic.Int64 // when another line may go out, in Unix nanoseconds
	since atomic.Int64 // calls since the last
}

// add notes a call and why it got no answer.
func (o *outages) add(domain string, err error) {
	calls := o.since.Add(1)
	now, next := time.Now(), o.next.Load()
	if now.UnixNano() < next || !o.next.CompareAndSwap(next, now.Add(outageEvery).UnixNano()) {
		return
	}
	o.since.Add(-calls)
	o.log.Warn("the store does not count", "calls", calls, "domain", fmt.Sprintf("%.64s", domain), "error", err)
}
