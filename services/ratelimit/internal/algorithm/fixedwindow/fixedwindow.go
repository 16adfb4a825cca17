// Package fixedwindow counts hits in windows that are aligned to the Unix
// epoch: a minute begins at second 0, a day at midnight UTC. It is the default
// algorithm, listed by builtin. Refused hits are counted too; the package never
// carries anything from one window into the next.
package fixedwindow

import (
	"math"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// Algorithm is the fixed window. A state's Count is the hits in the window
// that ends at Until.
type Algorithm struct{}

var _ algorithm.Counted = Algorithm{}

// Name is "fixed_window".
func (Algorithm) Name() string { return "fixed_window" }

// late is how long before the end of its window a call may have read the time
// that comes after one of the next window: calls overtake each other.
const late = time.Second

// Apply adds hits to the window that now lies in, or to the next one if that has
// begun while the call was under way. A state of any other window counts as none,
// a later one too: after a clock was set back, waiting for that window would
// refuse for as long as the clock was wrong.
func (a Algorithm) Apply(limit algorithm.Limit, state algorithm.State, hits uint64, now time.Time) (algorithm.State, algorithm.Decision) {
	state, now = a.window(limit, state, now)
	if hits > math.MaxUint64-state.Count {
		state.Count = math.MaxUint64
	} else {
		state.Count += hits
	}
	return state, a.Decide(limit, state.Count, now)
}

// Refund takes hits out of the window that Apply would add them to.
func (a Algorithm) Refund(limit algorithm.Limit, state algorithm.State, hits uint64, now time.Time) (algorithm.State, algorithm.Decision) {
	state, now = a.window(limit, state, now)
	state.Count -= min(hits, state.Count)
	d := a.Decide(limit, state.Count, now)
	d.Over = false
	return state, d
}

// window is state if it is one of the window that now lies in, or of the next one
// and the call came late, which then counts as one of its begin; else none.
func (a Algorithm) window(limit algorithm.Limit, state algorithm.State, now time.Time) (algorithm.State, time.Time) {
	end := a.WindowEnd(limit, now)
	switch state.Until {
	case end.UnixNano():
		return state, now
	case end.Add(limit.Window).UnixNano():
		if end.Sub(now) <= late {
			return state, end
		}
	}
	return algorithm.State{Until: end.UnixNano()}, now
}

// WindowEnd is the next multiple of the window's length after now.
func (Algorithm) WindowEnd(limit algorithm.Limit, now time.Time) time.Time {
	ns := now.UnixNano()
	return time.Unix(0, ns-ns%int64(limit.Window)+int64(limit.Window))
}

// Decide refuses when the count with these hits is above the limit.
func (a Algorithm) Decide(limit algorithm.Limit, after uint64, now time.Time) algorithm.Decision {
	d := algorithm.Decision{After: after, ResetIn: a.WindowEnd(limit, now).Sub(now)}
	if after > uint64(limit.Requests) {
		d.Over = true
		return d
	}
	d.Remaining = limit.Requests - uint32(after)
	return d
}
