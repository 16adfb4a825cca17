package registry

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatCheckersFoundIsLaidOverAHostForAsLongAsItStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		a, b := host("a", 1), host("b", 2)
		a.TTL, b.TTL = time.Hour, time.Hour
		checkIn(t, r, a)
		checkIn(t, r, b)
		time.Sleep(time.Second)
		changes(store) // those of the registrations
		feed, events := r.Subscribe(), r.Events()
		defer events.Close()
		feed.Take()

		require.Equal(t, 1, r.SetHealth(map[Key]bool{a.Key: true, b.Key: false, {Service: "users", ID: "nobody"}: true}, "checkers"))
		require.True(t, seen(t, r)["a"].Unhealthy)
		require.Equal(t, Serving, seen(t, r)["a"].State)
		found := seen(t, r)["a"]
		require.False(t, found.TakesWork())
		require.False(t, seen(t, r)["b"].Unhealthy)
		require.Equal(t, []string{"users"}, names(feed))
		told, _ := events.Take()
		require.Equal(t, []Event{{At: time.Now(), Kind: Sickened, Service: "users", ID: "a", Actor: "checkers"}}, told)
		summaries, err := r.Services()
		require.NoError(t, err)
		require.Equal(t, 1, summaries[0].Unhealthy)

		require.Zero(t, r.SetHealth(map[Key]bool{a.Key: true}, "checkers"), "it is known")
		require.Empty(t, feed.Take())
		time.Sleep(time.Second)
		require.Empty(t, changes(store), "it is not stored")
		a.Revision = "r2"
		checkIn(t, r, a)
		require.True(t, seen(t, r)["a"].Unhealthy, "a beat does not change it")

		require.Equal(t, 1, r.SetHealth(map[Key]bool{a.Key: false}, "checkers"))
		require.False(t, seen(t, r)["a"].Unhealthy)
		history, err := r.History("users")
		require.NoError(t, err)
		require.Equal(t, Healed, history[len(history)-1].Kind)

		r.SetHealth(map[Key]bool{a.Key: true}, "checkers")
		_, err = r.Remove(Selection{Service: "users", ID: "a"}, "tester")
		require.NoError(t, err)
		checkIn(t, r, a)
		require.False(t, seen(t, r)["a"].Unhealthy, "it is gone with the host")
	})
}
