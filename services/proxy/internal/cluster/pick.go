package cluster

import (
	"math"
	"math/rand/v2"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
)

// PickContext is what a request says of the host that it wants. The zero value
// takes any.
type PickContext struct {
	// Hash is the request's by its route's hash_policy, if Hashed. Policies that
	// hash send requests of one hash to one host, and those without to any.
	Hash   uint64
	Hashed bool
	// Avoid says that another host would be better, as one that was tried
	// before; nil takes each. It must not block.
	Avoid func(*Host) bool
	// Attempts is how many further hosts are looked at then, before one to be
	// avoided is taken (RetryPolicy.host_selection_retry_max_attempts).
	Attempts int
}

// Pick returns the host for a request, or nil if the cluster has none for it.
// It never blocks. Steps:
//
//  1. a priority, and there its healthy or its degraded hosts, by their loads;
//  2. a host of those, by the cluster's policy;
//  3. again while the host is to be avoided, but not for ever.
func (c *Cluster) Pick(p *PickContext) *Host {
	set := c.hosts.Load()
	host := c.pick(set, p, 0)
	if p.Avoid == nil {
		return host
	}
	for attempt := 1; attempt <= p.Attempts && host != nil && p.Avoid(host); attempt++ {
		host = c.pick(set, p, attempt)
	}
	return host
}

func (c *Cluster) pick(set *HostSet, p *PickContext, attempt int) *Host {
	hash := p.Hash
	hashing := c.Config.balancing.Hashing
	if !hashing || !p.Hashed {
		if hashing || set.only == nil { // or nobody looks at it
			hash = rand.Uint64()
		}
	}
	priority, balancer := set.choose(hash)
	if priority.Panic {
		c.Stats.panics.Inc()
	}
	if balancer == nil {
		return nil
	}
	return balancer.Pick(hash, attempt)
}

// choose is the priority for the hash and the balancer of the hosts there that
// get the request, which is nil if there are none.
func (s *HostSet) choose(hash uint64) (*Priority, Balancer) {
	if s.only != nil {
		return s.only, s.only.healthy
	}
	at := uint32(hash%100) + 1
	sum := uint32(0)
	for i := range s.Priorities {
		p := &s.Priorities[i]
		if sum += p.HealthyLoad; at <= sum {
			return p, p.healthy
		}
	}
	for i := range s.Priorities {
		p := &s.Priorities[i]
		if sum += p.DegradedLoad; at <= sum {
			return p, p.degraded
		}
	}
	return &s.Priorities[0], nil // of a cluster without hosts
}

// Maintained says whether a request is to be answered 503 at once, by the runtime's
// upstream.maintenance_mode.<name>, and counts it then. It comes before DropOverload.
func (c *Cluster) Maintained(values *layeredruntime.Snapshot) bool {
	if !values.Among(c.maintenance, layeredruntime.Share{Denominator: 100}, rand.Uint64()) {
		return false
	}
	c.Stats.maintained.Inc()
	return true
}

// DropOverload says whether a request is to be answered 503 at once, by the
// assignment's drop_overloads, and counts it then; all says that each is. It
// comes before Pick.
func (c *Cluster) DropOverload() (drop, all bool) {
	share := math.Float64frombits(c.drop.Load())
	if share == 0 || rand.Float64() >= share {
		return false, false
	}
	c.Stats.dropped.Inc()
	return true, share == 1
}
