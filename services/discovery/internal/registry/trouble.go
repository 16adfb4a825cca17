package registry

import (
	"errors"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// storeCall is one of the ways in which the Store is called.
type storeCall uint8

const (
	loading storeCall = iota
	telling           // Append and Flush
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
	begins = r.noteTrouble(call, err)
	failed := r.failing&(1<<call) != 0
	if err == nil {
		r.storeAnswers(call, now)
		return failed
	}
	r.failing |= 1 << call
	r.guard.Suspend(guard.StoreAway, err.Error(), now)
	return !failed
}

// trouble is why the Store does not do what it is asked, and whether it refuses to; the
// zero one is for a Store that does it.
type trouble struct {
	why     string
	refused bool
}

// noteTrouble notes why the Store fails one way to call it, nil if it does not, and
// reports whether the Store begins to refuse: that is not to be lost behind its having
// been away. r.mu must be held.
func (r *Registry) noteTrouble(call storeCall, err error) (refuses bool) {
	was := r.trouble().refused
	r.troubles[call] = trouble{}
	if err != nil {
		r.troubles[call] = trouble{err.Error(), errors.Is(err, ErrRefused)}
	}
	return !was && r.trouble().refused
}

// trouble is the worst of those with the Store. r.mu must be held.
func (r *Registry) trouble() (worst trouble) {
	for _, one := range r.troubles {
		if one.refused {
			return one
		}
		if worst.why == "" {
			worst = one
		}
	}
	return worst
}

// notLoaded notes why the Store was not loaded, nil once it was.
func (r *Registry) notLoaded(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteTrouble(loading, err)
}

// Trouble is why the Store does not do, for some hosts or for all, what the registry
// asks of it, to be loaded among that, and whether it refuses to, as ErrRefused says;
// empty while it does all.
func (r *Registry) Trouble() (why string, refused bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	worst := r.trouble()
	return worst.why, worst.refused
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
