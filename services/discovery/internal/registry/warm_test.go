package registry

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestARegistryThatRestoredNoHostIsPartialUntilItIsWarm(t *testing.T) {
	known := host("a", 1)
	for name, test := range map[string]struct {
		records []Record
		lost    bool
		partial time.Duration
	}{
		"no host":                     {nil, false, 15 * time.Second},
		"no host of those there were": {nil, true, 10 * time.Minute},
		"some host":                   {[]Record{{Host: &known, Lease: 1, LastCheckIn: time.Now()}}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore(test.records...)
				store.lost = test.lost
				r := started(t, store)
				h := host("b", 2)
				h.TTL = time.Hour
				checkIn(t, r, h)
				partial := func() (answers []bool) {
					for _, list := range []func() (Listing, error){
						func() (Listing, error) { return r.List("users") },
						func() (Listing, error) { return r.List("unknown") },
						func() (Listing, error) { return r.ListRepo("users-repo") },
					} {
						listing, err := list()
						require.NoError(t, err)
						answers = append(answers, listing.Partial)
					}
					return append(answers, r.Partial())
				}
				if test.partial > 0 {
					time.Sleep(test.partial - time.Nanosecond)
					require.Equal(t, []bool{true, true, true, true}, partial())
					time.Sleep(time.Nanosecond)
					synctest.Wait()
				}
				require.Equal(t, []bool{false, false, false, false}, partial())
			})
		})
	}
}

func TestOnlyAListThatTakesNoHostsAwayIsSafe(t *testing.T) {
	for _, test := range []struct{ partial, empty, held, safe bool }{
		{false, true, true, true},
		{false, false, false, true},
		{true, false, false, true},
		{true, true, false, false},
		{true, false, true, false},
	} {
		list := Listing{Partial: test.partial}
		if err := list.Safe(test.empty, test.held); test.safe {
			require.NoError(t, err, "%+v", test)
		} else {
			require.ErrorIs(t, err, ErrNotWarm, "%+v", test)
		}
	}
}
