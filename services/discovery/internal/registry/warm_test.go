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
		partial bool
	}{
		"no host":   {nil, true},
		"some host": {[]Record{{Host: &known, Lease: 1, LastCheckIn: time.Now()}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, newFakeStore(test.records...))
				checkIn(t, r, host("b", 2))
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
				require.Equal(t, []bool{test.partial, test.partial, test.partial, test.partial}, partial())
				time.Sleep(15 * time.Second)
				synctest.Wait()
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
