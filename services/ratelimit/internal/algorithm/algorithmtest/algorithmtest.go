// Package algorithmtest is the suite that every algorithm passes. An
// algorithm's own test calls Run; it checks what the contract promises, not
// what one rule decides.
package algorithmtest

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// start is when the suite's runs begin; any time does.
var start = time.Unix(1_700_000_000, 0)

// Run checks a against the contract.
func Run(t *testing.T, a algorithm.Algorithm) {
	t.Run("its_name_fits_into_keys_and_rule_files", func(t *testing.T) {
		require.Regexp(t, `^[a-z_]+$`, a.Name())
	})
	t.Run("a_look_changes_nothing", func(t *testing.T) { lookChangesNothing(t, a) })
	t.Run("a_limit_of_0_refuses_every_hit", func(t *testing.T) {
		_, d := a.Apply(algorithm.Limit{Window: time.Second}, algorithm.State{}, 1, start)
		require.True(t, d.Over)
		require.Zero(t, d.Remaining)
	})
	t.Run("a_state_is_worth_nothing_from_Until_on", func(t *testing.T) { worthNothing(t, a) })
	t.Run("remaining_is_what_is_granted_next", func(t *testing.T) { remainingIsGranted(t, a) })
	t.Run("huge_hits_are_refused_and_do_not_overflow", func(t *testing.T) { hugeHits(t, a) })
	t.Run("a_refund_gives_back_what_was_counted", func(t *testing.T) { refundGivesBack(t, a) })
	t.Run("a_refund_gives_back_no_more_than_was_counted", func(t *testing.T) { refundStopsAtNone(t, a) })
	if c, ok := a.(algorithm.Counted); ok {
		t.Run("counting_decides_as_Apply_does", func(t *testing.T) { countingDecidesAlike(t, c) })
	}
}

// draw makes a random limit.
func draw(r *rand.Rand) algorithm.Limit {
	return algorithm.Limit{Requests: uint32(r.IntN(20)), Window: time.Duration(1+r.IntN(90)) * time.Second}
}

func lookChangesNothing(t *testing.T, a algorithm.Algorithm) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		limit, now := draw(r), start.Add(time.Duration(r.Int64N(int64(time.Hour))))
		state, counted := a.Apply(limit, algorithm.State{}, uint64(r.IntN(25)), now)
		seen, look := a.Apply(limit, state, 0, now)
		require.Equal(t, state, seen)
		require.Equal(t, counted, look)
	}
}

func worthNothing(t *testing.T, a algorithm.Algorithm) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 200 {
		limit := draw(r)
		state, _ := a.Apply(limit, algorithm.State{}, uint64(1+r.IntN(25)), start)
		require.Greater(t, state.Until, start.UnixNano())
		later := time.Unix(0, state.Until)
		_, got := a.Apply(limit, state, 1, later)
		_, fresh := a.Apply(limit, algorithm.State{}, 1, later)
		require.Equal(t, fresh, got)
	}
}

func remainingIsGranted(t *testing.T, a algorithm.Algorithm) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		limit := draw(r)
		state, d := a.Apply(limit, algorithm.State{}, uint64(r.IntN(25)), start)
		require.Positive(t, d.ResetIn)
		if d.Over {
			require.Zero(t, d.Remaining)
			continue
		}
		_, next := a.Apply(limit, state, uint64(d.Remaining), start)
		require.False(t, next.Over)
		_, next = a.Apply(limit, state, uint64(d.Remaining)+1, start)
		require.True(t, next.Over)
	}
}

func hugeHits(t *testing.T, a algorithm.Algorithm) {
	limit := algorithm.Limit{Requests: math.MaxUint32, Window: time.Hour}
	var state algorithm.State
	for range 3 {
		var d algorithm.Decision
		state, d = a.Apply(limit, state, math.MaxUint64-1, start)
		require.True(t, d.Over)
	}
}

func refundGivesBack(t *testing.T, a algorithm.Algorithm) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 200 {
		limit := draw(r)
		state, before := a.Apply(limit, algorithm.State{}, uint64(r.IntN(int(limit.Requests)+1)), start)
		hits := uint64(r.IntN(25))
		state, _ = a.Apply(limit, state, hits, start)
		state, refunded := a.Refund(limit, state, hits, start)
		require.Equal(t, before, refunded)
		_, look := a.Apply(limit, state, 0, start)
		require.Equal(t, look, refunded, "it decides as a look does")
	}
}

func refundStopsAtNone(t *testing.T, a algorithm.Algorithm) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		limit := draw(r)
		state, _ := a.Apply(limit, algorithm.State{}, uint64(r.IntN(25)), start)
		state, d := a.Refund(limit, state, 25+r.Uint64N(math.MaxUint64-25), start)
		require.False(t, d.Over)
		require.Positive(t, d.ResetIn)
		_, got := a.Apply(limit, state, 1, start)
		_, fresh := a.Apply(limit, algorithm.State{}, 1, start)
		require.Equal(t, fresh, got)

		// One that is over stays so, but a refund does not say it.
		state, _ = a.Apply(limit, algorithm.State{}, uint64(limit.Requests)+5, start)
		_, d = a.Refund(limit, state, 1, start)
		require.False(t, d.Over)
		require.Zero(t, d.Remaining)
	}
}

// countingDecidesAlike replays random hits through Apply and through a plain
// counter for each window, as a store of counters keeps it.
func countingDecidesAlike(t *testing.T, a algorithm.Counted) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 50 {
		limit, now := draw(r), start.Add(time.Duration(r.Int64N(int64(time.Second))))
		var state algorithm.State
		counters := map[time.Time]uint64{}
		for range 100 {
			hits := uint64(r.IntN(4))
			end := a.WindowEnd(limit, now)
			require.True(t, end.After(now))
			require.Zero(t, end.Nanosecond(), "windows end at whole seconds")
			counters[end] += hits
			var applied algorithm.Decision
			state, applied = a.Apply(limit, state, hits, now)
			require.Equal(t, applied, a.Decide(limit, counters[end], now))
			now = now.Add(time.Duration(r.Int64N(int64(10 * time.Second))))
		}
	}
}
