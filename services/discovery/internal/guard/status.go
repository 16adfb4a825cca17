package guard

import "time"

// Notice says once, for a log, that a guard began or ceased to act.
type Notice struct {
	// What is the name of a Reason, or of a Cause if Suspends.
	What     string
	Suspends bool
	Detail   string
	Ended    bool
	// Lasted is how long it acted, and Most how many hosts were held at once,
	// of one that Ended.
	Lasted time.Duration
	Most   int
}

// Notices returns what happened since it was last called, in order.
func (g *Guard) Notices() []Notice {
	taken := g.notices
	g.notices = nil
	return taken
}

// Status is what a guard does at one moment.
type Status struct {
	Limits Limits
	// Suspensions are those that are not over yet, by Cause.
	Suspensions []Suspension
	// Acts are the guards that hold hosts, by Reason.
	Acts []Act
	// Gone is how many hosts expired within their TTL before now.
	Gone int
	// BeatsPerSecond come in, and UsualBeatsPerSecond would be expected.
	BeatsPerSecond, UsualBeatsPerSecond float64
	// LiftedBy last lifted the guards, at LiftedAt; empty if nobody did, or if the
	// Store was away since.
	LiftedBy, LiftReason string
	LiftedAt             time.Duration
}

// Suspension is that no host goes.
type Suspension struct {
	Cause  Cause
	Detail string
	Since  time.Duration
	// Lasting says that the trouble is not over. If it is, hosts have their TTL
	// to be heard of, the last of them until Until.
	Lasting bool
	Until   time.Duration
}

// Act is a guard that holds hosts.
type Act struct {
	Reason Reason
	Detail string
	Since  time.Duration
	// Held is how many hosts it holds now, Most how many it did at once.
	Held, Most int
}

// Status returns what the guard does now. The slices are the caller's.
func (g *Guard) Status(now time.Duration) Status {
	g.window.advance(now)
	status := Status{
		Limits: g.limits, Gone: g.window.all(),
		BeatsPerSecond: g.beats.recent, UsualBeatsPerSecond: g.beats.expected(),
		LiftedBy: g.lift.by, LiftReason: g.lift.reason, LiftedAt: g.lift.at,
	}
	for _, c := range Causes {
		if s := g.suspensions[c]; s.active {
			if c == BeatsLost && s.lasting {
				s.detail += "; " + g.beats.lasting(g.limits.BeatLoss)
			}
			status.Suspensions = append(status.Suspensions, Suspension{Cause: c, Detail: s.detail, Since: s.since, Lasting: s.lasting, Until: s.until})
		}
	}
	for _, why := range Reasons {
		if a := g.acts[why]; g.held[why] > 0 {
			status.Acts = append(status.Acts, Act{Reason: why, Detail: a.detail, Since: a.since, Held: g.held[why], Most: a.most})
		}
	}
	return status
}

// Held is how many hosts are held for a reason.
func (g *Guard) Held(why Reason) int { return g.held[why] }

// Suspended says whether a cause keeps all hosts.
func (g *Guard) Suspended(c Cause) bool { return g.suspensions[c].active }
