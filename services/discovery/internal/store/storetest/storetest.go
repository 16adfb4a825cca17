// Package storetest is the suite that every registry.Store must pass. A store's
// own test calls Run with a way to open one, or RunForgetful if it keeps
// nothing; what is special to a store, such as what survives a crash, its own
// test adds. It holds no expectations beyond those written at registry.Store.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
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
		"a new store has no hosts": func(t *testing.T, s registry.Store) {
			require.Empty(t, load(t, s))
		},
		"no changes and no beats are no error": func(t *testing.T, s registry.Store) {
			require.NoError(t, s.Append(t.Context(), nil))
			flush(t, s, nil)
		},
		"following ends with its context": func(t *testing.T, s registry.Store) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			// Ends with ctx; the test waits for its error.
			go func() { ended <- s.Follow(ctx, func(registry.Update) {}) }()
			cancel()
			require.NoError(t, <-ended)
		},
	}
}

// forgetful is what holds for one that keeps nothing.
func forgetful() suite {
	return suite{
		"what was appended is not loaded": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			put(t, s, r)
			flush(t, s, []registry.Beat{{Key: r.Host.Key, At: time.Now()}})
			require.Empty(t, load(t, s))
		},
	}
}

// keeping is what holds for one that keeps hosts.
func keeping() suite {
	return suite{
		"what was appended is loaded with every field": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			canary := true
			r.Host.Repo, r.Host.Revision = "repo", "r1"
			r.Host.Tags = registry.Tags{
				Region: "eu", Zone: "eu-1", InstanceID: "i-1", Canary: &canary, Weight: 7,
				Other: map[string]json.RawMessage{"rack": json.RawMessage(`{"row":3}`)},
			}
			put(t, s, r)
			require.Equal(t, map[registry.Key]registry.Record{r.Host.Key: r}, load(t, s))
		},
		"a later record replaces the earlier one": func(t *testing.T, s registry.Store) {
			put(t, s, Record("users", "a", 1))
			put(t, s, Record("users", "a", 2))
			require.Equal(t, uint16(2), load(t, s)[registry.Key{Service: "users", ID: "a"}].Host.Address.Port())
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
			put(t, s, Record("users", "a", 1), Record("users", "b", 1))
			remove(t, s, registry.Key{Service: "users", ID: "a"})
			require.Len(t, load(t, s), 1)
		},
		"removing twice, or what never was, is harmless": func(t *testing.T, s registry.Store) {
			put(t, s, Record("users", "a", 1))
			remove(t, s, registry.Key{Service: "users", ID: "a"})
			remove(t, s, registry.Key{Service: "users", ID: "a"})
			remove(t, s, registry.Key{Service: "none", ID: "none"})
			require.Empty(t, load(t, s))
		},
		"a beat moves the time of the last check-in": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			put(t, s, r)
			at := r.LastCheckIn.Add(time.Minute)
			flush(t, s, []registry.Beat{{Key: r.Host.Key, At: at}})
			require.True(t, at.Equal(load(t, s)[r.Host.Key].LastCheckIn))
		},
		"a beat brings no removed host back": func(t *testing.T, s registry.Store) {
			r := Record("users", "a", 1)
			put(t, s, r)
			remove(t, s, r.Host.Key)
			flush(t, s, []registry.Beat{{Key: r.Host.Key, At: time.Now()}})
			require.Empty(t, load(t, s))
		},
		"concurrent writers lose nothing": func(t *testing.T, s registry.Store) {
			var writers sync.WaitGroup
			for w := range 8 {
				// Ends by itself; the test waits below.
				writers.Go(func() {
					for i := range 50 {
						r := Record(fmt.Sprint("service-", w), fmt.Sprint(i), 1)
						if err := s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}); err != nil {
							t.Errorf("append: %v", err)
						}
					}
				})
			}
			writers.Wait()
			require.Len(t, load(t, s), 8*50)
		},
	}
}

// Record is a host to store, at 10.0.0.1 and the given port.
func Record(service, id string, port uint16) registry.Record {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	return registry.Record{
		Host: &registry.Host{
			Key:     registry.Key{Service: service, ID: id},
			Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port),
			TTL:     time.Minute,
		},
		FirstSeen:   at,
		LastCheckIn: at,
	}
}

func put(t *testing.T, s registry.Store, records ...registry.Record) {
	t.Helper()
	var changes []registry.Change
	for _, r := range records {
		changes = append(changes, registry.Change{Key: r.Host.Key, Record: &r})
	}
	require.NoError(t, s.Append(t.Context(), changes))
}

func remove(t *testing.T, s registry.Store, k registry.Key) {
	t.Helper()
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: k}}))
}

func load(t *testing.T, s registry.Store) map[registry.Key]registry.Record {
	t.Helper()
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	records := contents.Records
	byKey := map[registry.Key]registry.Record{}
	for _, r := range records {
		byKey[r.Host.Key] = r
	}
	require.Len(t, byKey, len(records), "two records of one host")
	return byKey
}

func flush(t *testing.T, s registry.Store, beats []registry.Beat) {
	t.Helper()
	missing, err := s.Flush(t.Context(), beats)
	require.NoError(t, err)
	require.Empty(t, missing)
}
