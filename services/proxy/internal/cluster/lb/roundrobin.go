// Package lb holds the load-balancing policies that ship, one file each. A
// policy makes a balancer for one snapshot of a cluster's hosts; it keeps no
// state beyond that snapshot and knows nothing of health, which was settled
// before.
package lb

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// RoundRobin hands out hosts in turn, from a random start (Cluster.LbPolicy
// ROUND_ROBIN). Hosts of unequal weight get their shares evenly spread, by
// earliest deadline first.
func RoundRobin(hosts []cluster.WeightedHost) cluster.Balancer {
	for _, h := range hosts {
		if h.Weight != hosts[0].Weight {
			return newSchedule(hosts)
		}
	}
	r := &rotation{hosts: hosts}
	r.next.Store(rand.Uint64N(uint64(len(hosts))))
	return r
}

// rotation is round robin over hosts of equal weight.
type rotation struct {
	hosts []cluster.WeightedHost
	next  atomic.Uint64
}

// Pick implements cluster.Balancer.
func (r *rotation) Pick() *cluster.Host {
	return r.hosts[r.next.Add(1)%uint64(len(r.hosts))].Host
}

// schedule is round robin over hosts of unequal weight: each host is due again
// 1/weight after its last turn, and the one that is due first is next.
type schedule struct {
	mu  sync.Mutex
	due turns
}

type turn struct {
	host *cluster.Host
	step float64 // 1/weight
	at   float64
	seq  int // breaks ties in a fixed order
}

func newSchedule(hosts []cluster.WeightedHost) *schedule {
	s := &schedule{}
	for i, h := range hosts {
		step := 1 / float64(h.Weight)
		// A random first turn, or all proxies would begin with the same host.
		s.due = append(s.due, turn{h.Host, step, rand.Float64() * step, i})
	}
	heap.Init(&s.due)
	return s
}

// Pick implements cluster.Balancer.
func (s *schedule) Pick() *cluster.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := &s.due[0]
	host := first.host
	first.at += first.step
	heap.Fix(&s.due, 0)
	return host
}

// turns is a heap ordered by when each turn is due.
type turns []turn

func (t turns) Len() int { return len(t) }
func (t turns) Less(i, j int) bool {
	if t[i].at != t[j].at {
		return t[i].at < t[j].at
	}
	return t[i].seq < t[j].seq
}
func (t turns) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *turns) Push(x any)   { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}
