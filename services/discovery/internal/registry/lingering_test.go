package registry

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// lingering is a running registry whose readers are shown the last host of a service for
// half a second after another replica took it out, and that knows hosts with IDs. left
// takes one out as another replica would.
func lingering(t *testing.T, ids ...string) (r *Registry, store *fakeStore, left func(id string)) {
	store = newFakeStore()
	r = newRegistry(store)
	r.options.Linger = 500 * time.Millisecond
	run(t, r)
	<-r.Loaded()
	for i, id := range ids {
		checkIn(t, r, host(id, uint16(i+1)))
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	changes(store)
	return r, store, func(id string) {
		t.Helper()
		v, there, err := r.Find(Key{Service: "users", ID: id})
		require.NoError(t, err)
		require.True(t, there)
		r.apply(Update{Changes: []Change{{
			Key: v.Host.Key, Lease: v.Lease, Went: time.Now(),
			Event: &Event{At: time.Now(), Kind: Deregistered, Service: "users", ID: id, Actor: "another replica"},
		}}})
	}
}

// told are the kinds of the events of "users", oldest first.
func told(t *testing.T, r *Registry) (kinds []EventKind) {
	t.Helper()
	events, err := r.History("users")
	require.NoError(t, err)
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestTheLastHostThatAnotherReplicaTookOutIsSeenForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, left := lingering(t, "a", "b")
		left("b")
		require.Equal(t, []string{"a"}, ids(t, r), "the first of two goes at once")

		heard := time.Now()
		left("a")
		left("a") // as where the log is read again
		time.Sleep(499 * time.Millisecond)
		require.Equal(t, []string{"a"}, ids(t, r))
		time.Sleep(201 * time.Millisecond) // with the store's next answer
		synctest.Wait()
		list, err := r.List("users")
		require.NoError(t, err)
		require.Empty(t, list.Hosts)
		require.WithinDuration(t, heard, list.EmptySince, 100*time.Millisecond)
		require.Equal(t, []EventKind{Registered, Registered, Deregistered, Deregistered}, told(t, r))
		require.Empty(t, changes(store))
	})
}

func TestTheLastHostIsSeenUntilTheStoreHasAnsweredForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, left := lingering(t, "a")
		left("a")
		store.stand(true)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"a"}, ids(t, r), "where it went is not heard")
		store.stand(false)
		time.Sleep(499 * time.Millisecond)
		require.Equal(t, []string{"a"}, ids(t, r), "what others did comes late")
		time.Sleep(201 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, ids(t, r))
	})
}

func TestNobodyKnowsThatAServiceIsEmptyWhileTheStoreIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, _ := lingering(t, "a")
		empty := func() time.Duration {
			t.Helper()
			list, err := r.List("users")
			require.NoError(t, err)
			require.Empty(t, list.Hosts, "at once, as whoever took it out expects")
			return time.Since(list.EmptySince)
		}
		_, err := r.Remove(Selection{Service: "users", ID: "a"}, "tester")
		require.NoError(t, err)
		store.stand(true)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, empty(), 100*time.Millisecond)
		store.stand(false)
		time.Sleep(time.Second)
		require.InDelta(t, time.Second, empty(), float64(200*time.Millisecond))
	})
}

func TestTheLastHostThatIsSeenForAWhileIsGoneForItself(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, r *Registry, a View)
		ids  []string
		told int // how many changes the store is told of
		last EventKind
	}{
		"it registers here": {do: func(t *testing.T, r *Registry, a View) {
			receipt, err := r.CheckIn(*a.Host, "tester")
			require.NoError(t, err)
			require.Equal(t, HostNew, receipt.Outcome)
			require.NotEqual(t, a.Lease, receipt.Lease, "the store takes no lease back")
		}, ids: []string{"a"}, told: 1, last: Registered},
		"it registers at another replica": {do: func(_ *testing.T, r *Registry, a View) {
			r.apply(Update{Changes: []Change{{
				Key: a.Host.Key, Record: &Record{Host: a.Host, Lease: a.Lease + 1, FirstSeen: time.Now(), LastCheckIn: time.Now()},
				Event: &Event{At: time.Now(), Kind: Registered, Service: "users", ID: "a"},
			}}})
		}, ids: []string{"a"}, last: Registered},
		"it registers here, and is refused": {do: func(t *testing.T, r *Registry, a View) {
			h := *a.Host
			h.Tags.Other = TagListOf(map[string]json.RawMessage{"large": json.RawMessage(`"` + strings.Repeat("x", maxTags) + `"`)})
			_, err := r.CheckIn(h, "tester")
			require.ErrorIs(t, err, ErrTagsTooLarge)
			require.Equal(t, []string{"a"}, ids(t, r), "still")
		}, last: Deregistered},
		"another comes in its place": {do: func(t *testing.T, r *Registry, _ View) {
			checkIn(t, r, host("b", 2))
			require.Equal(t, []string{"b"}, ids(t, r), "at once")
		}, ids: []string{"b"}, told: 1, last: Registered},
		"another comes in its place, of which the service has room for one": {do: func(t *testing.T, r *Registry, _ View) {
			r.options.Limits.HostsPerService = 1
			checkIn(t, r, host("b", 2))
		}, ids: []string{"b"}, told: 1, last: Registered},
		"it is given a weight": {do: func(t *testing.T, r *Registry, _ View) {
			_, err := r.SetWeight(Selection{Service: "users"}, 7, "tester")
			require.NoError(t, err)
		}, last: Deregistered},
		"it is found to be ill": {do: func(t *testing.T, r *Registry, a View) {
			require.Zero(t, r.SetHealth(map[Key]bool{a.Host.Key: true}, "tester"))
		}, last: Deregistered},
		"its connection breaks": {do: func(t *testing.T, r *Registry, a View) {
			n, err := r.Lose([]Lease{a.Lease}, time.Now(), "tester")
			require.NoError(t, err)
			require.Zero(t, n)
		}, last: Deregistered},
		"it beats by its lease": {do: func(t *testing.T, r *Registry, a View) {
			unknown, err := r.Beat([]Lease{a.Lease}, nil, "tester")
			require.NoError(t, err)
			require.Equal(t, []Lease{a.Lease}, unknown)
		}, last: Deregistered},
		"it is taken out here too": {do: func(t *testing.T, r *Registry, _ View) {
			n, err := r.Remove(Selection{Service: "users", ID: "a"}, "tester")
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.Empty(t, ids(t, r), "at once")
		}, told: 1, last: Deregistered},
		"all is read anew": {do: func(_ *testing.T, r *Registry, a View) {
			r.apply(Update{Whole: &Contents{Buried: []Burial{{Lease: a.Lease, At: time.Now()}}}, Covers: everyService})
		}, last: Deregistered},
		"the store lost its data": {do: func(_ *testing.T, r *Registry, _ View) {
			r.apply(Update{Whole: &Contents{}, Covers: everyService, Lost: true})
		}, last: Deregistered},
		"the store misses its beats": {do: func(_ *testing.T, r *Registry, a View) {
			r.giveAgain([]Key{a.Host.Key})
		}, last: Deregistered},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, left := lingering(t, "a")
				a, _, err := r.Find(Key{Service: "users", ID: "a"})
				require.NoError(t, err)
				left("a")
				time.Sleep(50 * time.Millisecond)
				require.Equal(t, []string{"a"}, ids(t, r))
				test.do(t, r, a)
				time.Sleep(time.Second)
				synctest.Wait()
				require.ElementsMatch(t, test.ids, ids(t, r))
				kinds := told(t, r)
				require.Equal(t, test.last, kinds[len(kinds)-1])
				require.Len(t, changes(store), test.told)
				require.Empty(t, r.lingering)
				require.Zero(t, r.services["users"].lingering)
			})
		})
	}
}

func TestNoOtherHostIsSeenOnceItIsGone(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, r *Registry, left func(string)){
		"it was taken out here": func(t *testing.T, r *Registry, _ func(string)) {
			_, err := r.Remove(Selection{Service: "users", ID: "a"}, "tester")
			require.NoError(t, err)
		},
		"its TTL had passed for another replica": func(t *testing.T, r *Registry, _ func(string)) {
			time.Sleep(50 * time.Second)
			r.apply(Update{Changes: []Change{{Key: Key{Service: "users", ID: "a"}, Event: &Event{Kind: Expired, Service: "users", ID: "a"}}}})
		},
		"it is dead, and all is read anew": func(_ *testing.T, r *Registry, _ func(string)) {
			time.Sleep(40 * time.Second)
			r.apply(Update{Whole: &Contents{}, Covers: everyService})
		},
		"readers were not shown it": func(t *testing.T, r *Registry, left func(string)) {
			makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Drain})
			time.Sleep(31 * time.Second)
			left("a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _, left := lingering(t, "a")
				do(t, r, left)
				require.Empty(t, ids(t, r))
			})
		})
	}
}

// Those that are left are not to take work, so readers have nothing of them.
func TestTheLastHostThatReadersAreShownIsSeenForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, left := lingering(t, "a", "b", "c")
		for _, id := range []string{"b", "c"} {
			makeSetting(t, r, Setting{Scope: Scope{Service: "users", ID: id}, Kind: Drain})
		}
		time.Sleep(31 * time.Second)
		for _, id := range []string{"a", "b"} {
			v, _, err := r.Find(Key{Service: "users", ID: id})
			require.NoError(t, err)
			require.Equal(t, id == "a", v.State == Serving)
			left(id)
		}
		require.Equal(t, []string{"a", "c"}, ids(t, r))
		time.Sleep(time.Second)
		require.Equal(t, []string{"c"}, ids(t, r))
	})
}

func TestAHostThatIsSeenForAWhileIsRelievedByItsServiceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, left := lingering(t, "a")
		left("a")
		other := host("b", 2)
		other.Service = "orders"
		checkIn(t, r, other)
		require.Equal(t, []string{"a"}, ids(t, r))
	})
}

func TestAHostThatIsSeenForAWhileDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, left := lingering(t, "a")
		r.options.Linger = 5 * time.Second
		time.Sleep(48 * time.Second)
		left("a")
		time.Sleep(4 * time.Second) // its TTL has passed
		require.Equal(t, []string{"a"}, ids(t, r))
		require.False(t, seen(t, r)["a"].Stale)
		time.Sleep(2 * time.Second)
		require.Empty(t, ids(t, r))
		require.Equal(t, []EventKind{Registered, Deregistered}, told(t, r))
		require.Empty(t, changes(store))
	})
}

func TestAHostThatIsSeenForAWhileIsNoneBesideTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, left := lingering(t, "a", "b")
		makeSetting(t, r, Setting{Scope: Scope{Service: "users", ID: "b"}, Kind: Drain})
		time.Sleep(31 * time.Second)
		left("a")
		b, _, err := r.Find(Key{Service: "users", ID: "b"})
		require.NoError(t, err)
		n, err := r.Lose([]Lease{b.Lease}, time.Now(), "tester")
		require.NoError(t, err)
		require.Zero(t, n)
	})
}
