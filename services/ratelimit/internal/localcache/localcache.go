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
	known  map[string]bound
	bytes  int
	budget int
	// epoch counts the calls of Forget.
	epoch uint64
}

// Epoch is a time between two calls of Forget.
type Epoch uint64

// bound is what is known of a counter: that it stands at least at After until
// Until, in Unix nanoseconds.
type bound struct {
	after uint64
	until int64
}

// New makes a cache that takes about size bytes at most.
func New(size int, reg prometheus.Registerer) *Cache {
	c := &Cache{seed: maphash.MakeSeed()}
	c.stats = newStats(reg, c)
	for i := range c.shards {
		c.shards[i].known = map[string]bound{}
		c.shards[i].budget = size / shards
	}
	return c
}

func (c *Cache) shard(key []byte) *shard { return &c.shards[maphash.Bytes(c.seed, key)%shards] }

// Over reports whether the counter is known to stand above limit at now, and
// until when it will. The epoch is for Remember. It does not allocate.
func (c *Cache) Over(key []byte, limit uint32, now time.Time) (until time.Time, known bool, at Epoch) {
	h := c.shard(key)
	h.mu.Lock()
	b, found := h.known[string(key)]
	at = Epoch(h.epoch)
	h.mu.Unlock()
	if !found || b.until <= now.UnixNano() || b.after <= uint64(limit) {
		c.stats.misses.Inc()
		return time.Time{}, false, at
	}
	c.stats.hits.Inc()
	return time.Unix(0, b.until), true, at
}

// Remember notes that a counter stands at after, at least, until the end of
// its window. At is what Over returned before the store was asked: if hits may
// have been given back since, nothing is noted. A cache that is full forgets
// others for it.
func (c *Cache) Remember(key []byte, after uint64, until time.Time, at Epoch) {
	h := c.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if Epoch(h.epoch) != at {
		return
	}
	if _, found := h.known[string(key)]; !found {
		h.bytes += len(key) + overhead
		for other := range h.known { // in random order
			if h.bytes <= h.budget {
				break
			}
			h.forget(other)
			c.stats.evicted.Inc()
		}
		if h.bytes > h.budget {
			h.bytes -= len(key) + overhead
			return
		}
	}
	h.known[string(key)] = bound{after, until.UnixNano()}
}

// Forget drops what is known of a counter, after hits were given back.
func (c *Cache) Forget(key []byte) {
	h := c.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch++
	if _, found := h.known[string(key)]; found {
		h.forget(string(key))
	}
}

func (h *shard) forget(key string) {
	delete(h.known, key)
	h.bytes -= len(key) + overhead
}

// Len is the number of counters remembered, expired ones included.
func (c *Cache) Len() (n int) {
	for i := range c.shards {
		c.shards[i].mu.Lock()
		n += len(c.shards[i].known)
		c.shards[i].mu.Unlock()
	}
	return n
}
