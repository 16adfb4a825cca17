package registry

import (
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

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
