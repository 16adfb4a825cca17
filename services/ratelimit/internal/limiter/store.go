package limiter

import (
	"context"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// Store keeps counters. Its implementations lie in store and pass the suite
// storetest. All methods are safe for use by many goroutines.
type Store interface {
	// Apply carries out all operations of one request and fills in their
	// decisions. After an error, the operations whose Err is set have none, and
	// their hits may have been counted nevertheless; the decisions of the others
	// hold. Apply returns soon after ctx ends, whatever the store does. The call,
	// its operations and their keys are the caller's again once Apply has
	// returned.
	Apply(ctx context.Context, call *Call) error
	// Ping returns nil if the store answers, else why it does not.
	Ping(ctx context.Context) error
	// Close frees what the store holds. No other call follows it.
	Close() error
}

// Call is the operations of one request.
type Call struct {
	Ops []Op
	Now time.Time
	// Domain is the request's. A counter always comes with the same one, so that
	// a store spread over servers can keep together what one step may touch.
	Domain string
	// StopWhenOver makes one step of the call, as no other call sees it half
	// done: if any operation is over, those that are not over count nothing,
	// and their decision is that of a look. Without it each operation stands
	// for itself. Operations on the same counter follow one another in either
	// way, and one that is over only with those before it is over, though they
	// may count nothing then; refunds are always carried out. What the limiter's
	// local cache knew to be over before the call is not among them.
	StopWhenOver bool
}

// Fail gives all operations err, and returns it: it is for a store that has no
// decision of any.
func (c *Call) Fail(err error) error {
	for i := range c.Ops {
		c.Ops[i].Err = err
	}
	return err
}

// Op is one operation on one counter.
type Op struct {
	// Key names the counter. It is not empty; its bytes may be anything.
	Key       []byte
	Algorithm algorithm.Algorithm
	Limit     algorithm.Limit
	// Hits is the number to count; 0 only looks. At most MaxHits.
	Hits uint64
	// Refund gives the hits back instead of counting them.
	Refund bool
	// Decision is set by the store, or Err to why there is none.
	Decision algorithm.Decision
	Err      error
	// Stands is set with Decision: what the counter stands at, at least, once the
	// operation was carried out. That is Decision.After, but less where the
	// operation is over with hits before it that StopWhenOver had not counted.
	Stands uint64
}

// MaxHits is the most hits that one operation may count. It keeps sums far
// away from the largest number that a store can count to.
const MaxHits = 1<<32 - 1
