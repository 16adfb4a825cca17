package fixedwindow

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/algorithmtest"
)

func TestContract(t *testing.T) { algorithmtest.Run(t, Algorithm{}) }

func TestApply(t *testing.T) {
	minute := algorithm.Limit{Requests: 5, Window: time.Minute}
	begin := time.Unix(1_700_000_040, 0) // a whole minute
	end := begin.Add(time.Minute).UnixNano()
	for _, c := range []struct {
		name   string
		limit  algorithm.Limit
		count  uint64 // in the window that ends at until
		until  int64
		hits   uint64
		now    time.Time
		want   algorithm.Decision
		stored algorithm.State
	}{
		{
			"first_hit_at_the_start_of_a_window_has_all_of_it_before_it",
			minute, 0, 0, 1, begin,
			algorithm.Decision{After: 1, Remaining: 4, ResetIn: time.Minute}, algorithm.State{Count: 1, Until: end},
		}, {
			"the_last_hit_that_fits_is_granted",
			minute, 4, end, 1, begin.Add(59500 * time.Millisecond),
			algorithm.Decision{After: 5, ResetIn: 500 * time.Millisecond}, algorithm.State{Count: 5, Until: end},
		}, {
			"refused_hits_are_counted",
			minute, 5, end, 3, begin.Add(time.Second),
			algorithm.Decision{Over: true, After: 8, ResetIn: 59 * time.Second}, algorithm.State{Count: 8, Until: end},
		}, {
			"hits_that_fit_only_in_part_are_refused",
			minute, 3, end, 3, begin,
			algorithm.Decision{Over: true, After: 6, ResetIn: time.Minute}, algorithm.State{Count: 6, Until: end},
		}, {
			"a_new_window_begins_at_none",
			minute, 9, end, 1, time.Unix(0, end),
			algorithm.Decision{After: 1, Remaining: 4, ResetIn: time.Minute}, algorithm.State{Count: 1, Until: end + int64(time.Minute)},
		}, {
			"a_clock_set_back_begins_afresh",
			minute, 9, end + int64(time.Hour), 1, begin,
			algorithm.Decision{After: 1, Remaining: 4, ResetIn: time.Minute}, algorithm.State{Count: 1, Until: end},
		}, {
			"a_call_that_one_of_the_next_window_overtook_counts_there",
			minute, 3, end + int64(time.Minute), 1, time.Unix(0, end-1),
			algorithm.Decision{After: 4, Remaining: 1, ResetIn: time.Minute}, algorithm.State{Count: 4, Until: end + int64(time.Minute)},
		}, {
			"one_that_was_overtaken_only_looks",
			minute, 3, end + int64(time.Minute), 0, time.Unix(0, end-int64(time.Second)),
			algorithm.Decision{After: 3, Remaining: 2, ResetIn: time.Minute}, algorithm.State{Count: 3, Until: end + int64(time.Minute)},
		}, {
			"a_clock_set_back_over_an_edge_begins_afresh",
			minute, 3, end + int64(time.Minute), 1, time.Unix(0, end-int64(time.Second)-1),
			algorithm.Decision{After: 1, Remaining: 4, ResetIn: time.Second + 1}, algorithm.State{Count: 1, Until: end},
		}, {
			"a_count_stops_at_the_largest_number",
			minute, math.MaxUint64 - 1, end, 2, begin,
			algorithm.Decision{Over: true, After: math.MaxUint64, ResetIn: time.Minute}, algorithm.State{Count: math.MaxUint64, Until: end},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			stored, got := Algorithm{}.Apply(c.limit, algorithm.State{Count: c.count, Until: c.until}, c.hits, c.now)
			require.Equal(t, c.want, got)
			require.Equal(t, c.stored, stored)
		})
	}
}

func TestRefund(t *testing.T) {
	minute := algorithm.Limit{Requests: 5, Window: time.Minute}
	begin := time.Unix(1_700_000_040, 0) // a whole minute
	end := begin.Add(time.Minute).UnixNano()
	for _, c := range []struct {
		name   string
		count  uint64 // in the window that ends at until
		until  int64
		hits   uint64
		want   algorithm.Decision
		stored algorithm.State
	}{
		{
			"hits_fit_again",
			4, end, 3,
			algorithm.Decision{After: 1, Remaining: 4, ResetIn: time.Minute}, algorithm.State{Count: 1, Until: end},
		}, {
			"no_more_than_all_is_given_back",
			4, end, math.MaxUint64,
			algorithm.Decision{Remaining: 5, ResetIn: time.Minute}, algorithm.State{Until: end},
		}, {
			"one_that_stays_over_does_not_say_so",
			9, end, 1,
			algorithm.Decision{After: 8, ResetIn: time.Minute}, algorithm.State{Count: 8, Until: end},
		}, {
			"another_window_counts_as_none",
			4, end - int64(time.Minute), 1,
			algorithm.Decision{Remaining: 5, ResetIn: time.Minute}, algorithm.State{Until: end},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			stored, got := Algorithm{}.Refund(minute, algorithm.State{Count: c.count, Until: c.until}, c.hits, begin)
			require.Equal(t, c.want, got)
			require.Equal(t, c.stored, stored)
		})
	}
}

func TestWindowsAreAlignedToTheEpoch(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	for _, c := range []struct {
		window time.Duration
		end    time.Time
	}{
		{time.Second, time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)},
		{time.Hour, time.Date(2026, 3, 4, 6, 0, 0, 0, time.UTC)},
		{24 * time.Hour, time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC)},
		{7 * 24 * time.Hour, time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC)}, // 1970 began on a Thursday
	} {
		require.True(t, c.end.Equal(Algorithm{}.WindowEnd(algorithm.Limit{Window: c.window}, now)), "%v", c.window)
	}
}
