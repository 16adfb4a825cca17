package healthcheck

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Results of one letter, and the health after each: H healthy, F failed; a
// small letter while the change of it is pending.
func TestThresholds(t *testing.T) {
	letters := map[rune]result{
		'p': {verdict: passed}, 'f': {verdict: failed}, 'r': {verdict: retriable}, 'n': {verdict: network}, 't': {verdict: timedOut},
		's': {verdict: passive},
	}
	for _, c := range []struct{ name, results, want string }{
		{"the first pass counts at once", "p", "H"},
		{"the first failure too", "n", "F"},
		{"a failed host needs two passes", "npp", "FfH"},
		{"in a row", "npnpp", "FfFfH"},
		{"a healthy one needs three failures of the network", "pnnn", "HhhF"},
		{"in a row, of any of the kinds that have a threshold", "pntpnrt", "HhhHhhF"},
		{"a bad answer counts at once", "pf", "HF"},
		{"so does a passive failure", "ps", "HF"},
		{"and begins the passes anew", "npspp", "FfFfH"},
		{"a failure beyond the threshold changes nothing", "nfnf", "FFFF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := progress{health: Initial}
			config := &Config{HealthyThreshold: 2, UnhealthyThreshold: 3}
			got := ""
			for _, letter := range c.results {
				step := p.record(letters[letter], config)
				state := map[bool]string{true: "F", false: "H"}[p.health.Failed]
				if step == changePending {
					state = strings.ToLower(state)
				}
				got += state
				require.False(t, p.health.Pending)
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestFlags(t *testing.T) {
	p := progress{health: Initial}
	config := &Config{HealthyThreshold: 2, UnhealthyThreshold: 2}
	for i, c := range []struct {
		result result
		step   step
		want   Health
	}{
		{result{verdict: timedOut}, changed, Health{Failed: true, TimedOut: true}},
		{result{verdict: network}, unchanged, Health{Failed: true}},
		{result{verdict: passed}, changePending, Health{Failed: true}},
		{result{verdict: passed}, changed, Health{}},
		{result{verdict: timedOut}, changePending, Health{TimedOut: true}},
		{result{verdict: passed}, unchanged, Health{}},
		{result{verdict: passive, excluded: true}, changed, Health{Failed: true, Excluded: true}},
		{result{verdict: network}, unchanged, Health{Failed: true, Excluded: true}},
		{result{verdict: passed}, changePending, Health{Failed: true, Excluded: true}},
		{result{verdict: passed}, changed, Health{}},
	} {
		require.Equal(t, c.step, p.record(c.result, config), i)
		require.Equal(t, c.want, p.health, i)
	}
}

func TestWait(t *testing.T) {
	c := &Config{
		Interval: 1, UnhealthyInterval: 2, UnhealthyEdgeInterval: 3, HealthyEdgeInterval: 4, NoTrafficInterval: 5, NoTrafficHealthyInterval: 6,
	}
	for _, w := range []struct {
		name    string
		verdict verdict
		step    step
		used    bool
		want    time.Duration
	}{
		{"healthy", passed, unchanged, true, 1},
		{"just healthy", passed, changed, true, 1},
		{"not healthy yet", passed, changePending, true, 4},
		{"failed", failed, unchanged, true, 2},
		{"just failed", network, changed, true, 2},
		{"not failed yet", timedOut, changePending, true, 3},
		{"healthy without traffic", passed, unchanged, false, 6},
		{"not healthy yet without traffic", passed, changePending, false, 5},
		{"failed without traffic", network, unchanged, false, 5},
	} {
		require.Equal(t, w.want, c.wait(w.verdict, w.step, w.used), w.name)
	}
}

func TestWaitIsJittered(t *testing.T) {
	c := &Config{Interval: time.Second, IntervalJitterPercent: 50, IntervalJitter: 100 * time.Millisecond}
	seen := map[bool]bool{}
	for range 1000 {
		got := c.wait(passed, unchanged, true)
		require.GreaterOrEqual(t, got, time.Second)
		require.Less(t, got, 1600*time.Millisecond)
		seen[got > 1250*time.Millisecond] = true
	}
	require.Len(t, seen, 2, "waits are spread")
}

func TestWaitBeyondAllIsNone(t *testing.T) {
	for _, c := range []*Config{
		{Interval: math.MaxInt64, IntervalJitterPercent: 50},
		{Interval: math.MaxInt64, IntervalJitter: time.Second},
		{Interval: time.Hour, IntervalJitter: math.MaxInt64},
		{Interval: time.Hour, IntervalJitterPercent: math.MaxUint32},
	} {
		for range 100 {
			require.GreaterOrEqual(t, c.wait(passed, unchanged, true), time.Hour)
		}
	}
}

func TestHasBlocks(t *testing.T) {
	for _, c := range []struct {
		text   string
		blocks []string
		want   bool
	}{
		{"", nil, true},
		{"abc", []string{"abc"}, true},
		{"xxaxxbxx", []string{"a", "b"}, true},
		{"ba", []string{"a", "b"}, false},
		{"a", []string{"a", "a"}, false},
		{"aba", []string{"ab", "ba"}, false},
	} {
		var blocks [][]byte
		for _, b := range c.blocks {
			blocks = append(blocks, []byte(b))
		}
		require.Equal(t, c.want, hasBlocks([]byte(c.text), blocks), c)
	}
}
