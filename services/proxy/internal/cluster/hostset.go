package cluster

import (
	"slices"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/edf"
)

// HostSet is one snapshot of a cluster's hosts, with what each priority gets.
type HostSet struct {
	// Members are all endpoints of the assignment, in its order, and behind them
	// hosts that stay although they are in none (PendingDynamicRemoval).
	Members []Member
	// Priorities are never empty; the one at 0 comes first.
	Priorities []Priority

	only *Priority // the one that gets everything for its healthy hosts, if one does
	made []made    // all balancers, for the next snapshot to use again
}

// Member is an endpoint with its host.
type Member struct {
	Endpoint
	Host *Host
	// Flags are the host's health as the snapshot found it.
	Flags HealthFlags
}

// Healthy says whether the member gets requests outside of panic.
func (m *Member) Healthy() bool { return m.Flags&unhealthy == 0 }

// Priority is one level of a snapshot.
type Priority struct {
	// HealthyLoad and DegradedLoad are the percentages of all requests that its
	// healthy and its degraded hosts get. In all priorities they make 100.
	HealthyLoad, DegradedLoad uint32
	// Panic says that all hosts get them.
	Panic bool

	// healthy and degraded choose among the hosts of the loads; nil where there
	// are none, or no load.
	healthy, degraded Balancer
}

// made is a balancer and what it was made of.
type made struct {
	hosts    []WeightedHost
	balancer Balancer
}

// builder makes a snapshot.
type builder struct {
	config    *Config
	balance   func([]WeightedHost) Balancer
	factor    uint32 // the overprovisioning factor, in percent
	old, made []made
}

// newHostSet makes the snapshot of members, which it keeps, after the one that
// was before it. Balance makes the balancer of hosts; factor and threshold are as in
// loads.
func newHostSet(c *Config, balance func([]WeightedHost) Balancer, members []Member, factor, threshold uint32, before *HostSet) *HostSet {
	b := &builder{config: c, balance: balance, factor: factor, old: before.made}
	lowest := uint32(0)
	for i := range members {
		lowest = max(lowest, members[i].Priority)
	}
	byPriority := make([][]*Member, lowest+1)
	for i := range members {
		m := &members[i]
		byPriority[m.Priority] = append(byPriority[m.Priority], m)
	}
	levels := make([]level, len(byPriority))
	for i, list := range byPriority {
		levels[i] = count(list)
	}
	set := &HostSet{Members: members}
	for i, load := range loads(levels, factor, threshold) {
		set.Priorities = append(set.Priorities, b.priority(byPriority[i], load))
	}
	for i := range set.Priorities {
		if p := &set.Priorities[i]; p.HealthyLoad == 100 {
			set.only = p
		}
	}
	set.made = b.made
	return set
}

func count(members []*Member) level {
	l := level{hosts: len(members)}
	for _, m := range members {
		switch {
		case m.Flags.Healthy():
			l.healthy++
		case m.Flags.Degraded():
			l.degraded++
		}
		if m.Flags.excluded() {
			l.excluded++
		}
	}
	return l
}

func (b *builder) priority(members []*Member, l load) Priority {
	p := Priority{HealthyLoad: l.healthy, DegradedLoad: l.degraded, Panic: l.panic}
	switch {
	case l.panic && l.healthy+l.degraded > 0:
		p.healthy = b.balancer(weighted(members))
		p.degraded = p.healthy
	case l.panic:
	default:
		if l.healthy > 0 {
			p.healthy = b.choose(members, HealthFlags.Healthy)
		}
		if l.degraded > 0 {
			p.degraded = b.choose(members, HealthFlags.Degraded)
		}
	}
	return p
}

// choose makes the balancer of those members of a priority that serve, by
// locality if the cluster weighs localities.
func (b *builder) choose(members []*Member, serves func(HealthFlags) bool) Balancer {
	chosen := slices.DeleteFunc(slices.Clone(members), func(m *Member) bool { return !serves(m.Flags) })
	if !b.config.balancing.LocalityWeighted || len(chosen) == 0 {
		return b.balancer(weighted(chosen))
	}
	places := b.localities(members, chosen)
	if len(places) == 0 { // none has a weight
		return b.balancer(weighted(chosen))
	}
	if b.config.balancing.Hashing {
		var all []WeightedHost
		for _, p := range places {
			all = append(all, p.shares()...)
		}
		return b.balancer(all)
	}
	var each []localityBalancer
	for _, p := range places {
		each = append(each, localityBalancer{b.balancer(weighted(p.members)), p.weight})
	}
	if len(each) == 1 {
		return each[0].Balancer
	}
	return edfOfLocalities{edf.New(each, func(l localityBalancer) float64 { return l.weight })}
}

// weightedLocality is a locality that gets requests, with those of its members
// that do.
type weightedLocality struct {
	members []*Member
	weight  float64
}

// localities are those of the chosen members that have a weight: less than
// their own where many of their members are missing among the chosen.
func (b *builder) localities(members, chosen []*Member) []*weightedLocality {
	counts := map[locality]int{}
	for _, m := range members {
		if !m.Flags.excluded() {
			counts[localityOf(m.Locality)]++
		}
	}
	var list []*weightedLocality
	byName := map[locality]*weightedLocality{}
	for _, m := range chosen {
		if m.LocalityWeight == 0 {
			continue
		}
		name := localityOf(m.Locality)
		l := byName[name]
		if l == nil {
			l = &weightedLocality{}
			byName[name] = l
			list = append(list, l)
		}
		l.members = append(l.members, m)
	}
	for _, l := range list {
		first := l.members[0]
		share := float64(len(l.members)) / float64(max(1, counts[localityOf(first.Locality)]))
		l.weight = float64(first.LocalityWeight) * min(1, float64(b.factor)/100*share)
	}
	return list
}

// shares are the members with their shares of the locality's weight.
func (l *weightedLocality) shares() []WeightedHost {
	list := weighted(l.members)
	sum := 0.0
	for _, h := range list {
		sum += h.Weight
	}
	for i := range list {
		list[i].Weight *= l.weight / sum
	}
	return list
}

func weighted(members []*Member) []WeightedHost {
	list := make([]WeightedHost, len(members))
	for i, m := range members {
		list[i] = WeightedHost{Host: m.Host, Weight: float64(m.Weight), Hostname: m.Hostname, HashKey: m.hashKey()}
	}
	return list
}

// balancer makes the balancer of hosts, or uses that of the last snapshot again
// if it had the same; nil if there are none.
func (b *builder) balancer(hosts []WeightedHost) Balancer {
	if len(hosts) == 0 {
		return nil
	}
	for _, old := range b.old {
		if slices.Equal(old.hosts, hosts) {
			b.made = append(b.made, old)
			return old.balancer
		}
	}
	b.made = append(b.made, made{hosts, b.balance(hosts)})
	return b.made[len(b.made)-1].balancer
}

// localityBalancer is one locality's.
type localityBalancer struct {
	Balancer
	weight float64
}

// edfOfLocalities chooses a locality, and then one of its hosts.
type edfOfLocalities struct {
	schedule *edf.Schedule[localityBalancer]
}

// Pick implements Balancer.
func (l edfOfLocalities) Pick(hash uint64, attempt int) *Host {
	return l.schedule.Next().Pick(hash, attempt)
}
