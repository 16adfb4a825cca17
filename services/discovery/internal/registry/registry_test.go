package registry

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestTheHostsOfAServiceAreOrderedHoweverTheyComeMoveAndGo(t *testing.T) {
	r := started(t, newFakeStore())
	chance := rand.New(rand.NewPCG(1, 2))
	known := map[string]Host{}
	for range 2000 {
		h := host(fmt.Sprint(chance.IntN(50)), uint16(1+chance.IntN(20)))
		if chance.IntN(3) == 0 {
			_, err := r.Remove(Selection{Service: "users", ID: h.ID}, "tester")
			require.NoError(t, err)
			delete(known, h.ID)
			continue
		}
		checkIn(t, r, h)
		known[h.ID] = h
		list, err := r.List("users")
		require.NoError(t, err)
		require.Len(t, list.Hosts, len(known))
		require.True(t, slices.IsSortedFunc(list.Hosts, func(a, b View) int {
			return cmp.Or(a.Host.Address.Compare(b.Host.Address), cmp.Compare(a.Host.ID, b.Host.ID))
		}))
		for _, v := range list.Hosts {
			require.Equal(t, known[v.Host.ID].Address, v.Host.Address)
		}
	}
}

func TestNothingIsAnsweredBeforeTheStoreWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(Record{Host: new(host("a", 1)), LastCheckIn: time.Now()})
		store.fail(errors.New("away"))
		r := newRegistry(store)
		run(t, r)
		synctest.Wait()

		_, err := r.CheckIn(host("b", 2), "tester")
		require.ErrorIs(t, err, ErrNotLoaded)
		_, err = r.List("users")
		require.ErrorIs(t, err, ErrNotLoaded)
		_, err = r.ListRepo("users-repo")
		require.ErrorIs(t, err, ErrNotLoaded)
		_, err = r.Remove(Selection{Service: "users"}, "tester")
		require.ErrorIs(t, err, ErrNotLoaded)
		_, err = r.SetWeight(Selection{Service: "users"}, 1, "tester")
		require.ErrorIs(t, err, ErrNotLoaded)
		_, err = r.Services()
		require.ErrorIs(t, err, ErrNotLoaded)

		store.fail(nil)
		time.Sleep(2 * retryDelay)
		<-r.Loaded()
		require.Equal(t, []string{"a"}, ids(t, r))
	})
}

func TestNoTextThatIsKeptIsAPartOfARequest(t *testing.T) {
	r := started(t, newFakeStore())
	checkInFrom := func(id, revision string) {
		request := strings.Repeat("x", 1000) + "users|" + id + "|repo|" + revision + "|eu|eu-1|i-" + id
		parts := strings.Split(request[1000:], "|")
		h := host(id, 1)
		h.Key, h.Repo, h.Revision = Key{Service: parts[0], ID: parts[1]}, parts[2], parts[3]
		h.Tags = Tags{Region: parts[4], Zone: parts[5], InstanceID: parts[6]}
		checkIn(t, r, h)
		kept := r.services["users"].hosts[id].host
		begin, end := uintptr(unsafe.Pointer(unsafe.StringData(request))), uintptr(len(request))
		for name, text := range map[string]string{
			"service": kept.Service, "id": kept.ID, "repo": kept.Repo, "revision": kept.Revision,
			"region": kept.Tags.Region, "zone": kept.Tags.Zone, "instance_id": kept.Tags.InstanceID, "service's own": r.services["users"].name,
		} {
			at := uintptr(unsafe.Pointer(unsafe.StringData(text)))
			require.False(t, at >= begin && at < begin+end, "%s of %s: %q", name, id, text)
		}
	}
	checkInFrom("a", "r1")
	checkInFrom("b", "r1")
	checkInFrom("a", "r2") // it is known, and changes
}

func TestAStoreThatRefusesToBeLoadedEndsTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		store.fail(errors.New("away"))
		r := newRegistry(store)
		ended := make(chan error, 1)
		// Ends when the store refuses; waited for below.
		go func() { ended <- r.Run(t.Context()) }()
		time.Sleep(time.Hour)
		require.Empty(t, ended, "it is away")
		why, refused := r.Trouble()
		require.Equal(t, "away", why)
		require.False(t, refused)
		store.fail(fmt.Errorf("%w: WRONGPASS", ErrRefused))
		time.Sleep(2 * retryDelay)
		synctest.Wait()
		require.EqualError(t, <-ended, "load the registry: the store refuses this service: WRONGPASS")
	})
}

func TestAStoreThatFailsOrRefusesIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRegistry(store)
		var log strings.Builder
		r.log = slog.New(slog.NewTextHandler(&log, nil))
		stop := run(t, r)
		defer stop()
		<-r.Loaded()
		checkIn(t, r, host("a", 1))
		told := func(want string, refused bool) {
			t.Helper()
			why, refuses := r.Trouble()
			require.Equal(t, want, why)
			require.Equal(t, refused, refuses)
		}
		told("", false)
		store.fail(errors.New("away"))
		checkIn(t, r, host("b", 2))
		time.Sleep(2 * flushInterval)
		synctest.Wait()
		told("away", false)
		store.fail(fmt.Errorf("%w: WRONGPASS", ErrRefused))
		time.Sleep(10 * flushInterval)
		synctest.Wait()
		told("the store refuses this service: WRONGPASS", true)
		require.Equal(t, 1, strings.Count(log.String(), `level=ERROR msg="the store refuses this service: `), log.String())
		store.fail(nil)
		time.Sleep(2 * flushInterval)
		synctest.Wait()
		told("", false)
		require.Equal(t, []string{"a", "b"}, ids(t, r))
	})
}

func TestARegistryThatCannotBeLoadedStillStops(t *testing.T) {
	store := newFakeStore()
	store.fail(errors.New("away"))
	stop := run(t, newRegistry(store))
	stop()
}

func TestRestoredHostsHaveTheirFullTTLToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored := time.Now().Add(-time.Hour)
		r := started(t, newFakeStore(
			Record{Host: new(host("a", 1)), FirstSeen: stored, LastCheckIn: stored},
			Record{Host: new(host("b", 2)), FirstSeen: stored, LastCheckIn: time.Now().Add(time.Hour)}))
		list, err := r.List("users")
		require.NoError(t, err)
		require.Len(t, list.Hosts, 2)
		require.True(t, stored.Equal(list.Hosts[0].LastCheckIn), "its last check-in was before the restart")
		require.False(t, list.Hosts[1].LastCheckIn.After(time.Now()), "nobody checked in in the future")

		time.Sleep(time.Minute - 1)
		synctest.Wait()
		require.Len(t, ids(t, r), 2)
		require.Equal(t, HostUnchanged, checkIn(t, r, host("a", 1)))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"a"}, ids(t, r))
	})
}

func TestARegistryIsWarmWhenItRestoredHostsOrHadTimeToHearOfThem(t *testing.T) {
	for name, test := range map[string]struct {
		records []Record
		after   time.Duration
	}{
		"restored hosts": {records: []Record{{Host: new(host("a", 1)), LastCheckIn: time.Now()}}},
		"restored none":  {after: 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				r := started(t, newFakeStore(test.records...))
				<-r.Warm()
				require.Equal(t, test.after, time.Since(begin))
			})
		})
	}
}

func TestTheStoreGetsChangesAtOnceAndBeatsEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		checkIn(t, r, host("a", 1))
		synctest.Wait()
		changes, beats := store.taken()
		require.Len(t, changes, 1)
		require.Equal(t, "a", changes[0].Record.Host.ID)
		lease := changes[0].Record.Lease
		require.NotZero(t, lease)
		require.Empty(t, beats)

		for range 3 {
			checkIn(t, r, host("a", 1))
		}
		at := time.Now()
		time.Sleep(flushInterval)
		synctest.Wait()
		changes, beats = store.taken()
		require.Empty(t, changes)
		require.Len(t, beats, 1, "three beats of one host within a second")
		require.True(t, at.Equal(beats[0].At))

		_, err := r.Remove(Selection{Service: "users"}, "tester")
		require.NoError(t, err)
		synctest.Wait()
		changes, _ = store.taken()
		require.Len(t, changes, 1)
		require.Equal(t, Key{Service: "users", ID: "a"}, changes[0].Key)
		require.Nil(t, changes[0].Record)
		require.Equal(t, lease, changes[0].Lease)
		require.Equal(t, Deregistered, changes[0].Event.Kind)
	})
}

func TestAStoreThatWasAwayGetsTheLastOfEachHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		checkIn(t, r, host("gone", 1))
		checkIn(t, r, host("beats", 2))
		synctest.Wait()
		store.taken()

		store.fail(errors.New("away"))
		for revision := range 5 {
			h := host("changes", 3)
			h.Revision = string(rune('a' + revision))
			checkIn(t, r, h)
			checkIn(t, r, host("beats", 2))
			time.Sleep(time.Second)
		}
		_, err := r.Remove(Selection{Service: "users", Port: 1}, "tester")
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"beats", "changes"}, ids(t, r), "callers do not notice")

		store.fail(nil)
		time.Sleep(2 * flushInterval)
		synctest.Wait()
		changes, beats := store.taken()
		last := map[string]*Record{}
		for _, c := range changes {
			last[c.Key.ID] = c.Record
		}
		require.Len(t, changes, 2, "one change per host")
		require.Nil(t, last["gone"])
		require.Equal(t, "e", last["changes"].Host.Revision)
		require.Len(t, beats, 1)
		require.Equal(t, "beats", beats[0].Key.ID)
	})
}

// As of a Redis Cluster, one server of which is away.
func TestAStoreOfWhichAPartIsAwayIsToldOfTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		apply := <-store.followed
		store.failPartly(func(c *Change) bool { return c.Key.Service == "orders" })
		waits, drain := host("a", 1), Setting{Scope: Scope{Service: "users"}, Kind: Drain}
		waits.Service = "orders"
		checkIn(t, r, waits)
		checkIn(t, r, host("a", 1))
		makeSetting(t, r, drain)
		time.Sleep(2 * flushInterval)
		synctest.Wait()
		changes, _ := store.taken()
		require.Len(t, changes, 2, "each once")
		require.Equal(t, 1, r.outbox.waiting())

		checkIn(t, r, host("a", 1))
		time.Sleep(2 * flushInterval)
		synctest.Wait()
		changes, beats := store.taken()
		require.Empty(t, changes)
		require.Equal(t, []Key{{"users", "a"}}, Keys(beats))
		apply(Update{Changes: []Change{{Key: Key{"users", "a"}}, {SettingKey: drain.Key()}}})
		require.Empty(t, ids(t, r), "another replica's change is newer than what is stored")
		require.Empty(t, r.settings)

		store.failPartly(nil)
		time.Sleep(2 * flushInterval)
		synctest.Wait()
		changes, _ = store.taken()
		require.Len(t, changes, 1)
		require.Equal(t, waits.Key, changes[0].Key)
		require.Equal(t, Registered, changes[0].Event.Kind)
		require.Zero(t, r.outbox.waiting())
	})
}

func TestAStoreThatIsAwayForLongIsNotToldOfAllThatWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		checkIn(t, r, host("early", 1))
		checkIn(t, r, host("late", 2))
		makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Drain})
		synctest.Wait()
		store.taken()
		store.fail(errors.New("away"))
		checkIn(t, r, host("early", 1)) // a beat, which is not told either
		remove := func(id string) {
			_, err := r.Remove(Selection{Service: "users", ID: id}, "tester")
			require.NoError(t, err)
		}
		remove("early")
		_, err := r.End(SettingKey{Scope{Service: "users"}, Drain}, "tester")
		require.NoError(t, err)
		time.Sleep(RemovalLife)
		checkIn(t, r, host("stays", 3))
		remove("late")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, 3, r.outbox.waiting())
		require.Empty(t, r.outbox.beats)
		expected := "# HELP discovery_store_waiting Changes of hosts and settings that the store has not taken yet.\n" +
			"# TYPE discovery_store_waiting gauge\ndiscovery_store_waiting 3\n"
		require.NoError(t, testutil.GatherAndCompare(r.options.Metrics.(prometheus.Gatherer), strings.NewReader(expected), "discovery_store_waiting"))

		store.fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		told := map[string]bool{}
		for _, c := range changes(store) {
			told[c.Key.ID+string(c.SettingKey.Kind)] = true
		}
		require.Equal(t, map[string]bool{"late": true, "stays": true, "drain": true}, told)
		require.Zero(t, r.outbox.waiting())
		_, beats := store.taken()
		require.NotContains(t, Keys(beats), Key{"users", "early"})
	})
}

func TestTheLastChangesAreStoredWhenTheRegistryStops(t *testing.T) {
	store := newFakeStore()
	r := newRegistry(store)
	stop := run(t, r)
	<-r.Loaded()
	checkIn(t, r, host("a", 1))
	stop()
	changes, _ := store.taken()
	require.Len(t, changes, 1)
}

func TestWhatOtherReplicasDidIsTakenOverAndNotSentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		apply := <-store.followed
		checkIn(t, r, host("mine", 1))
		synctest.Wait()
		store.taken()

		theirs := Record{Host: new(host("theirs", 2)), FirstSeen: time.Now(), LastCheckIn: time.Now()}
		apply(Update{Changes: []Change{{Key: theirs.Host.Key, Record: &theirs}, {Key: Key{Service: "users", ID: "mine"}}, {Key: Key{Service: "none"}}}})
		require.Equal(t, []string{"theirs"}, ids(t, r))

		// Its beats are heard by the other replica alone.
		for range 3 {
			time.Sleep(40 * time.Second)
			apply(Update{Beats: []Beat{{Key: theirs.Host.Key, At: time.Now()}, {Key: Key{Service: "none"}, At: time.Now()}}})
		}
		synctest.Wait()
		require.Equal(t, []string{"theirs"}, ids(t, r))
		changes, beats := store.taken()
		require.Empty(t, changes)
		require.Empty(t, beats)
	})
}

// names are those of the services that a feed has.
func names(f *Feed) []string { return slices.Collect(maps.Keys(f.Take())) }

func TestAFeedTellsWhenEachServiceFirstChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		feed := r.Subscribe()
		checkIn(t, r, host("a", 1))
		first := time.Now()
		time.Sleep(time.Second)
		checkIn(t, r, host("b", 2))
		orders := host("a", 1)
		orders.Service = "orders"
		checkIn(t, r, orders)
		require.Equal(t, map[string]time.Time{"users": first, "orders": first.Add(time.Second)}, feed.Take())
		checkIn(t, r, host("c", 3))
		require.Equal(t, map[string]time.Time{"users": first.Add(time.Second)}, feed.Take())
	})
}

func TestAFeedNamesEachServiceThatChangedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore(Record{Host: new(host("a", 1)), LastCheckIn: time.Now()}))
		feed := r.Subscribe()
		<-feed.Ready()
		require.Equal(t, []string{"users"}, names(feed), "what was known when it began")

		checkIn(t, r, host("a", 1))
		require.Empty(t, feed.Take(), "a beat changes nothing")

		checkIn(t, r, host("b", 2))
		checkIn(t, r, host("c", 3))
		orders := host("a", 1)
		orders.Service = "orders"
		checkIn(t, r, orders)
		<-feed.Ready()
		require.ElementsMatch(t, []string{"users", "orders"}, names(feed))
		require.Empty(t, feed.Take())

		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.ElementsMatch(t, []string{"users", "orders"}, names(feed), "all hosts expired")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.ElementsMatch(t, []string{"users", "orders"}, names(feed), "both were forgotten")
	})
}
