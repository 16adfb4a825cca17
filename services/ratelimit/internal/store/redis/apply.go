package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// call is one Apply on its way through a sender. Its memory is pooled, but one
// whose caller went away is left to the sender and never used again.
type call struct {
	commands []command
	timer    *time.Timer
	// done gets the outcome, once; it has room for it, so that the sender
	// never waits for a caller.
	done chan error
	// gone is set by a caller that waits no longer: what was not sent yet is
	// not to be sent.
	gone atomic.Bool
}

// command is one counter to be increased.
type command struct {
	key   string // that of the operation and the end of its window
	hits  int64
	ttl   time.Duration
	after uint64 // the counter with the hits added, set by the sender
}

func newCall() *call {
	c := &call{done: make(chan error, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	return c
}

// Apply adds each operation's hits to a key that names counter and window. Its
// steps:
//
//  1. copy the operations, since a sender may outlive this call;
//  2. queue them for the senders;
//  3. wait for the outcome, until ctx or the store's timeout ends;
//  4. have the algorithms decide by what the counters stand at, which means
//     nothing if the outcome is an error.
//
// An error is counted as one of Redis unless the caller did not wait for it.
func (s *Store) Apply(ctx context.Context, request *limiter.Call) error {
	ops, now := request.Ops, request.Now
	c := s.calls.Get().(*call)
	if err := s.fill(c, ops, now); err != nil {
		return err
	}
	c.timer.Reset(s.timeout)
	select {
	case s.queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.timer.C:
		return s.late()
	}
	var err error
	select {
	case err = <-c.done:
		if err != nil {
			s.stats.errors.Inc()
		}
	case <-ctx.Done():
		c.gone.Store(true)
		return ctx.Err()
	case <-c.timer.C:
		c.gone.Store(true)
		return s.late()
	}
	for i := range ops {
		op := &ops[i]
		op.Decision = op.Algorithm.(algorithm.Counted).Decide(op.Limit, c.commands[i].after, now)
	}
	c.timer.Stop()
	s.calls.Put(c)
	return err
}

// late is the error of a call for which Redis took too long. It is counted
// here, and not again by the sender when that learns of it.
func (s *Store) late() error {
	s.stats.errors.Inc()
	return fmt.Errorf("redis at %s did not answer within %v", s.client.Options().Addr, s.timeout)
}

// fill copies ops into c.
func (s *Store) fill(c *call, ops []limiter.Op, now time.Time) error {
	c.commands = c.commands[:0]
	for i := range ops {
		op := &ops[i]
		counted, ok := op.Algorithm.(algorithm.Counted)
		if !ok {
			return fmt.Errorf("redis cannot count for the algorithm %s", op.Algorithm.Name())
		}
		end := counted.WindowEnd(op.Limit, now)
		ttl := end.Sub(now)
		if s.jitter > 0 {
			ttl += rand.N(s.jitter)
		}
		key := make([]byte, 0, len(op.Key)+12)
		key = append(append(key, op.Key...), '@')
		c.commands = append(c.commands, command{
			key:  string(strconv.AppendInt(key, end.Unix(), 10)),
			hits: int64(op.Hits),
			ttl:  ttl,
		})
	}
	return nil
}
