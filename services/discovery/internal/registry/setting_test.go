package registry

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// seen is what readers see of each host of "users".
func seen(t testing.TB, r *Registry) map[string]View {
	t.Helper()
	list, err := r.List("users")
	require.NoError(t, err)
	views := map[string]View{}
	for _, v := range list.Hosts {
		views[v.Host.ID] = v
	}
	return views
}

func makeSetting(t testing.TB, r *Registry, s Setting) {
	t.Helper()
	s.Author, s.Made = "ann", time.Now()
	_, err := r.Make(s)
	require.NoError(t, err)
}

func TestTheNarrowerSettingHoldsAndNoBeatChangesIt(t *testing.T) {
	r := started(t, newFakeStore())
	a := host("a", 1)
	a.Tags.Weight = 7
	b := host("b", 2)
	b.Tags.Zone = "eu-2"
	c := host("c", 3)
	for _, h := range []Host{a, b, c} {
		checkIn(t, r, h)
	}
	weights := func() [3]uint8 {
		views := seen(t, r)
		return [3]uint8{views["a"].Weight, views["b"].Weight, views["c"].Weight}
	}
	for _, step := range []struct {
		scope  Scope
		weight uint8
		want   [3]uint8
	}{
		{Scope{Zone: "eu-2"}, 10, [3]uint8{7, 10, 0}},
		{Scope{Service: "users"}, 20, [3]uint8{20, 20, 20}},
		{Scope{Service: "users", Zone: "eu-1"}, 30, [3]uint8{30, 20, 30}},
		{Scope{Service: "users", ID: "c"}, 40, [3]uint8{30, 20, 40}},
		{Scope{Service: "users", ID: "nobody"}, 50, [3]uint8{30, 20, 40}},
	} {
		makeSetting(t, r, Setting{Scope: step.scope, Kind: Weigh, Weight: step.weight})
		require.Equal(t, step.want, weights(), "%+v", step.scope)
	}
	a.Tags.Weight = 8
	require.Equal(t, HostChanged, checkIn(t, r, a))
	require.Equal(t, uint8(30), weights()[0], "whatever the host says")

	ended, err := r.End(SettingKey{Scope{Service: "users", Zone: "eu-1"}, Weigh}, "bob")
	require.NoError(t, err)
	require.True(t, ended)
	require.Equal(t, [3]uint8{20, 20, 40}, weights())
	ended, err = r.End(SettingKey{Scope{Service: "users", Zone: "eu-1"}, Weigh}, "bob")
	require.NoError(t, err)
	require.False(t, ended, "it is no more")

	settings, err := r.Settings()
	require.NoError(t, err)
	require.Len(t, settings, 4)
	require.Equal(t, Scope{Zone: "eu-2"}, settings[0].Scope, "they are ordered")
}

func TestADrainedHostIsDrainingFirstAndThenOut(t *testing.T) {
	for name, test := range map[string]struct {
		begin func(t *testing.T, r *Registry)
		end   func(t *testing.T, r *Registry)
	}{
		"by an operator": {
			begin: func(t *testing.T, r *Registry) {
				makeSetting(t, r, Setting{Scope: Scope{Service: "users", ID: "a"}, Kind: Drain})
			},
			end: func(t *testing.T, r *Registry) {
				_, err := r.End(SettingKey{Scope{Service: "users", ID: "a"}, Drain}, "ann")
				require.NoError(t, err)
			}},
		"of a zone": {
			begin: func(t *testing.T, r *Registry) { makeSetting(t, r, Setting{Scope: Scope{Zone: "away"}, Kind: Drain}) },
			end: func(t *testing.T, r *Registry) {
				_, err := r.End(SettingKey{Scope{Zone: "away"}, Drain}, "ann")
				require.NoError(t, err)
			}},
		"by maintenance": {
			begin: func(t *testing.T, r *Registry) {
				makeSetting(t, r, Setting{Scope: Scope{Service: "users", ID: "a"}, Kind: Maintenance})
			},
			end: func(t *testing.T, r *Registry) {
				_, err := r.End(SettingKey{Scope{Service: "users", ID: "a"}, Maintenance}, "ann")
				require.NoError(t, err)
			}},
		"at its own wish": {
			begin: func(t *testing.T, r *Registry) { checkIn(t, r, drainedHost(true)) },
			end:   func(t *testing.T, r *Registry) { checkIn(t, r, drainedHost(false)) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, newFakeStore())
				checkIn(t, r, drainedHost(false))
				other := host("other", 2)
				other.TTL = time.Hour
				checkIn(t, r, other)
				feed := r.Subscribe()
				feed.Take()

				test.begin(t, r)
				require.Equal(t, Draining, seen(t, r)["a"].State)
				require.Equal(t, Serving, seen(t, r)["other"].State)
				require.Equal(t, []string{"users"}, names(feed))
				time.Sleep(29 * time.Second)
				synctest.Wait()
				require.Equal(t, Draining, seen(t, r)["a"].State)
				require.Empty(t, feed.Take())
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.Equal(t, Out, seen(t, r)["a"].State)
				require.Equal(t, []string{"users"}, names(feed), "readers hear of it")
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				require.Equal(t, Out, seen(t, r)["a"].State, "for as long as it beats")
				require.Empty(t, feed.Take())

				test.end(t, r)
				require.Equal(t, Serving, seen(t, r)["a"].State)
				require.Equal(t, []string{"users"}, names(feed))
			})
		})
	}
}

// drainedHost is a host that lives for long.
func drainedHost(draining bool) Host {
	h := host("a", 1)
	h.TTL, h.Tags.Zone, h.Draining = time.Hour, "away", draining
	return h
}

func TestASettingEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := started(t, store)
		h := host("a", 1)
		h.TTL = time.Hour
		checkIn(t, r, h)
		expires := time.Now().Add(10 * time.Minute)
		makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Drain, Reason: "new disks", Expires: expires})
		time.Sleep(10*time.Minute - time.Second)
		synctest.Wait()
		require.Equal(t, Out, seen(t, r)["a"].State)
		store.taken()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, Serving, seen(t, r)["a"].State)

		changes, _ := store.taken()
		require.Len(t, changes, 1)
		require.Equal(t, SettingKey{Scope{Service: "users"}, Drain}, changes[0].SettingKey)
		require.Nil(t, changes[0].Setting)
		events, err := r.History("users")
		require.NoError(t, err)
		last := events[len(events)-1]
		require.Equal(t, SettingEnded, last.Kind)
		require.Equal(t, "drain: new disks: its time is over", last.Detail)
	})
}

// A setting that one replica ends is ended for all.
func TestASettingDoesNotEndForATTLAfterTheWallClockWasSet(t *testing.T) {
	for name, c := range map[string]struct {
		wrongFor, lasts time.Duration // the latter from when the clock was set
	}{
		"it is right again soon": {50 * time.Second, 9 * time.Minute},
		"it stays as it was set": {time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				r := newRegistry(store)
				var set time.Duration
				r.wall.now = func() time.Time { return time.Now().Add(set) }
				run(t, r)
				<-r.Loaded()
				makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Maintenance, Expires: time.Now().Add(10 * time.Minute)})
				checkIn(t, r, host("a", 1)) // for a minute
				setBy := func(by time.Duration) {
					r.mu.Lock()
					defer r.mu.Unlock()
					set = by
				}
				time.Sleep(time.Minute)
				setBy(time.Hour)
				if c.wrongFor < c.lasts {
					time.AfterFunc(c.wrongFor, func() { setBy(0) })
				}
				changes(store)
				time.Sleep(c.lasts - time.Second)
				synctest.Wait()
				settings, err := r.Settings()
				require.NoError(t, err)
				require.Len(t, settings, 1)
				require.Empty(t, changes(store))
				time.Sleep(3 * time.Second)
				synctest.Wait()
				settings, err = r.Settings()
				require.NoError(t, err)
				require.Empty(t, settings)
				require.Len(t, changes(store), 1)
			})
		})
	}
}

func TestThereIsABoundToSettings(t *testing.T) {
	r := started(t, newFakeStore())
	s := Setting{Scope: Scope{Service: "users"}, Kind: Drain}
	for i := range MaxSettings {
		s.Scope.ID = time.Duration(i).String()
		makeSetting(t, r, s)
	}
	makeSetting(t, r, s) // in the place of its like
	s.Scope.ID = "one more"
	_, err := r.Make(s)
	require.ErrorIs(t, err, ErrTooManySettings)
}

func TestASettingOfAZoneStandsInTheHistoriesOfItsServices(t *testing.T) {
	store := newFakeStore()
	r := started(t, store)
	checkIn(t, r, host("a", 1))
	elsewhere := host("b", 2)
	elsewhere.Service, elsewhere.Tags.Zone = "orders", "eu-2"
	checkIn(t, r, elsewhere)
	feed := r.Events()
	defer feed.Close()
	makeSetting(t, r, Setting{Scope: Scope{Zone: "eu-1"}, Kind: Drain})
	_, err := r.End(SettingKey{Scope{Zone: "eu-1"}, Drain}, "ann")
	require.NoError(t, err)
	require.Equal(t, []EventKind{SettingMade, SettingEnded}, kinds(t, r, "users"))
	require.Empty(t, kinds(t, r, "orders"))
	events, _ := feed.Take()
	require.Len(t, events, 2, "each is told once")

	// So after a start, and on another replica.
	other := newFakeStore(Record{Host: new(host("a", 1)), LastCheckIn: time.Now()})
	other.events = events[:1]
	next := started(t, other)
	(<-other.followed)(Update{Changes: []Change{{SettingKey: SettingKey{Scope{Zone: "eu-1"}, Drain}, Event: &events[1],
		Setting: &Setting{Scope: Scope{Zone: "eu-1"}, Kind: Drain, Author: "ann", Made: time.Now()}}}})
	require.Equal(t, []EventKind{SettingMade, SettingEnded}, kinds(t, next, "users"))
}

func TestASettingThatIsMadeAgainIsAsOldAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		h := host("a", 1)
		h.TTL = time.Hour
		checkIn(t, r, h)
		drain := Setting{Scope: Scope{Service: "users"}, Kind: Drain}
		begun := time.Now()
		makeSetting(t, r, drain)
		time.Sleep(time.Minute)
		synctest.Wait()
		feed := r.Subscribe()
		feed.Take()
		drain.Author, drain.Made, drain.Expires = "bob", time.Now(), time.Now().Add(time.Hour)
		made, err := r.Make(drain)
		require.NoError(t, err)
		require.True(t, made.Made.Equal(begun))
		require.Equal(t, "bob", made.Author)
		require.Equal(t, Out, seen(t, r)["a"].State)
		events, err := r.History("users")
		require.NoError(t, err)
		require.True(t, events[len(events)-1].At.Equal(time.Now()), "it was made again now")
		feed.Take()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, feed.Take(), "nothing is other for readers")

		for _, weight := range []uint8{10, 20} {
			made, err := r.Make(Setting{Scope: drain.Scope, Kind: Weigh, Weight: weight, Author: "ann", Made: time.Now()})
			require.NoError(t, err)
			require.True(t, made.Made.Equal(time.Now()), "another weight does something else")
			time.Sleep(time.Second)
		}
	})
}

func TestSettingsComeBackWithTheStore(t *testing.T) {
	store := newFakeStore(Record{Host: new(host("a", 1)), LastCheckIn: time.Now()})
	store.settings = []Setting{{Scope: Scope{Service: "users"}, Kind: Weigh, Weight: 9, Author: "ann", Made: time.Now()}}
	store.events = []Event{{Service: "users", Kind: Registered, ID: "a"}, {Service: "unknown"}}
	r := started(t, store)
	require.Equal(t, uint8(9), seen(t, r)["a"].Weight)
	events, err := r.History("users")
	require.NoError(t, err)
	require.Len(t, events, 1)
}
