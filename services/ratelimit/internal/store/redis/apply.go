package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// call is one Apply on its way through the senders. Its memory is pooled, but
// one whose caller went away is left to the senders and never used again.
type call struct {
	commands []*command // one for each operation; pooled with the call
	used     int        // how many of them belong to this Apply
	shards   []*shard   // those of the commands, each once
	step     *step      // nil unless the call is one step
	timer    *time.Timer
	// counts says that all commands count, so that each may be sent with those
	// of other calls on the same counter.
	counts bool
	// left is how many shards have not finished; the last sends to done.
	left atomic.Int32
	// fault is an error of one of them.
	fault atomic.Pointer[error]
	// done gets the outcome, once; it has room for it, so that no sender ever
	// waits for a caller.
	done chan error
	// gone is set by a caller that waits no longer: what was not sent yet is
	// not to be sent.
	gone atomic.Bool
}

func newCall() *call {
	c := &call{done: make(chan error, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	return c
}

// Apply adds each operation's hits to a key that names counter and window. Its
// steps:
//
//  1. copy the operations, since a sender may outlive this call, and find the
//     shard of each;
//  2. fail at once if one of the shards has failed for long;
//  3. queue the call at each shard, for their senders;
//  4. wait for the outcome, until ctx or the store's timeout ends;
//  5. have the algorithms decide by what the counters stand at, which means
//     nothing if the outcome is an error.
//
// An error is counted as one of Redis unless the caller did not wait for it.
func (s *Store) Apply(ctx context.Context, request *limiter.Call) error {
	if len(request.Ops) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.nodes != nil {
		if err := s.nodes.wait(ctx); err != nil {
			s.stats.failed(connectionFault)
			return err
		}
	}
	c := s.calls.Get().(*call)
	if err := s.fill(c, request); err != nil {
		return err
	}
	for _, h := range c.shards {
		if err := h.refusal(); err != nil {
			s.calls.Put(c)
			s.stats.failed(breakerFault)
			return err
		}
	}
	c.left.Store(int32(len(c.shards)))
	for _, h := range c.shards {
		h.submit(c)
	}
	// A caller whose own deadline is sooner needs no other.
	var late <-chan time.Time
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > s.options.Timeout {
		c.timer.Reset(s.options.Timeout)
		late = c.timer.C
	}
	var err error
	select {
	case err = <-c.done:
	case <-ctx.Done():
		c.gone.Store(true)
		return ctx.Err()
	case <-late:
		c.gone.Store(true)
		return s.late(c)
	}
	if late != nil {
		c.timer.Stop()
	}
	if err != nil {
		s.stats.failed(kindOf(err))
	}
	for i := range request.Ops {
		op := &request.Ops[i]
		op.Decision = op.Algorithm.(algorithm.Counted).Decide(op.Limit, c.commands[i].after, request.Now)
		op.Decision.Over = op.Decision.Over && !op.Refund
	}
	s.calls.Put(c)
	return err
}

// late is the error of a call for which Redis took too long. It is counted
// here, and not again by the senders when they learn of it.
func (s *Store) late(c *call) error {
	s.stats.failed(timeoutFault)
	err := fmt.Errorf("redis at %v did not answer within %v", s.place, s.options.Timeout)
	for _, h := range c.shards {
		h.breaker.failed(err)
	}
	return err
}

// finish is called once for each shard, with its outcome.
func (c *call) finish(err error) {
	if err != nil {
		fault := err // on the heap only here
		c.fault.Store(&fault)
	}
	if c.left.Add(-1) > 0 {
		return
	}
	if fault := c.fault.Load(); fault != nil {
		err = *fault
	}
	c.done <- err
}

// fill copies the operations of request into c.
func (s *Store) fill(c *call, request *limiter.Call) error {
	c.used, c.shards, c.counts = 0, c.shards[:0], true
	c.fault.Store(nil)
	c.step = nil
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
		ttl := end.Sub(request.Now)
		if s.options.ExpirationJitter > 0 {
			ttl += rand.N(s.options.ExpirationJitter)
		}
		d.ttl = ttl.Milliseconds() + 1
		s.name(d, op.Key, request.Domain, end)
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
		if !slices.Contains(c.shards, d.shard) {
			c.shards = append(c.shards, d.shard)
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

// kind is what a command does.
type kind uint8

const (
	count kind = iota
	look
	giveBack
)

// command is one counter to be read or changed. What it sends refers to its
// fields, so that it is made once and sent many times.
type command struct {
	kind  kind
	shard *shard
	key   bytesArg // that of the operation, and the end of its window
	hits  int64
	ttl   int64 // milliseconds
	most  int64 // hits that fit into the limit; set in a step only
	// hash is what memo knows the key by, expires that the key is to be given
	// a time to live; both are set of a count only.
	hash    uint64
	expires bool
	// first is the command that carries the hits to Redis: the command itself, or
	// an earlier one of the batch on the same counter. total is the hits that a
	// first one carries, before those that it carries ahead of this one's.
	first         *command
	total, before int64
	// after is the counter once the command was carried out.
	after uint64

	counting, looking, givingBack, expiring *goredis.IntCmd
}

// bytesArg is an argument that the driver need not box.
type bytesArg []byte

// MarshalBinary returns the argument itself.
func (b *bytesArg) MarshalBinary() ([]byte, error) { return *b, nil }

// main is what the driver is to send for d.
func (d *command) main() *goredis.IntCmd {
	switch d.kind {
	case look:
		return renew(&d.looking, "get", &d.key)
	case giveBack:
		return renew(&d.givingBack, "evalsha", giveBackHash, "1", &d.key, &d.hits)
	default:
		return renew(&d.counting, "incrby", &d.key, &d.total)
	}
}

// expire is what the driver is to send for d after main, if d.expires.
func (d *command) expire() *goredis.IntCmd {
	return renew(&d.expiring, "pexpire", &d.key, &d.ttl)
}

// renew returns *to without the outcome that it had, and makes it if it is nil.
func renew(to **goredis.IntCmd, args ...any) *goredis.IntCmd {
	if *to == nil {
		*to = goredis.NewIntCmd(context.Background(), slices.Clone(args)...)
	}
	(*to).SetErr(nil)
	return *to
}
