// Package tokenbucket is the token bucket of local limits
// (envoy.type.v3.TokenBucket): those of the HTTP filter and those of the listener
// filter, which ask one for each request or connection. It refuses nothing by
// itself, and shares its tokens with no other process.
package tokenbucket

import (
	"math"
	"sync/atomic"
	"time"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the message that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{"envoy.type.v3.TokenBucket": {"max_tokens", "tokens_per_fill", "fill_interval"}}
}

// leastInterval is the shortest fill_interval, as in Envoy.
const leastInterval = 50 * time.Millisecond

// Size is the configuration of a bucket.
type Size struct {
	Most, Fill uint32 // tokens
	// Interval is how long Fill of them take to come; 0 is no bucket.
	Interval time.Duration
}

// Parse reads the Size of a bucket, nil for none, at the path at. That the interval
// is above 0 is held by the message's own rules.
func Parse(m *typev3.TokenBucket, at strict.Path, report *strict.Report) Size {
	s := Size{Most: m.GetMaxTokens(), Fill: 1, Interval: m.GetFillInterval().AsDuration()}
	if m.GetTokensPerFill() != nil {
		s.Fill = m.GetTokensPerFill().GetValue()
	}
	if s.Interval > 0 && s.Interval < leastInterval {
		report.Add(at.Field("fill_interval"), "%v is less than %v", s.Interval, leastInterval)
	}
	return s
}

// Bucket is a token bucket that many goroutines take from at once. It fills as
// time goes on, and not in steps: by tokens_per_fill over each fill_interval.
//
// Its state is one number: when it had no token, in seconds since it was made.
// The tokens are what has come since, up to the most.
type Bucket struct {
	most  float64
	rate  float64 // tokens per second
	made  time.Time
	empty atomic.Uint64 // a float64
}

// New makes a bucket that is full.
func New(s Size) *Bucket {
	b := &Bucket{most: float64(s.Most), rate: float64(s.Fill) / s.Interval.Seconds(), made: time.Now()}
	b.empty.Store(math.Float64bits(-b.most / b.rate))
	return b
}

// Most is how many tokens there are at most.
func (b *Bucket) Most() uint64 { return uint64(b.most) }

// Rate is how many tokens come in a second.
func (b *Bucket) Rate() float64 { return b.rate }

// whole is how near to a whole token counts as one: sums of fractions are not
// exact.
const whole = 1 - 1e-6

// Take takes n tokens, if there are as many; 0 only asks whether there is one.
func (b *Bucket) Take(now time.Time, n uint64) bool {
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
func (b *Bucket) at(state uint64, now time.Time) (empty, tokens float64) {
	since := now.Sub(b.made).Seconds()
	empty = max(math.Float64frombits(state), since-b.most/b.rate)
	return empty, (since - empty) * b.rate
}

// Remaining is how many whole tokens there are.
func (b *Bucket) Remaining(now time.Time) uint64 {
	_, tokens := b.at(b.empty.Load(), now)
	return uint64(max(0, tokens+1-whole))
}

// Next is how long it is until there is a token.
func (b *Bucket) Next(now time.Time) time.Duration {
	_, tokens := b.at(b.empty.Load(), now)
	if tokens >= whole {
		return 0
	}
	// Rounded, since sums of fractions are not exact.
	return time.Duration((1 - tokens) / b.rate * float64(time.Second)).Round(time.Microsecond)
}
