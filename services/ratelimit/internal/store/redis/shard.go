package redis

import (
	"slices"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// batched is the most calls that one pipeline carries.
	batched = 128
	// bulk is the most operations that it carries, but for a call that is one
	// step. A call of more goes in pieces, and between them come those of others:
	// so one caller's bulk makes nobody wait for all of it, and no pipeline takes
	// longer than a server that is well may need.
	bulk = 512
	// early is how many senders a shard has as soon as calls come in while the
	// others are busy: one may send while the other waits. More of them would
	// make batches small, so the rest helps out only where whole batches wait.
	early = 2
)

// shard is one server, and the calls on their way to it.
//
// What comes in while the senders are busy waits and makes the next batch, so
// that batches grow with the load and a lone call waits for nothing. Callers do
// not wait for a sender longer than they would for Redis, but their calls may:
// those of callers that left are dropped when a sender comes to them, or when
// too many wait, so that no more do than twice those of callers that are there,
// and a few batches. When the breaker opens, none wait any more.
type shard struct {
	store   *Store
	name    string // for people: its address
	client  *goredis.Client
	breaker breaker
	stats   shardStats

	mu       sync.Mutex
	waiting  []*call
	crowd    int // so many that those of callers that left are looked for
	inFlight int
	senders  int         // of this term
	term     int         // grows when senders are given up
	free     []*exchange // of senders that have ended
	used     time.Time   // when the last sender began
}

func newShard(s *Store, name string, client *goredis.Client) *shard {
	h := &shard{store: s, name: name, client: client, stats: s.stats.of(name), crowd: crowd(0)}
	h.breaker.shard = h
	return h
}

// crowd is how many calls may wait before those of callers that left are looked
// for, if so many did after the last time: looking costs each call little then.
func crowd(waiting int) int { return 2 * max(waiting, batched) }

// submit queues c, or what is left of it, and starts a sender if there are too
// few. If h's calls have come to be refused, c is so too.
func (h *shard) submit(c *call) {
	h.mu.Lock()
	if err := h.refusal(); err != nil {
		h.mu.Unlock()
		c.refuse(h, err)
		return
	}
	h.waiting = append(h.waiting, c)
	h.inFlight++
	if len(h.waiting) >= h.crowd {
		h.sweep()
	}
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
		x = &exchange{shard: h, pipe: h.client.Pipeline(), firsts: map[uint64]*command{}}
	}
	x.term = h.term
	h.mu.Unlock()
	h.store.work.Add(1)
	// Ends when nothing waits any more, or it was given up and its exchange has
	// ended; Close waits for it.
	go x.run()
}

// sweep drops the calls that nobody waits for. h.mu is held.
func (h *shard) sweep() {
	before := len(h.waiting)
	h.waiting = slices.DeleteFunc(h.waiting, func(c *call) bool { return c.gone.Load() })
	h.inFlight -= before - len(h.waiting)
	h.crowd = crowd(len(h.waiting))
}

// giveUp refuses the calls that wait, when the breaker has opened. Senders that
// are in an exchange, which may last for the store's timeout, end after it, and
// others take their place as soon as calls come again.
func (h *shard) giveUp() {
	h.mu.Lock()
	waiting := h.waiting
	h.waiting, h.crowd = nil, crowd(0)
	h.inFlight -= len(waiting)
	h.senders, h.term = 0, h.term+1
	h.mu.Unlock()
	err := h.refusal()
	for _, c := range waiting {
		if !c.gone.Load() {
			c.refuse(h, err)
		}
	}
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
