package redis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// batched is the most calls that one pipeline carries.
	batched = 128
	// early is how many senders a shard has as soon as calls come in while the
	// others are busy: one may send while the other waits. More of them would
	// make batches small, so the rest helps out only where whole batches wait.
	early = 2
)

// shard is one server, and the calls on their way to it.
//
// What comes in while the senders are busy waits and makes the next batch, so
// that batches grow with the load and a lone call waits for nothing. What waits
// is bounded by the number of callers, and by the breaker: it holds the calls of
// those that left during a few timeouts at most.
type shard struct {
	store   *Store
	name    string // for people: its address
	client  *goredis.Client
	breaker breaker
	stats   shardStats

	mu       sync.Mutex
	waiting  []*call
	inFlight int
	senders  int
	free     []*exchange // of senders that have ended
	used     time.Time   // when the last sender began
}

func newShard(s *Store, name string, client *goredis.Client) *shard {
	h := &shard{store: s, name: name, client: client, stats: s.stats.of(name)}
	h.breaker.shard = h
	return h
}

// submit queues c, and starts a sender if there are too few.
func (h *shard) submit(c *call) {
	h.mu.Lock()
	h.waiting = append(h.waiting, c)
	h.inFlight++
	most := h.store.options.Connections
	if h.senders >= most || h.senders >= early && len(h.waiting) < batched {
		h.mu.Unlock()
		return
	}
	h.senders++
	h.used = time.Now()
	var x *exchange
	if n := len(h.free); n > 0 {
		x, h.free = h.free[n-1], h.free[:n-1]
	} else {
		x = &exchange{shard: h, pipe: h.client.Pipeline()}
	}
	h.mu.Unlock()
	h.store.work.Add(1)
	// Ends when nothing waits any more; Close waits for it.
	go x.run()
}

// idleSince says whether h has had nothing to do since then.
func (h *shard) idleSince(then time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.senders == 0 && h.used.Before(then) && h.breaker.open.Load() == nil
}

// flying is the number of calls that wait or are under way.
func (h *shard) flying() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inFlight
}

// exchange is what a sender works with.
type exchange struct {
	shard *shard
	pipe  goredis.Pipeliner
	batch []*call
	send  []goredis.Cmder
	// unset is the keys that turned out to have no time to live.
	unset []unset
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

// take makes a batch of what waits; if there is nothing, the sender has ended.
func (x *exchange) take() bool {
	h := x.shard
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight -= len(x.batch)
	clear(x.batch)
	x.batch = x.batch[:0]
	switch n := len(h.waiting); {
	case n == 0:
		h.senders--
		h.free = append(h.free, x)
		return false
	case n <= batched:
		x.batch, h.waiting = h.waiting, x.batch
	default:
		x.batch = append(x.batch, h.waiting[:batched]...)
		left := copy(h.waiting, h.waiting[batched:])
		clear(h.waiting[left:])
		h.waiting = h.waiting[:left]
	}
	return true
}

// carryOut sends the commands of the batch in one pipeline and hands each call
// its outcome.
func (x *exchange) carryOut() {
	h, calls := x.shard, 0
	x.send = x.send[:0]
	for i, c := range x.batch {
		if c.gone.Load() {
			c.finish(nil)
			x.batch[i] = nil
			continue
		}
		calls++
		if c.step != nil {
			x.send = append(x.send, c.step.send)
			continue
		}
		for _, d := range c.commands[:c.used] {
			if d.shard != h {
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
	_ = x.pipe.BatchProcess(context.Background(), x.send...)
	err := exec(x.pipe)
	h.stats.time.Observe(time.Since(begin).Seconds())
	h.stats.calls.Observe(float64(calls))
	// Who gets no answer gets none for all that follows.
	if last := x.send[len(x.send)-1].Err(); last != nil && !answered(last) {
		h.store.given.clear()
		h.breaker.failed(last)
	} else {
		h.breaker.succeeded()
	}
	if err != nil {
		x.again()
	}
	x.unset = x.unset[:0]
	for _, c := range x.batch {
		if c != nil {
			c.finish(x.read(c))
		}
	}
	if len(x.unset) > 0 {
		x.expire()
	}
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

// read copies the outcome of h's commands of c into them. The error is that of
// one of them.
func (x *exchange) read(c *call) error {
	h := x.shard
	if c.step != nil {
		after, err := c.step.send.Result()
		if err == nil && len(after) != c.used {
			err = fmt.Errorf("%d answers for %d counters", len(after), c.used)
		}
		if err != nil {
			return h.fault(err)
		}
		for i, n := range after {
			c.commands[i].after = uint64(max(0, n))
		}
		return nil
	}
	var fault error
	for _, d := range c.commands[:c.used] {
		if d.shard != h {
			continue
		}
		if err := x.readOne(d); err != nil {
			fault = h.fault(err)
		}
	}
	return fault
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
		after, err = d.counting.Result()
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
	if d.kind != count {
		return nil
	}
	// A time to live that was set need not be set again. The first hit of a key
	// tells by its answer that the key was not there, also if that was forgotten
	// by Redis and not by us.
	if d.expires {
		if d.expiring.Err() == nil && d.expiring.Val() == 1 {
			x.shard.store.given.add(d.hash)
			return nil
		}
	} else if after != d.hits {
		return nil
	}
	if d.expires || after == d.hits {
		x.unset = append(x.unset, unset{string(d.key), d.ttl})
	}
	return nil
}

// expire gives the keys in x.unset a time to live. Those for which that fails
// are given one with their next hit.
func (x *exchange) expire() {
	h := x.shard
	x.send = x.send[:0]
	for _, u := range x.unset {
		x.send = append(x.send, goredis.NewIntCmd(context.Background(), "pexpire", u.key, u.ttl))
	}
	_ = x.pipe.BatchProcess(context.Background(), x.send...)
	if exec(x.pipe) != nil {
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

// again sends once more those commands whose answer says that they were not
// carried out, and what to do about it: a script has to be loaded, or another
// server of the Cluster has the key. The outcome takes the place of the first.
func (x *exchange) again() {
	type pair struct{ old, renewed goredis.Cmder }
	pipes := map[*goredis.Client]goredis.Pipeliner{}
	var pairs []pair
	readOnly := false
	for _, old := range x.send {
		err := old.Err()
		if err == nil || !answered(err) {
			continue
		}
		readOnly = readOnly || goredis.IsReadOnlyError(err)
		to, ask := x.shard.client, false
		if nodes := x.shard.store.nodes; nodes != nil && isElsewhere(err) {
			var address string
			if address, ask = goredis.IsAskError(err); !ask {
				address, _ = goredis.IsMovedError(err)
			}
			to = nodes.at(address)
		} else if !goredis.HasErrorPrefix(err, "NOSCRIPT") {
			continue
		}
		if to == nil {
			continue
		}
		pipe := pipes[to]
		if pipe == nil {
			pipe = to.Pipeline()
			pipes[to] = pipe
		}
		if ask {
			pipe.Do(context.Background(), "asking")
		}
		renewed := copyOf(old)
		_ = pipe.Process(context.Background(), renewed)
		pairs = append(pairs, pair{old, renewed})
	}
	for _, pipe := range pipes {
		_ = exec(pipe)
	}
	if readOnly && x.send[0].Err() == nil {
		// The driver leaves a connection to a server that became a replica, and
		// asks anew where the master is, if the first command tells of it only.
		_ = x.shard.ping(context.Background())
	}
	for _, p := range pairs {
		p.old.SetErr(p.renewed.Err())
		switch old := p.old.(type) {
		case *goredis.IntCmd:
			old.SetVal(p.renewed.(*goredis.IntCmd).Val())
		case *goredis.IntSliceCmd:
			old.SetVal(p.renewed.(*goredis.IntSliceCmd).Val())
		}
	}
}

// isElsewhere says whether err tells that another server has the key.
func isElsewhere(err error) bool {
	_, moved := goredis.IsMovedError(err)
	_, ask := goredis.IsAskError(err)
	return moved || ask
}

// copyOf is a command like old, but with the text of its script, if any.
func copyOf(old goredis.Cmder) goredis.Cmder {
	args := append([]any(nil), old.Args()...)
	if args[0] == "evalsha" {
		args[0], args[1] = "eval", scriptOf(args[1])
	}
	if _, ok := old.(*goredis.IntSliceCmd); ok {
		return goredis.NewIntSliceCmd(context.Background(), args...)
	}
	return goredis.NewIntCmd(context.Background(), args...)
}
