// Package storetest is the suite that every registry.Store must pass. A store's
// own test calls Run with a way to open one, or RunForgetful if it keeps
// nothing, and RunShared too if several replicas can write to the same data;
// what is special to a store, such as what survives a crash, its own test adds.
// It holds no expectations beyond those written at registry.Store.
package storetest

import (
	"encoding/json"
	"hash/crc32"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// suite is tests by name; each gets a store of its own.
type suite map[string]func(*testing.T, registry.Store)

// run runs the suite. open returns a new, empty store each time it is called.
func (s suite) run(t *testing.T, open func(t *testing.T) registry.Store) {
	for name, test := range s {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Run tests a store that keeps hosts. open returns a new, empty store each time
// it is called.
func Run(t *testing.T, open func(t *testing.T) registry.Store) {
	all().run(t, open)
	keeping().run(t, open)
}

// RunForgetful tests a store that keeps nothing. open returns a new store each
// time it is called.
func RunForgetful(t *testing.T, open func(t *testing.T) registry.Store) {
	all().run(t, open)
	forgetful().run(t, open)
}

// all is what holds for every store.
func all() suite {
	return suite{
		"a new store has no hosts and no settings": func(t *testing.T, s registry.Store) {
			require.Empty(t, load(t, s))
			require.Empty(t, loadSettings(t, s))
		},
		"no changes and no beats are no error": func(t *testing.T, s registry.Store) {
			require.NoError(t, s.Append(t.Context(), nil))
			require.Empty(t, flush(t, s))
		},
	}
}

// forgetful is what holds for one that keeps nothing.
func forgetful() suite {
	return suite{
		"what was appended is not loaded": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			put(t, s, r)
			set(t, s, Setting(registry.Scope{Service: "users"}, registry.Drain))
			flush(t, s, registry.Beat{Key: r.Host.Key, At: time.Now()})
			require.Empty(t, load(t, s))
			require.Empty(t, loadSettings(t, s))
		},
	}
}

// keeping is what holds for one that keeps hosts and settings.
func keeping() suite {
	users := registry.Scope{Service: "users"}
	return suite{
		"what was appended is loaded with every field": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			canary := true
			r.Host.Additional = []netip.Addr{netip.MustParseAddr("fd00::1")}
			r.Host.Ports = []registry.Port{{Name: "grpc", Number: 9090}, {Name: "metrics", Number: 9100}}
			r.Host.Repo, r.Host.Revision = "repo", "r1"
			r.Host.Tags = registry.Tags{
				Region: "eu", Zone: "eu-1", InstanceID: "i-1", Canary: &canary, Weight: 7,
				Other: registry.TagListOf(map[string]json.RawMessage{"rack": json.RawMessage(`{"row":3,"note":"<a & b>"}`)}),
			}
			r.Host.Draining, r.DrainingSince = true, r.FirstSeen.Add(time.Second)
			put(t, s, r)
			require.Equal(t, map[registry.Key]registry.Record{r.Host.Key: r}, load(t, s))
		},
		"a later description replaces the earlier one": func(t *testing.T, s registry.Store) {
			put(t, s, Record("users", "a", 1))
			change(t, s, Record("users", "a", 2), registry.Parts{Description: true})
			require.Equal(t, uint16(2), load(t, s)[registry.Key{Service: "users", ID: "a"}].Host.Address.Port())
		},
		"it is partial until it is said to be complete": func(t *testing.T, s registry.Store) {
			partial := func() bool {
				t.Helper()
				contents, err := s.Load(t.Context())
				require.NoError(t, err)
				return contents.Partial
			}
			require.True(t, partial())
			put(t, s, Record("users", "a", 1))
			require.True(t, partial())
			require.NoError(t, s.Complete(t.Context()))
			require.False(t, partial())
			put(t, s, Record("users", "b", 1))
			require.False(t, partial())
		},
		"appending the same twice is harmless": func(t *testing.T, s registry.Store) {
			put(t, s, Record("users", "a", 1))
			put(t, s, Record("users", "a", 1))
			require.Len(t, load(t, s), 1)
		},
		"equal IDs of two services are two hosts": func(t *testing.T, s registry.Store) {
			put(t, s, Record("users", "a", 1), Record("orders", "a", 1))
			require.Len(t, load(t, s), 2)
		},
		"a host that is gone is not loaded": func(t *testing.T, s registry.Store) {
			a, b := Record("users", "a", 1), Record("users", "b", 1)
			put(t, s, a, b)
			remove(t, s, a)
			require.Equal(t, map[registry.Key]registry.Record{b.Host.Key: b}, load(t, s))
		},
		"removing twice, or what never was, is harmless": func(t *testing.T, s registry.Store) {
			a := Record("users", "a", 1)
			put(t, s, a)
			remove(t, s, a)
			remove(t, s, a)
			remove(t, s, Record("none", "none", 1))
			require.Empty(t, load(t, s))
		},
		"a host may come back with another lease": func(t *testing.T, s registry.Store) {
			a := Record("users", "a", 1)
			put(t, s, a)
			remove(t, s, a)
			a.Lease++
			put(t, s, a)
			require.Equal(t, a.Lease, load(t, s)[a.Host.Key].Lease)
		},
		"a beat moves the time of the last check-in, and an earlier one does not": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			put(t, s, r)
			at := r.LastCheckIn.Add(time.Minute)
			require.Empty(t, flush(t, s, registry.Beat{Key: r.Host.Key, At: at}))
			require.Equal(t, at, load(t, s)[r.Host.Key].LastCheckIn)
			require.Empty(t, flush(t, s, registry.Beat{Key: r.Host.Key, At: at.Add(-30 * time.Second)}))
			require.Equal(t, at, load(t, s)[r.Host.Key].LastCheckIn)
		},
		"a beat brings no removed host back": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			put(t, s, r)
			remove(t, s, r)
			flush(t, s, registry.Beat{Key: r.Host.Key, At: time.Now()})
			require.Empty(t, load(t, s))
		},
		"a host that expired is not loaded": func(t *testing.T, s registry.Store) {
			a, b := Record("users", "a", 1), Record("users", "b", 1)
			put(t, s, a, b)
			removeFor(t, s, a, registry.Expired)
			require.Equal(t, map[registry.Key]registry.Record{b.Host.Key: b}, load(t, s))
		},
		"settings are loaded with every field": func(t *testing.T, s registry.Store) {
			weight := Setting(users, registry.Weigh)
			weight.Expires = weight.Made.Add(time.Hour)
			settings := []registry.Setting{
				weight,
				Setting(users, registry.Drain),
				Setting(registry.Scope{Service: "users", ID: "a"}, registry.Maintenance),
				Setting(registry.Scope{Service: "users", Zone: "eu-1"}, registry.Drain),
				Setting(registry.Scope{Zone: "eu-1"}, registry.Drain),
			}
			set(t, s, settings...)
			kept := loadSettings(t, s)
			require.Len(t, kept, len(settings))
			for _, want := range settings {
				require.Equal(t, want, kept[want.Key()])
			}
		},
		"a setting takes the place of an earlier one, and ends": func(t *testing.T, s registry.Store) {
			first, second := Setting(users, registry.Weigh), Setting(users, registry.Weigh)
			second.Weight++
			set(t, s, first)
			set(t, s, second, Setting(users, registry.Drain))
			require.Equal(t, second, loadSettings(t, s)[first.Key()])
			unset(t, s, first.Key())
			unset(t, s, first.Key())
			require.Len(t, loadSettings(t, s), 1)
		},
		"hosts and settings are apart": func(t *testing.T, s registry.Store) {
			a, drain := Record("users", "a", 1), Setting(registry.Scope{Service: "users", ID: "a"}, registry.Drain)
			put(t, s, a)
			set(t, s, drain)
			remove(t, s, a)
			require.Empty(t, load(t, s))
			require.Len(t, loadSettings(t, s), 1)
			put(t, s, Record("users", "b", 1))
			unset(t, s, drain.Key())
			require.Len(t, load(t, s), 1)
			require.Empty(t, loadSettings(t, s))
		},
		"many changes at once are all kept": func(t *testing.T, s registry.Store) {
			var many []registry.Record
			for i := range 3000 {
				many = append(many, Record("service-"+string(rune('a'+i%26)), string(rune('a'+i)), 1))
			}
			put(t, s, many...)
			require.Len(t, load(t, s), len(many))
		},
		"changes and beats may come beside each other": func(t *testing.T, s registry.Store) { beside(t, s) },
	}
}

// Record is a host to store, at 10.0.0.1 and the given port, with a lease that
// follows from its names.
func Record(service, id string, port uint16) registry.Record {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	return registry.Record{
		Host: &registry.Host{
			Key:     registry.Key{Service: service, ID: id},
			Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port),
			TTL:     time.Minute,
		},
		Lease:       registry.Lease(crc32.ChecksumIEEE([]byte(service+"/"+id))) + 1,
		FirstSeen:   at,
		LastCheckIn: at,
	}
}

// Setting is one to store, for ever, of weight 50 if its kind has one.
func Setting(scope registry.Scope, kind registry.SettingKind) registry.Setting {
	s := registry.Setting{
		Scope: scope, Kind: kind, Author: "operator", Reason: "a test",
		Made: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC),
	}
	if kind == registry.Weigh {
		s.Weight = 50
	}
	return s
}

// beside has changes and beats come beside each other, and what else is called.
func beside(t *testing.T, s registry.Store, others ...func() error) {
	a := Record("users", "a", 1)
	put(t, s, a)
	var callers sync.WaitGroup
	run := func(call func(i int) error) {
		// Ends by itself; the test waits below.
		callers.Go(func() {
			for i := range 50 {
				if err := call(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	run(func(i int) error {
		r := Record("orders", string(rune('a'+i)), 1)
		return s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}})
	})
	run(func(i int) error {
		_, err := s.Flush(t.Context(), []registry.Beat{{Key: a.Host.Key, At: a.LastCheckIn.Add(time.Duration(i) * time.Second)}})
		return err
	})
	for _, call := range others {
		run(func(int) error { return call() })
	}
	callers.Wait()
	require.Len(t, load(t, s), 51)
}

func put(t *testing.T, s registry.Store, records ...registry.Record) {
	t.Helper()
	var changes []registry.Change
	for _, r := range records {
		changes = append(changes, registry.Change{Key: r.Host.Key, Record: &r, Event: event(r.Host.Key, registry.Registered)})
	}
	require.NoError(t, s.Append(t.Context(), changes))
}

// change tells s that parts of a host are as r has them.
func change(t *testing.T, s registry.Store, r registry.Record, parts registry.Parts) {
	t.Helper()
	require.NoError(t, s.Append(t.Context(), []registry.Change{
		{Key: r.Host.Key, Record: &r, Parts: parts, Event: event(r.Host.Key, registry.Changed)},
	}))
}

func remove(t *testing.T, s registry.Store, r registry.Record) {
	t.Helper()
	removeFor(t, s, r, registry.Deregistered)
}

func removeFor(t *testing.T, s registry.Store, r registry.Record, why registry.EventKind) {
	t.Helper()
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Lease: r.Lease, Event: event(r.Host.Key, why)}}))
}

func event(k registry.Key, kind registry.EventKind) *registry.Event {
	return &registry.Event{At: time.Date(2026, 2, 3, 4, 5, 7, 0, time.UTC), Kind: kind, Service: k.Service, ID: k.ID, Actor: "a test"}
}

func set(t *testing.T, s registry.Store, settings ...registry.Setting) {
	t.Helper()
	var changes []registry.Change
	for _, setting := range settings {
		changes = append(changes, registry.Change{SettingKey: setting.Key(), Setting: &setting})
	}
	require.NoError(t, s.Append(t.Context(), changes))
}

func unset(t *testing.T, s registry.Store, key registry.SettingKey) {
	t.Helper()
	require.NoError(t, s.Append(t.Context(), []registry.Change{{SettingKey: key}}))
}

func flush(t *testing.T, s registry.Store, beats ...registry.Beat) []registry.Key {
	t.Helper()
	missing, err := s.Flush(t.Context(), beats)
	require.NoError(t, err)
	return missing
}

func expire(t *testing.T, s registry.SharedStore, dead ...registry.Beat) []registry.Key {
	t.Helper()
	gone, err := s.Expire(t.Context(), dead)
	require.NoError(t, err)
	return gone
}

// load is the hosts that are kept. The times of their beats are those of a store
// with another clock, and so are rounded to ten seconds.
func load(t *testing.T, s registry.Store) map[registry.Key]registry.Record {
	t.Helper()
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	byKey := map[registry.Key]registry.Record{}
	for _, r := range contents.Records {
		r.LastCheckIn = rounded(r.LastCheckIn)
		byKey[r.Host.Key] = r
	}
	require.Len(t, byKey, len(contents.Records), "two records of one host")
	return byKey
}

// rounded is the time of a beat of a test, if at is less than five seconds off.
func rounded(at time.Time) time.Time {
	const offset = 6 * time.Second // the tests' times end with these
	return at.Add(-offset).Round(10 * time.Second).Add(offset).UTC()
}

func loadSettings(t *testing.T, s registry.Store) map[registry.SettingKey]registry.Setting {
	t.Helper()
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	byKey := map[registry.SettingKey]registry.Setting{}
	for _, setting := range contents.Settings {
		byKey[setting.Key()] = setting
	}
	require.Len(t, byKey, len(contents.Settings), "two settings of one key")
	return byKey
}
