package registry

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAHostIsDroppedItsTTLAfterItsLastCheckIn(t *testing.T) {
	for name, test := range map[string]struct {
		ttl   time.Duration
		beats []time.Duration // times of check-ins after the first
		last  time.Duration   // of the last check-in
	}{
		"never seen again":          {ttl: 10 * time.Second},
		"a short ttl":               {ttl: time.Second},
		"a beat long before":        {ttl: 10 * time.Second, beats: []time.Duration{time.Second}, last: time.Second},
		"a beat at the last moment": {ttl: 10 * time.Second, beats: []time.Duration{10*time.Second - 1}, last: 10*time.Second - 1},
		"many beats": {ttl: 10 * time.Second,
			beats: []time.Duration{3 * time.Second, 9 * time.Second, 18 * time.Second, 27 * time.Second}, last: 27 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, newFakeStore())
				begin := time.Now()
				h := host("a", 1)
				h.TTL = test.ttl
				require.Equal(t, HostNew, checkIn(t, r, h))
				for _, at := range test.beats {
					time.Sleep(time.Until(begin.Add(at)))
					require.Equal(t, HostUnchanged, checkIn(t, r, h), "at %v", at)
				}

				dead := begin.Add(test.last + test.ttl)
				time.Sleep(time.Until(dead.Add(-1)))
				synctest.Wait()
				require.Equal(t, []string{"a"}, ids(t, r), "just before its TTL has passed")
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.Empty(t, ids(t, r), "2s after its TTL has passed")
			})
		})
	}
}

func TestAStoreThatNobodyElseWritesToIsOnlyToldWhatExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		s.onExpire = func() { t.Error("the store is asked") }
		r := started(t, struct{ Store }{s})
		checkIn(t, r, host("a", 1))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Empty(t, ids(t, r))
		changes, _ := s.taken()
		require.Equal(t, Expired, changes[len(changes)-1].Event.Kind)
		require.Empty(t, s.followed)
	})
}

// stall is a log that a test can make the sweeper stand still with.
type stall struct {
	slog.Handler
	during func()
}

func (s *stall) Enabled(context.Context, slog.Level) bool { return true }

func (s *stall) Handle(_ context.Context, line slog.Record) error {
	if line.Message == "host expired" {
		s.during()
	}
	return nil
}

func TestNoHostExpiresForItsTTLAfterAPauseOfTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause = 10 * time.Minute
		r := newRegistry(newFakeStore())
		stalled, resumed := false, make(chan struct{})
		r.log = slog.New(&stall{slog.DiscardHandler, func() {
			if !stalled {
				stalled = true
				time.Sleep(pause)
				close(resumed)
			}
		}})
		run(t, r)
		<-r.Loaded()

		first := host("first", 1)
		first.TTL = 30 * time.Second
		checkIn(t, r, first)
		time.Sleep(10 * time.Second)
		checkIn(t, r, host("dead", 2))
		checkIn(t, r, host("beats late", 3))
		<-resumed // from half a minute on, it stood still
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"dead", "beats late"}, ids(t, r), "within a minute of the end of the pause")
		require.Equal(t, HostUnchanged, checkIn(t, r, host("beats late", 3)))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"beats late"}, ids(t, r))
	})
}

func TestAShorterTTLHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		h := host("a", 1)
		h.TTL = time.Hour
		checkIn(t, r, h)
		h.TTL = 3 * time.Second
		require.Equal(t, HostChanged, checkIn(t, r, h))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Empty(t, ids(t, r))
	})
}

func TestOnlyTheDeadHostsOfManyAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		for port := range uint16(3 * sweepBatch) {
			h := host(string(rune('a'+port%2))+"-"+time.Duration(port).String(), port+1)
			if port%2 == 0 {
				h.TTL = time.Second
			}
			checkIn(t, r, h)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		left := ids(t, r)
		require.Len(t, left, 3*sweepBatch/2)
		for _, id := range left {
			require.Equal(t, "b", id[:1])
		}
	})
}

func TestAServiceIsKnownForAWhileAfterItsLastHostWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		known := func() bool {
			synctest.Wait()
			list, err := r.List("users")
			require.NoError(t, err)
			return list.Known
		}
		require.False(t, known(), "before its first host")

		remove := func() {
			removed, err := r.Remove(Selection{Service: "users"}, "tester")
			require.NoError(t, err)
			require.Equal(t, 1, removed)
		}
		checkIn(t, r, host("a", 1))
		remove()
		require.True(t, known(), "its host just went")
		// It comes and goes once more, and the hour counts from then.
		time.Sleep(50 * time.Minute)
		checkIn(t, r, host("a", 1))
		remove()
		time.Sleep(50 * time.Minute)
		require.True(t, known(), "50 minutes after it went for the second time")
		time.Sleep(11 * time.Minute)
		require.False(t, known(), "more than an hour after")
		require.Empty(t, services(t, r))
	})
}

func TestAServiceWhoseOnlyHostComesAndGoesWaitsOnceToBeForgotten(t *testing.T) {
	r := started(t, newFakeStore())
	for range 1000 {
		checkIn(t, r, host("a", 1))
		_, err := r.Remove(Selection{Service: "users"}, "tester")
		require.NoError(t, err)
	}
	require.Equal(t, 1, r.empties.Len())
	checkIn(t, r, host("a", 1))
	require.Zero(t, r.empties.Len(), "it has a host")
}

func TestServicesAreForgottenInTheOrderInWhichTheirLastHostsWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		flap := func(service string) {
			h := host("a", 1)
			h.Service = service
			checkIn(t, r, h)
			_, err := r.Remove(Selection{Service: service}, "tester")
			require.NoError(t, err)
		}
		flap("users")
		time.Sleep(10 * time.Minute)
		flap("orders")
		time.Sleep(10 * time.Minute)
		flap("users")
		time.Sleep(51 * time.Minute)
		synctest.Wait()
		require.Equal(t, map[string]int{"users": 0}, services(t, r), "an hour after the last host of orders")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Empty(t, services(t, r))
	})
}
