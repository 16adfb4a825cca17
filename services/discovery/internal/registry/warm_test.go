package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

func TestARegistryThatDidNotRestoreAllHostsIsPartialUntilItIsWarm(t *testing.T) {
	known := host("a", 1)
	known.TTL = time.Hour
	some := []Record{{Host: &known, Lease: 1, LastCheckIn: time.Now()}}
	for name, test := range map[string]struct {
		records       []Record
		missing, lost bool
		partial       time.Duration
	}{
		"no host":                            {nil, false, false, 15 * time.Second},
		"no host of those there were":        {nil, true, true, 10 * time.Minute},
		"all hosts":                          {some, false, false, 0},
		"some host, in an earlier warm-up":   {some, true, false, 15 * time.Second},
		"some host of those that there were": {some, true, true, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore(test.records...)
				store.partial, store.lost = test.missing, test.lost
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

// A snapshot that was of all hosts is not any more: others may have come to other
// replicas since.
func TestARegistryIsNotWarmOnAStaleStoreThatHasNotAnswered(t *testing.T) {
	known := host("a", 1)
	known.TTL = time.Hour
	for name, test := range map[string]struct {
		warmUp, answers time.Duration // after the start
		warm            time.Duration
	}{
		"it answers during the warm-up": {15 * time.Second, 5 * time.Second, 15 * time.Second},
		"it answers later":              {15 * time.Second, time.Hour, time.Hour},
		"nothing is to be held back":    {0, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore(Record{Host: &known, Lease: 1, LastCheckIn: time.Now()})
				store.stale = true
				store.onFollow = func(ctx context.Context) error {
					pause.For(ctx, test.answers)
					return nil
				}
				r := newRegistry(store)
				r.options.WarmUp = test.warmUp
				run(t, r)
				<-r.Loaded()
				begin := time.Now()
				if test.warm > 0 {
					list, err := r.List("that-another-replica-has")
					require.NoError(t, err)
					require.ErrorIs(t, list.Safe(true, false), ErrNotWarm)
				}
				<-r.Warm()
				require.Equal(t, test.warm, time.Since(begin))
				(<-store.followed)(Update{}) // it says so more than once
				require.False(t, r.Partial())
			})
		})
	}
}

func TestAStoreIsCompleteOnceTheRegistryIsWarmAndItHasAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		apply := <-store.followed
		checkIn(t, r, host("a", 1))
		time.Sleep(14 * time.Second)
		synctest.Wait()
		require.Zero(t, store.completed(), "others may only be about to check in")
		store.fail(errors.New("away"))
		checkIn(t, r, host("b", 2))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Zero(t, store.completed(), "it was not told of all")
		store.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, store.completed())

		apply(Update{Whole: &Contents{}, Covers: func(string) bool { return true }, Lost: true})
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 2, store.completed(), "it lost data, and has it again")
	})
}

func TestWhatIsNotHeldBackIsNotLoggedAsThat(t *testing.T) {
	for warmUp, logged := range map[time.Duration]bool{15 * time.Second: true, 0: false} {
		synctest.Test(t, func(t *testing.T) {
			store := newFakeStore()
			store.lost = true
			r := newRegistry(store)
			r.options.WarmUp = warmUp
			var log strings.Builder
			r.log = slog.New(slog.NewTextHandler(&log, nil))
			run(t, r)
			<-r.Loaded()
			synctest.Wait()
			require.Equal(t, !logged, !r.Partial())
			require.Equal(t, logged, strings.Contains(log.String(), "held back"), log.String())
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
