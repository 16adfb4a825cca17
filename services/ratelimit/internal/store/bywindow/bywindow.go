// Package bywindow spreads a call over two stores by the windows of its limits:
// those of one second go to a store of their own, as they are many and die soon.
// It is put together by builtin, keeps no counters itself, and never asks one
// store after the other where it can ask both at once.
package bywindow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Store is a store made of two. What is one step of a call is so within each of
// the two, not over both: limits of a second that are over do not keep the
// others from counting.
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
	defer s.calls.Put(c)
	c.seconds.take(request, true)
	c.others.take(request, false)
	// Ends when the store has answered, which Apply waits for; both stores
	// answer soon after ctx ends.
	go func() { c.done <- s.seconds.Apply(ctx, &c.seconds.call) }()
	err := s.others.Apply(ctx, &c.others.call)
	err = errors.Join(err, <-c.done)
	c.seconds.give(request)
	c.others.give(request)
	if err != nil && request.StopWhenOver {
		return fail(request, err)
	}
	return err
}

// fail gives all operations of a request err, and returns it.
func fail(request *limiter.Call, err error) error {
	for i := range request.Ops {
		request.Ops[i].Err = err
	}
	return err
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
		request.Ops[at].Decision, request.Ops[at].Err = p.call.Ops[i].Decision, p.call.Ops[i].Err
	}
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
