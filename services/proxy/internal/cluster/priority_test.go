package cluster

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// of makes levels of 100 hosts each, of which so many are healthy.
func of(healthy ...int) []level {
	var levels []level
	for _, n := range healthy {
		levels = append(levels, level{hosts: 100, healthy: n})
	}
	return levels
}

// share is what each priority gets for its healthy and its degraded hosts, and
// whether it panics.
type share struct {
	healthy, degraded uint32
	panic             bool
}

func TestLoads(t *testing.T) {
	for _, c := range []struct {
		name      string
		levels    []level
		factor    uint32
		threshold uint32
		want      []share
	}{
		// The examples of load alone. Of the last, Envoy's documents say 36, 36 and
		// 28; Envoy 1.40 rounds down and gives the first the rest.
		{"72 %", of(72, 100), 140, 50, []share{{100, 0, false}, {}}},
		{"71 %", of(71, 100), 140, 50, []share{{99, 0, false}, {1, 0, false}}},
		{"50 %", of(50, 100), 140, 50, []share{{70, 0, false}, {30, 0, false}}},
		{"25 % and 25 %", of(25, 25), 140, 0, []share{{50, 0, false}, {50, 0, false}}},
		{"three levels", of(25, 25, 20), 140, 0, []share{{37, 0, false}, {35, 0, false}, {28, 0, false}}},
		{"nothing in the first", of(0, 100), 140, 50, []share{{}, {100, 0, false}}},
		{"a factor of 100", of(72, 100), 100, 50, []share{{72, 0, false}, {28, 0, false}}},
		{"a factor of 200", of(50, 100), 200, 50, []share{{100, 0, false}, {}}},

		// Panic: below the threshold, and only if all priorities together lack hosts.
		{"enough in the second", of(25, 100), 140, 50, []share{{35, 0, false}, {65, 0, false}}},
		{"one in panic", of(5, 65), 140, 50, []share{{8, 0, true}, {92, 0, false}}},
		{"both in panic", of(25, 25), 140, 50, []share{{50, 0, true}, {50, 0, true}}},
		{"all in panic go by their numbers", []level{{hosts: 30, healthy: 1}, {hosts: 10, healthy: 1}}, 140, 50, []share{{75, 0, true}, {25, 0, true}}},
		{"nobody healthy", of(0, 0, 0), 140, 50, []share{{34, 0, true}, {33, 0, true}, {33, 0, true}}},
		{"just at the threshold", []level{{hosts: 2, healthy: 1}}, 100, 50, []share{{100, 0, false}}},
		{"just below it", []level{{hosts: 100, healthy: 49}}, 100, 50, []share{{100, 0, true}}},
		{"a threshold of its own", []level{{hosts: 100, healthy: 49}}, 100, 40, []share{{100, 0, false}}},
		{"never, although nobody is healthy", of(0, 0), 140, 0, []share{{100, 0, false}, {}}},
		{"a priority without hosts is not the first in panic", []level{{}, {hosts: 10}}, 140, 50, []share{{0, 0, true}, {100, 0, true}}},
		{"no hosts at all", []level{{}}, 140, 50, []share{{100, 0, true}}},

		// Degraded hosts: behind the healthy ones of all priorities.
		{"half degraded", []level{{hosts: 100, healthy: 50, degraded: 50}}, 140, 50, []share{{70, 30, false}}},
		{"healthy ones of a later priority first", []level{{hosts: 100, healthy: 20, degraded: 80}, {hosts: 100, healthy: 40}}, 140, 50,
			[]share{{28, 16, false}, {56, 0, false}}},
		{"none left for the degraded", []level{{hosts: 100, healthy: 20, degraded: 80}, {hosts: 100, healthy: 80}}, 140, 50,
			[]share{{28, 0, false}, {72, 0, false}}},
		{"only degraded", []level{{hosts: 100, degraded: 60}}, 140, 50, []share{{0, 100, false}}},
		{"degraded ones keep panic away", []level{{hosts: 100, healthy: 5, degraded: 46}}, 100, 50, []share{{10, 90, false}}},

		// Excluded hosts count as if they were not there.
		{"half excluded", []level{{hosts: 100, healthy: 50, excluded: 50}, {hosts: 1, healthy: 1}}, 140, 50, []share{{100, 0, false}, {}}},
		{"all excluded", []level{{hosts: 100, excluded: 100}, {hosts: 1, healthy: 1}}, 140, 50, []share{{}, {100, 0, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []share
			for _, l := range loads(c.levels, c.factor, c.threshold) {
				got = append(got, share(l))
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestLoadsMakeAHundredAndGoWhereHostsAre(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		levels := make([]level, 1+random.IntN(5))
		some := false
		for i := range levels {
			l := &levels[i]
			l.hosts = random.IntN(12)
			l.healthy = random.IntN(l.hosts + 1)
			l.degraded = random.IntN(l.hosts - l.healthy + 1)
			l.excluded = random.IntN(l.hosts - l.healthy - l.degraded + 1)
			some = some || l.hosts > 0
		}
		factor, threshold := uint32(1+random.IntN(300)), uint32(random.IntN(101))
		made := loads(levels, factor, threshold)
		sum := uint32(0)
		serving := false
		for i, l := range levels {
			serving = serving || l.healthy+l.degraded > 0 && l.available(max(l.healthy, l.degraded), factor) > 0
			sum += made[i].healthy + made[i].degraded
		}
		require.EqualValues(t, 100, sum, "%+v factor %d threshold %d", levels, factor, threshold)
		for i, l := range levels {
			if made[i].panic {
				require.True(t, made[i].healthy+made[i].degraded == 0 || l.hosts > 0 || !some, "%+v gets requests without hosts: %+v", levels, made)
			} else if serving {
				require.True(t, made[i].healthy == 0 || l.healthy > 0, "%+v gets requests without healthy hosts: %+v", levels, made)
				require.True(t, made[i].degraded == 0 || l.degraded > 0, "%+v gets requests without degraded hosts: %+v", levels, made)
			}
		}
	}
}
