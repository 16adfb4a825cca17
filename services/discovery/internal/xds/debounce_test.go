package xds

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestAChangeIsSentWhenItsServiceIsQuietOrHasWaitedLongEnough(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		changes []time.Duration
		due     time.Duration
	}{
		"one change":             {changes: []time.Duration{0}, due: 100 * ms},
		"two in a row":           {changes: []time.Duration{0, 60 * ms}, due: 160 * ms},
		"just before it is due":  {changes: []time.Duration{0, 99 * ms}, due: 199 * ms},
		"changes without an end": {changes: every(50*ms, 900*ms), due: 900 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDebounce(Debounce{Quiet: 100 * ms, Longest: 900 * ms})
			begin := time.Now()
			_, waiting := d.next(begin)
			require.False(t, waiting)
			for _, at := range test.changes {
				require.Empty(t, d.take(begin.Add(at)))
				d.add("users", begin.Add(at), begin.Add(at))
			}
			now := begin.Add(test.changes[len(test.changes)-1])
			wait, waiting := d.next(now)
			require.True(t, waiting)
			require.Equal(t, test.due, now.Add(wait).Sub(begin))
			require.Empty(t, d.take(begin.Add(test.due-1)))
			require.Equal(t, begin, d.take(begin.Add(test.due))["users"].first)
			_, waiting = d.next(begin)
			require.False(t, waiting)
		})
	}
}

func TestAChangeThatWasSeenLateIsOfWhenItCame(t *testing.T) {
	d := newDebounce(Debounce{Quiet: 100 * time.Millisecond, Longest: time.Second})
	begin := time.Now()
	seen := begin.Add(950 * time.Millisecond)
	d.add("users", begin, seen)
	wait, _ := d.next(seen)
	require.Equal(t, 50*time.Millisecond, wait)
	require.Equal(t, begin, d.take(seen.Add(wait))["users"].first)
}

func TestOneServiceDoesNotWaitForAnother(t *testing.T) {
	d := newDebounce(Debounce{Quiet: 100 * time.Millisecond, Longest: time.Second})
	begin := time.Now()
	d.add("users", begin, begin)
	d.add("orders", begin.Add(90*time.Millisecond), begin.Add(90*time.Millisecond))
	wait, _ := d.next(begin.Add(90 * time.Millisecond))
	require.Equal(t, 10*time.Millisecond, wait)
	require.Len(t, d.take(begin.Add(100*time.Millisecond)), 1)
	require.Len(t, d.take(begin.Add(190*time.Millisecond)), 1)
}

func TestAServiceThatOnlyLostHostsWaitsLonger(t *testing.T) {
	const ms = time.Millisecond
	d := newDebounce(Debounce{Quiet: 100 * ms, Leaving: 300 * ms, Longest: 900 * ms})
	begin := time.Now()
	due := func(after time.Duration) burst {
		t.Helper()
		require.Empty(t, d.take(begin.Add(after-1)))
		taken := d.take(begin.Add(after))
		require.Len(t, taken, 1)
		return taken["users"]
	}
	d.add("users", begin, begin)
	require.True(t, d.leaving("users", due(100*ms), begin.Add(100*ms)))
	require.False(t, d.leaving("users", due(300*ms), begin.Add(300*ms)), "it has waited for long enough")

	// A change while it waits may have brought hosts, and is looked at soon.
	d.add("users", begin, begin)
	require.True(t, d.leaving("users", due(100*ms), begin.Add(100*ms)))
	d.add("users", begin.Add(150*ms), begin.Add(150*ms))
	due(250 * ms)

	// Nothing waits for longer than the longest.
	d.add("users", begin, begin)
	for at := 50 * ms; at < 850*ms; at += 50 * ms {
		d.add("users", begin.Add(at), begin.Add(at))
	}
	require.False(t, d.leaving("users", due(900*ms), begin.Add(900*ms)))
}

func TestHostsThatLeaveWaitLongerThanThoseThatComeOrDrain(t *testing.T) {
	const ms = time.Millisecond
	drains := host("users", "10.0.0.2:80")
	drains.State = registry.Draining
	out := host("users", "10.0.0.2:80")
	out.State = registry.Out
	for name, test := range map[string]struct {
		after registry.View // what becomes of one of three hosts
		gone  bool          // another one
		more  []string
		sent  time.Duration
	}{
		"one drains":                       {after: drains, sent: 100 * ms},
		"one goes":                         {after: out, sent: 200 * ms},
		"one goes and another comes":       {after: out, more: []string{"10.0.0.3:80"}, sent: 100 * ms},
		"two go and one comes":             {after: out, gone: true, more: []string{"10.0.0.3:80"}, sent: 200 * ms},
		"one comes":                        {after: host("users", "10.0.0.2:80"), more: []string{"10.0.0.3:80"}, sent: 100 * ms},
		"one is at another address by now": {after: host("users", "10.0.0.4:80"), sent: 100 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t)
			h.open(&h.loaded)
			h.debounce.Debounce = Debounce{Quiet: 100 * ms, Leaving: 200 * ms, Longest: 900 * ms}
			h.hosts("users", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80")
			s := subscribed(t, h, true, 1, "users")[0]

			hosts := []registry.View{host("users", "10.0.0.1:80"), test.after}
			if !test.gone {
				hosts = append(hosts, host("users", "10.0.0.9:80"))
			}
			for _, address := range test.more {
				hosts = append(hosts, host("users", address))
			}
			h.listings["users"] = registry.Listing{Known: true, Hosts: hosts}
			h.debounce.add("users", start, start)
			for at := 50 * ms; at < test.sent; at += 50 * ms {
				h.push(start.Add(at))
				require.Nil(t, s.next(start))
			}
			h.push(start.Add(test.sent))
			require.Len(t, s.next(start).resources, 1)
		})
	}
}

// The last host of a service often only moves to another replica, of which this one
// hears a moment later.
func TestAServiceIsEmptiedOnlyOnceItHasHadNoHostForAWhile(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		changes map[time.Duration]string // when, and the host by then
		sent    time.Duration
		hosts   int
	}{
		"it goes":                    {changes: map[time.Duration]string{0: ""}, sent: 500 * ms},
		"it comes back":              {changes: map[time.Duration]string{0: "", 300 * ms: "10.0.0.1:80"}},
		"another comes in its place": {changes: map[time.Duration]string{0: "", 300 * ms: "10.0.0.2:80"}, sent: 400 * ms, hosts: 1},
		"it drains until it is out":  {changes: map[time.Duration]string{0: "10.0.0.1:80 out"}, sent: 200 * ms},
		"it is out, and goes":        {changes: map[time.Duration]string{0: "10.0.0.1:80 out", 150 * ms: ""}, sent: 650 * ms},
		"it comes back, and goes":    {changes: map[time.Duration]string{0: "", 300 * ms: "10.0.0.1:80", 350 * ms: ""}, sent: 850 * ms},
		"it comes and goes for longer than changes wait": {
			changes: map[time.Duration]string{0: "", 300 * ms: "10.0.0.1:80", 350 * ms: "", 700 * ms: "10.0.0.1:80", 750 * ms: ""}, sent: 1250 * ms},
	} {
		for _, delta := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/delta=%v", name, delta), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newTestHub(t)
					h.open(&h.loaded)
					h.debounce.Debounce = Debounce{Quiet: 100 * ms, Leaving: 200 * ms, Empty: 500 * ms, Longest: 900 * ms}
					h.hosts("users", "10.0.0.1:80")
					s := subscribed(t, h, delta, 1, "users")[0]
					began := time.Now()
					var sent time.Duration
					for ; time.Since(began) <= 2*time.Second; time.Sleep(50 * ms) {
						if address, changes := test.changes[time.Since(began)]; changes {
							list := registry.Listing{Known: true, EmptySince: time.Now()}
							if address, isOut := strings.CutSuffix(address, " out"); address != "" {
								list = registry.Listing{Known: true, Hosts: []registry.View{host("users", address)}}
								if isOut {
									list.Hosts[0].State = registry.Out
								}
							}
							h.listings["users"] = list
							h.debounce.add("users", time.Now(), time.Now())
						}
						h.push(time.Now())
						if r := s.next(time.Now()); r != nil {
							require.Zero(t, sent, "it is sent twice")
							sent = time.Since(began)
							require.Len(t, r.resources, 1)
							require.Equal(t, test.hosts, h.hub.hosts["users"])
							answer(t, s, r)
						}
					}
					require.Equal(t, test.sent, sent)
				})
			})
		}
	}
}

// Who comes while it is not yet said that a service is empty is shown what others of
// its view are, or waits. That somebody came says nothing to the others.
func TestWhoComesWhenTheLastHostHasJustGoneIsNotToldSoBeforeTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		maker, err := resources.NewMaker(resources.Options{ZonePriorities: true})
		require.NoError(t, err)
		h := newTestHub(t)
		h.setMaker(maker)
		h.open(&h.loaded)
		h.debounce.Debounce = Debounce{Empty: time.Second}
		h.hosts("users", "10.0.0.1:80")
		before := subscribed(t, h, true, 1, "users")[0]

		h.listings["users"] = registry.Listing{Known: true, EmptySince: time.Now()}
		h.debounce.add("users", time.Now(), time.Now())
		alike := subscribed(t, h, true, 1, "users")[0]
		other := h.stream(t, true)
		send(t, other, &discoveryv3.DeltaDiscoveryRequest{
			Node:    &corev3.Node{Locality: &corev3.Locality{Zone: "eu-1"}},
			TypeUrl: resources.Endpoints.URL(), ResourceNamesSubscribe: []string{"users"},
		})
		streams := []*stream{before, alike, other}
		for range 10 {
			for _, s := range streams {
				require.Nil(t, s.next(time.Now()))
			}
			time.Sleep(100 * time.Millisecond)
			h.makeAsked()
			h.push(time.Now())
		}
		empty, err := resources.NoEndpoints("users")
		require.NoError(t, err)
		for _, s := range streams {
			r := s.next(time.Now())
			require.NotNil(t, r)
			require.Equal(t, empty.Version, r.resources[0].Version)
		}
	})
}

// Clients ask for many services at once, and for others have no time to wait.
func TestAServiceWhoseLastHostHasJustGoneHoldsBackNoOther(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(variant(delta), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newTestHub(t)
				h.open(&h.loaded)
				h.debounce.Debounce = Debounce{Empty: time.Second}
				h.hosts("users", "10.0.0.1:80")
				h.hosts("orders", "10.0.0.2:80")
				h.listings["users"] = registry.Listing{Known: true, EmptySince: time.Now()}
				h.debounce.add("users", time.Now(), time.Now())
				s := h.stream(t, delta)
				ask(t, s, resources.Endpoints, "users", "orders")
				require.True(t, s.maySend())
				r := acknowledge(t, s)
				require.Len(t, r.resources, 1)
				require.Equal(t, "orders", r.resources[0].Name)
				require.False(t, s.maySend())
				require.Nil(t, s.next(time.Now()))

				time.Sleep(time.Second)
				h.push(time.Now())
				empty, err := resources.NoEndpoints("users")
				require.NoError(t, err)
				r = s.next(time.Now())
				require.NotNil(t, r)
				require.Equal(t, empty.Version, r.resources[0].Version)
			})
		})
	}
}

func TestAComingHostDoesNotWaitForALeavingOfAnotherService(t *testing.T) {
	const ms = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := newTestHub(t)
		h.debounce.Debounce = Debounce{Quiet: 50 * ms, Leaving: 2 * time.Second, Longest: 3 * time.Second}
		var running sync.WaitGroup
		running.Go(func() { _ = h.registry.Run(ctx) })
		running.Go(func() { h.run(ctx, &Limits{}) })
		defer running.Wait()
		defer cancel()
		// changed has hosts be those of a service, and the registry tell of it.
		changed := func(service string, addresses ...string) {
			var hosts []registry.View
			for _, address := range addresses {
				hosts = append(hosts, host(service, address))
			}
			synctest.Wait() // nobody reads
			h.listings[service] = registry.Listing{Known: true, Hosts: hosts}
			_, err := h.registry.CheckIn(registry.Host{
				Key:     registry.Key{Service: service, ID: fmt.Sprint(time.Now().UnixNano())},
				Address: netip.MustParseAddrPort("10.0.0.1:80"), TTL: time.Hour,
			}, "tester")
			require.NoError(t, err)
		}
		// shown is after how long a service is known.
		shown := func(service string) time.Duration {
			for began := time.Now(); ; time.Sleep(ms) {
				synctest.Wait()
				h.mu.RLock()
				_, known := h.known[service]
				h.mu.RUnlock()
				if known {
					return time.Since(began)
				}
			}
		}
		changed("users", "10.0.0.1:80", "10.0.0.2:80")
		require.Equal(t, 50*ms, shown("users"))
		time.Sleep(time.Second)
		changed("users", "10.0.0.1:80")
		time.Sleep(60 * ms) // it is seen by now that users has fewer hosts
		changed("orders", "10.0.0.1:80")
		require.LessOrEqual(t, shown("orders"), 2*50*ms)
		time.Sleep(2 * time.Second)
		cancel()
		running.Wait()
		require.Equal(t, map[string]int{"users": 1, "orders": 1}, h.hub.hosts)
	})
}

// every returns 0, step, 2 step, … below end.
func every(step, end time.Duration) (times []time.Duration) {
	for at := time.Duration(0); at < end; at += step {
		times = append(times, at)
	}
	return times
}

func BenchmarkDebounceOfTenThousand(b *testing.B) {
	d := newDebounce(Debounce{Quiet: time.Hour, Longest: time.Hour})
	now := time.Now()
	for i := range 10_000 {
		d.add(fmt.Sprint("service-", i), now, now)
	}
	for b.Loop() {
		d.take(now)
		d.next(now)
	}
}
