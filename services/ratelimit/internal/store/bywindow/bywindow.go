// Package bywindow spreads a call over two stores by the windows of its limits:
// those of one second go to a store of their own, as they are many and die soon.
// It is put together by builtin, keeps no counters itself, and never asks one
// store after the other where it can ask both at once.
package bywindow

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Store is a store made of two. They have no step in common, so that a call which
// is one step and concerns both takes two: it looks at all counters, and then
// counts what it is to count by what it saw. Others may count in between, so that
// of calls which race for the last hits of a limit, one that is over in the end
// may have counted in the other store.
type Store struct {
	seconds, others limiter.Store
	calls           sync.Pool // of *call
}

var _ limiter.Store = (*Store)(nil)

// New makes a store that sends limits of one second to seconds and all others to
// others. It closes both.
func New(seconds, others limiter.Store) *Store {
	s := &Store{seconds: seconds, others: others}
	s.calls.New = func() any { return &call{done: make(chan error, 1)} }
	return s
}

// call is one Apply that concerns both stores; pooled.
type call struct {
	seconds, others part
	done            chan error
}

// part is what one store gets, and where its operations came from.
type part struct {
	call limiter.Call
	from []int
}

// kept is the most operations for which a call that is pooled keeps memory.
const kept = 128

// Apply hands a call on, or half of it to each store, at the same time.
func (s *Store) Apply(ctx context.Context, request *limiter.Call) error {
	seconds := 0
	for i := range request.Ops {
		if isSecond(&request.Ops[i]) {
			seconds++
		}
	}
	switch seconds {
	case 0:
		return s.others.Apply(ctx, request)
	case len(request.Ops):
		return s.seconds.Apply(ctx, request)
	}
	c := s.calls.Get().(*call)
	defer s.release(c)
	c.seconds.take(request, true)
	c.others.take(request, false)
	if request.StopWhenOver {
		return s.step(ctx, c, request)
	}
	err := s.both(ctx, c)
	c.seconds.give(request)
	c.others.give(request)
	return err
}

// both hands the halves of c to their stores.
func (s *Store) both(ctx context.Context, c *call) error {
	// Ends when the store has answered, which both waits for; both stores
	// answer soon after ctx ends.
	go func() { c.done <- s.seconds.Apply(ctx, &c.seconds.call) }()
	err := s.others.Apply(ctx, &c.others.call)
	return errors.Join(err, <-c.done)
}

// step is Apply for a call of which either all operations count or only
// those that are over. Its steps:
//
//  1. look at all counters;
//  2. foresee the decisions if all operations counted;
//  3. count all, each half in one step, if none would be over; else those that
//     would, give back the refunds, and look at the others.
//
// An operation that was foreseen to be over is so, whatever is given back in
// between. If a store fails, the call does as a whole.
func (s *Store) step(ctx context.Context, c *call, request *limiter.Call) error {
	c.seconds.look()
	c.others.look()
	if err := s.both(ctx, c); err != nil {
		return request.Fail(err)
	}
	overSeconds, err := c.seconds.foresee(request)
	if err != nil {
		return request.Fail(err)
	}
	overOthers, err := c.others.foresee(request)
	if err != nil {
		return request.Fail(err)
	}
	over := overSeconds || overOthers
	c.seconds.count(request, over)
	c.others.count(request, over)
	if err := s.both(ctx, c); err != nil {
		return request.Fail(err)
	}
	c.seconds.conclude(request)
	c.others.conclude(request)
	return nil
}

func isSecond(op *limiter.Op) bool { return op.Limit.Window == time.Second }

// take copies one kind of operations of request into p.
func (p *part) take(request *limiter.Call, seconds bool) {
	ops := p.call.Ops[:0]
	p.call, p.from = *request, p.from[:0]
	for i := range request.Ops {
		if op := &request.Ops[i]; isSecond(op) == seconds {
			ops, p.from = append(ops, *op), append(p.from, i)
		}
	}
	p.call.Ops = ops
}

// give copies the decisions and errors back.
func (p *part) give(request *limiter.Call) {
	for i, at := range p.from {
		op, done := &request.Ops[at], &p.call.Ops[i]
		op.Decision, op.Stands, op.Err = done.Decision, done.Stands, done.Err
	}
}

// look makes looks of all operations.
func (p *part) look() {
	p.call.StopWhenOver = false
	for i := range p.call.Ops {
		p.call.Ops[i].Hits, p.call.Ops[i].Refund = 0, false
	}
}

// foresee writes into request what the decisions of p would be if all operations
// counted, by what the looks of p saw, and says whether any is over.
func (p *part) foresee(request *limiter.Call) (over bool, err error) {
	at := make(map[string]uint64, len(p.from)) // what each counter would stand at
	for i, from := range p.from {
		op := &request.Ops[from]
		counted, ok := op.Algorithm.(algorithm.Counted)
		if !ok {
			return false, fmt.Errorf("one step over two stores cannot count for the algorithm %s", op.Algorithm.Name())
		}
		now, known := at[string(op.Key)]
		if !known {
			now = p.call.Ops[i].Stands
		}
		if op.Refund {
			now -= min(now, op.Hits)
		} else {
			now += min(op.Hits, math.MaxUint64-now)
		}
		at[string(op.Key)] = now
		op.Decision = counted.Decide(op.Limit, now, request.Now)
		op.Decision.Over = op.Decision.Over && !op.Refund
		over = over || op.Decision.Over
	}
	return over, nil
}

// count makes the operations of p what they are to do, as over says whether any
// of request is foreseen to be over.
func (p *part) count(request *limiter.Call, over bool) {
	p.call.StopWhenOver = !over
	for i, from := range p.from {
		op := &request.Ops[from]
		p.call.Ops[i] = *op
		if over && !op.Decision.Over && !op.Refund {
			p.call.Ops[i].Hits = 0
		}
	}
}

// conclude copies the decisions back, but where one was foreseen to be over with
// hits that were not counted then, it stays so.
func (p *part) conclude(request *limiter.Call) {
	for i, from := range p.from {
		op, done := &request.Ops[from], &p.call.Ops[i]
		op.Stands, op.Err = done.Stands, nil
		if !op.Decision.Over || done.Decision.After >= op.Decision.After {
			op.Decision = done.Decision
		}
	}
}

// release lets go of what c refers to, and keeps it for another Apply unless it
// has grown beyond the usual.
func (s *Store) release(c *call) {
	if len(c.seconds.from) > kept || len(c.others.from) > kept {
		return
	}
	clear(c.seconds.call.Ops)
	clear(c.others.call.Ops)
	s.calls.Put(c)
}

// Ping returns nil if both stores answer.
func (s *Store) Ping(ctx context.Context) error {
	answer := make(chan error, 1)
	// Ends when the store has answered, which Ping waits for.
	go func() { answer <- s.seconds.Ping(ctx) }()
	err := s.others.Ping(ctx)
	return errors.Join(err, <-answer)
}

// Close closes both stores.
func (s *Store) Close() error { return errors.Join(s.others.Close(), s.seconds.Close()) }
