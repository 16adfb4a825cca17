package registry

import (
	"container/heap"
	"container/list"
	"context"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// expiryQueue orders entries by when the sweeper is to look at them. A beat
// does not touch it: an entry whose time has come and which beat meanwhile is
// put back for its new deadline, so a host costs one step per TTL, however
// often it beats, and a tick costs nothing for the hosts that are not due.
type expiryQueue []*entry

func (q *expiryQueue) add(e *entry, due time.Duration) {
	e.due = due
	heap.Push((*expiryHeap)(q), e)
}

func (q *expiryQueue) move(e *entry, due time.Duration) {
	e.due = due
	heap.Fix((*expiryHeap)(q), e.index)
}

func (q *expiryQueue) remove(e *entry) { heap.Remove((*expiryHeap)(q), e.index) }

// hasten makes all that are stale due now, and returns how many they are.
func (q *expiryQueue) hasten(now time.Duration) (stale int) {
	for _, e := range *q {
		if e.stale {
			stale++
			e.due = now
		}
	}
	heap.Init((*expiryHeap)(q))
	return stale
}

// expiryHeap is expiryQueue as package heap wants it.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *expiryHeap) Push(e any) {
	e.(*entry).index = len(*h)
	*h = append(*h, e.(*entry))
}
func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

// sweepBatch is how many entries are looked at under one hold of the lock.
const sweepBatch = 1024

const (
	// shortestPause is how late a sweep must be for it to be taken that beats
	// were not heard either.
	shortestPause = time.Second
	// longestJump is by how much the wall clock is set at most for it to be taken
	// as kept right.
	longestJump = time.Second
)

// Itself is the actor of what no caller did.
const Itself = "discovery"

// sweepUntil drops dead hosts every SweepInterval until ctx ends. If this
// process stood still, for it was stopped or starved, the hosts are not to
// suffer for it: their beats may only be about to be read.
func (r *Registry) sweepUntil(ctx context.Context) {
	ticker := time.NewTicker(r.options.SweepInterval)
	defer ticker.Stop()
	last := time.Since(r.born)
	r.mu.Lock()
	r.ticked = last
	r.mu.Unlock()
	for {
		select {
		case <-ticker.C:
			// Read once: a pause from here on is seen at the next tick, and
			// until then no host is older than now.
			now := time.Since(r.born)
			r.observe(now, now-last-r.options.SweepInterval)
			last = now
			r.sweep(ctx, now)
		case <-ctx.Done():
			return
		}
	}
}

// sweep drops the hosts that are dead now, on the registry's clock, and may go,
// and forgets services that have long been without. It ends before the next one
// is due; what is left is for that.
func (r *Registry) sweep(ctx context.Context, now time.Duration) {
	for more := true; more && time.Since(r.born)-now < r.options.SweepInterval; {
		var dead []Beat
		dead, more = r.lookAtDue(now, sweepBatch)
		if len(dead) > 0 {
			r.letGo(ctx, dead)
		}
	}
	r.settle(now)
	for _, name := range r.forgetEmpty(now) {
		r.log.Info("service forgotten", "service", name)
	}
}

// lookAtDue looks at up to limit entries that are due now, returns the dead ones
// that may go, and says whether others are left.
func (r *Registry) lookAtDue(now time.Duration, limit int) (dead []Beat, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range limit {
		if len(r.expiries) == 0 || r.expiries[0].due > now {
			return dead, false
		}
		e := r.expiries[0]
		if r.look(e, now) {
			dead = append(dead, Beat{e.host.Key, r.wall.at(time.Duration(e.lastBeat.Load()))})
		}
	}
	return dead, true
}

// look says whether e is dead and may go, and when to look at it again if it
// stays. r.mu must be held.
func (r *Registry) look(e *entry, now time.Duration) bool {
	if e.away || r.lingers(e) {
		r.expiries.move(e, now+e.host.TTL)
		return false
	}
	if deadline := e.deadline(); deadline > now {
		r.stays(e)
		r.expiries.move(e, deadline)
		return false
	}
	if !e.leaving {
		verdict := r.judge(e, now)
		if verdict.Held != guard.Free {
			r.hold(e, verdict.Held)
			r.expiries.move(e, verdict.Again)
			return false
		}
	}
	r.expiries.move(e, now+retryDelay)
	return true
}

// letGo has the Store let go of dead hosts, and drops those of which it did. It
// waits for the Store without the lock.
func (r *Registry) letGo(ctx context.Context, dead []Beat) {
	began := time.Now()
	gone, err := r.expire(ctx, dead)
	if err != nil && ctx.Err() != nil {
		return
	}
	expired := r.settleGone(dead, gone, err == nil && time.Since(began) < shortestPause)
	r.answered(expiring, err)
	for _, h := range expired {
		r.metrics.expiries.Inc()
		r.log.Info("host expired", "service", h.Service, "host", h.ID, "address", h.Address, "ttl", h.TTL.String())
	}
}

// expire asks the Store which of the dead hosts are gone. One that has no other
// writer is not asked, only told of it later.
func (r *Registry) expire(ctx context.Context, dead []Beat) (gone []Key, err error) {
	if r.shared == nil {
		return Keys(dead), nil
	}
	return r.shared.Expire(ctx, dead)
}

// settleGone drops the hosts that are gone from the Store, and returns them. None
// is dropped after its beat: one that beat meanwhile stays, and is given to the
// Store again. So do all if the Store is not, or was not, to be relied on: when
// it was away until now, beats that others heard are only about to come. Of
// hosts that the Store keeps it is asked again.
func (r *Registry) settleGone(dead []Beat, gone []Key, relied bool) (expired []*Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(r.born)
	for _, k := range gone {
		e := r.find(k)
		switch {
		case e == nil || !e.leaving:
			// It went by itself, or came anew.
		case !relied || r.failing != 0 || e.deadline() > now:
			r.stays(e)
			r.giveEntry(e, Parts{})
		default:
			delete(r.counted, e) // it went, as the guard counts it
			r.expired(e)
			expired = append(expired, e.host)
		}
	}
	for i := range dead {
		if e := r.find(dead[i].Key); e != nil && e.leaving {
			r.refused(e, now)
		}
	}
	return expired
}

// expired drops a host that is gone from a Store that other replicas write to. Of
// any other Store it is yet to go. What comes of it from other replicas then is
// later, and must be taken: so a shared Store is not told again. r.mu must be held.
func (r *Registry) expired(e *entry) {
	event := &Event{Kind: Expired, Actor: Itself}
	if r.shared == nil {
		r.takeOut(e, event)
		return
	}
	r.outbox.forget(e.host.Key)
	r.takenOut(e, event)
}

// mostRefusals is how often the Store keeps a host, a second each, before readers
// are told: often it has just beaten elsewhere, or is about to go there.
const mostRefusals = 3

// refused notes that the Store did not let go of e. r.mu must be held.
func (r *Registry) refused(e *entry, now time.Duration) {
	if e.refusals == mostRefusals {
		return
	}
	if e.refusals++; e.refusals == mostRefusals {
		r.guard.Keep(r.judged(e), now)
		r.hold(e, guard.InStore)
	}
}

// forgetEmpty forgets the services that have been without hosts for long
// enough, and returns their names.
func (r *Registry) forgetEmpty(now time.Duration) (forgotten []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for first := r.empties.Front(); first != nil; first = r.empties.Front() {
		s := first.Value.(*service)
		if now-s.emptySince < r.options.EmptyServiceRetention {
			break
		}
		r.forgetService(first)
		forgotten = append(forgotten, s.name)
	}
	return forgotten
}

// forgetService forgets one of r.empties. r.mu must be held.
func (r *Registry) forgetService(empty *list.Element) {
	s := r.empties.Remove(empty).(*service)
	delete(r.services, s.name)
	r.metrics.services.Set(float64(len(r.services)))
	r.tell(s)
}
