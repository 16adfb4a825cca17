package storetest

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// RunShared tests a store that several replicas write to. open returns two new
// stores on the same data, which is empty, each time it is called.
func RunShared(t *testing.T, open func(t *testing.T) (a, b registry.SharedStore)) {
	for name, test := range shared() {
		t.Run(name, func(t *testing.T) {
			a, b := open(t)
			test(t, a, b)
		})
	}
}

// shared is what holds for two stores on the same data.
func shared() map[string]func(t *testing.T, a, b registry.SharedStore) {
	tests := transport()
	maps.Copy(tests, concurrent())
	return tests
}

// transport is what one has of what the other does.
func transport() map[string]func(t *testing.T, a, b registry.SharedStore) {
	return map[string]func(t *testing.T, a, b registry.SharedStore){
		"no dead are no error": func(t *testing.T, a, _ registry.SharedStore) {
			require.Empty(t, expire(t, a))
		},
		"following ends with its context": func(t *testing.T, a, _ registry.SharedStore) {
			stop := followed(t, a)
			require.NoError(t, stop())
		},
		"that it can be followed is said": func(t *testing.T, a, _ registry.SharedStore) {
			_, err := a.Load(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			said := false
			require.NoError(t, a.Follow(ctx, func(u registry.Update) {
				if len(u.Changes)+len(u.Beats) == 0 && u.Whole == nil {
					said = true
					cancel()
				}
			}))
			require.True(t, said)
		},
		"a dead host goes": func(t *testing.T, s, _ registry.SharedStore) {
			a, b := Record("users", "a", 1), Record("users", "b", 1)
			put(t, s, a, b)
			require.Equal(t, []registry.Key{a.Host.Key}, expire(t, s, registry.Beat{Key: a.Host.Key, At: a.LastCheckIn.Add(time.Second)}))
			require.Equal(t, map[registry.Key]registry.Record{b.Host.Key: b}, load(t, s))
		},
		"a host that is not kept is gone": func(t *testing.T, a, _ registry.SharedStore) {
			none := registry.Key{Service: "none", ID: "none"}
			require.Equal(t, []registry.Key{none}, expire(t, a, registry.Beat{Key: none, At: time.Now()}))
		},
		"changes, beats and the dead may come beside each other, and be followed": func(t *testing.T, a, _ registry.SharedStore) {
			stop := followed(t, a)
			beside(t, a, func() error {
				_, err := a.Expire(t.Context(), []registry.Beat{{Key: registry.Key{Service: "none", ID: "none"}}})
				return err
			})
			require.NoError(t, stop())
		},
		"what one appends the other loads": func(t *testing.T, a, b registry.SharedStore) {
			put(t, a, Record("users", "a", 1))
			put(t, b, Record("users", "b", 1))
			require.Len(t, load(t, a), 2)
			require.Equal(t, load(t, a), load(t, b))
		},
		"what one does the other is told, with the event": func(t *testing.T, a, b registry.SharedStore) {
			view := Follow(t, b)
			first, second := Record("users", "a", 1), Record("orders", "b", 2)
			put(t, a, first, second)
			drain := Setting(registry.Scope{Service: "users"}, registry.Drain)
			set(t, a, drain)
			servicetest.Eventually(t, "hosts and setting are there", func() bool {
				return len(view.Hosts()) == 2 && len(view.Settings()) == 1
			})
			hosts := view.Hosts()
			for _, want := range []registry.Record{first, second} {
				got := hosts[want.Host.Key]
				got.LastCheckIn = rounded(got.LastCheckIn)
				require.Equal(t, want, got)
			}
			require.Equal(t, drain, view.Settings()[drain.Key()])

			remove(t, a, first)
			unset(t, a, drain.Key())
			servicetest.Eventually(t, "host and setting are gone", func() bool {
				return len(view.Hosts()) == 1 && len(view.Settings()) == 0
			})
			require.Equal(t, []registry.EventKind{registry.Registered, registry.Deregistered}, view.Kinds(first.Host.Key))
		},
		"what is appended to one is not handed over to it": func(t *testing.T, a, b registry.SharedStore) {
			view := Follow(t, a)
			put(t, a, Record("users", "a", 1))
			put(t, b, Record("users", "b", 1))
			servicetest.Eventually(t, "the host of the other is there", func() bool { return len(view.Hosts()) > 0 })
			require.NotContains(t, view.Hosts(), registry.Key{Service: "users", ID: "a"})
		},
		"two that write the same host come to hold the same": func(t *testing.T, a, b registry.SharedStore) {
			views := []*View{Follow(t, a), Follow(t, b)}
			key := registry.Key{Service: "users", ID: "a"}
			var writers sync.WaitGroup
			for w, s := range []registry.Store{a, b} {
				// Ends by itself; the test waits below.
				writers.Go(func() {
					for i := range uint16(40) {
						r := Record(key.Service, key.ID, 1+i*2+uint16(w))
						views[w].Know(r) // a registry knows first
						if err := s.Append(t.Context(), []registry.Change{{Key: key, Record: &r, Parts: registry.Parts{Description: true}}}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			writers.Wait()
			last := load(t, a)[key].Host.Address
			servicetest.Eventually(t, "both have the last one", func() bool {
				return views[0].Hosts()[key].Host.Address == last && views[1].Hosts()[key].Host.Address == last
			})
		},
		"beats of one are told the other": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			view := Follow(t, b)
			at := time.Now()
			require.Empty(t, flush(t, a, registry.Beat{Key: r.Host.Key, At: at}))
			servicetest.Eventually(t, "the beat is there", func() bool {
				return view.Hosts()[r.Host.Key].LastCheckIn.After(at.Add(-5 * time.Second))
			})
		},
		"beats of hosts that the other took out are missing": func(t *testing.T, a, b registry.SharedStore) {
			first, second := Record("users", "a", 1), Record("users", "b", 1)
			put(t, a, first, second)
			remove(t, b, first)
			none := registry.Key{Service: "none", ID: "none"}
			now := time.Now()
			require.ElementsMatch(t, []registry.Key{first.Host.Key, none}, flush(t, a,
				registry.Beat{Key: first.Host.Key, At: now}, registry.Beat{Key: second.Host.Key, At: now}, registry.Beat{Key: none, At: now}))
			require.Empty(t, flush(t, b, registry.Beat{Key: second.Host.Key, At: now.Add(-time.Minute)}), "that it is no later says nothing")
		},
		"a lease that was deregistered is not taken back, and who has it is told": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			view := Follow(t, b)
			servicetest.Eventually(t, "the host is there", func() bool { return len(view.Hosts()) == 1 })
			remove(t, a, r)
			servicetest.Eventually(t, "the host is gone", func() bool { return len(view.Hosts()) == 0 })
			view.Know(r) // a late beat
			put(t, b, r)
			require.Empty(t, load(t, b))
			servicetest.Eventually(t, "the host is gone again", func() bool { return len(view.Hosts()) == 0 })
			r.Lease++
			put(t, b, r)
			require.Len(t, load(t, a), 1)
		},
		"a lease that was deregistered is taken back of a host that registered since": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			weighed := Record("users", "a", 1)
			weighed.Host.Tags.Weight = 7
			put(t, a, r)
			view := Follow(t, a)
			began := time.Now().Add(-time.Hour / 2)
			at := func(minutes int) time.Time { return began.Add(time.Duration(minutes) * time.Minute) }
			registers := func(minutes int) registry.Change {
				return registry.Change{Key: r.Host.Key, Record: &r, Registered: at(minutes)}
			}
			goes := func(minutes int) registry.Change {
				event := registry.Event{At: at(minutes), Kind: registry.Deregistered, Service: "users", ID: "a"}
				return registry.Change{Key: r.Host.Key, Lease: r.Lease, Went: event.At, Event: &event}
			}
			for _, step := range []struct {
				what   string
				change registry.Change
				hosts  int
			}{
				{"it goes", goes(10), 0},
				{"it registered before", registers(9), 0},
				{"it registered since", registers(11), 1},
				{"that it went is told again", goes(10), 1},
				{"it went between", goes(8), 1},
				{"it goes again", goes(13), 0},
				{"that it registered is told again", registers(11), 0},
				{"it went once more, as another tells", goes(15), 0},
				{"it registered between", registers(14), 0},
				{"it registered after all", registers(16), 1},
				{"it is weighed by who did not see it register", registry.Change{Key: r.Host.Key, Record: &weighed, Parts: registry.Parts{Weight: true}}, 1},
			} {
				require.NoError(t, b.Append(t.Context(), []registry.Change{step.change}), step.what)
				require.Len(t, load(t, a), step.hosts, step.what)
				servicetest.Eventually(t, "who follows knows after: "+step.what, func() bool { return len(view.Hosts()) == step.hosts })
			}
			require.Equal(t, weighed, load(t, a)[r.Host.Key])

			require.Equal(t, []registry.Key{r.Host.Key}, expire(t, a, registry.Beat{Key: r.Host.Key, At: time.Now()}))
			contents, err := b.Load(t.Context())
			require.NoError(t, err)
			require.Empty(t, contents.Buried, "it did not go at its own wish last")
			require.NoError(t, b.Append(t.Context(), []registry.Change{goes(10)}))
			put(t, b, r)
			require.Len(t, load(t, a), 1, "who hears it brings it back")
		},
		"it says which leases it does not take back": func(t *testing.T, a, b registry.SharedStore) {
			wished, died, broke := Record("users", "a", 1), Record("users", "b", 2), Record("users", "c", 3)
			put(t, a, wished, died, broke)
			remove(t, a, wished)
			require.Len(t, expire(t, a, registry.Beat{Key: died.Host.Key, At: died.LastCheckIn.Add(time.Second)}), 1)
			removeFor(t, a, broke, registry.Lost)
			contents, err := b.Load(t.Context())
			require.NoError(t, err)
			require.Len(t, contents.Buried, 1)
			require.Equal(t, wished.Lease, contents.Buried[0].Lease)
		},
		"when a host went is told by the clock of who hears it, or slightly later": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			view := Follow(t, b)
			ago := time.Minute
			went := time.Now().Add(-ago)
			gone := registry.Event{At: went, Kind: registry.Deregistered, Service: "users", ID: "a"}
			require.NoError(t, a.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Lease: r.Lease, Went: went, Event: &gone}}))
			servicetest.Eventually(t, "the host is gone", func() bool { return len(view.Hosts()) == 0 })
			contents, err := b.Load(t.Context())
			require.NoError(t, err)
			require.Len(t, contents.Buried, 1)
			for what, told := range map[string]time.Time{"a change": view.Went(r.Host.Key), "all": contents.Buried[0].At} {
				require.False(t, told.Before(went), "%s: %v before", what, went.Sub(told))
				require.Less(t, told.Sub(went), ago, "%s: it is not when that was heard", what)
			}
		},
		"deregistering does not harm a host that came back meanwhile": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			remove(t, b, r)
			back := r
			back.Lease++
			put(t, b, back)
			view := Follow(t, a)
			remove(t, a, r)
			require.Equal(t, back.Lease, load(t, a)[r.Host.Key].Lease)
			servicetest.Eventually(t, "the host is there", func() bool { return view.Hosts()[r.Host.Key].Lease == back.Lease })
		},
		"a host that beats elsewhere does not expire, and its beat is told": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			at := time.Now()
			require.Empty(t, flush(t, b, registry.Beat{Key: r.Host.Key, At: at}))
			require.Empty(t, expire(t, a, registry.Beat{Key: r.Host.Key, At: r.LastCheckIn}))
			require.Len(t, load(t, a), 1)
			view := Follow(t, a)
			servicetest.Eventually(t, "the beat is there", func() bool {
				return view.Beats()[r.Host.Key].After(at.Add(-5 * time.Second))
			})
		},
		"what one expires the other is told, and may bring back if it hears it": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			view := Follow(t, b)
			servicetest.Eventually(t, "the host is there", func() bool { return len(view.Hosts()) == 1 })
			require.Equal(t, []registry.Key{r.Host.Key}, expire(t, a, registry.Beat{Key: r.Host.Key, At: r.LastCheckIn.Add(time.Second)}))
			servicetest.Eventually(t, "the host is gone", func() bool { return len(view.Hosts()) == 0 })
			require.Contains(t, view.Kinds(r.Host.Key), registry.Expired)
			require.Equal(t, []registry.Key{r.Host.Key}, flush(t, b, registry.Beat{Key: r.Host.Key, At: time.Now()}))
			put(t, b, r)
			require.Len(t, load(t, a), 1)
		},
		"a host that was lost with its stream may be brought back by whoever hears it": func(t *testing.T, a, b registry.SharedStore) {
			r := Record("users", "a", 1)
			put(t, a, r)
			removeFor(t, a, r, registry.Lost)
			require.Empty(t, load(t, a))
			put(t, b, r)
			require.Len(t, load(t, a), 1)
		},
		"only one takes out the dead of a service at a time": func(t *testing.T, a, b registry.SharedStore) {
			first, second := Record("users", "a", 1), Record("users", "b", 1)
			put(t, a, first, second)
			dead := func(r registry.Record) registry.Beat {
				return registry.Beat{Key: r.Host.Key, At: r.LastCheckIn.Add(time.Second)}
			}
			require.Len(t, expire(t, a, dead(first)), 1)
			require.Empty(t, expire(t, b, dead(second)))
			require.Len(t, expire(t, a, dead(second)), 1)
		},
	}
}

// followed has a store followed until stop is called, which returns how that
// ended.
func followed(t *testing.T, s registry.SharedStore) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	// Ends with ctx; stop waits for its error.
	go func() { ended <- s.Follow(ctx, func(registry.Update) {}) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// View is what a follower of a store comes to hold, like a registry that nobody
// checks in at.
type View struct {
	mu       sync.Mutex
	hosts    map[registry.Key]registry.Record
	settings map[registry.SettingKey]registry.Setting
	beats    map[registry.Key]time.Time
	went     map[registry.Key]time.Time
	events   []registry.Event
	lost     int
}

// Follow loads s and follows it until the test ends, again and again after
// errors.
func Follow(t testing.TB, s registry.SharedStore) *View {
	t.Helper()
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	v := &View{
		hosts:    map[registry.Key]registry.Record{},
		settings: map[registry.SettingKey]registry.Setting{},
		beats:    map[registry.Key]time.Time{},
		went:     map[registry.Key]time.Time{},
	}
	v.take(contents)
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	// Ends with ctx; the cleanup waits for it.
	following.Go(func() {
		for s.Follow(ctx, v.apply) != nil {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		following.Wait()
	})
	return v
}

func (v *View) take(c *registry.Contents) {
	for _, r := range c.Records {
		v.hosts[r.Host.Key] = r
	}
	for _, s := range c.Settings {
		v.settings[s.Key()] = s
	}
}

func (v *View) apply(u registry.Update) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range u.Changes {
		switch {
		case c.Record != nil:
			v.hosts[c.Key] = *c.Record
		case c.Key != registry.Key{}:
			delete(v.hosts, c.Key)
			v.went[c.Key] = c.Went
		case c.Setting != nil:
			v.settings[c.SettingKey] = *c.Setting
		default:
			delete(v.settings, c.SettingKey)
		}
		if c.Event != nil {
			v.events = append(v.events, *c.Event)
		}
	}
	for _, b := range u.Beats {
		v.beats[b.Key] = b.At
		if r, ok := v.hosts[b.Key]; ok {
			r.LastCheckIn = b.At
			v.hosts[b.Key] = r
		}
	}
	if u.Whole == nil {
		return
	}
	if u.Lost {
		v.lost++
	} else {
		maps.DeleteFunc(v.hosts, func(k registry.Key, _ registry.Record) bool { return u.Covers(k.Service) })
		maps.DeleteFunc(v.settings, func(k registry.SettingKey, _ registry.Setting) bool { return u.Covers(k.Scope.Service) })
	}
	v.take(u.Whole)
}

// Know adds what a registry would know before the store does.
func (v *View) Know(r registry.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hosts[r.Host.Key] = r
}

// Hosts are those that are known now.
func (v *View) Hosts() map[registry.Key]registry.Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.hosts)
}

// Settings are those that are known now.
func (v *View) Settings() map[registry.SettingKey]registry.Setting {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.settings)
}

// Beats are the last that were handed over, by host.
func (v *View) Beats() map[registry.Key]time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.beats)
}

// Went is when a host went last, as that was told.
func (v *View) Went(k registry.Key) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.went[k]
}

// Lost is how often it was said that the store lost data.
func (v *View) Lost() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lost
}

// Kinds are those of the events of a host that were handed over.
func (v *View) Kinds(k registry.Key) (kinds []registry.EventKind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.events {
		if e.Service == k.Service && e.ID == k.ID {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}
