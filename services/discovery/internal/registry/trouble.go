package registry

import (
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// storeCall is one of the ways in which the Store is called.
type storeCall uint8

const (
	telling storeCall = iota // Append and Flush
	following
	expiring
)

// answered notes whether the Store answered a call, and reports whether that is
// other than it was. While any way to call it fails, no host expires.
func (r *Registry) answered(call storeCall, err error) (turned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(r.born)
	failed := r.failing&(1<<call) != 0
	if err == nil {
		r.storeAnswers(call, now)
		return failed
	}
	r.failing |= 1 << call
	r.guard.Suspend(guard.StoreAway, err.Error(), now)
	return !failed
}

// storeAnswers notes that a way to call the Store does not fail. r.mu must be
// held.
func (r *Registry) storeAnswers(call storeCall, now time.Duration) {
	was := r.failing
	r.failing &^= 1 << call
	if was != 0 && r.failing == 0 {
		r.renew(guard.StoreAway, "", now)
	}
}

// fellSilent takes note of which replicas are silent. r.mu must be held.
func (r *Registry) fellSilent(replicas []Replica) {
	silent := make([]guard.Replica, len(replicas))
	for i, one := range replicas {
		silent[i] = guard.Replica{ID: one.ID, Name: one.Name, Since: r.wall.of(one.Heard)}
	}
	r.guard.FellSilent(silent)
	r.missReplicas(time.Since(r.born))
}

// missReplicas has no host expire while a replica is missed. r.mu must be held.
func (r *Registry) missReplicas(now time.Duration) {
	if r.guard.MissReplicas(now) {
		r.renew(guard.ReplicaLost, "", now)
	}
}
