package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// keptOps is the most operations of a call that is used again.
const keptOps = 128

// call is one Apply on its way through the senders. Its memory is pooled, but
// one whose caller went away is left to the senders and never used again.
type call struct {
	commands []*command // one for each operation; pooled with the call
	used     int        // how many of them belong to this Apply
	parts    []part     // one for each shard of the commands
	step     *step      // nil unless the call is one step
	timer    *time.Timer
	// counts says that all commands count, so that each may be sent with those
	// of other calls on the same counter.
	counts bool
	// left is how many shards that were asked have not finished; the last sends
	// to done, which has room for it, so that no sender ever waits for a caller.
	left atomic.Int32
	done chan struct{}
	// gone is set by a caller that waits no longer: what was not sent yet is
	// not to be sent.
	gone atomic.Bool
}

// part is what a call has to do with one shard.
type part struct {
	shard *shard
	// err is why the caller knows no outcome: the shard was not asked, or the
	// caller waits no longer. Senders do not touch it.
	err error
	// finished is set when the sender is done with the shard's commands of the
	// call, or they were refused; they hold their outcome then.
	finished atomic.Bool
	// answers is how often the shard had answered when the call was queued.
	answers uint64
	// sent is how many of the call's commands senders are done with. It belongs
	// to the sender that has the call, or is not to be touched while it waits.
	sent int
}

func newCall() *call {
	c := &call{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	return c
}

// part is that of a shard, nil if there is none.
func (c *call) part(h *shard) *part {
	for i := range c.parts {
		if p := &c.parts[i]; p.shard == h {
			return p
		}
	}
	return nil
}

// Apply adds each operation's hits to a key that names counter and window. Its
// steps:
//
//  1. copy the operations, since a sender may outlive this call, and find the
//     shard of each;
//  2. leave out the shards that have failed for long, or fail at once if they
//     are all, or the call must not be done by half;
//  3. queue the call at each of the others, for their senders;
//  4. wait until they have finished, or ctx or the store's timeout ends;
//  5. have the algorithms decide by what the counters stand at. An operation
//     whose shard had no answer gets an error, the others keep their decisions.
//
// A call with an error is counted once, by the error's kind, unless its caller
// took it back: that the caller's own deadline came first is an error of Redis too.
func (s *Store) Apply(ctx context.Context, request *limiter.Call) error {
	if len(request.Ops) == 0 {
		return nil
	}
	err := s.apply(ctx, request)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		s.stats.failed(kindOf(err))
	}
	return err
}

// apply is Apply of a call that has operations, without counting its error.
func (s *Store) apply(ctx context.Context, request *limiter.Call) error {
	if err := ctx.Err(); err != nil {
		return request.Fail(err)
	}
	if s.nodes != nil {
		if err := s.nodes.wait(ctx); err != nil {
			return request.Fail(err)
		}
	}
	c := s.calls.Get().(*call)
	defer s.pool(c)
	if err := s.fill(c, request); err != nil {
		return request.Fail(err)
	}
	var refused error
	asked := 0
	for i := range c.parts {
		p := &c.parts[i]
		if p.err = p.shard.refusal(); p.err != nil {
			refused = p.err
			continue
		}
		p.answers = p.shard.breaker.answers.Load()
		asked++
	}
	if asked == 0 || refused != nil && request.StopWhenOver {
		return request.Fail(refused)
	}
	c.left.Store(int32(asked))
	for i := range c.parts {
		if p := &c.parts[i]; p.err == nil {
			p.shard.submit(c)
		}
	}
	s.await(ctx, c)
	return c.settle(request)
}

// await waits until c has finished. It has the caller leave c if ctx or the
// store's timeout ends before.
func (s *Store) await(ctx context.Context, c *call) {
	// A caller whose own deadline is sooner needs no other.
	var late <-chan time.Time
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > s.options.Timeout {
		c.timer.Reset(s.options.Timeout)
		late = c.timer.C
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.leave(ctx.Err())
	case <-late:
		s.late(c)
	}
	if late != nil {
		c.timer.Stop()
	}
}

// pool keeps c for another Apply, unless its caller left it or it has grown
// beyond the usual.
func (s *Store) pool(c *call) {
	if !c.gone.Load() && len(c.commands) <= keptOps {
		s.calls.Put(c)
	}
}

// late has the caller leave a call for which Redis took too long, and notes it
// of the shards that have not finished, nor answered anything meanwhile: one that
// has is not away, but has much to do, of this call or of others.
func (s *Store) late(c *call) {
	err := &lateError{s.place, s.options.Timeout}
	c.leave(err)
	for i := range c.parts {
		if p := &c.parts[i]; errors.Is(p.err, err) && p.answers == p.shard.breaker.answers.Load() {
			p.shard.breaker.failed(err)
		}
	}
}

// lateError is that of an operation for which Redis took too long.
type lateError struct {
	place   *place
	timeout time.Duration
}

// Error says how long.
func (e *lateError) Error() string {
	return fmt.Sprintf("redis at %v did not answer within %v", e.place, e.timeout)
}

// Timeout returns true.
func (*lateError) Timeout() bool { return true }

// leave gives err to the parts of the call that have not finished. No sender
// need go on with it, and it must not be used again, for one may.
func (c *call) leave(err error) {
	c.gone.Store(true)
	for i := range c.parts {
		if p := &c.parts[i]; p.err == nil && !p.finished.Load() {
			p.err = err
		}
	}
}

// settle writes the outcome of each operation into request: its decision, or
// its error. It returns the first error, which all operations get if the call
// must not be done by half.
func (c *call) settle(request *limiter.Call) error {
	var fault error
	for i := range request.Ops {
		op, d := &request.Ops[i], c.commands[i]
		op.Err = c.part(d.shard).err
		if op.Err == nil {
			op.Err = d.err // not to be read before the part has finished
		}
		if op.Err == nil {
			op.Decision = op.Algorithm.(algorithm.Counted).Decide(op.Limit, d.after, request.Now)
			op.Decision.Over = op.Decision.Over && !op.Refund
			op.Stands = d.stands
		} else if fault == nil {
			fault = op.Err
		}
	}
	if fault != nil && request.StopWhenOver {
		return request.Fail(fault)
	}
	return fault
}

// finish is called once for each shard that was asked, when the outcome of its
// commands is known. The call is the caller's after that.
func (c *call) finish(h *shard) {
	c.part(h).finished.Store(true)
	if c.left.Add(-1) == 0 {
		c.done <- struct{}{}
	}
}

// refuse finishes the part of h with err, which those commands get that were not
// sent.
func (c *call) refuse(h *shard, err error) {
	for _, d := range c.commands[c.part(h).sent:c.used] {
		if d.shard == h {
			d.err = err
		}
	}
	c.finish(h)
}

// fill copies the operations of request into c.
func (s *Store) fill(c *call, request *limiter.Call) error {
	c.used, c.parts, c.counts, c.step = 0, c.parts[:0], true, nil
	stepped := isStep(request)
	if stepped && s.nodes != nil && !s.options.DomainTags {
		return errManySlots
	}
	for i := range request.Ops {
		op := &request.Ops[i]
		counted, ok := op.Algorithm.(algorithm.Counted)
		if !ok {
			return fmt.Errorf("redis cannot count for the algorithm %s", op.Algorithm.Name())
		}
		if c.used == len(c.commands) {
			c.commands = append(c.commands, &command{})
		}
		d := c.commands[c.used]
		c.used++
		d.hits, d.kind = int64(op.Hits), count
		switch {
		case op.Refund:
			d.kind = giveBack
		case op.Hits == 0:
			d.kind = look
		}
		c.counts = c.counts && d.kind == count
		end := counted.WindowEnd(op.Limit, request.Now)
		s.name(d, op.Key, request.Domain, end)
		d.ttl = end.Sub(request.Now).Milliseconds() + 1
		if stepped || d.kind == count && d.expires {
			d.ttl += s.jitter()
		}
		switch {
		case s.nodes == nil:
			d.shard = s.one
		case stepped && i > 0:
			// Asked for each, the layout might change in between.
			d.shard = c.commands[0].shard
		default:
			var err error
			if d.shard, err = s.nodes.shardOf(d.key); err != nil {
				return err
			}
		}
		if c.part(d.shard) == nil {
			c.parts = append(c.parts, part{shard: d.shard})
		}
	}
	if !stepped {
		return nil
	}
	for i := range request.Ops {
		op := &request.Ops[i]
		c.commands[i].most = int64(op.Algorithm.(algorithm.Counted).Decide(op.Limit, 0, request.Now).Remaining)
	}
	c.step = newStep(c.commands[:c.used])
	return nil
}

// jitter is a random addition to a time to live, in milliseconds.
func (s *Store) jitter() int64 {
	if s.options.ExpirationJitter <= 0 {
		return 0
	}
	return rand.N(s.options.ExpirationJitter).Milliseconds()
}

// isStep says whether a call must be one script: one that counts or looks at one
// counter only is a step already.
func isStep(request *limiter.Call) bool {
	if !request.StopWhenOver {
		return false
	}
	countsOrLooks := 0
	for i := range request.Ops {
		if !request.Ops[i].Refund {
			countsOrLooks++
		}
	}
	return countsOrLooks > 1
}

// name sets the key of an operation's counter in the window that ends at end.
func (s *Store) name(d *command, key []byte, domain string, end time.Time) {
	rest := key[len(s.prefixOf(key)):]
	d.key = append(d.key[:0], key[:len(key)-len(rest)]...)
	d.key = s.appendTag(d.key, rest, domain)
	d.key = append(append(d.key, rest...), '@')
	d.key = strconv.AppendInt(d.key, end.Unix(), 10)
	if d.kind == count {
		d.hash = s.given.hash(d.key)
		d.expires = !s.given.has(d.hash)
	}
}

// prefixOf is KeyPrefix if key begins with it, else "".
func (s *Store) prefixOf(key []byte) string {
	if p := s.options.KeyPrefix; len(key) >= len(p) && string(key[:len(p)]) == p {
		return p
	}
	return ""
}
