package registry

import (
	"container/heap"
	"context"
	"time"
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

// shortestPause is how late a sweep must be for it to be taken that beats were
// not heard either.
const shortestPause = time.Second

// sweepUntil drops dead hosts every SweepInterval until ctx ends. If this
// process stood still, for it was stopped or starved, the hosts are not to
// suffer for it: their beats may only be about to be read.
func (r *Registry) sweepUntil(ctx context.Context) {
	ticker := time.NewTicker(r.options.SweepInterval)
	defer ticker.Stop()
	last := time.Since(r.born)
	for {
		select {
		case <-ticker.C:
			// Read once: a pause from here on is seen at the next tick, and
			// until then no host is older than now.
			now := time.Since(r.born)
			if pause := now - last - r.options.SweepInterval; pause > shortestPause {
				r.renewAll(now)
				r.log.Warn("this process stood still; no host expires for its TTL", "pause", pause.String())
			}
			last = now
			r.sweep(now)
		case <-ctx.Done():
			return
		}
	}
}

// renewAll lets the TTL of every host begin anew, now.
func (r *Registry) renewAll(now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renew(now)
}

// renew is renewAll. The queue finds out by itself, when it comes to an entry.
// r.mu must be held.
func (r *Registry) renew(now time.Duration) {
	for _, e := range r.expiries {
		e.heldFrom = now
	}
}

// sweep drops all hosts that are dead now, on the registry's clock, and forgets
// services that have long been without.
func (r *Registry) sweep(now time.Duration) {
	for more := true; more; {
		var expired []*Host
		expired, more = r.expire(now, sweepBatch)
		for _, h := range expired {
			r.metrics.expiries.Inc()
			r.log.Info("host expired", "service", h.Service, "host", h.ID, "address", h.Address, "ttl", h.TTL.String())
		}
	}
	r.settle(time.Now())
	for _, name := range r.forgetEmpty(now) {
		r.log.Info("service forgotten", "service", name)
	}
}

// expire looks at up to limit entries that are due now, drops the dead ones,
// and says whether others are left. A host that checks in meanwhile waits for the
// lock, or is seen here to have done so: none is dropped after its beat.
func (r *Registry) expire(now time.Duration, limit int) (expired []*Host, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range limit {
		if len(r.expiries) == 0 || r.expiries[0].due > now {
			return expired, false
		}
		e := r.expiries[0]
		if deadline := e.deadline(); deadline > now {
			r.expiries.move(e, deadline)
			continue
		}
		r.takeOut(e, &Event{Kind: Expired, Actor: "discovery"})
		expired = append(expired, e.host)
	}
	return expired, true
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
		r.empties.Remove(first)
		delete(r.services, s.name)
		r.metrics.services.Set(float64(len(r.services)))
		r.tell(s)
		forgotten = append(forgotten, s.name)
	}
	return forgotten
}
