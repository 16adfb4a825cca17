package redis

import (
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
// that batches grow with the load and a lone call waits for nothing. Callers do
// not wait for a sender longer than they would for Redis, but their calls do:
// those of callers that left are dropped when the sender comes to them, after
// the store's timeout where it waits for an answer, after DialTimeout where it
// dials. The breaker bounds their number, as none come while it is open. It
// opens by what senders learn, and by the callers that waited for the store's
// timeout; one whose own deadline is sooner says nothing about the server, so
// that with such callers only it takes as many exchanges as must fail.
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
		x = &exchange{shard: h, pipe: h.client.Pipeline(), firsts: map[uint64]*command{}}
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
