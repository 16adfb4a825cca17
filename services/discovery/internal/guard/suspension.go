package guard

import "time"

// Cause is why no host goes at all.
type Cause uint8

// The causes. After each, hosts have their TTL from its end to be heard of.
const (
	// Started is of a process that did not hear the beats before it began.
	Started Cause = iota
	// Paused is of a process that stood still: beats wait to be read.
	Paused
	// ClockJumped is of a wall clock that was set: what comes from elsewhere with
	// times of it may be judged wrongly.
	ClockJumped
	// StoreAway is of a Store that cannot be reached, or lost its data: beats
	// that others hear are not heard of.
	StoreAway
	// BeatsLost is of most of the usual beats not coming in.
	BeatsLost
	// ReplicaLost is of another process that fell silent and shares the Store: it may
	// hear beats, and cannot tell of them.
	ReplicaLost

	causes = iota
)

// Causes are all of them.
var Causes = [...]Cause{Started, Paused, ClockJumped, StoreAway, BeatsLost, ReplicaLost}

// String is the cause as metrics, JSON and logs name it.
func (c Cause) String() string {
	return [...]string{"started", "paused", "clock_jumped", "store_away", "beats_lost", "replica_lost"}[c]
}

// suspension is what came of one Cause.
type suspension struct {
	active  bool
	lasting bool // the trouble itself
	since   time.Duration
	until   time.Duration // unless lasting, when all hosts have had their TTL
	detail  string
}

// Suspend says that a trouble began: no host goes until Resume says that it is
// over. detail says more, for people.
func (g *Guard) Suspend(c Cause, detail string, now time.Duration) {
	s := &g.suspensions[c]
	if !s.active {
		*s = suspension{active: true, since: now, detail: detail}
		g.notices = append(g.notices, Notice{What: c.String(), Detail: detail, Suspends: true})
	}
	s.lasting = true
}

// Resume says that a trouble is over, or was over at once, and that the registry
// let the TTLs of all hosts begin anew; the last of them ends at until. After
// Started and StoreAway all count as Silent from now at the earliest.
func (g *Guard) Resume(c Cause, detail string, now, until time.Duration) {
	g.Suspend(c, detail, now)
	s := &g.suspensions[c]
	s.lasting, s.until = false, until
	switch c {
	case StoreAway:
		g.lift = lift{} // who lifted did not know of the beats that come in now
	case Paused:
		g.beats.skip(now)
	}
}

// end ends a suspension, if there is one.
func (g *Guard) end(c Cause, now time.Duration) {
	s := &g.suspensions[c]
	if !s.active {
		return
	}
	g.notices = append(g.notices, Notice{What: c.String(), Ended: true, Lasted: now - s.since, Suspends: true})
	*s = suspension{}
}

// Tick is to be called every now and then: with how many beats came in since the
// last tick, and how many hosts there are of which any are expected. recovered
// says that beats come in again which were lost: the registry lets TTLs begin
// anew and says so by Resume.
func (g *Guard) Tick(beats, hosts int, now time.Duration) (recovered bool) {
	g.window.advance(now)
	for c := range g.suspensions {
		if s := &g.suspensions[c]; s.active && !s.lasting && s.until <= now {
			g.end(Cause(c), now)
		}
	}
	for why := range g.acts {
		if a := &g.acts[why]; a.acting && g.held[why] == 0 {
			if Reason(why) != Suspended {
				g.notices = append(g.notices, Notice{What: Reason(why).String(), Ended: true, Lasted: now - a.since, Most: a.most})
			}
			*a = act{}
		}
	}
	if g.suspensions[StoreAway].lasting {
		g.beats.skip(now) // those that others hear do not come
		return false
	}
	g.beats.observe(beats, hosts, now)
	lost := &g.suspensions[BeatsLost].lasting
	switch {
	case !*lost && g.beats.judgeLost(g.limits.BeatLoss, g.limits.BeatLeast):
		g.Suspend(BeatsLost, g.beats.String(), now)
	case *lost && g.beats.judgeBack(g.limits.BeatLoss):
		return true
	}
	return false
}
