// Package edf shares turns among entries by their weights: each entry is due
// again 1/weight after its last turn, and the one that is due first is next
// (earliest deadline first). So shares are kept exactly and turns are spread
// evenly, without runs of the heaviest. Clusters choose localities by it, and
// load-balancing policies choose hosts. It knows nothing of either.
package edf

import (
	"math/rand/v2"
	"sync"
)

// Schedule hands out entries of type T. It is safe for use by many goroutines.
type Schedule[T any] struct {
	weight func(T) float64

	mu  sync.Mutex
	due []turn[T] // a heap: the entry that is due first is at 0
}

type turn[T any] struct {
	entry T
	at    float64
	seq   int // breaks ties in a fixed order
}

// longestStep bounds the wait of an entry whose weight is next to nothing, so
// that it comes back once it weighs more.
const longestStep = 1e9

// New makes a schedule of entries, of which there is at least one. Weight says
// what an entry weighs, more than 0; it is asked again at each turn of the
// entry, and must not call the schedule.
func New[T any](entries []T, weight func(T) float64) *Schedule[T] {
	s := &Schedule[T]{weight: weight, due: make([]turn[T], len(entries))}
	for i, entry := range entries {
		// A random first turn, or all proxies would begin with the same entry.
		s.due[i] = turn[T]{entry, rand.Float64() * s.step(entry), i}
	}
	for i := len(s.due)/2 - 1; i >= 0; i-- {
		s.sink(i)
	}
	return s
}

// Next is the entry whose turn it is.
func (s *Schedule[T]) Next() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := &s.due[0]
	entry := first.entry
	first.at += s.step(entry)
	s.sink(0)
	return entry
}

func (s *Schedule[T]) step(entry T) float64 { return min(1/s.weight(entry), longestStep) }

// sink moves the turn at i down to where it belongs.
func (s *Schedule[T]) sink(i int) {
	for {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.due); child++ {
			if s.due[child].before(&s.due[first]) {
				first = child
			}
		}
		if first == i {
			return
		}
		s.due[i], s.due[first] = s.due[first], s.due[i]
		i = first
	}
}

func (t *turn[T]) before(other *turn[T]) bool {
	if t.at != other.at {
		return t.at < other.at
	}
	return t.seq < other.seq
}
