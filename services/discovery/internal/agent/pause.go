package agent

import (
	"math/rand/v2"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// retryShortest and retryLongest are the times between calls that fail: the
// longer it lasts, the longer. One that is refused waits up to refusedLongest,
// since somebody must change something first.
const (
	retryShortest  = 250 * time.Millisecond
	retryLongest   = 5 * time.Second
	refusedLongest = time.Minute
)

// backoff is the pauses between calls that fail. Its zero value is ready.
type backoff struct{ last time.Duration }

// next is how long to wait after a call that failed with err. The time is spread
// over its upper half, so that callers that failed together do not come back
// together.
func (b *backoff) next(err error) time.Duration {
	longest := retryLongest
	if client.IsRefusal(err) {
		longest = refusedLongest
	}
	b.last = min(max(2*b.last, retryShortest), longest)
	return b.last - time.Duration(rand.Float64()*float64(b.last)/2)
}

// reset begins anew, after a call that did not fail.
func (b *backoff) reset() { b.last = 0 }

// jitter returns d more or less a tenth, so that programs started together do
// not beat together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}
