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
	if late > shortestPause {
		r.renew(guard.Paused, fmt.Sprintf("this process stood still, or waited for its store, for %v", late), now)
	}
	if jump := r.wall.set(now); jump.Abs() > longestJump {
		r.renew(guard.ClockJumped, fmt.Sprintf("the wall clock was set by %v", jump), now)
	}
	if r.leaving == 0 {
		r.storeAnswers(expiring, now) // nothing is left to ask it
	}
	if r.guard.Tick(beats, len(r.leases)-r.away, now) {
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
// The queue finds out by itself, when it comes to an entry. r.mu must be held.
func (r *Registry) renew(c guard.Cause, detail string, now time.Duration) {
	var longest time.Duration
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
}

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
		Hosts:   len(s.hosts) - s.leaving - s.away,
		All:     len(r.leases) - r.leaving - r.away,
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
	r.happened(&Event{At: time.Now(), Kind: HeldStale, Service: s.name, ID: e.host.ID, Actor: sweeper, Detail: why.String()})
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

// expiredElsewhere counts a host as gone that another replica let go. r.mu must be
// held.
func (r *Registry) expiredElsewhere(e *entry) {
	if e.leaving {
		delete(r.counted, e) // it counts already
		return
	}
	r.guard.Went(e.host.Service, e.host.TTL, time.Since(r.born))
}

// setAway says whether e is expected to be away, by a Maintenance setting. Then
// it does not expire and does not count, and afterwards has its TTL to come back.
// r.mu must be held.
func (r *Registry) setAway(e *entry, away bool) {
	if e.away == away {
		return
	}
	e.away = away
	s := r.services[e.host.Service]
	if !away {
		s.away--
		r.away--
		e.heldFrom = time.Since(r.born)
		e.heardFrom = e.heldFrom
		return
	}
	s.away++
	r.away++
	if r.release(e) {
		r.tell(s)
	}
}

// isAway says whether a Maintenance setting holds for a host. r.mu must be held.
func (r *Registry) isAway(h *Host) bool {
	return len(r.settings) > 0 && r.settingOf(Maintenance, h) != nil
}

// maintained sets anew which hosts of a scope are away. r.mu must be held.
func (r *Registry) maintained(scope Scope) {
	for _, s := range r.inScope(scope) {
		for _, e := range s.hosts {
			r.setAway(e, r.isAway(e.host))
		}
	}
}

// GuardStatus is what keeps dead hosts from going, at one moment.
type GuardStatus struct {
	Limits guard.Limits
	// Suspensions are for what no host goes; Holds are why single hosts do not.
	// The slices are the reader's.
	Suspensions []GuardSuspension
	Holds       []GuardHold
	// Stale is how many hosts are held in all, Leaving how many the Store is
	// asked to let go, and Gone how many went within their TTL before now.
	Stale, Leaving, Gone int
	// BeatsPerSecond come in, and UsualBeatsPerSecond would be expected.
	BeatsPerSecond, UsualBeatsPerSecond float64
	// LiftedBy last lifted the guards; empty if nobody did.
	LiftedBy, LiftReason string
	LiftedAt             time.Time
}

// GuardSuspension is that no host goes.
type GuardSuspension struct {
	// Cause is one of guard.Causes, and Detail says more, for people.
	Cause, Detail string
	Since         time.Time
	// Lasting says that the trouble is not over. If it is, hosts have their TTL
	// to be heard of, the last of them until Until.
	Lasting bool
	Until   time.Time
}

// GuardHold is that a guard holds single hosts.
type GuardHold struct {
	// Reason is one of guard.Reasons; Detail tells of the first host that it
	// held.
	Reason, Detail string
	Since          time.Time
	// Hosts is how many are held now, Most how many were at once.
	Hosts, Most int
}

// Guard returns what keeps dead hosts from going now.
func (r *Registry) Guard() GuardStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.guard.Status(time.Since(r.born))
	status := GuardStatus{
		Limits: s.Limits, Leaving: r.leaving, Gone: s.Gone,
		BeatsPerSecond: s.BeatsPerSecond, UsualBeatsPerSecond: s.UsualBeatsPerSecond,
		LiftedBy: s.LiftedBy, LiftReason: s.LiftReason,
	}
	if s.LiftedBy != "" {
		status.LiftedAt = r.wall.at(s.LiftedAt)
	}
	for _, one := range s.Suspensions {
		suspension := GuardSuspension{Cause: one.Cause.String(), Detail: one.Detail, Since: r.wall.at(one.Since), Lasting: one.Lasting}
		if !one.Lasting {
			suspension.Until = r.wall.at(one.Until)
		}
		status.Suspensions = append(status.Suspensions, suspension)
	}
	for _, one := range s.Acts {
		status.Holds = append(status.Holds, GuardHold{Reason: one.Reason.String(), Detail: one.Detail, Since: r.wall.at(one.Since), Hosts: one.Held, Most: one.Most})
		status.Stale += one.Held
	}
	return status
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
