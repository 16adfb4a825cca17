package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestACheckInIsLaidOverWhatIsKnown(t *testing.T) {
	yes, no := true, false
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	known := host("a", 1)
	known.Tags.Canary, known.Tags.Weight = &yes, 50

	for name, test := range map[string]struct {
		newer   func(*Host)
		outcome Outcome
		want    func(*Host)
	}{
		"the same": {
			newer: func(*Host) {}, outcome: HostUnchanged, want: func(*Host) {}},
		"a new port": {
			newer:   func(h *Host) { h.Address = netip.AddrPortFrom(h.Address.Addr(), 9) },
			outcome: HostChanged,
			want:    func(h *Host) { h.Address = netip.AddrPortFrom(h.Address.Addr(), 9) }},
		"another revision, repository and TTL": {
			newer:   func(h *Host) { h.Revision, h.Repo, h.TTL = "r2", "", time.Hour },
			outcome: HostChanged,
			want:    func(h *Host) { h.Revision, h.Repo, h.TTL = "r2", "", time.Hour }},
		"another zone": {
			newer:   func(h *Host) { h.Tags.Zone = "eu-2" },
			outcome: HostChanged,
			want:    func(h *Host) { h.Tags.Zone = "eu-2" }},
		"tags left out stay": {
			newer:   func(h *Host) { h.Tags.Canary, h.Tags.Weight, h.Tags.Other = nil, 0, nil },
			outcome: HostUnchanged, want: func(*Host) {}},
		"a tag more": {
			newer:   func(h *Host) { h.Tags.Other = TagListOf(map[string]json.RawMessage{"disk": raw(`"ssd"`)}) },
			outcome: HostChanged,
			want: func(h *Host) {
				h.Tags.Other = TagListOf(map[string]json.RawMessage{"rack": raw(`"7"`), "disk": raw(`"ssd"`)})
			}},
		"a tag changed": {
			newer:   func(h *Host) { h.Tags.Other = TagListOf(map[string]json.RawMessage{"rack": raw(`8`)}) },
			outcome: HostChanged,
			want:    func(h *Host) { h.Tags.Other = TagListOf(map[string]json.RawMessage{"rack": raw(`8`)}) }},
		"another weight and canary": {
			newer:   func(h *Host) { h.Tags.Weight, h.Tags.Canary = 1, &no },
			outcome: HostChanged,
			want:    func(h *Host) { h.Tags.Weight, h.Tags.Canary = 1, &no }},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t, newFakeStore())
			require.Equal(t, HostNew, checkIn(t, r, known))
			newer := known
			test.newer(&newer)
			require.Equal(t, test.outcome, checkIn(t, r, newer))
			want := known
			test.want(&want)
			list, err := r.List("users")
			require.NoError(t, err)
			require.Len(t, list.Hosts, 1)
			require.Equal(t, want, *list.Hosts[0].Host)
		})
	}
}

func TestTagsThatGrowAboveTheirBoundAreRefusedAndNothingIsLost(t *testing.T) {
	r := started(t, newFakeStore())
	tagged := func(name string, size int) Host {
		h := host("a", 1)
		h.Tags.Other = TagListOf(map[string]json.RawMessage{name: json.RawMessage(strings.Repeat("1", size-len(name)))})
		return h
	}
	// What region, zone and instance ID leave of it.
	left := maxTags - len("eu"+"eu-1"+"a")
	require.Equal(t, HostNew, checkIn(t, r, tagged("first", left/2)))
	require.Equal(t, HostChanged, checkIn(t, r, tagged("second", left-left/2)))
	for _, h := range []Host{tagged("third", len("third")+1), tagged("first", left/2+1), tagged("huge", maxTags+1)} {
		_, err := r.CheckIn(h, "tester")
		require.ErrorIs(t, err, ErrTagsTooLarge)
		require.ErrorContains(t, err, fmt.Sprintf("of %d at most", maxTags))
	}
	require.Equal(t, HostChanged, checkIn(t, r, tagged("first", left/2-1)), "a tag may shrink")

	stranger := tagged("huge", maxTags+1)
	stranger.ID = "b"
	_, err := r.CheckIn(stranger, "tester")
	require.ErrorIs(t, err, ErrTagsTooLarge)
	list, err := r.List("users")
	require.NoError(t, err)
	require.Len(t, list.Hosts, 1)
	require.Len(t, list.Hosts[0].Host.Tags.Other, 2)
}

// A host that was told of at two replicas at once may have more tags than each took.
func TestAHostWithTagsAboveTheirBoundChecksInAsLongAsTheyDoNotGrow(t *testing.T) {
	tagged := func(names ...string) Host {
		h, tags := host("a", 1), map[string]json.RawMessage{}
		for _, name := range names {
			tags[name] = json.RawMessage(strings.Repeat("1", maxTags/2))
		}
		h.Tags.Other = TagListOf(tags)
		return h
	}
	r := started(t, newFakeStore(Record{Host: new(tagged("first", "second")), Lease: 1}))
	deployed := tagged("first")
	deployed.Revision = "r2"
	require.Equal(t, HostChanged, checkIn(t, r, deployed))
	require.Equal(t, "r2", seen(t, r)["a"].Host.Revision)
	require.Len(t, seen(t, r)["a"].Host.Tags.Other, 2)
	longer := deployed
	longer.Tags.Zone += "c"
	_, err := r.CheckIn(longer, "tester")
	require.ErrorIs(t, err, ErrTagsTooLarge)
	whole := tagged("first", "second")
	whole.Revision = "r3"
	_, err = r.Put(whole, "tester")
	require.ErrorIs(t, err, ErrTagsTooLarge, "a host that says all of itself is held to the bound")
}

func TestARepositoryIsListedOverAllServices(t *testing.T) {
	r := started(t, newFakeStore())
	listed := func(repo string) (names []string) {
		list, err := r.ListRepo(repo)
		require.NoError(t, err)
		for _, record := range list.Hosts {
			names = append(names, record.Host.Service+"/"+record.Host.ID)
		}
		return names
	}
	orders := host("x", 9)
	orders.Service = "orders"
	checkIn(t, r, host("b", 2))
	checkIn(t, r, host("a", 1))
	checkIn(t, r, orders)
	require.Equal(t, []string{"orders/x", "users/a", "users/b"}, listed("users-repo"))

	moved := host("a", 1)
	moved.Repo = "other"
	checkIn(t, r, moved)
	_, err := r.Remove(Selection{Service: "orders"}, "tester")
	require.NoError(t, err)
	require.Equal(t, []string{"users/b"}, listed("users-repo"))
	require.Equal(t, []string{"users/a"}, listed("other"))
	require.Empty(t, listed(""))
}

func TestConcurrentCheckInsAndReadsLoseNothing(t *testing.T) {
	r := started(t, newFakeStore())
	var callers sync.WaitGroup
	for c := range 4 {
		// Ends by itself; the test waits below.
		callers.Go(func() {
			for i := range 200 {
				h := host(fmt.Sprint("host-", (c+i)%100), uint16((c+i)%100+1))
				h.Revision = fmt.Sprint(i % 3)
				if _, err := r.CheckIn(h, "tester"); err != nil {
					t.Errorf("check in: %v", err)
				}
				if _, err := r.List("users"); err != nil {
					t.Errorf("list: %v", err)
				}
			}
		})
	}
	callers.Wait()
	require.Len(t, ids(t, r), 100)
}

func TestAnUnchangedBeatAllocatesNothing(t *testing.T) {
	r := started(t, newFakeStore())
	h := host("a", 1)
	checkIn(t, r, h)
	servicetest.Allocations(t, 0, func() { _, _ = r.CheckIn(h, "tester") })
}

func TestAListAllocatesItsAnswerAlone(t *testing.T) {
	r := started(t, newFakeStore())
	for _, h := range manyHosts(1000) {
		checkIn(t, r, h)
	}
	servicetest.Allocations(t, 1, func() { _, _ = r.List("service-7") })
}

func BenchmarkCheckInUnchanged(b *testing.B) {
	r := started(b, newFakeStore())
	hosts := manyHosts(10_000)
	for _, h := range hosts {
		checkIn(b, r, h)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, _ = r.CheckIn(hosts[i%len(hosts)], "tester")
		}
	})
}

func BenchmarkCheckInChanged(b *testing.B) {
	r := started(b, newFakeStore())
	hosts := manyHosts(10_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h := hosts[i%len(hosts)]
		h.Revision = fmt.Sprint(i)
		_, _ = r.CheckIn(h, "tester")
	}
}

func BenchmarkListTenOfHundredThousand(b *testing.B) {
	r := started(b, newFakeStore())
	for _, h := range manyHosts(100_000) {
		checkIn(b, r, h)
	}
	names := make([]string, 10_000) // all of them: no list is in the processor's caches
	for i := range names {
		names[i] = fmt.Sprint("service-", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var room [CommonHosts]View
		if list, _ := r.ListInto(room[:0], names[i%len(names)]); len(list.Hosts) != 10 {
			b.Fatalf("%d hosts, want 10", len(list.Hosts))
		}
	}
}

// manyHosts are n hosts, ten to a service.
func manyHosts(n int) []Host {
	hosts := make([]Host, n)
	for i := range hosts {
		h := host(fmt.Sprint("host-", i), uint16(i%60_000+1))
		h.Service = fmt.Sprint("service-", i/10)
		hosts[i] = h
	}
	return hosts
}

func TestPutReplacesAllTags(t *testing.T) {
	r := started(t, newFakeStore())
	first, err := r.Put(host("a", 1), "tester")
	require.NoError(t, err)
	same, err := r.Put(host("a", 1), "tester")
	require.NoError(t, err)
	require.Equal(t, Receipt{HostUnchanged, first.Lease}, same)
	h := host("a", 1)
	h.Tags.Other = nil
	changed, err := r.Put(h, "tester")
	require.NoError(t, err)
	require.Equal(t, Receipt{HostChanged, first.Lease}, changed)
	require.Empty(t, seen(t, r)["a"].Host.Tags.Other)
}

func TestBeatsAreByLeaseAndUnknownOnesAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		var leases []Lease
		for i := range 3 * beatBatch {
			receipt, err := r.Put(host(fmt.Sprint(i), 1), "tester")
			require.NoError(t, err)
			leases = append(leases, receipt.Lease)
		}
		time.Sleep(50 * time.Second)
		unknown, err := r.Beat(append([]Lease{0, 12}, leases[1:]...), nil, "tester")
		require.NoError(t, err)
		require.Equal(t, []Lease{0, 12}, unknown)
		time.Sleep(50 * time.Second)
		synctest.Wait()
		require.Len(t, ids(t, r), len(leases)-1, "the one that did not beat is gone")
		unknown, err = r.Beat(leases[:2], nil, "tester")
		require.NoError(t, err)
		require.Equal(t, leases[:1], unknown)

		again, err := r.Put(host("0", 1), "tester")
		require.NoError(t, err)
		require.NotEqual(t, leases[0], again.Lease, "another stay, another lease")
	})
}

func TestAHostIsLostWithItsConnectionButNotTheLastOne(t *testing.T) {
	r := started(t, newFakeStore())
	var leases []Lease
	for _, id := range []string{"a", "b", "c"} {
		receipt, err := r.Put(host(id, 1), "tester")
		require.NoError(t, err)
		leases = append(leases, receipt.Lease)
	}
	lost, err := r.Lose(append(leases, 12), time.Now(), "stream")
	require.NoError(t, err)
	require.Equal(t, 2, lost)
	require.Equal(t, []string{"c"}, ids(t, r))
	require.Equal(t, []EventKind{Lost, Lost}, kinds(t, r, "users"))
	require.Equal(t, 2.0, testutil.ToFloat64(r.metrics.losses))
	require.Zero(t, testutil.ToFloat64(r.metrics.expiries), "no TTL passed")
}

func TestTheLastHostThatTakesWorkIsNotLostWithItsConnection(t *testing.T) {
	set := func(kind SettingKind, id string) func(*testing.T, *Registry) {
		return func(t *testing.T, r *Registry) {
			makeSetting(t, r, Setting{Scope: Scope{Service: "users", ID: id}, Kind: kind})
		}
	}
	for name, test := range map[string]struct {
		before func(t *testing.T, r *Registry)
		left   []string // of a, which is on no stream, and b and c, whose stream breaks
	}{
		"all take work":                  {func(*testing.T, *Registry) {}, []string{"a"}},
		"the other is in maintenance":    {set(Maintenance, "a"), []string{"a", "c"}},
		"the other is drained":           {set(Drain, "a"), []string{"a", "c"}},
		"one that is lost is drained":    {set(Drain, "c"), []string{"a"}},
		"one is in maintenance, is lost": {set(Maintenance, "c"), []string{"a"}},
		"the other is unhealthy": {func(t *testing.T, r *Registry) {
			require.Equal(t, 1, r.SetHealth(map[Key]bool{{"users", "a"}: true}, "checkers"))
		}, []string{"a", "c"}},
		"the other is about to go": {func(_ *testing.T, r *Registry) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.leaves(r.find(Key{"users", "a"}))
		}, []string{"a", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t, newFakeStore())
			var leases []Lease
			for _, id := range []string{"a", "b", "c"} {
				receipt, err := r.Put(host(id, 1), "tester")
				require.NoError(t, err)
				leases = append(leases, receipt.Lease)
			}
			test.before(t, r)
			lost, err := r.Lose(leases[1:], time.Now(), "stream")
			require.NoError(t, err)
			require.Equal(t, 3-len(test.left), lost)
			require.Equal(t, test.left, ids(t, r))
		})
	}
}

func TestAHostThatHasBeatenSinceIsNotLostWithAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		var leases []Lease
		for _, id := range []string{"a", "b", "c"} {
			receipt, err := r.Put(host(id, 1), "tester")
			require.NoError(t, err)
			leases = append(leases, receipt.Lease)
		}
		heard := time.Now()
		time.Sleep(time.Second)
		_, err := r.Beat(leases[:1], nil, "another stream")
		require.NoError(t, err)
		// What was heard here comes back from the Store, seemingly a bit later.
		r.apply(Update{Beats: []Beat{{Key{"users", "b"}, heard.Add(echo / 2)}}})
		lost, err := r.Lose(leases, heard, "stream")
		require.NoError(t, err)
		require.Equal(t, 2, lost)
		require.Equal(t, []string{"a"}, ids(t, r))
	})
}

func TestNoHostIsLostWithAConnectionWhereBeatsMayHaveBeenMissed(t *testing.T) {
	for name, trouble := range map[string]func(r *Registry){
		"it stands still": func(r *Registry) { // which no tick has seen yet
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ticked -= 10 * time.Second
		},
		"it stood still":     func(r *Registry) { r.observe(time.Since(r.born), 10*time.Second) },
		"its store is away":  func(r *Registry) { r.answered(following, errors.New("away")) },
		"its store was away": func(r *Registry) { r.answered(following, errors.New("away")); r.answered(following, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, newFakeStore())
				var leases []Lease
				for _, id := range []string{"a", "b", "c"} {
					receipt, err := r.Put(host(id, 1), "tester")
					require.NoError(t, err)
					leases = append(leases, receipt.Lease)
				}
				trouble(r)
				lost, err := r.Lose(leases, time.Now(), "stream")
				require.NoError(t, err)
				require.Zero(t, lost)
				time.Sleep(time.Second)
				require.Len(t, ids(t, r), 3, "each has its TTL")
			})
		})
	}
}

func TestLimitsRefuseNewHostsAlone(t *testing.T) {
	r := newRegistry(newFakeStore())
	r.options.Limits = Limits{HostsPerService: 2, Services: 1, TagBytes: maxTags}
	run(t, r)
	<-r.Loaded()
	checkIn(t, r, host("a", 1))
	checkIn(t, r, host("b", 2))
	_, err := r.CheckIn(host("c", 3), "tester")
	require.ErrorIs(t, err, ErrServiceFull)
	require.ErrorContains(t, err, ": 2")
	other := host("a", 1)
	other.Service = "orders"
	_, err = r.CheckIn(other, "tester")
	require.ErrorIs(t, err, ErrTooManyServices)
	moved := host("a", 9)
	require.Equal(t, HostChanged, checkIn(t, r, moved))
	require.Equal(t, HostUnchanged, checkIn(t, r, host("b", 2)))
}

func TestServicesWithoutHostsMakeRoomForNewOnes(t *testing.T) {
	r := newRegistry(newFakeStore())
	r.options.Limits = Limits{HostsPerService: 9, Services: 2, TagBytes: maxTags}
	run(t, r)
	<-r.Loaded()
	flap := func(service string) {
		h := host("a", 1)
		h.Service = service
		checkIn(t, r, h)
		_, err := r.Remove(Selection{Service: service}, "tester")
		require.NoError(t, err)
	}
	for i := range 10 {
		flap(fmt.Sprint("branch-", i))
	}
	require.Equal(t, map[string]int{"branch-8": 0, "branch-9": 0}, services(t, r), "the longest empty ones went")
	for _, name := range []string{"users", "orders"} {
		h := host("a", 1)
		h.Service = name
		checkIn(t, r, h)
	}
	h := host("a", 1)
	h.Service = "one more"
	_, err := r.CheckIn(h, "tester")
	require.ErrorIs(t, err, ErrTooManyServices)
	require.Equal(t, map[string]int{"users": 1, "orders": 1}, services(t, r))
}

func TestABulkBeatAllocatesNothing(t *testing.T) {
	r := started(t, newFakeStore())
	leases := manyLeases(t, r, 1000)
	servicetest.Allocations(t, 0, func() { _, _ = r.Beat(leases, nil, "tester") })
}

func BenchmarkBeat(b *testing.B) {
	r := started(b, newFakeStore())
	leases := manyLeases(b, r, 100_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		from := i * 10_000 % len(leases)
		_, _ = r.Beat(leases[from:from+10_000], nil, "tester")
	}
	b.ReportMetric(float64(b.N)*10_000/b.Elapsed().Seconds(), "hosts/s")
}

// manyLeases registers n hosts and returns their leases.
func manyLeases(t testing.TB, r *Registry, n int) []Lease {
	var leases []Lease
	for _, h := range manyHosts(n) {
		receipt, err := r.Put(h, "tester")
		require.NoError(t, err)
		leases = append(leases, receipt.Lease)
	}
	return leases
}

func TestAHostTakesThePlaceOfOneElsewhereOnlyIfThatIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		known, elsewhere := host("a", 1), host("a", 1)
		elsewhere.Address = netip.MustParseAddrPort("10.0.0.2:1")
		never := errors.New("it is not yours")
		var asked []netip.Addr
		allow := func(err error) func(netip.Addr) error {
			return func(at netip.Addr) error {
				require.False(t, r.mu.TryRLock(), "nobody can change the host meanwhile")
				asked = append(asked, at)
				return err
			}
		}
		_, err := r.PutIf(known, "ann", allow(never))
		require.NoError(t, err, "nobody is there")
		known.Revision = "r2"
		_, err = r.PutIf(known, "ann", allow(never))
		require.NoError(t, err, "it is at the same address")
		require.Empty(t, asked)
		_, err = r.PutIf(elsewhere, "bob", allow(never))
		require.ErrorIs(t, err, never)
		there, _, err := r.Find(known.Key)
		require.NoError(t, err)
		require.Equal(t, known.Address, there.Host.Address)
		receipt, err := r.PutIf(elsewhere, "bob", allow(nil))
		require.NoError(t, err)
		require.Equal(t, HostChanged, receipt.Outcome)
		require.Equal(t, []netip.Addr{known.Address.Addr(), known.Address.Addr()}, asked)
	})
}
