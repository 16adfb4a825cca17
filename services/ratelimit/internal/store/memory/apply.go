package memory

import (
	"context"
	"hash/maphash"
	"math/bits"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Apply runs each operation's algorithm on its counter, under the lock of the
// counter's shard. It waits for nothing else, so it does not look at ctx, and
// it never fails. It allocates only for a counter that is new.
func (s *Store) Apply(_ context.Context, call *limiter.Call) error {
	if call.StopWhenOver && len(call.Ops) > 1 {
		s.applyStep(call)
		return nil
	}
	for i := range call.Ops {
		op := &call.Ops[i]
		h := &s.shards[s.shardOf(op.Key)]
		h.mu.Lock()
		h.apply(op, op.Hits, call.Now)
		h.mu.Unlock()
	}
	return nil
}

func (s *Store) shardOf(key []byte) uint64 { return maphash.Bytes(s.seed, key) % shards }

// applyStep is Apply for a call of which either all operations count or
// only those that are over. Its steps:
//
//  1. lock the shards of all keys, each once and in their order, so that no two
//     calls wait for each other;
//  2. apply every operation, and note what each counter was before;
//  3. if any is over, put all back, and apply again: those that are over and
//     the refunds as they are, the others as looks.
func (s *Store) applyStep(call *limiter.Call) {
	var locked uint64 // a bit for each shard
	for i := range call.Ops {
		locked |= 1 << s.shardOf(call.Ops[i].Key)
	}
	for rest := locked; rest != 0; rest &= rest - 1 {
		s.shards[bits.TrailingZeros64(rest)].mu.Lock()
	}
	pooled := s.undo.Get().(*[]before)
	list := (*pooled)[:0]
	over := false
	for i := range call.Ops {
		op := &call.Ops[i]
		list = append(list, s.shards[s.shardOf(op.Key)].apply(op, op.Hits, call.Now))
		over = over || op.Decision.Over
	}
	if over {
		for i, was := range slices.Backward(list) {
			key := call.Ops[i].Key
			s.shards[s.shardOf(key)].restore(key, was)
		}
		for i := range call.Ops {
			op := &call.Ops[i]
			h := &s.shards[s.shardOf(op.Key)]
			if !op.Decision.Over {
				hits := op.Hits
				if !op.Refund {
					hits = 0
				}
				h.apply(op, hits, call.Now)
				continue
			}
			// What made it over may not be counted now, if it was an operation
			// on the same counter: it is over nevertheless. Stands is of now.
			decision := op.Decision
			h.apply(op, op.Hits, call.Now)
			op.Decision = decision
		}
	}
	*pooled = list
	s.undo.Put(pooled)
	for rest := locked; rest != 0; rest &= rest - 1 {
		s.shards[bits.TrailingZeros64(rest)].mu.Unlock()
	}
}

// before is what a counter was before an operation.
type before struct {
	state algorithm.State
	known bool
}

// apply carries out op with that many hits.
func (h *shard) apply(op *limiter.Op, hits uint64, now time.Time) before {
	position, known := h.index[string(op.Key)]
	var was algorithm.State
	if known {
		was = h.slots[position].state
	}
	var state algorithm.State
	op.Err = nil
	if op.Refund {
		state, op.Decision = op.Algorithm.Refund(op.Limit, was, hits, now)
	} else {
		state, op.Decision = op.Algorithm.Apply(op.Limit, was, hits, now)
	}
	op.Stands = op.Decision.After
	switch {
	case known:
		h.slots[position].state = state
	case hits > 0 && !op.Refund: // nothing else makes a counter that is not there
		position = h.place(now.UnixNano())
		key := string(op.Key)
		h.slots[position] = slot{key, state}
		h.index[key] = position
	}
	return before{was, known}
}

// restore makes the counter what it was. One that was forgotten meanwhile, to
// make room for another, stays so.
func (h *shard) restore(key []byte, was before) {
	position, there := h.index[string(key)]
	switch {
	case there && was.known:
		h.slots[position].state = was.state
	case there:
		h.clear(position)
	}
}
