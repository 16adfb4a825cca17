// Package memory keeps counters in this process: the store that the service
// uses where no Redis is set. limiter calls it through its Store interface.
// Counters are lost when the process ends and are never shared with another;
// their number is bounded.
package memory

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// shards is how many locks the counters are spread over: one for each bit of a
// word.
const shards = 64

// Store is safe for use by many goroutines. It runs none of its own: expired
// counters are cleared away a few at a time by the calls that add others.
type Store struct {
	seed   maphash.Seed
	shards [shards]shard
	undo   sync.Pool // of *[]before
}

var _ limiter.Store = (*Store)(nil)

// New makes a store for at most maxCounters counters (at least one in each of
// its 64 shards). When there is no room for another, the one that would expire
// soonest among a few is forgotten, which grants its key a fresh limit.
func New(maxCounters int, reg prometheus.Registerer) *Store {
	s := &Store{seed: maphash.MakeSeed()}
	s.undo.New = func() any { return &[]before{} }
	stats := newStats(reg, s)
	for i := range s.shards {
		s.shards[i].index = map[string]int{}
		s.shards[i].max = max(1, maxCounters/shards)
		s.shards[i].evicted = stats.evicted
	}
	return s
}

// Len is the number of counters held, expired ones that are not yet cleared
// away included.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].index)
		s.shards[i].mu.Unlock()
	}
	return n
}

// Ping returns nil: memory is always there.
func (s *Store) Ping(context.Context) error { return nil }

// Close does nothing.
func (s *Store) Close() error { return nil }

// shard is one part of the counters under one lock.
type shard struct {
	mu      sync.Mutex
	index   map[string]int // key → position in slots
	slots   []slot
	free    []int // positions of empty slots
	hand    int   // where the next look for expired slots begins
	max     int
	evicted prometheus.Counter
	_       [64]byte // keeps neighbours' locks off one cache line
}

// slot is one counter; its key is "" when it is empty.
type slot struct {
	key   string
	state algorithm.State
}

// scanned is how many slots each added counter looks at, and clears if expired.
// With more than one, clearing is faster than adding.
const scanned = 4

// place returns a position for a new counter. It looks at a few slots and
// clears the expired ones; in a full shard without any, it forgets the one of
// them that expires soonest.
func (h *shard) place(now int64) int {
	soonest := -1
	for range min(scanned, len(h.slots)) {
		h.hand = (h.hand + 1) % len(h.slots)
		s := &h.slots[h.hand]
		switch {
		case s.key == "":
		case s.state.Until <= now:
			h.clear(h.hand)
		case soonest < 0 || s.state.Until < h.slots[soonest].state.Until:
			soonest = h.hand
		}
	}
	if len(h.free) == 0 && len(h.slots) >= h.max {
		h.clear(soonest)
		h.evicted.Inc()
	}
	if n := len(h.free); n > 0 {
		position := h.free[n-1]
		h.free = h.free[:n-1]
		return position
	}
	h.slots = append(h.slots, slot{})
	return len(h.slots) - 1
}

func (h *shard) clear(position int) {
	delete(h.index, h.slots[position].key)
	h.slots[position] = slot{}
	h.free = append(h.free, position)
}
