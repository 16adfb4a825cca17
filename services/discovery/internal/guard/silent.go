package guard

import (
	"fmt"
	"time"
)

// Replica is another process that shares the Store, and fell silent without
// saying that it ends.
type Replica struct {
	// ID is of one run of it, Name is for people.
	ID, Name string
	// Since is when it was last heard of.
	Since time.Duration
}

// silent is the replicas that are silent now.
type silent struct {
	replicas []Replica
	// forgiven are the IDs of those that an operator takes for dead.
	forgiven map[string]struct{}
}

// set makes list those that are silent.
func (s *silent) set(list []Replica) {
	forgiven := map[string]struct{}{}
	for _, r := range list {
		if _, ok := s.forgiven[r.ID]; ok {
			forgiven[r.ID] = struct{}{}
		}
	}
	s.replicas, s.forgiven = list, forgiven
}

// forgive takes those that are silent for dead, until they are heard of.
func (s *silent) forgive() {
	s.forgiven = map[string]struct{}{}
	for _, r := range s.replicas {
		s.forgiven[r.ID] = struct{}{}
	}
}

// missed is the first that is silent for less than a bound and not taken for dead.
func (s *silent) missed(bound, now time.Duration) (first Replica, ok bool) {
	for _, r := range s.replicas {
		if _, forgiven := s.forgiven[r.ID]; !forgiven && now-r.Since < bound {
			return r, true
		}
	}
	return Replica{}, false
}

// FellSilent says which replicas are silent now: all of them, in the place of those
// that were. The guard keeps the slice.
func (g *Guard) FellSilent(list []Replica) { g.silent.set(list) }

// MissReplicas suspends expiry while a replica is silent, for its limit at most. It
// is to be called when FellSilent was, and every now and then. back says that none
// is missed any more: the registry lets TTLs begin anew and says so by Resume.
func (g *Guard) MissReplicas(now time.Duration) (back bool) {
	missed, ok := g.silent.missed(g.limits.ReplicaLoss, now)
	if ok {
		g.Suspend(ReplicaLost, fmt.Sprintf("replica %q has told nothing of itself for %v, and may hear hosts that are not heard here",
			missed.Name, (now-missed.Since).Round(time.Second)), now)
	}
	return !ok && g.suspensions[ReplicaLost].lasting
}
