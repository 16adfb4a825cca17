package v2

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// guardJSON is what keeps dead hosts from going, at one moment.
type guardJSON struct {
	Suspensions         []suspensionJSON `json:"suspensions"`
	Holds               []holdJSON       `json:"holds"`
	Stale               int              `json:"stale"`
	Leaving             int              `json:"leaving"`
	Gone                int              `json:"gone"`
	BeatsPerSecond      float64          `json:"beats_per_second"`
	UsualBeatsPerSecond float64          `json:"usual_beats_per_second"`
	Lifted              *liftJSON        `json:"lifted,omitempty"`
	Limits              limitsJSON       `json:"limits"`
}

type suspensionJSON struct {
	Cause   string `json:"cause"`
	Detail  string `json:"detail"`
	Since   string `json:"since"`
	Lasting bool   `json:"lasting"`
	Until   string `json:"until,omitempty"`
}

type holdJSON struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Since  string `json:"since"`
	Hosts  int    `json:"hosts"`
	Most   int    `json:"most"`
}

type liftJSON struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	At     string `json:"at"`
}

// limitsJSON is how careful the guard is. LastHost is nil for a last host that
// stays until the ceiling, of which guard.Limits knows by a number below 0.
type limitsJSON struct {
	ServiceShare float64  `json:"service_share"`
	GlobalShare  float64  `json:"global_share"`
	GlobalLeast  int      `json:"global_least"`
	LastHost     *float64 `json:"last_host,omitempty"`
	Ceiling      string   `json:"ceiling"`
	BeatLoss     float64  `json:"beat_loss"`
	BeatLeast    int      `json:"beat_least"`
	ReplicaLoss  string   `json:"replica_loss"`
}

// guard answers with what keeps dead hosts from going.
func (f *face) guard(w http.ResponseWriter, r *http.Request) (int, error) {
	if err := call.ReadQuery(r).End(); err != nil {
		return 0, err
	}
	if err := f.checkLoaded(); err != nil {
		return 0, err
	}
	return httpjson.Answer(w, http.StatusOK, showGuard(f.registry.Guard()))
}

func showGuard(s registry.GuardStatus) guardJSON {
	shown := guardJSON{
		Suspensions: make([]suspensionJSON, len(s.Suspensions)), Holds: make([]holdJSON, len(s.Holds)),
		Stale: s.Stale, Leaving: s.Leaving, Gone: s.Gone,
		BeatsPerSecond: s.BeatsPerSecond, UsualBeatsPerSecond: s.UsualBeatsPerSecond,
		Limits: limitsJSON{
			ServiceShare: s.Limits.ServiceShare, GlobalShare: s.Limits.GlobalShare, GlobalLeast: s.Limits.GlobalLeast,
			Ceiling: s.Limits.Ceiling.String(), BeatLoss: s.Limits.BeatLoss, BeatLeast: s.Limits.BeatLeast,
			ReplicaLoss: s.Limits.ReplicaLoss.String(),
		},
	}
	if s.Limits.LastHost >= 0 {
		shown.Limits.LastHost = new(s.Limits.LastHost)
	}
	for i, one := range s.Suspensions {
		shown.Suspensions[i] = suspensionJSON{Cause: one.Cause, Detail: one.Detail, Since: stamp(one.Since), Lasting: one.Lasting}
		if !one.Lasting {
			shown.Suspensions[i].Until = stamp(one.Until)
		}
	}
	for i, one := range s.Holds {
		shown.Holds[i] = holdJSON{one.Reason, one.Detail, stamp(one.Since), one.Hosts, one.Most}
	}
	if s.LiftedBy != "" {
		shown.Lifted = &liftJSON{s.LiftedBy, s.LiftReason, stamp(s.LiftedAt)}
	}
	return shown
}

// liftGuard lets the hosts go that the guard holds: an operator knows that they
// are dead.
func (f *face) liftGuard(w http.ResponseWriter, r *http.Request) (int, error) {
	caller := auth.FromContext(r.Context())
	if err := caller.MayOperate(); err != nil {
		return 0, err
	}
	q := call.ReadQuery(r)
	reason, given := q.Checked("reason", some(maxReason))
	if !given {
		q.Faults.Add("reason", "missing")
	}
	if err := q.End(); err != nil {
		return 0, err
	}
	if err := f.checkLoaded(); err != nil {
		return 0, err
	}
	f.registry.LiftGuards(caller.Actor(), reason)
	return httpjson.Nothing(w)
}

// checkLoaded is for what the registry would answer before it is loaded too.
func (f *face) checkLoaded() error {
	select {
	case <-f.registry.Loaded():
		return nil
	default:
		return registry.ErrNotLoaded
	}
}
