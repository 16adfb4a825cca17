package registry

import (
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// observe tells the guard what became of this process since the last tick, which
// was so much too late, and logs what the guard began and ceased to do, and what the
// Store was given again.
func (r *Registry) observe(now, late time.Duration) {
	beats := int(r.beats.Swap(0))
	r.mu.Lock()
	r.ticked = now
	if late > shortestPause {
		r.renew(guard.Paused, fmt.Sprintf("this process stood still, or waited for its store, for %v", late), now)
	}
	if jump := r.wall.set(now); jump.Abs() > longestJump {
		r.settingsHeld = now + r.renew(guard.ClockJumped, fmt.Sprintf("the wall clock was set by %v", jump), now)
	}
	if r.leaving == 0 {
		r.storeAnswers(expiring, now) // nothing is left to ask it
	}
	if r.guard.Tick(beats, len(r.leases)-r.away-len(r.lingering), now) {
		r.renew(guard.BeatsLost, "", now)
	}
	r.missReplicas(now)
	r.metrics.watch(r.guard)
	notices := r.guard.Notices()
	restored := r.restored
	r.restored.hosts, r.restored.settings = 0, 0
	r.mu.Unlock()
	if restored.hosts+restored.settings > 0 { // a Store tells by and by what it lost
		r.log.Warn("the store lost data, and is given it again", "hosts", restored.hosts, "settings", restored.settings)
	}
	for _, n := range notices {
		r.tellNotice(n)
	}
}

// tellNotice logs that a guard began or ceased to act, and counts it. A last host
// is kept every day; all else is for operators to look at.
func (r *Registry) tellNotice(n guard.Notice) {
	log := r.log.Warn
	if n.Ended || n.What == guard.LastHost.String() || n.What == guard.Started.String() {
		log = r.log.Info
	}
	switch {
	case n.Ended && n.Suspends:
		log("hosts expire again", "guard", n.What, "after", n.Lasted.String())
	case n.Ended:
		log("a guard holds no host any more", "guard", n.What, "after", n.Lasted.String(), "most_at_once", n.Most)
	case n.Suspends:
		log("no host expires until it has had its TTL to be heard of", "guard", n.What, "because", n.Detail)
	default:
		log("a guard holds dead hosts", "guard", n.What, "because", n.Detail)
	}
	if !n.Ended {
		r.metrics.guardActs.WithLabelValues(n.What).Inc()
	}
}

// renew lets the TTL of every host begin anew, now that a trouble is over. After
// one in which beats were made and not heard, the ceiling counts from now too.
// The queue finds out by itself, when it comes to an entry. It returns the longest
// of these TTLs. r.mu must be held.
func (r *Registry) renew(c guard.Cause, detail string, now time.Duration) (longest time.Duration) {
	for _, e := range r.expiries {
		e.heldFrom = now
		if c == guard.Started || c == guard.StoreAway {
			e.heardFrom = now
		}
		r.stays(e)
		longest = max(longest, e.host.TTL)
	}
	r.guard.Resume(c, detail, now, now+longest)
	if c == guard.StoreAway && r.failing != 0 { // it lost data, and still fails
		r.guard.Suspend(c, detail, now)
	}
	return longest
}

// judge asks the guard about a host whose TTL has passed, and lets it leave if it
// may. r.mu must be held.
func (r *Registry) judge(e *entry, now time.Duration) guard.Verdict {
	h := r.judged(e)
	verdict := r.guard.Judge(h, now)
	if verdict.Held == guard.Free {
		r.leaves(e)
		if !h.Draining {
			r.counted[e] = now + h.TTL
		}
	}
	return verdict
}

// judged is e as the guard sees it. r.mu must be held.
func (r *Registry) judged(e *entry) guard.Host {
	s := r.services[e.host.Service]
	return guard.Host{
		Service: s.name,
		Hosts:   len(s.hosts) - s.leaving - s.away - s.lingering,
		All:     len(r.leases) - r.leaving - r.away - len(r.lingering),
		TTL:     e.host.TTL,
		Silent:  max(time.Duration(e.lastBeat.Load()), e.heardFrom),
		From:    e.since(),
		Held:    e.held,

		Draining: e.host.Draining || len(r.settings) > 0 && r.settingOf(Drain, e.host) != nil,
	}
}

// hold marks e as held, and tells of it if readers did not know. r.mu must be
// held.
func (r *Registry) hold(e *entry, why guard.Reason) {
	e.held = why
	if e.stale {
		return
	}
	e.stale = true
	s := r.services[e.host.Service]
	r.happened(&Event{At: time.Now(), Kind: HeldStale, Service: s.name, ID: e.host.ID, Actor: Itself, Detail: why.String()})
	r.tell(s)
}

// release undoes hold and leaves, and reports whether readers knew that e was held.
// r.mu must be held.
func (r *Registry) release(e *entry) (wasStale bool) {
	r.guard.Release(e.held)
	wasStale = e.stale
	e.held, e.stale = guard.Free, false
	r.stays(e)
	return wasStale
}

// recover is release for a host that was heard of, and tells of it if it was held.
// actor is who said that it lives. r.mu must be held.
func (r *Registry) recover(e *entry, actor string) {
	if !r.release(e) {
		return
	}
	s := r.services[e.host.Service]
	r.happened(&Event{At: time.Now(), Kind: Recovered, Service: s.name, ID: e.host.ID, Actor: actor})
	r.tell(s)
}

// leaves counts e no more among the hosts that are there: it may go. r.mu must
// be held.
func (r *Registry) leaves(e *entry) {
	e.leaving, e.held = true, guard.Free
	r.services[e.host.Service].leaving++
	r.leaving++
}

// stays undoes leaves, if it was: the guard counts e as gone no more, unless it
// went. r.mu must be held.
func (r *Registry) stays(e *entry) {
	if !e.leaving {
		return
	}
	if ends, counts := r.counted[e]; counts {
		r.guard.Stayed(e.host.Service, ends)
		delete(r.counted, e)
	}
	e.leaving, e.refusals = false, 0
	r.services[e.host.Service].leaving--
	r.leaving--
}

// deregistered has the guard expect no more beats of e, which is about to go at
// its own wish, or with its connection. One that has long been silent has no share
// in what is usual. r.mu must be held.
func (r *Registry) deregistered(e *entry) {
	now := time.Since(r.born)
	if e.away || e.deadline() <= now+e.host.TTL/2 {
		return
	}
	there := min(now-r.wall.of(e.firstSeen.Time()), now)
	r.guard.Left(int(e.counted.Load()), there)
}

// expiredElsewhere counts a host as gone that another replica let go. r.mu must be
// held.
func (r *Registry) expiredElsewhere(e *entry) {
	if e.leaving {
		delete(r.counted, e) // it counts already
		return
	}
	r.guard.Went(e.host.Service, e.host.TTL, time.Since(r.born))
}

// LiftGuards lets all hosts go that are dead now, at the next sweep: an operator,
// the actor, knows that they are. Suspensions end, but not that of a Store that
// is away.
func (r *Registry) LiftGuards(actor, reason string) {
	r.mu.Lock()
	now := time.Since(r.born)
	r.guard.Lift(actor, reason, now)
	for _, e := range r.expiries {
		e.heldFrom = time.Duration(e.lastBeat.Load())
		e.heardFrom = e.heldFrom
	}
	held := r.expiries.hasten(now)
	r.mu.Unlock()
	r.metrics.guardLifts.Inc()
	r.log.Warn("guards lifted: the hosts that they held go", "by", actor, "reason", reason, "hosts", held)
}
