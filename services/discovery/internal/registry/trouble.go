package registry

import (
	"errors"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// storeCall is one of the ways in which the Store is called.
type storeCall uint8

const (
	telling storeCall = iota // Append and Flush
	following
	expiring
	storeCalls // how many there are
)

// answered notes whether the Store answered a call, and reports whether that is
// other than it was. While any way to call it fails, no host expires.
func (r *Registry) answered(call storeCall, err error) (turned bool) {
	begins := false
	defer func() { // after the lock is given back: a log may be slow
		if begins {
			r.log.Error("the store refuses this service: hosts are served from memory, and others do not hear of changes until that is mended", "error", err)
		}
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(r.born)
	begins = r.noteRefusal(call, err)
	failed := r.failing&(1<<call) != 0
	if err == nil {
		r.storeAnswers(call, now)
		return failed
	}
	r.failing |= 1 << call
	r.guard.Suspend(guard.StoreAway, err.Error(), now)
	return !failed
}

// noteRefusal notes whether the Store refuses a way to call it, and reports whether it
// begins to: that is not to be lost behind its having been away. r.mu must be held.
func (r *Registry) noteRefusal(call storeCall, err error) (begins bool) {
	if !errors.Is(err, ErrRefused) {
		r.refusals[call] = ""
		return false
	}
	begins = r.refusals == [storeCalls]string{}
	r.refusals[call] = err.Error()
	return begins
}

// Refusal is why the Store refuses what the registry asks of it since it was loaded;
// empty while it does not.
func (r *Registry) Refusal() string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, why := range r.refusals {
		if why != "" {
			return why
		}
	}
	return ""
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
