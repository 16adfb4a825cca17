// Package guard says whether a dead host may go now. Many hosts that fall
// silent at once are rather a sign of trouble between them and this process
// than of their death, so guard lets them go a share at a time, keeps the last
// host of a service longer, and lets none go while this process cannot trust
// what it hears. It is a pure rule: it starts no goroutine, reads no clock, knows
// no registry, and is called by one under the registry's lock. It is not asked
// of hosts that go at their own wish.
//
// All times are on one clock that never goes back, such as the time since the
// process began.
package guard

import (
	"fmt"
	"time"
)

// Limits is how careful a Guard is. The zero value of a field turns its guard
// off.
type Limits struct {
	// ServiceShare is which share of a service's hosts go within one TTL at
	// most; one always may. 0 to 1.
	ServiceShare float64
	// GlobalShare is the same of all hosts, where GlobalLeast always may: three
	// hosts of five are not a mass.
	GlobalShare float64
	GlobalLeast int
	// LastHost is how many TTLs after its last beat the last host of a service
	// goes, rather than one. Below 0 keeps it until Ceiling.
	LastHost float64
	// Ceiling is how long after its TTL a host goes whatever guards say; but for
	// a Store that is away, see Guard.Judge.
	Ceiling time.Duration
	// BeatLoss is which share of the usual beats must come in: with fewer,
	// no host goes. 0 to 1. Less than BeatLeast expected beats are no ground to
	// judge by, but where none comes in of several hosts.
	BeatLoss  float64
	BeatLeast int
	// ReplicaLoss is for how long no host goes because a replica fell silent.
	ReplicaLoss time.Duration
}

// Reason is why a host is held.
type Reason uint8

// The reasons. One host is held for one of them, the first that applies.
const (
	// Free is of a host that is not held.
	Free Reason = iota
	// Suspended holds all hosts, for a Cause.
	Suspended
	LastHost
	ServiceShare
	GlobalShare
	// InStore is of a host that may go, but that the Store does not let go of:
	// another process keeps it, or it cannot be asked.
	InStore

	reasons = iota
)

// Reasons are all for which a host is held.
var Reasons = [...]Reason{Suspended, LastHost, ServiceShare, GlobalShare, InStore}

// String is the reason as metrics, JSON and logs name it.
func (r Reason) String() string {
	return [...]string{"free", "suspended", "last_host", "service_share", "global_share", "in_store"}[r]
}

// Guard holds what went lately and what is held. Its methods must not be called
// at the same time.
type Guard struct {
	limits Limits
	window window
	beats  beatRate
	silent silent

	held        [reasons]int // that of Free means nothing
	acts        [reasons]act
	suspensions [causes]suspension

	lift    lift
	notices []Notice
}

// act is a guard of one Reason that acts: it holds hosts, or did at the last
// tick.
type act struct {
	acting bool
	since  time.Duration
	detail string
	most   int // hosts held at once
}

// lift is when an operator last lifted the guards.
type lift struct {
	by, reason string // by is empty if nobody did
	at         time.Duration
}

// New returns a guard that nothing was told yet.
func New(limits Limits) *Guard {
	return &Guard{limits: limits, window: newWindow()}
}

// Host is a host that did not beat for its TTL.
type Host struct {
	Service string
	// Hosts is how many the service has now, and All how many there are: this
	// one included; those that may already go, and those that are expected to
	// be away, are not.
	Hosts, All int
	TTL        time.Duration
	// Silent is since when nothing was heard of it that would have been: its
	// last beat, or when this process came to hear the beats of all. From is when
	// its TTL began to run: then, or when it began anew since.
	Silent, From time.Duration
	// Draining says that it was about to go.
	Draining bool
	// Held is what was last said of it: Free at first.
	Held Reason
}

// Verdict is what becomes of a Host.
type Verdict struct {
	// Held is why it stays; Free when it may go.
	Held Reason
	// Again is when to ask again, if it stays.
	Again time.Duration
}

// Judge says whether h may go now. If so, it counts as gone from now on, for its
// TTL, unless it Stayed. If not, it counts as held until it is judged again or
// released. One that was draining is held by suspensions alone, and does not
// count.
//
// While the Store is away no host goes: the beats of those that beat elsewhere
// come through it, however long that lasts, and it has to agree. Otherwise the
// ceiling is above all guards. It counts from when the host fell silent, whatever
// TTLs began anew since, or else a process that stands still now and then would
// never let go of anything. So it is not above a suspension after the start, nor
// after the Store was away: before, nobody was heard.
func (g *Guard) Judge(h Host, now time.Duration) Verdict {
	g.window.advance(now)
	held, again := g.holds(h, now)
	if held == Free {
		if !h.Draining {
			g.window.add(h.Service, now+h.TTL)
		}
	} else if left, ok := g.ceiling(h, now); ok && left > 0 {
		again = now + min(again-now, left)
	}
	g.held[h.Held]--
	g.hold(held, h, now)
	return Verdict{Held: held, Again: again}
}

// Keep counts a host that was let go as held InStore.
func (g *Guard) Keep(h Host, now time.Duration) { g.hold(InStore, h, now) }

// holds is why h stays, and when that may be otherwise.
func (g *Guard) holds(h Host, now time.Duration) (held Reason, again time.Duration) {
	again = now + Patience(h.TTL)
	if g.suspensions[StoreAway].lasting {
		return Suspended, again
	}
	if g.lift.by != "" && h.Silent+h.TTL <= g.lift.at {
		return Free, 0
	}
	if left, ok := g.ceiling(h, now); ok && left <= 0 {
		return Free, 0
	}
	if begins := h.From + h.TTL; begins > now {
		return Suspended, begins
	}
	if g.suspensions[BeatsLost].lasting || g.suspensions[ReplicaLost].lasting {
		return Suspended, again
	}
	if h.Draining {
		return Free, 0
	}
	if h.Hosts <= 1 && g.limits.LastHost < 0 {
		return LastHost, again
	}
	if left := g.limits.LastHost*float64(h.TTL) - float64(now-h.From); h.Hosts <= 1 && left > 0 {
		return LastHost, now + time.Duration(min(float64(again-now), left))
	}
	if gone := g.window.gone[h.Service]; g.limits.ServiceShare > 0 && gone >= quota(g.limits.ServiceShare, h.Hosts+gone, 1) {
		return ServiceShare, again
	}
	if gone := g.window.all(); g.limits.GlobalShare > 0 && gone >= quota(g.limits.GlobalShare, h.All+gone, g.limits.GlobalLeast) {
		return GlobalShare, again
	}
	return Free, 0
}

// Patience is how long a host with a TTL is held before it is looked at again.
func Patience(ttl time.Duration) time.Duration {
	return min(max(ttl/8, time.Second), 10*time.Second)
}

// quota is how many of some hosts may go: a share of them, and least at least.
func quota(share float64, hosts, least int) int {
	return max(int(share*float64(hosts)), least, 1)
}

// ceiling is for how long h can be held yet, if there is a ceiling.
func (g *Guard) ceiling(h Host, now time.Duration) (left time.Duration, ok bool) {
	return g.limits.Ceiling - (now - h.Silent - h.TTL), g.limits.Ceiling > 0
}

// hold counts h as held for a reason, whose guard begins to act if it did not.
func (g *Guard) hold(why Reason, h Host, now time.Duration) {
	g.held[why]++
	if why == Free {
		return
	}
	a := &g.acts[why]
	if !a.acting {
		*a = act{acting: true, since: now, detail: g.detail(why, h)}
		if why != Suspended { // its cause has been told
			g.notices = append(g.notices, Notice{What: why.String(), Detail: a.detail})
		}
	}
	a.most = max(a.most, g.held[why])
}

// detail says, for people, what was found of the first host that was held for a
// reason.
func (g *Guard) detail(why Reason, h Host) string {
	switch why {
	case LastHost:
		return fmt.Sprintf("the last host of %q is kept for longer than its TTL of %v", h.Service, h.TTL)
	case ServiceShare:
		gone := g.window.gone[h.Service]
		return fmt.Sprintf("%d of %d hosts of %q went within a TTL of %v", gone, h.Hosts+gone, h.Service, h.TTL)
	case GlobalShare:
		return fmt.Sprintf("%d of all %d hosts went within their TTL", g.window.all(), h.All+g.window.all())
	case InStore:
		return fmt.Sprintf("a host of %q may go, but the store does not let go of it", h.Service)
	default: // of Suspended its cause tells
		return ""
	}
}

// Release says that a host that was held for a reason is so no more: it beat, or
// went without being judged.
func (g *Guard) Release(held Reason) { g.held[held]-- }

// Stayed says that a host did not go which Judge let go: it was heard of after all.
// ends is when it would have ceased to count as gone, its TTL after it was judged.
func (g *Guard) Stayed(service string, ends time.Duration) { g.window.takeBack(service, ends) }

// Went says that a host expired without being judged here: another process let
// it go.
func (g *Guard) Went(service string, ttl, now time.Duration) {
	g.window.advance(now)
	g.window.add(service, now+ttl)
}

// Left says that a host went at its own wish, of which so many beats were told
// in the time that it was there: its share of the beats is usual no more.
func (g *Guard) Left(beats int, there time.Duration) {
	if there > 0 {
		g.beats.leave(float64(beats)/there.Seconds(), there)
	}
}

// Lift lets all hosts go that are past their TTL now, whatever guards say, and
// ends all suspensions but that of a Store that is away, which is a fact. by is
// not empty. The registry takes back that TTLs began anew, and has its hosts
// judged again.
func (g *Guard) Lift(by, reason string, now time.Duration) {
	g.lift = lift{by: by, reason: reason, at: now}
	g.beats.forget()
	g.silent.forgive()
	for c := range g.suspensions {
		if Cause(c) != StoreAway {
			g.end(Cause(c), now)
		}
	}
}
