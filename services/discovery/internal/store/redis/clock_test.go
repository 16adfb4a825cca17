package redis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A reading says that Redis' clock was at some time between two of this machine's.
// Here those are in ms since the first, and the clock of Redis is ahead by 1,000 s.
func TestAClockIsAsCloseAsTheReadingsThatItMayComeOf(t *testing.T) {
	type reading struct{ asked, answered, redis int }
	const ahead = 1_000_000
	exact := reading{0, 2, ahead + 1}
	for name, c := range map[string]struct {
		readings         []reading
		at               int // when the clock is asked
		earliest, latest int // what it says, in µs since Redis' was at ahead
	}{
		"one reading":                         {[]reading{exact}, 2, 1000, 3000},
		"of a time before it":                 {[]reading{exact}, -10, -11000, -9000},
		"of a time after it":                  {[]reading{exact}, 12, 11000, 13000},
		"one that took long tells less":       {[]reading{exact, {10, 910, ahead + 905}}, 910, 909_000 - 908, 911_000 + 908},
		"one that took no longer tells more":  {[]reading{{0, 900, ahead + 1}, {1000, 1002, ahead + 1001}}, 1002, 1001000, 1003000},
		"two that each know something":        {[]reading{{0, 10, ahead}, {10, 20, ahead + 20}}, 20, 20000, 20010},
		"a clock that was set":                {[]reading{exact, {10, 12, ahead + 60_011}}, 12, 60_011_000, 60_013_000},
		"a clock that was set back":           {[]reading{exact, {10, 12, ahead - 60_000}}, 12, -60_000_000, -59_998_000},
		"one that a clock runs away from":     {[]reading{exact, {100_000, 100_002, ahead + 100_101}}, 100_002, 100_101_000, 100_101_000 + 2000},
		"one that comes after a later one":    {[]reading{{100, 102, ahead + 101}, exact}, 102, 101_000, 103_000},
		"one that does, and knows more":       {[]reading{{100, 1000, ahead + 105}, exact}, 1000, 999_000 - 998, 1_001_000 + 998},
		"one of before a clock was set":       {[]reading{{100, 102, ahead + 60_101}, exact}, 102, 60_101_000, 60_103_000},
		"a reading of a clock that was set":   {[]reading{exact, {10, 910, ahead + 700_000}, {1000, 1002, ahead + 700_500}}, 1002, 700_500_000, 700_502_000},
		"one set by less than a reading took": {[]reading{exact, {10, 910, ahead + 600}, {1000, 1002, ahead + 1201}}, 1002, 1_201_000, 1_203_000},
	} {
		t.Run(name, func(t *testing.T) {
			zero := time.Now().Add(-time.Hour)
			at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
			var clock *clock
			for _, r := range c.readings {
				clock = clock.with(at(r.asked), at(r.answered), int64(r.redis)*1000)
			}
			since := at(c.at).Sub(clock.at).Microseconds()
			require.Equal(t, int64(c.earliest), clock.earliest+since-ahead*1000, "at the earliest")
			require.Equal(t, int64(c.latest), clock.latest+since-ahead*1000, "at the latest")
			// What it says, it reads as no earlier than it was.
			latest := clock.latestAt(at(c.at))
			require.InDelta(t, clock.latest+since, latest, 1)
			require.InDelta(t, clock.earliest+since, clock.earliestAt(at(c.at)), 1)
			require.False(t, clock.read(latest).Before(at(c.at)))
		})
	}
}
