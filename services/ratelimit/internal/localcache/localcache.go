// Package localcache remembers which counters are over their limit, so that
// the limiter refuses further hits without asking the store. What it remembers
// is a bound that the counter has passed and the end of the window, never more.
// Hits that are given back make it forget. It is told of those of this process
// only: what another one gives back is seen here when the window ends.
package localcache

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// shards is how many locks the counters are spread over; a power of two.
const shards = 16

// overhead is about what a remembered counter takes beside its key, in bytes.
const overhead = 96

// Cache is safe for use by many goroutines.
type Cache struct {
	seed   maphash.Seed
	shards [shards]shard
	stats  *stats
}

// shard is one part of the counters under one lock.
type shard struct {
	mu     sync.Mutex
	known  map[string]*bound
	bytes  int
	budget int
	// used is the sum of the times at which known was used last.
	used int64
	// epoch counts the calls of Forget.
	epoch uint64
}

// Epoch is a time between two calls of Forget.
type Epoch uint64

// bound is what is known of a counter: that it stands at least at after until
// until, in Unix nanoseconds.
type bound struct {
	key   string // of the counter
	after uint64
	until int64
	used  int64 // when it was noted or found last, in Unix seconds
}

// New makes a cache that takes about size bytes at most.
func New(size int, reg prometheus.Registerer) *Cache {
	c := &Cache{seed: maphash.MakeSeed()}
	c.stats = newStats(reg, c)
	for i := range c.shards {
		c.shards[i].known = map[string]*bound{}
		c.shards[i].budget = size / shards
	}
	return c
}

func (c *Cache) shard(key []byte) *shard { return &c.shards[maphash.Bytes(c.seed, key)%shards] }

// Over reports whether the counter is known to stand above limit at now, and
// until when it will. What is known no longer then is forgotten. The epoch is
// for Remember. It does not allocate.
func (c *Cache) Over(key []byte, limit uint32, now time.Time) (until time.Time, known bool, at Epoch) {
	h := c.shard(key)
	h.mu.Lock()
	b := h.known[string(key)]
	at = Epoch(h.epoch)
	if b != nil {
		h.use(b, now)
		if b.until <= now.UnixNano() {
			h.forget(b)
			c.stats.expired.Inc()
		} else if known = b.after > uint64(limit); known {
			until = time.Unix(0, b.until)
		}
	}
	h.mu.Unlock()
	if known {
		c.stats.hits.Inc()
	} else {
		c.stats.misses.Inc()
	}
	return until, known, at
}

// Remember notes that a counter stands at after, at least, until the end of
// its window. At is what Over returned before the store was asked: if hits may
// have been given back since, nothing is noted. A cache that is full forgets
// others for it.
func (c *Cache) Remember(key []byte, after uint64, until, now time.Time, at Epoch) {
	h := c.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if Epoch(h.epoch) != at {
		return
	}
	b := h.known[string(key)]
	switch {
	case b != nil:
		c.stats.overwritten.Inc()
	case c.makeRoom(h, len(key)+overhead, now):
		b = &bound{key: string(key)}
		h.known[b.key] = b
	default:
		return
	}
	b.after, b.until = after, until.UnixNano()
	h.use(b, now)
}

// makeRoom takes bytes of h's budget, and says whether there is room for them
// once others are forgotten.
func (c *Cache) makeRoom(h *shard, bytes int, now time.Time) bool {
	if bytes > h.budget {
		return false
	}
	for _, b := range h.known { // in random order
		if h.bytes+bytes <= h.budget {
			break
		}
		h.forget(b)
		if b.until <= now.UnixNano() {
			c.stats.expired.Inc()
		} else {
			c.stats.evicted.Inc()
		}
	}
	h.bytes += bytes
	return true
}

// Forget drops what is known of a counter, after hits were given back.
func (c *Cache) Forget(key []byte) {
	h := c.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch++
	if b := h.known[string(key)]; b != nil {
		h.forget(b)
	}
}

func (h *shard) forget(b *bound) {
	delete(h.known, b.key)
	h.bytes -= len(b.key) + overhead
	h.used -= b.used
}

// use notes that b, which is known, is used at now.
func (h *shard) use(b *bound, now time.Time) {
	h.used += now.Unix() - b.used
	b.used = now.Unix()
}

// Len is the number of counters remembered, expired ones included.
func (c *Cache) Len() int {
	n, _ := c.sum()
	return n
}

// lastUsed is the mean of the times at which the counters remembered were noted
// or found last, in Unix seconds; 0 if there is none.
func (c *Cache) lastUsed() int64 {
	n, used := c.sum()
	if n == 0 {
		return 0
	}
	return used / int64(n)
}

// sum is the number of counters remembered and the sum of the times at which
// they were used last.
func (c *Cache) sum() (n int, used int64) {
	for i := range c.shards {
		h := &c.shards[i]
		h.mu.Lock()
		n += len(h.known)
		used += h.used
		h.mu.Unlock()
	}
	return n, used
}
