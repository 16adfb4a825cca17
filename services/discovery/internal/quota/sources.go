// Package quota holds each source of calls to a rate, so that one that runs
// wild does not take the time of the others. The gate before the faces asks it
// for each call that changes something. It knows sources by address alone, and
// what they call for not at all.
package quota

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

// What is remembered at most: so many sources in each of so many shards, 65,536
// in all, in some 4 MB.
const (
	shards    = 64
	perShard  = 1024
	evictions = 8 // how many sources are looked at for one to forget
)

// Sources are buckets of tokens by source address: each has room for a burst and
// is filled at a rate. A nil *Sources lets everything pass.
type Sources struct {
	interval time.Duration // in which a bucket gets one token
	depth    time.Duration // the time that fills an empty bucket but for one token
	start    time.Time
	seed     maphash.Seed
	denials  *denial.Counters
	shards   [shards]shard
}

// shard is some of the buckets. A bucket is the time since start at which it
// will be full, by which one token is missing for each interval until then. One
// that is full is as good as one that is not there.
type shard struct {
	mu     sync.Mutex
	fullAt map[netip.Addr]time.Duration
}

// NewSources lets each source take perSecond tokens in a second, and burst at
// once, both above 0. It returns nil for a rate of 0.
func NewSources(perSecond float64, burst int, denials *denial.Counters) *Sources {
	if perSecond == 0 {
		return nil
	}
	interval := max(time.Duration(float64(time.Second)/perSecond), 1)
	s := &Sources{
		interval: interval,
		depth:    time.Duration(burst-1) * interval,
		start:    time.Now(),
		seed:     maphash.MakeSeed(),
		denials:  denials,
	}
	for i := range s.shards {
		s.shards[i].fullAt = map[netip.Addr]time.Duration{}
	}
	return s
}

// Take takes a token of a source. If there is none it returns a *denial.Error,
// which it counted, and which says when there will be one. Calls of unknown
// address, the zero one, share a bucket.
func (s *Sources) Take(source netip.Addr) error {
	if s == nil {
		return nil
	}
	shard := &s.shards[maphash.Comparable(s.seed, source)%shards]
	wait := shard.take(source, time.Since(s.start), s.interval, s.depth)
	if wait == 0 {
		return nil
	}
	s.denials.Count(denial.Rate)
	return &denial.Error{
		Status:     429,
		Reason:     denial.Rate,
		Text:       fmt.Sprintf("%v calls oftener than once in %v", source, s.interval),
		RetryAfter: wait,
	}
}

// take takes a token at a time, or returns after how long there is one. What is
// not taken changes nothing.
func (s *shard) take(source netip.Addr, now, interval, depth time.Duration) (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fullAt, known := s.fullAt[source]
	if fullAt < now {
		fullAt = now
	}
	if wait := fullAt - now - depth; wait > 0 {
		return wait
	}
	if !known && len(s.fullAt) >= perShard {
		s.forget(now)
	}
	s.fullAt[source] = fullAt + interval
	return 0
}

// forget makes room: it forgets the sources whose buckets are full among a few
// at random, or where there are none the last of the few, which so gets its
// burst anew. A flood of addresses costs that, and never memory.
func (s *shard) forget(now time.Duration) {
	looked, room := 0, false
	for source, fullAt := range s.fullAt {
		looked++
		if fullAt <= now || looked == evictions && !room {
			delete(s.fullAt, source)
			room = true
		}
		if looked == evictions {
			return
		}
	}
}
