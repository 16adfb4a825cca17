package stats

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// bounds are the upper ones, inclusive, of a histogram's buckets in milliseconds.
// Those that are shown are the default ones of Envoy's Prometheus histograms; the
// others lie between them, so that quantiles are told more closely.
var bounds = [...]bound{
	{0.05, false}, {0.1, false}, {0.2, false}, {0.3, false}, {0.4, false}, {0.5, true},
	{0.6, false}, {0.8, false}, {1, true},
	{1.25, false}, {1.5, false}, {2, false}, {2.5, false}, {3, false}, {4, false}, {5, true},
	{6, false}, {7, false}, {8, false}, {10, true},
	{12.5, false}, {15, false}, {20, false}, {25, true},
	{30, false}, {40, false}, {50, true},
	{60, false}, {80, false}, {100, true},
	{125, false}, {150, false}, {200, false}, {250, true},
	{300, false}, {400, false}, {500, true},
	{600, false}, {800, false}, {1000, true},
	{1250, false}, {1500, false}, {2000, false}, {2500, true},
	{3000, false}, {4000, false}, {5000, true},
	{7000, false}, {10_000, true}, {20_000, false}, {30_000, true}, {60_000, true},
	{300_000, true}, {600_000, true}, {1_800_000, true}, {3_600_000, true},
}

type bound struct {
	milliseconds float64
	shown        bool
}

// limits are the bounds as durations.
var limits = func() (all [len(bounds)]time.Duration) {
	for i, b := range bounds {
		all[i] = time.Duration(b.milliseconds * float64(time.Millisecond))
	}
	return all
}()

// starts has for each number of bits that a duration's whole microseconds have the
// first bucket that one of them may be in. There are few more for any.
var starts = func() (all [65]int) {
	for n := range all[1:] {
		shortest := uint64(1) << n // of n+1 bits
		for all[n+1] < len(limits) && uint64(limits[all[n+1]]/time.Microsecond) < shortest {
			all[n+1]++
		}
	}
	return all
}()

// Histogram counts durations by their length. Its numbers are milliseconds, as
// Envoy's are, with fractions.
type Histogram struct {
	// counts is nil before the first: most clusters of many are idle.
	counts atomic.Pointer[counts]
	// sum is of microseconds: 100,000 connections that are open all the time add more
	// nanoseconds in a day or two than 64 bits hold, and these in years.
	sum atomic.Uint64
	identity
}

// counts has one more than there are bounds, for what is longer than all.
type counts [len(bounds) + 1]atomic.Uint64

// RecordNumber counts a number that is no duration, among milliseconds.
func (h *Histogram) RecordNumber(n uint32) { h.Record(time.Duration(n) * time.Millisecond) }

// Record counts a duration. A negative one, as of a clock that was set, is 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	i := starts[bits.Len64(uint64(d/time.Microsecond))]
	for i < len(limits) && limits[i] < d {
		i++
	}
	// First, as who reads takes it last: whatever it counts is in the sum.
	h.sum.Add((uint64(d) + 500) / uint64(time.Microsecond)) // rounded
	c := h.counts.Load()
	if c == nil {
		h.counts.CompareAndSwap(nil, new(counts))
		c = h.counts.Load()
	}
	c[i].Add(1)
}

// Distribution is what a histogram had counted when it was read.
type Distribution struct {
	// Count is how many durations there were, Sum their sum in milliseconds.
	Count uint64
	Sum   float64
	// Buckets are those by which Envoy shows a histogram, from the shortest on.
	Buckets []Bucket

	counts [len(bounds) + 1]uint64
}

// Bounds are the upper bounds, in milliseconds, of all buckets of a histogram, which
// are more than those that are shown.
func Bounds() []float64 {
	var all []float64
	for _, b := range bounds {
		all = append(all, b.milliseconds)
	}
	return all
}

// Counts are how many durations there are in each bucket of Bounds alone, and, last,
// how many are longer than all of them.
func (d *Distribution) Counts() []uint64 { return d.counts[:] }

// Bucket counts the durations of at most UpperBound milliseconds, those of the
// buckets before it among them.
type Bucket struct {
	UpperBound float64
	Cumulative uint64
}

// Distribution is what h has counted so far. The sum may have more that comes just now.
func (h *Histogram) Distribution() *Distribution {
	d := &Distribution{}
	c := h.counts.Load()
	for i := range d.counts {
		if c != nil {
			d.counts[i] = c[i].Load()
		}
		d.Count += d.counts[i]
		if i < len(bounds) && bounds[i].shown {
			d.Buckets = append(d.Buckets, Bucket{bounds[i].milliseconds, d.Count})
		}
	}
	d.Sum = float64(h.sum.Load()) / 1000
	return d
}

// Quantile is the length in milliseconds that a share of all durations, 0 to 1,
// does not exceed; within a bucket they are taken as evenly spread. It is NaN if
// there are none, and the greatest bound for what is longer than all.
func (d *Distribution) Quantile(share float64) float64 {
	if d.Count == 0 {
		return math.NaN()
	}
	rank, below, lower := share*float64(d.Count), uint64(0), 0.0
	for i, n := range d.counts[:len(bounds)] {
		upper := bounds[i].milliseconds
		if n > 0 && float64(below+n) >= rank {
			return lower + (upper-lower)*max(0, rank-float64(below))/float64(n)
		}
		below, lower = below+n, upper
	}
	return lower
}
