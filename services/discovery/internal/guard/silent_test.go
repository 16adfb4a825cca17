package guard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASilentReplicaSuspendsExpiryUntilItIsBackOrForItsLimit(t *testing.T) {
	const second = time.Second
	limits := usual
	limits.ReplicaLoss = time.Minute
	lost := Replica{ID: "1", Name: "d-1", Since: 20 * second}
	for name, test := range map[string]struct {
		limits Limits
		then   func(*Guard)
		now    time.Duration
		missed bool
	}{
		"it is silent":           {limits, func(*Guard) {}, 30 * second, true},
		"for its limit":          {limits, func(*Guard) {}, 80*second - 1, true},
		"for longer":             {limits, func(*Guard) {}, 80 * second, false},
		"it is back":             {limits, func(g *Guard) { g.FellSilent(nil) }, 30 * second, false},
		"another one is silent":  {limits, func(g *Guard) { g.FellSilent([]Replica{{ID: "2", Since: 25 * second}}) }, 80 * second, true},
		"turned off":             {usual, func(*Guard) {}, 30 * second, false},
		"an operator lifts that": {limits, func(g *Guard) { g.Lift("ann", "", 25*second); g.FellSilent([]Replica{lost}) }, 30 * second, false},
		"one falls silent after the lift": {limits, func(g *Guard) {
			g.Lift("ann", "", 25*second)
			g.FellSilent([]Replica{lost, {ID: "2", Since: 26 * second}})
		}, 30 * second, true},
		"it falls silent once more after the lift": {limits, func(g *Guard) {
			g.Lift("ann", "", 25*second)
			g.FellSilent(nil)
			g.FellSilent([]Replica{lost})
		}, 30 * second, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(test.limits)
			g.FellSilent([]Replica{lost})
			require.False(t, g.MissReplicas(22*second))
			was := g.Suspended(ReplicaLost)
			test.then(g)
			was = was && g.Suspended(ReplicaLost)
			back := g.MissReplicas(test.now)
			require.Equal(t, was && !test.missed, back)
			if back {
				g.Resume(ReplicaLost, "", test.now, test.now)
			}
			held := g.Judge(dead, test.now).Held
			if test.missed {
				require.Equal(t, Suspended, held)
				require.Contains(t, g.Status(test.now).Suspensions[0].Detail, "replica")
			} else {
				require.Equal(t, Free, held)
			}
		})
	}
}

func TestTheCeilingIsAboveASilentReplica(t *testing.T) {
	limits := usual
	limits.ReplicaLoss = 24 * time.Hour
	g := New(limits)
	g.FellSilent([]Replica{{ID: "1"}})
	g.MissReplicas(time.Second)
	require.Equal(t, Suspended, g.Judge(dead, time.Hour).Held)
	require.Equal(t, Free, g.Judge(dead, time.Hour+dead.TTL).Held)
}
