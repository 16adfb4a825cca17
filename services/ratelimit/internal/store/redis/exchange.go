package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// kept is the most commands for which a sender keeps memory once they are done:
// more than a batch of usual calls has.
const kept = 4096

// exchange is what a sender works with. Between batches it refers to none of
// their commands.
type exchange struct {
	shard *shard
	term  int // of the shard, when the sender began
	pipe  goredis.Pipeliner
	batch []piece
	send  []goredis.Cmder
	// firsts is the commands of the batch that others may join, by the hash of
	// their keys.
	firsts map[uint64]*command
	// unset is the keys that turned out to have no time to live.
	unset []unset
}

// piece is the commands of a call from one place on to another, all of them
// unless they are more than bulk. Those of other shards may be among them.
type piece struct {
	call     *call // nil if nobody waits for it any more
	from, to int
}

// next is the piece of c that h is to carry out next, of no more commands of h
// than there is room for, and how many it has. One step is never cut.
func (c *call) next(h *shard, room int) (p piece, size int) {
	p = piece{c, c.part(h).sent, c.used}
	for i, d := range c.commands[p.from:p.to] {
		if d.shard != h {
			continue
		}
		if size == room && c.step == nil {
			p.to = p.from + i
			break
		}
		size++
	}
	return p, size
}

// commands are those of the piece that h is to carry out.
func (p piece) commands(h *shard) iter.Seq[*command] {
	return func(yield func(*command) bool) {
		for _, d := range p.call.commands[p.from:p.to] {
			if d.shard == h && !yield(d) {
				return
			}
		}
	}
}

// unset is a key to be given a time to live.
type unset struct {
	key string
	ttl int64
}

// run carries out what waits until nothing does.
func (x *exchange) run() {
	defer x.shard.store.work.Done()
	for {
		// Let those that are about to submit a call do so, to be in the batch.
		runtime.Gosched()
		if !x.take() {
			return
		}
		x.carryOut()
	}
}

// take makes a batch of what waits. If there is nothing, or the shard has given
// the sender up, it has ended.
func (x *exchange) take() bool {
	h := x.shard
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight -= len(x.batch)
	clear(x.batch)
	x.batch = x.batch[:0]
	switch {
	case x.term != h.term:
		h.free = append(h.free, x)
		return false
	case len(h.waiting) == 0:
		h.senders--
		h.free = append(h.free, x)
		return false
	}
	room := bulk
	for _, c := range h.waiting[:min(batched, len(h.waiting))] {
		p, size := c.next(h, room)
		if (p.to < c.used || size > room) && len(x.batch) > 0 {
			break // it comes first in the next
		}
		room -= size
		x.batch = append(x.batch, p)
	}
	left := copy(h.waiting, h.waiting[len(x.batch):])
	clear(h.waiting[left:])
	h.waiting = h.waiting[:left]
	h.crowd = crowd(left)
	return true
}

// carryOut sends the commands of the batch together and hands each call their
// outcome.
func (x *exchange) carryOut() {
	h, calls := x.shard, 0
	defer x.release()
	for i, p := range x.batch {
		c := p.call
		if c.gone.Load() {
			x.batch[i].call = nil
			continue
		}
		calls++
		if c.step != nil {
			x.send = append(x.send, c.step.send)
			continue
		}
		for d := range p.commands(h) {
			if x.join(c, d) {
				continue
			}
			x.send = append(x.send, d.main())
			if d.kind == count && d.expires {
				x.send = append(x.send, d.expire())
			}
		}
	}
	if calls == 0 {
		return
	}
	begin := time.Now()
	err := x.exchange()
	h.stats.time.Observe(time.Since(begin).Seconds())
	h.stats.calls.Observe(float64(calls))
	// Who gets no answer gets none for all that follows.
	var lost error
	if last := x.send[len(x.send)-1].Err(); last != nil && !answered(last) {
		lost = last
		h.store.given.clear()
		h.breaker.failed(last)
	} else {
		h.breaker.answered()
	}
	if err != nil {
		x.again()
	}
	for _, p := range x.batch {
		if p.call != nil {
			x.read(p)
		}
	}
	// Only now, for one that has finished is used again, and others may have
	// joined its commands.
	for _, p := range x.batch {
		if p.call != nil {
			h.goOn(p, lost)
		}
	}
	if len(x.unset) > 0 {
		x.expire()
	}
}

// goOn finishes the call of a piece that was sent, or queues what is left of it
// behind those that wait; if Redis did not answer, for which lost is the reason,
// that is not sent any more.
func (h *shard) goOn(p piece, lost error) {
	c := p.call
	c.part(h).sent = p.to
	switch {
	case p.to == c.used:
		c.finish(h)
	case lost != nil:
		c.refuse(h, h.fault(lost))
	default:
		h.submit(c)
	}
}

// release lets go of what the batch was, and of memory that is more than usual.
func (x *exchange) release() {
	clear(x.send)
	clear(x.unset)
	x.send, x.unset = x.send[:0], x.unset[:0]
	if len(x.firsts) > kept {
		x.firsts = map[uint64]*command{}
	}
	clear(x.firsts)
	if cap(x.send) > kept {
		x.send = nil
	}
	if cap(x.unset) > kept {
		x.unset = nil
	}
}

// join has an earlier command of the batch carry d's hits, and says whether
// there is one: many callers of one counter cost Redis one command. Who of them
// came first is anybody's guess, so that they may as well come in this order.
// Commands of a call that does more than count keep their own order.
func (x *exchange) join(c *call, d *command) bool {
	d.first, d.total, d.before = d, d.hits, 0
	if d.kind != count || !c.counts || len(x.batch) == 1 {
		return false
	}
	first := x.firsts[d.hash]
	switch {
	case first == nil:
		x.firsts[d.hash] = d
		return false
	case !bytes.Equal(first.key, d.key):
		return false
	}
	d.first, d.before = first, first.total
	first.total += d.hits
	return true
}

// exchange sends the commands in x.send and waits for their answers. A lone one
// needs no pipeline, which costs the driver more.
func (x *exchange) exchange() error {
	if len(x.send) == 1 {
		return x.shard.client.Process(context.Background(), x.send[0])
	}
	_ = x.pipe.BatchProcess(context.Background(), x.send...)
	return exec(x.pipe)
}

// exec sends what is in pipe. Each command holds its own outcome afterwards, the
// error is only the first of theirs.
func exec(pipe goredis.Pipeliner) error {
	sent, err := pipe.Exec(context.Background())
	if err == nil || slices.ContainsFunc(sent, func(c goredis.Cmder) bool { return c.Err() != nil }) {
		return err
	}
	// The driver leaves commands as they were where a server refuses the
	// connection in its own words, a wrong password for one.
	for _, c := range sent {
		c.SetErr(err)
	}
	return err
}

// read copies the outcome of h's commands of p into them.
func (x *exchange) read(p piece) {
	h, c := x.shard, p.call
	if c.step != nil {
		after, err := c.step.send.Result()
		if err == nil && len(after) != 2*c.used {
			err = fmt.Errorf("%d answers for %d counters", len(after), c.used)
		}
		if err != nil {
			err = h.fault(err)
		}
		for i, d := range c.commands[:c.used] {
			if d.err = err; err == nil {
				d.after, d.stands = uint64(max(0, after[i])), uint64(max(0, after[c.used+i]))
			}
		}
		return
	}
	for d := range p.commands(h) {
		if d.err = x.readOne(d); d.err != nil {
			d.err = h.fault(d.err)
		}
		d.stands = d.after
	}
}

func (x *exchange) readOne(d *command) error {
	var after int64
	var err error
	switch d.kind {
	case look:
		after, err = d.looking.Result()
	case giveBack:
		after, err = d.givingBack.Result()
	default:
		after, err = d.first.counting.Result()
		after -= d.first.total - d.before - d.hits
	}
	switch {
	case err == nil:
		d.after = uint64(max(0, after))
	case errors.Is(err, goredis.Nil):
		d.after = 0
		return nil
	case d.kind == count && strings.Contains(err.Error(), "would overflow"):
		// The counter is as full as it gets, and stays so.
		d.after = math.MaxInt64
		return nil
	default:
		return err
	}
	switch {
	case d.kind != count || d.first != d:
	case d.expires:
		if d.expiring.Err() == nil && d.expiring.Val() == 1 {
			x.shard.store.given.add(d.hash)
		}
	case d.counting.Val() == d.total:
		// The key is new to Redis, which must have lost what it was told.
		x.unset = append(x.unset, unset{string(d.key), d.ttl + x.shard.store.jitter()})
	}
	return nil
}

// expire gives the keys in x.unset a time to live. Those for which that fails
// are given one with their next hit.
func (x *exchange) expire() {
	h := x.shard
	clear(x.send)
	x.send = x.send[:0]
	for _, u := range x.unset {
		x.send = append(x.send, goredis.NewIntCmd(context.Background(), "pexpire", u.key, u.ttl))
	}
	if x.exchange() != nil {
		h.store.given.clear()
	}
}

// fault is err as a caller is told it.
func (h *shard) fault(err error) error { return fmt.Errorf("count in redis at %s: %w", h.name, err) }

// answered says whether err is what Redis said, in place of no answer.
func answered(err error) bool {
	_, ok := errors.AsType[goredis.Error](err)
	return ok
}
