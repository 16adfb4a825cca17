package memory

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Apply runs each operation's algorithm on its counter, under the lock of the
// counter's shard. It waits for nothing else, so it does not look at ctx, and
// it never fails. It allocates only for a counter that is new.
func (s *Store) Apply(_ context.Context, call *limiter.Call) error {
	for i := range call.Ops {
		op := &call.Ops[i]
		h := &s.shards[maphash.Bytes(s.seed, op.Key)%shards]
		h.mu.Lock()
		h.apply(op, call.Now)
		h.mu.Unlock()
	}
	return nil
}

func (h *shard) apply(op *limiter.Op, now time.Time) {
	position, known := h.index[string(op.Key)]
	var state algorithm.State
	if known {
		state = h.slots[position].state
	}
	state, op.Decision = op.Algorithm.Apply(op.Limit, state, op.Hits, now)
	switch {
	case known:
		h.slots[position].state = state
	case op.Hits > 0: // a look at a counter that is not there makes none
		position = h.place(now.UnixNano())
		key := string(op.Key)
		h.slots[position] = slot{key, state}
		h.index[key] = position
	}
}
