package localratelimit

import (
	"math"
	"sync/atomic"
	"time"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// bucket is a token bucket that many goroutines take from at once. It fills as
// time goes on, and not in steps: by tokens_per_fill over each fill_interval.
//
// Its state is one number: when it had no token, in seconds since it was made.
// The tokens are what has come since, up to the most.
type bucket struct {
	most  float64
	rate  float64 // tokens per second
	made  time.Time
	empty atomic.Uint64 // a float64
}

// size is the configuration of a bucket.
type size struct {
	most, fill uint32
	interval   time.Duration
}

func parseSize(m *typev3.TokenBucket) size {
	s := size{most: m.GetMaxTokens(), fill: 1, interval: m.GetFillInterval().AsDuration()}
	if m.GetTokensPerFill() != nil {
		s.fill = m.GetTokensPerFill().GetValue()
	}
	return s
}

// newBucket makes a bucket that is full.
func newBucket(s size) *bucket {
	b := &bucket{most: float64(s.most), rate: float64(s.fill) / s.interval.Seconds(), made: time.Now()}
	b.empty.Store(math.Float64bits(-b.most / b.rate))
	return b
}

// whole is how near to a whole token counts as one: sums of fractions are not
// exact.
const whole = 1 - 1e-6

// take takes n tokens, if there are as many; 0 only asks whether there is one.
func (b *bucket) take(now time.Time, n uint64) bool {
	for {
		old := b.empty.Load()
		empty, tokens := b.at(old, now)
		if tokens < float64(max(n, 1))*whole {
			return false
		}
		if b.empty.CompareAndSwap(old, math.Float64bits(empty+float64(n)/b.rate)) {
			return true
		}
	}
}

// at is the state at a time: when the bucket had no token, and how many it has.
func (b *bucket) at(state uint64, now time.Time) (empty, tokens float64) {
	since := now.Sub(b.made).Seconds()
	empty = max(math.Float64frombits(state), since-b.most/b.rate)
	return empty, (since - empty) * b.rate
}

// remaining is how many whole tokens there are.
func (b *bucket) remaining(now time.Time) uint64 {
	_, tokens := b.at(b.empty.Load(), now)
	return uint64(max(0, tokens+1-whole))
}

// next is how long it is until there is a token.
func (b *bucket) next(now time.Time) time.Duration {
	_, tokens := b.at(b.empty.Load(), now)
	if tokens >= whole {
		return 0
	}
	// Rounded, since sums of fractions are not exact.
	return time.Duration((1 - tokens) / b.rate * float64(time.Second)).Round(time.Microsecond)
}
