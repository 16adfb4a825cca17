package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// guarded is a running registry on store, with the limits that the app has by
// default, or as change made them.
func guarded(t *testing.T, store Store, change func(*guard.Limits)) *Registry {
	r := newRegistry(store)
	limits := guard.Limits{
		ServiceShare: 0.25, GlobalShare: 0.15, GlobalLeast: 10, LastHost: 2, Ceiling: time.Hour, BeatLoss: 0.5, BeatLeast: 10,
	}
	if change != nil {
		change(&limits)
	}
	r.guard = guard.New(limits)
	run(t, r)
	<-r.Loaded()
	return r
}

// fleet is services of ten hosts each, which have a TTL of a minute.
func fleet(services int) []Host {
	var hosts []Host
	for i := range services * 10 {
		h := host(fmt.Sprint(i), uint16(1+i))
		h.Service = fmt.Sprint("service ", i/10)
		hosts = append(hosts, h)
	}
	return hosts
}

// beatFor has hosts beat each ten seconds for so long, the first time at once.
func beatFor(t *testing.T, r *Registry, d time.Duration, hosts []Host) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, h := range hosts {
			checkIn(t, r, h)
		}
		time.Sleep(10 * time.Second)
	}
	synctest.Wait()
}

// stale is how many hosts are held beyond their TTL, and all how many there are.
func stale(t *testing.T, r *Registry) (stale, all int) {
	t.Helper()
	summaries, err := r.Services()
	require.NoError(t, err)
	for _, s := range summaries {
		stale += s.Stale
		all += s.Hosts
	}
	require.Equal(t, stale, r.Guard().Stale, "as the guard counts them")
	return stale, all
}

// kinds are the events of a service, without those of registrations.
func kinds(t *testing.T, r *Registry, service string) (kinds []EventKind) {
	t.Helper()
	events, err := r.History(service)
	require.NoError(t, err)
	for _, e := range events {
		if e.Kind != Registered {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func TestASingleDeadHostIsGoneTwoSecondsAfterItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(10)
		beatFor(t, r, 5*time.Minute, hosts)
		last := time.Now().Add(-10 * time.Second)
		for time.Since(last) < time.Minute {
			_, all := stale(t, r)
			require.Equal(t, 100, all, "%v after its last beat", time.Since(last))
			beatFor(t, r, 10*time.Second, hosts[1:])
		}
		time.Sleep(2 * time.Second)
		held, all := stale(t, r)
		require.Equal(t, 99, all)
		require.Zero(t, held)
		require.Equal(t, []EventKind{Expired}, kinds(t, r, "service 0"))
	})
}

func TestAHostThatComesBackWithinItsTTLNeverLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		for range 100 {
			for _, h := range fleet(1) {
				checkIn(t, r, h)
			}
			time.Sleep(time.Minute - 1)
			synctest.Wait()
			held, all := stale(t, r)
			require.Equal(t, 10, all)
			require.Zero(t, held)
		}
	})
}

func TestHostsThatAllStopAtOnceGoSlowlyAndAllByTheCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Beats that are lost would hold all of them until the ceiling.
		r := guarded(t, newFakeStore(), func(l *guard.Limits) { l.BeatLoss, l.LastHost = 0, -1 })
		for _, h := range fleet(10) {
			checkIn(t, r, h)
		}
		time.Sleep(62 * time.Second)
		held, all := stale(t, r)
		require.Equal(t, 85, all, "15 of 100 may go within a TTL")
		require.Equal(t, 85, held)
		for range 58 {
			time.Sleep(time.Minute)
			before := all
			_, all = stale(t, r)
			require.LessOrEqual(t, before-all, 15)
			for service, hosts := range services(t, r) {
				require.NotZero(t, hosts, "%s lost its last host", service)
			}
		}
		require.Equal(t, 10, all, "the last hosts of their services")
		time.Sleep(2 * time.Minute)
		_, all = stale(t, r)
		require.Zero(t, all, "an hour after their TTL")
		require.Empty(t, r.Guard().Holds)
	})
}

func TestTheLastHostOfAServiceGoesAfterTwoTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		checkIn(t, r, host("a", 1))
		time.Sleep(2*time.Minute - 1)
		synctest.Wait()
		list, err := r.List("users")
		require.NoError(t, err)
		require.True(t, list.Hosts[0].Stale)
		require.Equal(t, guard.LastHost.String(), r.Guard().Holds[0].Reason)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Empty(t, ids(t, r))
		require.Equal(t, []EventKind{HeldStale, Expired}, kinds(t, r, "users"))
	})
}

func TestAServiceOfWhichHalfDiesLosesAQuarterAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(20)
		beatFor(t, r, 5*time.Minute, hosts)
		living := hosts[5:] // of the first service, five of ten
		beatFor(t, r, time.Minute, living)
		count := func() int { return services(t, r)["service 0"] }
		require.Equal(t, 8, count())
		require.ElementsMatch(t, []EventKind{Expired, Expired, HeldStale, HeldStale, HeldStale}, kinds(t, r, "service 0"))
		beatFor(t, r, 80*time.Second, living)
		require.Equal(t, 6, count(), "a TTL later")
		checkIn(t, r, hosts[0])
		beatFor(t, r, 10*time.Minute, living)
		require.Equal(t, 5, count())
		held, all := stale(t, r)
		require.Zero(t, held)
		require.Equal(t, 195, all)
	})
}

func TestAHeldHostThatBeatsIsHeldNoMore(t *testing.T) {
	for name, beat := range map[string]func(*Registry, Host, Lease) error{
		"by a registration": func(r *Registry, h Host, _ Lease) error {
			_, err := r.CheckIn(h, "tester")
			return err
		},
		"by a registration of something else": func(r *Registry, h Host, _ Lease) error {
			h.Revision = "r2"
			_, err := r.Put(h, "tester")
			return err
		},
		"by its lease": func(r *Registry, _ Host, l Lease) error {
			_, err := r.Beat([]Lease{l}, nil, "tester")
			return err
		},
		"elsewhere": func(r *Registry, h Host, _ Lease) error {
			r.apply(Update{Beats: []Beat{{h.Key, time.Now()}}})
			return nil
		},
		"elsewhere, with something else": func(r *Registry, h Host, l Lease) error {
			h.Revision = "r2"
			r.apply(Update{Changes: []Change{{Key: h.Key, Record: &Record{Host: &h, Lease: l, LastCheckIn: time.Now()}}}})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := guarded(t, newFakeStore(), nil)
				receipt, err := r.CheckIn(host("a", 1), "tester")
				require.NoError(t, err)
				time.Sleep(90 * time.Second)
				synctest.Wait()
				held, _ := stale(t, r)
				require.Equal(t, 1, held)
				changed, stop := r.Changed("users")
				defer stop()
				require.NoError(t, beat(r, host("a", 1), receipt.Lease))
				<-changed
				held, _ = stale(t, r)
				require.Zero(t, held)
				require.Contains(t, kinds(t, r, "users"), Recovered)
				time.Sleep(50 * time.Second)
				synctest.Wait()
				require.Equal(t, []string{"a"}, ids(t, r))
			})
		})
	}
}

func TestACheckInThatIsRefusedIsNoBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		checkIn(t, r, host("a", 1))
		time.Sleep(90 * time.Second)
		synctest.Wait()
		r.beats.Store(0)
		h := host("a", 1)
		h.Tags.Other = TagListOf(map[string]json.RawMessage{"huge": json.RawMessage(strings.Repeat("1", maxTags))})
		_, err := r.CheckIn(h, "tester")
		require.ErrorIs(t, err, ErrTagsTooLarge)
		require.Zero(t, r.beats.Load())
		held, _ := stale(t, r)
		require.Equal(t, 1, held)
		require.NotContains(t, kinds(t, r, "users"), Recovered)
	})
}

func TestRestoredHostsAreStaleUntilTheyBeatAndHaveTheirTTLForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var records []Record
		for _, h := range fleet(10) {
			records = append(records, Record{Host: &h, Lease: NewLease(), LastCheckIn: time.Now().Add(-5 * time.Hour)})
		}
		r := guarded(t, newFakeStore(records...), func(l *guard.Limits) { l.ServiceShare, l.GlobalShare = 0, 0 })
		time.Sleep(59 * time.Second)
		synctest.Wait()
		held, all := stale(t, r)
		require.Equal(t, 100, all)
		require.Equal(t, 100, held, "nobody heard of them since")
		require.Equal(t, guard.Started.String(), r.Guard().Suspensions[0].Cause)
		checkIn(t, r, *records[0].Host)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		_, all = stale(t, r)
		require.Equal(t, 10, all, "one that beat, and the last of the others")
		require.Empty(t, r.Guard().Suspensions)
	})
}

func TestNoHostExpiresWhileTheStoreIsAwayNorForItsTTLAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := guarded(t, store, nil)
		hosts := fleet(10)
		beatFor(t, r, time.Minute, hosts)
		store.fail(errors.New("connection refused"))
		beatFor(t, r, 3*time.Hour, hosts[:50]) // the others beat elsewhere
		held, all := stale(t, r)
		require.Equal(t, 100, all)
		require.Equal(t, 50, held)
		status := r.Guard()
		require.Len(t, status.Suspensions, 1)
		require.Equal(t, "connection refused", status.Suspensions[0].Detail)
		require.True(t, status.Suspensions[0].Lasting)
		require.Equal(t, 1.0, testutil.ToFloat64(r.metrics.guardSuspended[guard.StoreAway]))
		require.Equal(t, 50.0, testutil.ToFloat64(r.metrics.guardHeld[0]))

		store.fail(nil)
		beatFor(t, r, 50*time.Second, hosts[:50])
		require.False(t, r.Guard().Suspensions[0].Lasting)
		for _, h := range hosts[50:] { // now what others heard comes in
			r.apply(Update{Beats: []Beat{{h.Key, time.Now()}}})
		}
		beatFor(t, r, 50*time.Second, hosts[:50])
		held, all = stale(t, r)
		require.Equal(t, 100, all)
		require.Zero(t, held)
		require.Empty(t, r.Guard().Suspensions)
		require.Equal(t, 0.0, testutil.ToFloat64(r.metrics.guardSuspended[guard.StoreAway]))
	})
}

func TestAStoreThatCannotBeFollowedIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(newFakeStore())
		for _, call := range []storeCall{telling, following, expiring} {
			r.answered(call, errors.New("no route to host"))
		}
		r.answered(telling, nil)
		r.answered(expiring, nil)
		require.True(t, r.Guard().Suspensions[0].Lasting, "it cannot be followed yet")
		r.apply(Update{Whole: &Contents{}, Covers: func(string) bool { return true }, Lost: true})
		require.True(t, r.Guard().Suspensions[0].Lasting, "that it lost data is the lesser trouble")
		r.answered(following, nil)
		require.False(t, r.Guard().Suspensions[0].Lasting)
	})
}

func TestAStoreThatIsSlowToBeFollowedIsAwayUntilItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		calls, answers := 0, make(chan struct{})
		store.onFollow = func(ctx context.Context) error {
			if calls++; calls == 1 {
				return errors.New("no route to host")
			}
			select {
			case <-answers:
			case <-ctx.Done():
			}
			return nil
		}
		r := started(t, store)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, 2, calls)
		require.True(t, r.Guard().Suspensions[0].Lasting, "that it has not failed yet says nothing")
		close(answers)
		synctest.Wait()
		require.False(t, r.Guard().Suspensions[0].Lasting)
	})
}

func TestAHostThatTheStoreDoesNotLetGoStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := guarded(t, store, nil)
		hosts := fleet(1)
		store.keep(map[Key]bool{hosts[0].Key: true})
		beatFor(t, r, time.Minute, hosts)
		beatFor(t, r, time.Minute, hosts[1:])
		held, all := stale(t, r)
		require.Equal(t, 10, all, "another replica keeps it")
		require.Equal(t, 1, held)
		require.Equal(t, guard.InStore.String(), r.Guard().Holds[0].Reason)
		checkIn(t, r, hosts[0])
		beatFor(t, r, 30*time.Second, hosts[1:])
		held, _ = stale(t, r)
		require.Zero(t, held)
		beatFor(t, r, time.Minute, hosts[1:])
		store.keep(nil)
		beatFor(t, r, 10*time.Second, hosts[1:])
		_, all = stale(t, r)
		require.Equal(t, 9, all)
		require.Equal(t, []EventKind{HeldStale, Recovered, HeldStale, Expired}, kinds(t, r, "service 0"))
	})
}

// Hosts that beat at another replica may seem dead here again and again.
func TestAHostThatBeatsElsewhereDoesNotCountAsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := guarded(t, store, nil)
		hosts := fleet(1)
		kept := map[Key]bool{}
		for _, h := range hosts[:9] {
			kept[h.Key] = true
		}
		store.keep(kept)
		for _, h := range hosts {
			checkIn(t, r, h)
		}
		for range 10 {
			time.Sleep(time.Minute + time.Second)
			synctest.Wait()
			require.LessOrEqual(t, r.Guard().Gone, 3, "a quarter of ten, and one")
			var heard []Beat
			for _, h := range hosts[:9] {
				heard = append(heard, Beat{h.Key, time.Now()})
			}
			r.apply(Update{Beats: heard})
			time.Sleep(time.Second)
			synctest.Wait()
			require.LessOrEqual(t, r.Guard().Gone, 1)
		}
		_, all := stale(t, r)
		require.Equal(t, 9, all)
	})
}

// Another replica, which hears the host, may give it back at once.
func TestAHostThatExpiredAndIsGivenBackByAnotherReplicaIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		appends := make(chan struct{})
		r := newRegistry(store)
		run(t, r)
		<-r.Loaded()
		receipt, err := r.CheckIn(host("a", 1), "tester")
		require.NoError(t, err)
		synctest.Wait()
		store.taken()
		store.onAppend = func() { <-appends } // of another host, that takes its time
		checkIn(t, r, host("b", 2))
		time.Sleep(59 * time.Second)
		checkIn(t, r, host("b", 2))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"b"}, ids(t, r))
		record := Record{Host: new(host("a", 1)), Lease: receipt.Lease, FirstSeen: time.Now(), LastCheckIn: time.Now()}
		r.apply(Update{Changes: []Change{{Key: record.Host.Key, Record: &record}}})
		require.Equal(t, []string{"a", "b"}, ids(t, r))
		close(appends)
		synctest.Wait()
		changes, _ := store.taken()
		for _, c := range changes {
			require.Equal(t, "b", c.Key.ID, "what the store did it is not told")
		}
	})
}

func TestAHostThatBeatsWhileTheStoreLetsItGoIsGivenAgain(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration
		beats bool
	}{
		"it beats": {0, true},
		"it may have beaten, for it took very long": {2 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				r := newRegistry(store)
				store.onExpire = func() {
					store.taken()
					time.Sleep(test.takes)
					if test.beats {
						checkIn(t, r, host("a", 1))
					}
				}
				run(t, r)
				<-r.Loaded()
				checkIn(t, r, host("a", 1))
				time.Sleep(70 * time.Second)
				synctest.Wait()
				require.Equal(t, []string{"a"}, ids(t, r))
				changes, _ := store.taken()
				require.Len(t, changes, 1)
				require.Equal(t, "a", changes[0].Record.Host.ID)
			})
		})
	}
}

func TestAStoreThatFailsOnceToLetGoIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		r := newRegistry(store)
		fails := true
		store.onExpire = func() {
			if fails {
				store.fail(errors.New("timeout"))
			}
			fails = false
		}
		run(t, r)
		<-r.Loaded()
		checkIn(t, r, host("a", 1))
		time.Sleep(61 * time.Second)
		synctest.Wait()
		require.Len(t, r.Guard().Suspensions, 1)
		require.Equal(t, 1, r.Guard().Leaving)
		store.fail(nil)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"a"}, ids(t, r), "within a TTL of when the store was back")
		require.False(t, r.Guard().Suspensions[0].Lasting)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Empty(t, ids(t, r))
	})
}

func TestAWallClockThatIsSetExpiresNobodyAndNeverKeepsAnybody(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, time.Hour, -5 * time.Second} {
		t.Run(jump.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				r := newRegistry(store)
				var set time.Duration
				r.wall.now = func() time.Time { return time.Now().Add(set) }
				run(t, r)
				<-r.Loaded()
				checkIn(t, r, host("here", 1))
				checkIn(t, r, host("elsewhere", 2))
				checkIn(t, r, host("dead", 3))
				time.Sleep(50 * time.Second)

				r.mu.Lock()
				set = jump
				r.mu.Unlock()
				time.Sleep(time.Second)
				synctest.Wait()
				suspension := r.Guard().Suspensions[0]
				require.Equal(t, guard.ClockJumped.String(), suspension.Cause)
				require.Contains(t, suspension.Detail, jump.String())
				store.taken()
				checkIn(t, r, host("here", 1))
				beat := Beat{Key{"users", "elsewhere"}, time.Now().Add(set)}
				r.apply(Update{Beats: []Beat{beat}})
				time.Sleep(55 * time.Second)
				synctest.Wait()
				_, beats := store.taken()
				require.Equal(t, Key{"users", "here"}, beats[0].Key)
				require.True(t, beats[0].At.Equal(beat.At), "the store has it by the wall clock")
				require.Equal(t, []string{"here", "elsewhere", "dead"}, ids(t, r))
				v, _, err := r.Find(beat.Key)
				require.NoError(t, err)
				require.True(t, v.LastCheckIn.Equal(beat.At))
				time.Sleep(7 * time.Second)
				synctest.Wait()
				require.Empty(t, ids(t, r), "a TTL after their beats")
			})
		})
	}
}

func TestAWallClockThatIsKeptRightIsNoJump(t *testing.T) {
	w := newWall(time.Now())
	var drift time.Duration
	w.now = func() time.Time { return w.born.Add(drift) }
	at := w.at(time.Second)
	for range 1000 {
		drift += 7 * time.Millisecond
		require.Less(t, w.set(0), longestJump)
	}
	require.InDelta(t, 7*time.Second, w.at(time.Second).Sub(at), float64(slack))
}

func TestHostsThatDrainedGoAtTheirTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(10)
		for i := range hosts[:50] {
			hosts[i].Draining = true
		}
		for _, h := range hosts {
			checkIn(t, r, h)
		}
		makeSetting(t, r, Setting{Scope: Scope{Service: "service 5"}, Kind: Drain})
		beatFor(t, r, 70*time.Second, hosts[60:])
		_, all := stale(t, r)
		require.Equal(t, 40, all)
		require.Zero(t, r.Guard().Gone)
	})
}

func TestHostsInMaintenanceDoNotExpireAndDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(1)
		for i := range hosts[:9] {
			hosts[i].Tags.Zone = "eu-2"
		}
		beatFor(t, r, 90*time.Second, hosts)
		setting := Setting{Scope: Scope{Zone: "eu-2"}, Kind: Maintenance}
		makeSetting(t, r, setting)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		require.Equal(t, 9, services(t, r)["service 0"], "the one that is left expired, as a last host")
		held, _ := stale(t, r)
		require.Zero(t, held)

		ended, err := r.End(setting.Key(), "ann")
		require.NoError(t, err)
		require.True(t, ended)
		beatFor(t, r, 5*time.Minute, hosts[:8])
		require.Equal(t, 8, services(t, r)["service 0"], "a TTL after the end")
		require.Zero(t, r.away)
	})
}

func TestASettingOfMaintenanceEndsAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		checkIn(t, r, host("a", 1))
		time.Sleep(90 * time.Second)
		synctest.Wait()
		makeSetting(t, r, Setting{Scope: Scope{Service: "users"}, Kind: Maintenance})
		held, _ := stale(t, r)
		require.Zero(t, held)
		_, err := r.Remove(Selection{Service: "users"}, "ann")
		require.NoError(t, err)
		require.Zero(t, r.away)
		checkIn(t, r, host("a", 1))
		require.Equal(t, 1, r.away, "it is back, and the setting is still there")
	})
}

func TestLostBeatsHoldAllUntilTheyComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(10)
		beatFor(t, r, 10*time.Minute, hosts)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		held, all := stale(t, r)
		require.Equal(t, 100, all)
		require.Equal(t, 100, held)
		status := r.Guard()
		require.Equal(t, guard.BeatsLost.String(), status.Suspensions[0].Cause)
		require.Less(t, status.BeatsPerSecond, status.UsualBeatsPerSecond)
		beatFor(t, r, 5*time.Minute, hosts)
		held, _ = stale(t, r)
		require.Zero(t, held)
		require.Empty(t, r.Guard().Suspensions)
	})
}

// Neither a flood of one host's beats nor its end changes what is usual.
func TestAHostThatBeatsInALoopCountsAsOneThatBeats(t *testing.T) {
	for name, flood := range map[string]func(*testing.T, *Registry){
		"check-ins": func(t *testing.T, r *Registry) {
			for range 1000 {
				checkIn(t, r, host("loop", 1))
			}
		},
		"changes": func(t *testing.T, r *Registry) {
			for i := range 1000 {
				h := host("loop", 1)
				h.Revision = fmt.Sprint(i)
				checkIn(t, r, h)
			}
		},
		"its lease many times in one call": func(t *testing.T, r *Registry) {
			receipt, err := r.CheckIn(host("loop", 1), "tester")
			require.NoError(t, err)
			_, err = r.Beat(slices.Repeat([]Lease{receipt.Lease}, 10_000), nil, "tester")
			require.NoError(t, err)
		},
		"stays": func(t *testing.T, r *Registry) {
			for range 1000 {
				checkIn(t, r, host("loop", 1))
				_, err := r.Remove(Selection{Service: "users", ID: "loop"}, "tester")
				require.NoError(t, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := guarded(t, newFakeStore(), nil)
				hosts := fleet(2)
				beatFor(t, r, 5*time.Minute, hosts)
				usual := r.Guard().UsualBeatsPerSecond
				for range 20 {
					flood(t, r)
					beatFor(t, r, 10*time.Second, hosts)
				}
				require.InDelta(t, usual, r.Guard().UsualBeatsPerSecond, 0.2)
				beatFor(t, r, 10*time.Minute, hosts)
				require.Empty(t, r.Guard().Suspensions)
			})
		})
	}
}

// Hosts of a short TTL beat for most of what is usual.
func TestHostsThatBeatOftenTakeTheirBeatsWithThemWhenTheyDeregister(t *testing.T) {
	for name, deregister := range map[string]func(*testing.T, *Registry, Host){
		"here": func(t *testing.T, r *Registry, h Host) {
			_, err := r.Remove(Selection{Service: h.Service, ID: h.ID}, "tester")
			require.NoError(t, err)
		},
		"at another replica": func(_ *testing.T, r *Registry, h Host) {
			r.apply(Update{Changes: []Change{{Key: h.Key, Event: &Event{Kind: Deregistered, Service: h.Service, ID: h.ID}}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := guarded(t, newFakeStore(), nil)
				hosts := fleet(5)
				often := hosts[:10]
				for i := range often {
					often[i].TTL = 3 * time.Second
				}
				beat := func(often []Host, times int) {
					for i := range times {
						for _, h := range often {
							checkIn(t, r, h)
						}
						if i%20 == 0 {
							for _, h := range hosts[10:] {
								checkIn(t, r, h)
							}
						}
						time.Sleep(time.Second)
					}
					synctest.Wait()
				}
				beat(often, 600)
				require.InDelta(t, 12, r.Guard().UsualBeatsPerSecond, 1)
				for _, h := range often {
					deregister(t, r, h)
				}
				beat(nil, 1)
				require.InDelta(t, 2, r.Guard().UsualBeatsPerSecond, 1)
				for range 600 {
					beat(nil, 1)
					require.Empty(t, r.Guard().Suspensions)
				}
			})
		})
	}
}

func TestABeatThatTheStoreTellsOfCountsUnlessItWasHeardHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), func(l *guard.Limits) { *l = guard.Limits{} })
		h := host("a", 1)
		tell := func(at time.Time) (counted int64) {
			r.beats.Store(0)
			r.apply(Update{Beats: []Beat{{h.Key, at}, {host("unknown", 1).Key, at}}})
			return r.beats.Load()
		}
		checkIn(t, r, h)
		heard := time.Now()
		time.Sleep(40 * time.Second)
		require.Zero(t, tell(heard.Add(20*time.Millisecond)), "it seems later than it was")
		require.EqualValues(t, 1, tell(heard.Add(20*time.Second)))
		require.Zero(t, tell(heard.Add(20*time.Second)), "once")
	})
}

// Hosts that beat through another replica are cut off from that one.
func TestLostBeatsOfOtherReplicasHoldAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(10)
		for _, h := range hosts {
			checkIn(t, r, h)
		}
		for range 100 {
			time.Sleep(4 * time.Second)
			var beats []Beat
			for _, h := range hosts {
				beats = append(beats, Beat{h.Key, time.Now()})
			}
			r.apply(Update{Beats: beats})
		}
		require.Empty(t, r.Guard().Suspensions)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		held, all := stale(t, r)
		require.Equal(t, []int{100, 100}, []int{held, all})
	})
}

func TestASilentReplicaHoldsAllUntilItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), func(l *guard.Limits) { *l = guard.Limits{ReplicaLoss: 10 * time.Minute} })
		checkIn(t, r, host("a", 1))
		r.apply(Update{Silent: []Replica{{ID: "1", Name: "d-1", Heard: time.Now()}}})
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"a"}, ids(t, r))
		require.Equal(t, guard.ReplicaLost.String(), r.Guard().Suspensions[0].Cause)
		r.apply(Update{Silent: []Replica{}})
		time.Sleep(59 * time.Second)
		require.Equal(t, []string{"a"}, ids(t, r), "it has its TTL to be heard of")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Empty(t, ids(t, r))

		checkIn(t, r, host("a", 1))
		r.apply(Update{Silent: []Replica{{ID: "1", Name: "d-1", Heard: time.Now()}}})
		time.Sleep(11*time.Minute + 2*time.Second)
		synctest.Wait()
		require.Empty(t, ids(t, r), "it is not missed for ever")
	})
}

func TestASmallRegistryThatFallsSilentIsHeldUntilTheCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		var hosts []Host
		for i := range 10 {
			h := host(fmt.Sprint(i), uint16(1+i))
			h.Service, h.TTL = fmt.Sprint("service ", i/2), 6*time.Second
			hosts = append(hosts, h)
		}
		beatAll := func(d time.Duration, hosts []Host) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				for _, h := range hosts {
					checkIn(t, r, h)
				}
				time.Sleep(2 * time.Second)
			}
			synctest.Wait()
		}
		beatAll(45*time.Second, hosts)
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		held, all := stale(t, r)
		require.Equal(t, []int{10, 10}, []int{held, all}, "they were cut off")
		beatAll(20*time.Minute, hosts)
		held, all = stale(t, r)
		require.Equal(t, []int{0, 10}, []int{held, all}, "they are back")
		beatAll(20*time.Minute, hosts[:5])
		held, all = stale(t, r)
		require.Equal(t, []int{0, 5}, []int{held, all}, "half of them died")
		time.Sleep(time.Hour + 10*time.Second)
		synctest.Wait()
		_, all = stale(t, r)
		require.Zero(t, all, "the rest did")
	})
}

func TestAnOperatorLiftsTheGuards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(10)
		beatFor(t, r, 10*time.Minute, hosts)
		beatFor(t, r, 10*time.Minute, hosts[:2])
		held, all := stale(t, r)
		require.Equal(t, 100, all)
		require.Equal(t, 98, held)
		at := time.Now()
		r.LiftGuards("ann", "the zone burnt down")
		beatFor(t, r, 2*time.Second, hosts[:2])
		held, all = stale(t, r)
		require.Equal(t, 2, all)
		require.Zero(t, held)
		status := r.Guard()
		require.Empty(t, status.Suspensions)
		require.Equal(t, "ann", status.LiftedBy)
		require.Equal(t, "the zone burnt down", status.LiftReason)
		require.True(t, status.LiftedAt.Equal(at))
		require.Equal(t, 98, status.Gone)
		require.Equal(t, 1.0, testutil.ToFloat64(r.metrics.guardLifts))
	})
}

func TestWhatExpiredElsewhereCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, newFakeStore(), nil)
		hosts := fleet(1)
		beatFor(t, r, time.Minute, hosts)
		time.Sleep(hosts[0].TTL * 4 / 5) // one that beat lately stays
		for _, h := range hosts[:2] {
			r.apply(Update{Changes: []Change{{Key: h.Key, Event: &Event{Kind: Expired, Service: h.Service, ID: h.ID}}}})
		}
		require.Equal(t, 2, r.Guard().Gone)
		for i, kind := range []EventKind{Deregistered, Lost} {
			h := hosts[2+i]
			r.apply(Update{Changes: []Change{{Key: h.Key, Event: &Event{Kind: kind, Service: h.Service, ID: h.ID}}}})
			require.Equal(t, 2, r.Guard().Gone, "it did not expire")
		}
	})
}

// BenchmarkSweepOfHeldHosts is a tick in which a hundred thousand hosts are held and none may
// go.
func BenchmarkSweepOfHeldHosts(b *testing.B) {
	r := newRegistry(newFakeStore())
	r.guard = guard.New(guard.Limits{LastHost: -1})
	r.isLoaded = true
	for i := range 100_000 {
		h := host("a", 1)
		h.Service = fmt.Sprint(i)
		h.TTL = 30 * time.Second
		if _, err := r.CheckIn(h, "tester"); err != nil {
			b.Fatal(err)
		}
	}
	now := time.Minute
	r.sweep(b.Context(), now)
	for b.Loop() {
		now += r.options.SweepInterval
		r.sweep(b.Context(), now)
	}
}
