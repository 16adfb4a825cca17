// Package algorithm is the contract of a limiting algorithm: arithmetic over a
// limit, the state that a store keeps for one counter, the hits of a request
// and the time. Stores apply it; rules in limits name it. An algorithm never
// reads a clock, never does I/O and keeps nothing between calls.
package algorithm

import "time"

// Limit is what one counter grants.
type Limit struct {
	// Requests is the hits granted in one window; 0 refuses every hit.
	Requests uint32
	// Window is the length of a window: whole seconds, ≥ 1 s. Counters are
	// named by its seconds, and stores may name a window by the second in which
	// it ends.
	Window time.Duration
}

// State is what a store keeps for one counter. The zero State is a counter
// that has seen no hit.
type State struct {
	// Count belongs to the algorithm; a store does not read it.
	Count uint64
	// Until is the time, in Unix nanoseconds, from which on this state is
	// worth no more than the zero State, so that a store may forget it.
	Until int64
}

// Decision is what an algorithm says of one operation.
type Decision struct {
	// Over is true when the hits do not fit into the limit.
	Over bool
	// After is how much of the limit is used with these hits, refused ones
	// included; it stops at the largest number instead of overflowing.
	After uint64
	// Remaining is how many more hits fit now; 0 when Over.
	Remaining uint32
	// ResetIn is the time until the limit is whole again, > 0.
	ResetIn time.Duration
}

// Algorithm decides, and says what to keep. Its values are safe for use by
// many goroutines.
type Algorithm interface {
	// Name is written in rule files and in the keys of counters; it holds
	// lower-case letters and underscores only.
	Name() string
	// Apply counts hits at time now. 0 hits only look: the state comes back
	// as worth as much as before.
	Apply(limit Limit, state State, hits uint64, now time.Time) (State, Decision)
	// Refund gives hits back at time now, as many as were counted at most. Its
	// decision is that of a look afterwards, but never Over.
	Refund(limit Limit, state State, hits uint64, now time.Time) (State, Decision)
}

// Counted is an Algorithm whose state within one window is a number that only
// grows, so that a store can keep it by plain increments of a key that names
// the window, with a time to live, in place of running Apply.
type Counted interface {
	Algorithm
	// WindowEnd is the end of the window that now lies in, a whole second.
	WindowEnd(limit Limit, now time.Time) time.Time
	// Decide is Apply's decision for a counter that stands at after once the
	// hits have been added to it.
	Decide(limit Limit, after uint64, now time.Time) Decision
}
