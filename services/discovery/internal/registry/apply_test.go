package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// followed is a running registry, what its Store tells it by, and a host of
// each kind: one that both know, one that the registry alone knows, and one that
// the Store alone knows, which is not there yet.
func followed(t *testing.T) (r *Registry, store *fakeStore, apply func(Update), both, theirs Record) {
	store = newFakeStore()
	r = started(t, store)
	apply = <-store.followed
	checkIn(t, r, host("both", 1))
	checkIn(t, r, host("mine", 2))
	synctest.Wait() // so that the Store has been told
	for _, c := range changes(store) {
		if c.Key.ID == "both" {
			both = *c.Record
		}
	}
	theirs = Record{Host: new(host("theirs", 3)), Lease: 3, FirstSeen: time.Now(), LastCheckIn: time.Now()}
	return r, store, apply, both, theirs
}

func changes(store *fakeStore) []Change {
	changes, _ := store.taken()
	return changes
}

func everyService(string) bool { return true }

func TestWhatWasMissedIsTakenFromTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, theirs := followed(t)
		makeSetting(t, r, Setting{Scope: Scope{Service: "users", ID: "mine"}, Kind: Drain})
		time.Sleep(50 * time.Second) // so that nobody knows whether it lives
		checkIn(t, r, host("both", 1))
		synctest.Wait()
		changes(store)
		whole := &Contents{
			Records:  []Record{both, theirs},
			Settings: []Setting{{Scope: Scope{Service: "users"}, Kind: Weigh, Weight: 5, Author: "bob", Made: time.Now()}},
		}
		apply(Update{Whole: whole, Covers: func(service string) bool { return service == "orders" }})
		require.Equal(t, []string{"both", "mine", "theirs"}, ids(t, r), "of services that are not covered nothing goes")
		apply(Update{Whole: whole, Covers: everyService})
		require.Equal(t, []string{"both", "theirs"}, ids(t, r))
		require.Equal(t, uint8(5), seen(t, r)["both"].Weight)
		settings, err := r.Settings()
		require.NoError(t, err)
		require.Len(t, settings, 1)
		synctest.Wait()
		require.Empty(t, changes(store), "nothing of it goes back")
	})
}

// One that was cut off from the Store for long reads it as a whole: what others took
// for dead meanwhile may have beaten here all the time.
func TestAHostThatBeatsHereIsGivenAgainWhenTheWholeLacksIt(t *testing.T) {
	for name, c := range map[string]struct {
		silent time.Duration
		buried bool
		stays  bool
	}{
		"it beat lately":                        {40 * time.Second, false, true},
		"nobody heard of it for nearly its TTL": {50 * time.Second, false, false},
		"it was deregistered":                   {0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				r := started(t, store)
				receipt, err := r.CheckIn(host("a", 1), "tester")
				require.NoError(t, err)
				time.Sleep(c.silent)
				synctest.Wait()
				changes(store)
				whole := &Contents{Buried: []Burial{{Lease: receipt.Lease + 1}}}
				if c.buried {
					whole.Buried = append(whole.Buried, Burial{Lease: receipt.Lease})
				}
				r.apply(Update{Whole: whole, Covers: everyService})
				synctest.Wait()
				given := changes(store)
				if !c.stays {
					require.Empty(t, ids(t, r))
					require.Empty(t, given, "the store would refuse it, and be read anew")
					return
				}
				require.Equal(t, []string{"a"}, ids(t, r))
				require.Len(t, given, 1)
				require.Equal(t, receipt.Lease, given[0].Record.Lease)
			})
		})
	}
}

func TestAStoreThatLostDataIsGivenItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, theirs := followed(t)
		makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Drain})
		time.Sleep(50 * time.Second)
		checkIn(t, r, host("both", 1))
		synctest.Wait()
		changes(store)

		apply(Update{Whole: &Contents{Records: []Record{both, theirs}}, Covers: everyService, Lost: true})
		require.Equal(t, []string{"both", "mine", "theirs"}, ids(t, r), "nothing is gone because the store lacks it")
		synctest.Wait()
		var again []string
		for _, c := range changes(store) {
			again = append(again, c.Key.ID+c.SettingKey.Scope.Service)
		}
		require.ElementsMatch(t, []string{"both", "mine", "users"}, again, "what it lacks, and what is newer here")
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"both", "mine", "theirs"}, ids(t, r), "all have their full TTL from then")
	})
}

func TestOfASettingTheLaterOneCountsWhereAStoreLostData(t *testing.T) {
	for name, c := range map[string]struct {
		stored time.Duration // when the stored one was made, after the one here
		want   uint8
		given  int
	}{
		"made before": {-time.Second, 90, 1},
		"made after":  {time.Second, 10, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, apply, both, theirs := followed(t)
				here := Setting{Scope: Scope{Service: "users"}, Kind: Weigh, Weight: 90, Author: "ann", Made: time.Now()}
				makeSetting(t, r, here)
				synctest.Wait()
				changes(store)
				there := here
				there.Weight, there.Made = 10, here.Made.Add(c.stored)
				apply(Update{Whole: &Contents{Records: []Record{both, theirs}, Settings: []Setting{there}}, Covers: everyService, Lost: true})
				synctest.Wait()
				settings, err := r.Settings()
				require.NoError(t, err)
				require.Len(t, settings, 1)
				require.Equal(t, c.want, settings[0].Weight)
				given := 0
				for _, change := range changes(store) {
					if change.Setting != nil {
						require.Equal(t, here, *change.Setting)
						given++
					}
				}
				require.Equal(t, c.given, given)
			})
		})
	}
}

func TestWhatAStoreIsGivenAgainIsLoggedOnceAndNotUnderTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRegistry(store)
		var lines []string
		r.log = slog.New(lockingLog{r, &lines})
		run(t, r)
		<-r.Loaded()
		apply := <-store.followed
		checkIn(t, r, host("a", 1))
		checkIn(t, r, host("b", 2))
		makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Drain})
		for _, part := range []string{"users", "orders", "carts"} {
			apply(Update{Whole: &Contents{}, Covers: func(s string) bool { return s == part }, Lost: true})
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"the store lost data, and is given it again hosts=2 settings=1"}, lines)
	})
}

func TestThatAStoreRefusesIsLoggedOnceAndNotUnderTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(newFakeStore())
		var lines []string
		r.log = slog.New(lockingLog{r, &lines})
		for _, call := range []storeCall{telling, following} {
			r.answered(call, fmt.Errorf("%w: NOPERM", ErrRefused))
		}
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "NOPERM")
		why, refused := r.Trouble()
		require.Contains(t, why, "NOPERM")
		require.True(t, refused)
	})
}

// lockingLog keeps the lines about lost data and refusals, and takes the registry's lock for
// each line: it must be free.
type lockingLog struct {
	r     *Registry
	lines *[]string
}

func (l lockingLog) Enabled(context.Context, slog.Level) bool { return true }
func (l lockingLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l lockingLog) WithGroup(string) slog.Handler            { return l }

func (l lockingLog) Handle(_ context.Context, record slog.Record) error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if !strings.Contains(record.Message, "lost data") && !strings.Contains(record.Message, "refuses") {
		return nil
	}
	line := record.Message
	record.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	*l.lines = append(*l.lines, line)
	return nil
}

func TestWhatTheStoreHasYetToBeToldIsNotUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, _ := followed(t)
		store.fail(ErrNotLoaded)
		newer := host("both", 1)
		newer.Revision = "r2"
		checkIn(t, r, newer)
		checkIn(t, r, host("new", 4))
		_, err := r.Remove(Selection{Service: "users", ID: "mine"}, "tester")
		require.NoError(t, err)
		mine := Record{Host: new(host("mine", 2)), LastCheckIn: time.Now()}
		apply(Update{Changes: []Change{{Key: both.Host.Key, Record: &both}, {Key: mine.Host.Key, Record: &mine}}})
		apply(Update{Whole: &Contents{Records: []Record{both, mine}}, Covers: everyService})
		require.Equal(t, []string{"both", "new"}, ids(t, r))
		require.Equal(t, "r2", seen(t, r)["both"].Host.Revision)
	})
}

func TestAChangeThatIsContestedWhileTheStoreIsToldOfItIsGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, _ := followed(t)
		other := both
		other.Host = new(host("both", 99))
		appends := 0
		store.onAppend = func() {
			if appends++; appends == 1 {
				apply(Update{Changes: []Change{{Key: both.Host.Key, Record: &other}}})
			}
		}
		checkIn(t, r, host("both", 7))
		synctest.Wait()
		list := changes(store)
		require.Len(t, list, 2)
		for _, c := range list {
			require.Equal(t, uint16(7), c.Record.Host.Address.Port(), "it may have been the earlier one there")
		}
		require.Nil(t, list[1].Event, "it is not told twice")
		require.Equal(t, 2, appends)
	})
}

func TestARemovalIsOfOneStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, apply, both, _ := followed(t)
		apply(Update{Changes: []Change{{Key: both.Host.Key, Lease: both.Lease + 1}}})
		require.Contains(t, ids(t, r), "both", "it came back since")
		apply(Update{Changes: []Change{{Key: both.Host.Key, Lease: both.Lease, Event: &Event{Service: "users", Kind: Lost, Actor: "another"}}}})
		require.NotContains(t, ids(t, r), "both")
		events, err := r.History("users")
		require.NoError(t, err)
		require.Equal(t, "another", events[len(events)-1].Actor)

		again := both
		again.Lease = both.Lease + 7
		apply(Update{Changes: []Change{{Key: both.Host.Key, Record: &again}}})
		unknown, err := r.Beat([]Lease{both.Lease, again.Lease}, nil, "tester")
		require.NoError(t, err)
		require.Equal(t, []Lease{both.Lease}, unknown)
	})
}

// A removal that another writer contests is told once more, and still of when it was.
func TestAContestedRemovalIsToldAgainWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, _ := followed(t)
		appends := 0
		store.onAppend = func() {
			if appends++; appends == 1 {
				apply(Update{Changes: []Change{{Key: both.Host.Key, Record: &both}}})
				time.Sleep(time.Second)
			}
		}
		went := time.Now()
		_, err := r.Remove(Selection{Service: "users", ID: "both"}, "tester")
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		list := changes(store)
		require.Len(t, list, 2)
		for _, c := range list {
			require.Nil(t, c.Record)
			require.True(t, c.Went.Equal(went))
		}
	})
}

func TestAHistoryTellsOfWhatOthersDidAndChangesNothingHere(t *testing.T) {
	for name, c := range map[string]struct {
		change func(known Record) Change
		away   bool // the Store, to which the registry has something to tell of the host
		told   bool
	}{
		"a host went that came back since": {func(r Record) Change {
			return Change{Lease: r.Lease + 1, Event: &Event{Kind: Deregistered}}
		}, false, true},
		"a host registered that is known so": {func(r Record) Change {
			return Change{Record: &r, Event: &Event{Kind: Registered}}
		}, false, true},
		"a host changed that changed here since": {func(r Record) Change {
			return Change{Record: &r, Event: &Event{Kind: Changed}}
		}, true, true},
		"it is told of its own": {func(r Record) Change {
			return Change{Record: &r, Event: &Event{Kind: Changed}, Own: true}
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, apply, both, _ := followed(t)
				if c.away {
					store.fail(errors.New("away"))
					checkIn(t, r, host("both", 9))
				}
				before, err := r.History("users")
				require.NoError(t, err)
				change := c.change(both)
				change.Key = both.Host.Key
				change.Event.Service, change.Event.ID, change.Event.Actor = "users", "both", "another"
				apply(Update{Changes: []Change{change}})
				after, err := r.History("users")
				require.NoError(t, err)
				require.Contains(t, ids(t, r), "both")
				if !c.told {
					require.Equal(t, before, after)
					return
				}
				require.Len(t, after, len(before)+1)
				require.Equal(t, change.Event.Kind, after[len(before)].Kind)
			})
		})
	}
}

// What this replica has yet to tell of a host that registered here is no reason to let it
// go: it is told once more, as a host that came back.
func TestAHostWhoseRegistrationWaitsComesBackToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, _ := followed(t)
		store.fail(errors.New("away"))
		time.Sleep(time.Second)
		went := time.Now()
		time.Sleep(time.Second)
		checkIn(t, r, host("both", 9))
		synctest.Wait()
		event := &Event{Kind: Deregistered, Service: "users", ID: "both", Actor: "another"}
		apply(Update{Changes: []Change{{Key: both.Host.Key, Lease: both.Lease, Went: went, Event: event}}})
		require.Contains(t, ids(t, r), "both")
		store.fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		given := changes(store)
		require.Len(t, given, 1)
		require.Equal(t, uint16(9), given[0].Record.Host.Address.Port())
		require.Equal(t, Registered, given[0].Event.Kind)
		require.True(t, given[0].Registered.After(went))
	})
}

// A host that deregistered at another replica may register here before this one hears
// that it went, and is answered that it is known.
func TestAHostThatRegisteredHereAfterItWentElsewhereStays(t *testing.T) {
	const moment = 100 * time.Millisecond
	nothing := func(*testing.T, *Registry, Lease) {}
	register := func(t *testing.T, r *Registry, _ Lease) { checkIn(t, r, host("a", 1)) }
	change := func(t *testing.T, r *Registry, _ Lease) { checkIn(t, r, host("a", 2)) }
	beat := func(t *testing.T, r *Registry, lease Lease) {
		unknown, err := r.Beat([]Lease{lease}, nil, "tester")
		require.NoError(t, err)
		require.Empty(t, unknown, "nobody here knows yet")
	}
	for name, c := range map[string]struct {
		loaded bool // the Store told of the host; or else it registered here
		kind   EventKind
		heard  func(*testing.T, *Registry, Lease) // what came here
		after  time.Duration                      // how long after the host went
		stays  bool
	}{
		"it registered after it deregistered":          {false, Deregistered, register, moment, true},
		"it registered as another":                     {false, Deregistered, change, moment, true},
		"it registered after it was lost":              {false, Lost, register, moment, true},
		"it registered before it deregistered":         {false, Deregistered, register, -moment, false},
		"it registered at the time that it is told by": {false, Deregistered, register, 0, false},
		"it beat after it deregistered":                {false, Deregistered, beat, moment, false},
		"it beat after it was lost":                    {false, Lost, beat, moment, false},
		"it went before this replica began":            {true, Deregistered, nothing, time.Hour, false},
		"it was lost before this replica began":        {true, Lost, nothing, time.Hour, false},
		"it beat, and went before this replica began":  {true, Deregistered, beat, time.Hour, false},
		"it registered, having gone before that":       {true, Deregistered, register, time.Hour, true},
	} {
		for how, tell := range map[string]func(r *Registry, lease Lease, went time.Time, kind EventKind){
			"told alone": func(r *Registry, lease Lease, went time.Time, kind EventKind) {
				event := &Event{At: time.Now().Add(time.Hour), Kind: kind, Service: "users", ID: "a", Actor: "ann"} // by another clock
				r.apply(Update{Changes: []Change{{Key: host("a", 1).Key, Lease: lease, Went: went, Event: event}}})
			},
			"told with all": func(r *Registry, lease Lease, went time.Time, _ EventKind) {
				r.apply(Update{Whole: &Contents{Buried: []Burial{{Lease: lease, At: went}}}, Covers: everyService})
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newFakeStore()
					lease := NewLease()
					if c.loaded {
						store.records = []Record{{Host: new(host("a", 1)), Lease: lease, FirstSeen: time.Now(), LastCheckIn: time.Now()}}
					}
					r := started(t, store)
					if !c.loaded {
						receipt, err := r.CheckIn(host("a", 1), "tester")
						require.NoError(t, err)
						lease = receipt.Lease
					}
					time.Sleep(moment)
					c.heard(t, r, lease)
					went := time.Now().Add(-c.after)
					synctest.Wait()
					changes(store)

					tell(r, lease, went, c.kind)
					synctest.Wait()
					given := changes(store)
					unknown, err := r.Beat([]Lease{lease}, nil, "tester")
					require.NoError(t, err)
					if !c.stays {
						require.Equal(t, []Lease{lease}, unknown)
						require.Empty(t, ids(t, r))
						require.Empty(t, given)
						return
					}
					require.Empty(t, unknown, "it was answered that lease")
					require.Equal(t, []string{"a"}, ids(t, r))
					require.Len(t, given, 1)
					require.Equal(t, lease, given[0].Record.Lease)
					require.True(t, given[0].Registered.After(went), "so the store takes it back")
					require.Equal(t, Registered, given[0].Event.Kind)
					list, err := r.List("users")
					require.NoError(t, err)
					require.Equal(t, given[0].Record.FirstSeen.UTC(), list.Hosts[0].FirstSeen.UTC())
					require.True(t, list.Hosts[0].FirstSeen.After(went), "this is another stay")
				})
			})
		}
	}
}

// A host may register at two replicas before either hears of the other: then one
// lease comes in the place of the other, and who registered here still did.
func TestAHostThatRegisteredHereStaysWhenAnotherLeaseOfItGoes(t *testing.T) {
	const moment = 100 * time.Millisecond
	for name, c := range map[string]struct {
		before, after bool // whether it registered here before the host went, and after
		toldBetween   bool // whether the other lease was heard of before that
		stays         bool
	}{
		"it registered after, under the lease that went": {true, true, true, true},
		"it registered after, under its own lease":       {true, true, false, true},
		"it registered before":                           {true, false, true, false},
		"it never registered here":                       {false, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				r := started(t, store)
				if c.before {
					checkIn(t, r, host("a", 1))
					synctest.Wait()
					changes(store)
				}
				other := Record{Host: new(Host), Lease: NewLease(), FirstSeen: time.Now(), LastCheckIn: time.Now()}
				*other.Host = host("a", 1)
				tell := func() { r.apply(Update{Changes: []Change{{Key: other.Host.Key, Record: &other}}}) }
				if c.toldBetween {
					tell()
				}
				time.Sleep(moment)
				went := time.Now()
				time.Sleep(moment)
				if c.after {
					checkIn(t, r, host("a", 1))
				}
				if !c.toldBetween {
					tell()
				}
				synctest.Wait()
				changes(store)
				event := &Event{At: went, Kind: Deregistered, Service: "users", ID: "a", Actor: "ann"}
				r.apply(Update{Changes: []Change{{Key: other.Host.Key, Lease: other.Lease, Went: went, Event: event}}})
				synctest.Wait()
				given := changes(store)
				if !c.stays {
					require.Empty(t, ids(t, r))
					require.Empty(t, given)
					return
				}
				require.Equal(t, []string{"a"}, ids(t, r))
				require.Len(t, given, 1)
				require.Equal(t, other.Lease, given[0].Record.Lease)
				require.True(t, given[0].Registered.After(went))
			})
		})
	}
}

func TestWhatTheStoreMissesIsGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, _, both, _ := followed(t)
		store.mu.Lock()
		store.missing = []Key{both.Host.Key, {Service: "users", ID: "went meanwhile"}}
		store.mu.Unlock()
		time.Sleep(flushInterval)
		synctest.Wait()
		require.Empty(t, changes(store), "without beats nothing is flushed")
	})
	synctest.Test(t, func(t *testing.T) {
		r, store, _, both, _ := followed(t)
		store.mu.Lock()
		store.missing = []Key{both.Host.Key, {Service: "users", ID: "went meanwhile"}}
		store.mu.Unlock()
		checkIn(t, r, host("both", 1))
		time.Sleep(flushInterval)
		synctest.Wait()
		given := changes(store)
		require.Len(t, given, 1)
		require.Equal(t, both.Lease, given[0].Record.Lease)
	})
}

func TestWhatIsGivenAgainStillTellsWhatTheStoreWasNotToldOf(t *testing.T) {
	for name, whileTold := range map[string]bool{"while it waits": false, "while the store is told of it": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, apply, _, _ := followed(t)
				again := func() { apply(Update{Whole: &Contents{}, Covers: everyService, Lost: true}) }
				store.fail(errors.New("away"))
				if whileTold {
					once := sync.OnceFunc(again)
					store.onAppend = once
				}
				changed := host("mine", 7)
				checkIn(t, r, changed)
				makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Drain})
				synctest.Wait()
				if !whileTold {
					again()
				}
				store.fail(nil)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				events := map[EventKind]int{}
				for _, c := range changes(store) {
					if c.Event != nil {
						events[c.Event.Kind]++
					}
				}
				require.Equal(t, map[EventKind]int{Changed: 1, SettingMade: 1}, events)
			})
		})
	}
}

func TestAVersionIsThatOfWhatReadersSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := func(r *Registry) Version {
			list, err := r.List("users")
			require.NoError(t, err)
			return list.Version
		}
		one, other := started(t, newFakeStore()), started(t, newFakeStore())
		require.Zero(t, version(one))
		for _, r := range []*Registry{one, other} {
			for i, id := range strings.Fields("a b c") {
				h := host(id, uint16(i+1))
				h.TTL = time.Hour
				checkIn(t, r, h)
			}
		}
		before := version(one)
		require.Equal(t, before, version(other), "equal on every replica")
		time.Sleep(time.Second)
		h := host("a", 1)
		h.TTL = time.Hour
		checkIn(t, one, h)
		require.Equal(t, before, version(one), "a beat is no change")
		summaries, err := one.Services()
		require.NoError(t, err)
		require.Equal(t, before, summaries[0].Version)

		seen := map[Version]string{before: "before"}
		differs := func(what string) {
			v := version(one)
			require.Empty(t, seen[v], "%s: the same as %s", what, seen[v])
			seen[v] = what
		}
		makeSetting(t, one, Setting{Scope: Scope{Service: "users", ID: "b"}, Kind: Drain})
		differs("draining")
		time.Sleep(31 * time.Second)
		differs("out")
		makeSetting(t, one, Setting{Scope: Scope{Service: "users", ID: "b"}, Kind: Weigh, Weight: 1})
		differs("weight")
		require.Equal(t, 1, one.SetHealth(map[Key]bool{{Service: "users", ID: "b"}: true}, "tester"))
		differs("unhealthy")
		h.Tags.Other = nil
		_, err = one.Put(h, "tester")
		require.NoError(t, err)
		differs("a tag less")
		_, err = one.Remove(Selection{Service: "users", ID: "c"}, "tester")
		require.NoError(t, err)
		differs("a host less")
	})
}

// Another replica does not hear the beats of a host if this one cannot tell the
// Store of them.
func TestAHostThatBeatsHereIsGivenAgainWhenAnotherReplicaTookItForDead(t *testing.T) {
	expired := &Event{Kind: Expired, Actor: "whoever says so"}
	for name, c := range map[string]struct {
		event  *Event
		silent time.Duration
		stays  bool
	}{
		"it beat lately":                        {expired, 40 * time.Second, true},
		"nobody heard of it for nearly its TTL": {expired, 50 * time.Second, false},
		"its connection is gone":                {&Event{Kind: Lost, Actor: "ann"}, 0, false},
		"it was deregistered":                   {&Event{Kind: Deregistered, Actor: "discovery"}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				r := started(t, store)
				receipt, err := r.CheckIn(host("a", 1), "tester")
				require.NoError(t, err)
				time.Sleep(c.silent)
				synctest.Wait()
				store.taken()
				r.apply(Update{Changes: []Change{{Key: host("a", 1).Key, Lease: receipt.Lease, Event: c.event}}})
				synctest.Wait()
				given, _ := store.taken()
				if !c.stays {
					require.Empty(t, ids(t, r))
					require.Empty(t, given)
					return
				}
				require.Equal(t, []string{"a"}, ids(t, r))
				require.Len(t, given, 1)
				require.Equal(t, receipt.Lease, given[0].Record.Lease)
			})
		})
	}
}
