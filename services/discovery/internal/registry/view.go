package registry

import "time"

// State says whether a host is to be given work.
type State uint8

const (
	// Serving hosts take work.
	Serving State = iota
	// Draining hosts finish what they have. Readers are still told of them, so
	// that they let go of them in order.
	Draining
	// Out hosts are known and beat, and readers that give work are not told of
	// them.
	Out
)

func (s State) String() string { return [...]string{"serving", "draining", "out"}[s] }

// View is a host as readers see it at one moment.
type View struct {
	Record
	State State
	// Weight is 1 to 100: an operator's, else the host's own; 0 if there is
	// neither.
	Weight uint8
	// Stale says that the host's TTL has passed without a check-in, and that it
	// is still there because a guard holds it.
	Stale bool
	// Unhealthy says that those who check the host say so. It holds on this
	// replica alone, and nothing keeps it.
	Unhealthy bool
}

// TakesWork reports whether the host is one to give work to.
func (v *View) TakesWork() bool { return v.State == Serving && !v.Unhealthy }

// Listing is hosts of one service or repository at one moment. The slice is the
// reader's.
type Listing struct {
	// Hosts are ordered by service, address, ID. They are of every State.
	Hosts []View
	// Known is false for a service that never had hosts, or none for long.
	Known bool
	// EmptySince is since when it has been known of a known service that it has no host;
	// else zero. That is when the last one went, or later: while a Store that others
	// share does not answer, they may have hosts of which nobody can hear.
	EmptySince time.Time
	// Partial says that hosts may be missing, since the registry is not warm. A
	// reader is answered only what is Safe.
	Partial bool
	// Version is a hash of all that Hosts say but for the times of check-ins:
	// equal on every replica that holds the same, and after a restart.
	Version Version
}

// Version is a hash of a Listing. That of no hosts is 0.
type Version uint64
