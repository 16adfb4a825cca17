package guard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fleet is hosts that beat towards a guard.
type fleet struct {
	g        *Guard
	now      time.Duration
	known    int           // hosts that are registered
	beating  int           // of which so many beat
	interval time.Duration // of each
	inStep   bool          // all beat in the same moment

	lost, back []time.Duration // when the guard found so
}

// run lets some time pass in ticks of half a second.
func (f *fleet) run(d time.Duration) {
	const tick = time.Second / 2
	for end := f.now + d; f.now < end; {
		f.now += tick
		was := f.g.suspensions[BeatsLost].lasting
		if f.g.Tick(f.beats(tick), f.known, f.now) {
			f.back = append(f.back, f.now)
			f.g.Resume(BeatsLost, "", f.now, f.now)
		} else if !was && f.g.suspensions[BeatsLost].lasting {
			f.lost = append(f.lost, f.now)
		}
	}
}

// beats is how many came in during the last tick.
func (f *fleet) beats(tick time.Duration) int {
	if f.inStep {
		return f.beating * (int(f.now/f.interval) - int((f.now-tick)/f.interval))
	}
	through := func(at time.Duration) int { return int(float64(f.beating) * at.Seconds() / f.interval.Seconds()) }
	return through(f.now) - through(f.now-tick)
}

func TestBeatsThatAreLostAreFoundBeforeHostsDieOfIt(t *testing.T) {
	for name, f := range map[string]fleet{
		"beats each second":              {known: 1000, interval: time.Second},
		"beats each ten seconds":         {known: 100, interval: 10 * time.Second},
		"a hundred thousand":             {known: 100_000, interval: 10 * time.Second},
		"ten hosts":                      {known: 10, interval: 2 * time.Second},
		"two hosts":                      {known: 2, interval: 2 * time.Second},
		"two hosts in step":              {known: 2, interval: 10 * time.Second, inStep: true},
		"three hosts, beats of minutes":  {known: 3, interval: 200 * time.Second},
		"beats in step":                  {known: 100, interval: 10 * time.Second, inStep: true},
		"beats of minutes, also in step": {known: 100, interval: 200 * time.Second, inStep: true},
	} {
		t.Run(name, func(t *testing.T) {
			f.g, f.beating = New(usual), f.known
			f.run(30*time.Minute + 20*f.interval)
			require.Empty(t, f.lost)
			f.beating = 0
			if f.inStep { // with a TTL of three intervals, and all have just beaten
				f.run(3*f.interval - time.Second)
			} else { // some were about to
				f.run(max(5*f.interval/2, 4*time.Second))
			}
			require.Len(t, f.lost, 1)
			f.run(time.Hour)
			require.Empty(t, f.back, "silence never becomes usual")
			f.beating = f.known
			f.run(max(3*f.interval, 10*time.Second))
			require.Len(t, f.back, 1)
			f.run(20 * f.interval)
			require.Len(t, f.lost, 1)
		})
	}
}

// A few hosts of many are rather dead.
func TestHalfOfASmallFleetThatDiesGoesInTheEnd(t *testing.T) {
	for name, f := range map[string]*fleet{
		"ten":         {known: 10, interval: 2 * time.Second},
		"ten in step": {known: 10, interval: 10 * time.Second, inStep: true},
		"two":         {known: 2, interval: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f.g, f.beating = New(usual), f.known
			f.run(30 * time.Minute)
			f.beating = f.known / 2
			f.run(15 * time.Minute)
			require.Len(t, f.back, len(f.lost), "no loss lasts")
			was := len(f.lost)
			f.run(time.Hour)
			require.Len(t, f.lost, was, "fewer are usual now")
		})
	}
}

func TestTheReasonOfALossSaysWhatIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		known, beating int
		interval, lost time.Duration
		want           string
	}{
		"most are": {10_000, 1000, 4 * time.Second, 20 * time.Second,
			"over 8.16 seconds 1196 beats a second came in where 2448 are usual for 10000 hosts; now 442 come in where 2355 are usual, and 1472 end it"},
		"all are": {4, 0, 4 * time.Second, time.Minute,
			"no beat came in for 9 seconds where 0.971 a second are usual for 4 hosts; now 0.0007 come in where 0.819 are usual, and 0.512 end it"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{g: New(usual), known: test.known, beating: test.known, interval: test.interval}
			f.run(20 * time.Minute)
			f.beating = test.beating
			f.run(test.lost)
			require.Len(t, f.lost, 1)
			require.Equal(t, test.want, f.g.Status(f.now).Suspensions[0].Detail)
		})
	}
}

func TestPlainNumbers(t *testing.T) {
	for x, want := range map[float64]string{1550: "1550", 230.4: "230", 14.39: "14.4", 0.0151: "0.0151", 1e-9: "0", 99.97: "100"} {
		require.Equal(t, want, plain(x))
	}
}

func TestALesserNumberOfBeatsBecomesUsual(t *testing.T) {
	f := &fleet{g: New(usual), known: 1000, beating: 1000, interval: 10 * time.Second}
	f.run(20 * time.Minute)
	f.beating = 400
	f.run(2 * time.Minute)
	require.Len(t, f.lost, 1)
	require.Contains(t, f.g.Status(f.now).Suspensions[0].Detail, "for 1000 hosts")
	f.run(8 * time.Minute)
	require.Len(t, f.back, 1)
	f.run(time.Hour)
	require.Len(t, f.lost, 1)
}

func TestWhatIsNoLossOfBeats(t *testing.T) {
	for name, test := range map[string]struct {
		limits Limits
		known  int
		then   func(*fleet)
	}{
		"hosts deregister":            {usual, 1000, func(f *fleet) { f.known, f.beating = 10, 10 }},
		"all deregister":              {usual, 1000, func(f *fleet) { f.known, f.beating = 0, 0 }},
		"half of them die":            {usual, 1000, func(f *fleet) { f.beating = 510 }},
		"too few to judge by":         {usual, 4, func(f *fleet) { f.beating = 1 }},
		"the only host dies":          {usual, 1, func(f *fleet) { f.beating = 0 }},
		"others come, beat elsewhere": {usual, 1000, func(f *fleet) { f.known = 100_000 }},
		"turned off":                  {Limits{}, 1000, func(f *fleet) { f.beating = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{g: New(test.limits), known: test.known, beating: test.known, interval: 10 * time.Second}
			f.run(10 * time.Minute)
			test.then(f)
			f.run(time.Hour)
			require.Empty(t, f.lost)
		})
	}
}

func TestAHostThatLeftTakesItsShareOfTheUsualBeats(t *testing.T) {
	f := &fleet{g: New(usual), known: 100, beating: 100, interval: 10 * time.Second}
	f.g.Left(10, time.Second) // nothing is usual yet
	f.run(30 * time.Minute)
	f.g.Left(900, 30*time.Minute) // half a beat a second
	require.InDelta(t, 9.5, f.g.beats.usual, 0.1)
	f.g.Left(3, 3*time.Second) // it came just now
	require.InDelta(t, 9.5, f.g.beats.usual, 0.1)
	f.g.Left(1_000_000, 30*time.Minute)
	require.Zero(t, f.g.beats.usual)
	f.run(time.Hour)
	require.Empty(t, f.lost)
}

func TestAPauseIsNoLossOfBeats(t *testing.T) {
	f := &fleet{g: New(usual), known: 1000, beating: 1000, interval: 10 * time.Second}
	f.run(10 * time.Minute)
	f.now += time.Hour
	f.g.Resume(Paused, "", f.now, f.now)
	f.run(10 * time.Minute)
	require.Empty(t, f.lost)
}

func TestALiftTakesLostBeatsForUsual(t *testing.T) {
	f := &fleet{g: New(usual), known: 1000, beating: 1000, interval: 10 * time.Second}
	f.run(10 * time.Minute)
	f.beating = 10
	f.run(time.Minute)
	require.Len(t, f.lost, 1)
	f.g.Lift("ann", "", f.now)
	f.run(time.Hour)
	require.Len(t, f.lost, 1)
}
