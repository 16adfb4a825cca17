package limits

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseUnit(t *testing.T) {
	for name, length := range map[string]time.Duration{
		"second": time.Second, "Minute": time.Minute, "HOUR": time.Hour, "dAy": 24 * time.Hour,
		"week": 7 * 24 * time.Hour, "month": 30 * 24 * time.Hour, "YEAR": 365 * 24 * time.Hour,
	} {
		u, err := ParseUnit(name)
		require.NoError(t, err)
		require.Equal(t, length, Rate{Unit: u, Multiplier: 1}.Limit().Window)
	}
	for _, name := range []string{"", "seconds", "unknown", " day"} {
		_, err := ParseUnit(name)
		require.ErrorContains(t, err, "is none of second, minute, hour, day, week, month, year")
	}
}

func TestRateCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		rate Rate
		want string
	}{
		{"three_days", Rate{1, Day, 3}, ""},
		{"a_second", Rate{1, Second, 1}, ""},
		{"a_hundred_years", Rate{1, Year, 100}, ""},
		{"unit_0", Rate{1, 0, 1}, "unit 0 is not a unit"},
		{"unit_8", Rate{1, 8, 1}, "unit 8 is not a unit"},
		{"negative_unit", Rate{1, -1, 1}, "unit -1 is not a unit"},
		{"multiplier_0", Rate{1, Hour, 0}, "unit_multiplier 0 makes no window"},
		{"longer_than_numbers_hold", Rate{1, Week, 4294967295}, "4294967295 × WEEK is longer than 100 years"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				require.NoError(t, c.rate.Check())
				require.Positive(t, c.rate.Limit().Window)
				require.Zero(t, c.rate.Limit().Window%time.Second, "whole seconds")
				return
			}
			require.EqualError(t, c.rate.Check(), c.want)
		})
	}
}
