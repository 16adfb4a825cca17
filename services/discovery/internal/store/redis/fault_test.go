package redis

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

// replica is a registry on a store of its own.
type replica struct {
	t *testing.T
	*registry.Registry
	store *Store
}

// start runs a replica on the Redis at url until the test ends, and returns when
// it is loaded.
func start(t *testing.T, url string, timeout time.Duration) replica {
	return startWarming(t, url, timeout, 0)
}

// startWarming is start of a replica that warms up for so long.
func startWarming(t *testing.T, url string, timeout, warmUp time.Duration) replica {
	o := registrytest.Options()
	o.WarmUp = warmUp
	s := open(t, url, timeout)
	o.Store = s
	r := registry.New(o)
	registrytest.Run(t, r)
	<-r.Loaded()
	return replica{t, r, s}
}

// hostOf is a host of the service users.
func hostOf(id string, ttl time.Duration) registry.Host {
	return registry.Host{
		Key:     registry.Key{Service: "users", ID: id},
		Address: netip.MustParseAddrPort("10.0.0.1:80"), Revision: "r1",
		Tags: registry.Tags{Region: "eu", Zone: "eu-1", InstanceID: id},
		TTL:  ttl,
	}
}

// checkIn is a check-in of a host of the service users.
func (r replica) checkIn(id string, ttl time.Duration) {
	r.t.Helper()
	_, err := r.CheckIn(hostOf(id, ttl), "a test")
	require.NoError(r.t, err)
}

// ids are those of the hosts of users, in order.
func (r replica) ids() string {
	r.t.Helper()
	list, err := r.List("users")
	require.NoError(r.t, err)
	var ids []string
	for _, host := range list.Hosts {
		ids = append(ids, host.Host.ID)
	}
	return strings.Join(ids, " ")
}

// await waits until all replicas list these hosts.
func await(t *testing.T, ids string, replicas ...replica) {
	t.Helper()
	servicetest.Eventually(t, "all list "+ids, func() bool {
		for _, r := range replicas {
			if r.ids() != ids {
				return false
			}
		}
		return true
	})
}

// awaitKept waits until these hosts of users are in Redis.
func awaitKept(t *testing.T, url, ids string) {
	t.Helper()
	s := open(t, url, patience)
	servicetest.Eventually(t, "redis has "+ids, func() bool {
		contents, err := s.Load(t.Context())
		if err != nil {
			return false
		}
		kept := map[string]bool{}
		for _, r := range contents.Records {
			kept[r.Host.ID] = true
		}
		for id := range strings.FieldsSeq(ids) {
			if !kept[id] {
				return false
			}
		}
		return len(kept) == len(strings.Fields(ids))
	})
}

func TestReplicasListTheSameHosts(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	a, b := start(t, url, patience), start(t, url, patience)
	a.checkIn("1", time.Minute)
	b.checkIn("2", time.Minute)
	await(t, "1 2", a, b)
	c := start(t, url, patience)
	require.Equal(t, "1 2", c.ids(), "one that starts later loads them")

	n, err := c.Remove(registry.Selection{Service: "users", ID: "1"}, "a test")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	await(t, "2", a, b, c)
	_, err = a.Make(registry.Setting{
		Scope: registry.Scope{Service: "users"}, Kind: registry.Drain, Author: "operator", Made: time.Now(),
	})
	require.NoError(t, err)
	servicetest.Eventually(t, "all drain the service", func() bool {
		for _, r := range []replica{a, b, c} {
			if list, err := r.List("users"); err != nil || list.Hosts[0].State == registry.Serving {
				return false
			}
		}
		return true
	})
}

// deaf has r hear nothing from Redis, and tell it nothing, while it does something.
func (r replica) deaf(do func()) {
	r.store.exchange.Lock()
	defer r.store.exchange.Unlock()
	do()
}

// leases are those of the hosts of users.
func (r replica) leases() (leases []registry.Lease) {
	r.t.Helper()
	list, err := r.List("users")
	require.NoError(r.t, err)
	for _, host := range list.Hosts {
		leases = append(leases, host.Lease)
	}
	return leases
}

// remove is a deregistration of a host of users.
func (r replica) remove(id string) {
	r.t.Helper()
	n, err := r.Remove(registry.Selection{Service: "users", ID: id}, "a test")
	require.NoError(r.t, err)
	require.Equal(r.t, 1, n)
}

// events are those of the history of users.
func (r replica) events() (kinds []registry.EventKind) {
	r.t.Helper()
	list, err := r.History("users")
	require.NoError(r.t, err)
	for _, e := range list {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// away waits until r has found that Redis does not answer.
func (r replica) away() {
	r.t.Helper()
	servicetest.Eventually(r.t, "redis is away", func() bool {
		why, _ := r.Trouble()
		return why != ""
	})
}

// queue is a hook of the driver's that does something before the first time that a
// script is sent.
type queue struct {
	script *script
	do     func()
}

func (queue) DialHook(next goredis.DialHook) goredis.DialHook          { return next }
func (queue) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook { return next }
func (q queue) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, list []goredis.Cmder) error {
		if sends(list, q.script) {
			q.do()
			ctx = context.WithoutCancel(ctx) // however long that took
		}
		return next(ctx, list)
	}
}

// sends says whether a script is among some commands.
func sends(list []goredis.Cmder, s *script) bool {
	return slices.ContainsFunc(list, func(c goredis.Cmder) bool { return slices.Contains(c.Args(), any(s.hash)) })
}

// moves are ways in which a host deregisters at a, and later does something at b, which
// has not heard of that.
var moves = map[string]func(server *servicetest.RedisServer, a, b replica, later func()){
	"b is behind": func(server *servicetest.RedisServer, a, b replica, later func()) {
		b.deaf(func() {
			a.remove("1")
			awaitKept(a.t, "redis://"+server.Address, "")
			later()
		})
	},
	"a is behind": func(_ *servicetest.RedisServer, a, _ replica, later func()) {
		a.deaf(func() {
			a.remove("1")
			later()
		})
	},
	"what a tells lies in a queue": func(_ *servicetest.RedisServer, a, _ replica, later func()) {
		done := make(chan struct{})
		a.store.client.AddHook(queue{appendScript, sync.OnceFunc(func() {
			later()
			close(done)
		})})
		a.remove("1")
		<-done
	},
	"redis stands still": func(server *servicetest.RedisServer, a, b replica, later func()) {
		require.NoError(a.t, server.Process().Signal(syscall.SIGSTOP))
		a.remove("1")
		a.away()
		later()
		b.away()
		require.NoError(a.t, server.Process().Signal(syscall.SIGCONT))
	},
}

// changesAsAnyOther has host 1 of users, which came back at b, weighed at both replicas, and
// then expire for a, which did not see it register: it is given back.
func changesAsAnyOther(t *testing.T, url string, a, b replica) {
	t.Helper()
	weight := func(r replica) uint8 {
		list, err := r.List("users")
		require.NoError(t, err)
		require.Len(t, list.Hosts, 1)
		return list.Hosts[0].Host.Tags.Weight
	}
	for i, r := range []replica{a, b} {
		want := uint8(10 + i)
		n, err := r.SetWeight(registry.Selection{Service: "users"}, want, "a test")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		servicetest.Eventually(t, "both have the weight", func() bool { return weight(a) == want && weight(b) == want })
	}
	lease := b.leases()
	key := registry.Key{Service: "users", ID: "1"}
	servicetest.Eventually(t, "it expires", func() bool {
		gone, err := a.store.Expire(t.Context(), []registry.Beat{{Key: key, At: time.Now()}})
		return err == nil && len(gone) == 1
	})
	awaitKept(t, url, "1")
	await(t, "1", a, b)
	require.Equal(t, lease, b.leases())
}

// A host may register at a replica that has not heard yet that it deregistered at
// another, and is known there just so, or otherwise. How soon after that may be depends
// on how well both know Redis' clock, which on a busy machine may be less than soon: so
// this tries some times.
func TestAHostThatDeregistersAndRegistersAtAnotherReplicaStays(t *testing.T) {
	for name, move := range moves {
		for as, ttl := range map[string]time.Duration{"as it was": time.Minute, "as another": 2 * time.Minute} {
			t.Run(name+", "+as, func(t *testing.T) {
				const soon = 100 * time.Millisecond
				stays := func() bool {
					server := servicetest.Redis(t)
					url := "redis://" + server.Address
					a, b := start(t, url, time.Second), start(t, url, time.Second)
					b.checkIn("1", time.Minute)
					await(t, "1", a, b)
					awaitKept(t, url, "1")
					lease := b.leases()
					move(server, a, b, func() {
						time.Sleep(soon)
						b.checkIn("1", ttl)
					})
					servicetest.Eventually(t, "b has heard that it deregistered", func() bool {
						return b.ids() == "" || slices.Contains(b.events(), registry.Deregistered)
					})
					servicetest.Eventually(t, "both list the same", func() bool { return slices.Equal(a.leases(), b.leases()) })
					awaitKept(t, url, b.ids())
					if b.ids() == "" {
						return false
					}
					require.Equal(t, lease, b.leases(), "that it was answered")
					for _, r := range []replica{a, b} {
						require.Contains(t, r.events(), registry.Deregistered)
					}
					changesAsAnyOther(t, url, a, b)
					return true
				}
				for tries := 1; !stays(); tries++ {
					require.Less(t, tries, 10, "%v after it deregistered", soon)
				}
			})
		}
	}
}

func TestAHostThatRegistersAndDeregistersAtAnotherReplicaGoes(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	a, b := start(t, url, patience), start(t, url, patience)
	b.checkIn("1", time.Minute)
	await(t, "1", a, b)
	lease := b.leases()
	b.deaf(func() {
		b.checkIn("1", time.Minute)
		a.remove("1")
		awaitKept(t, url, "")
		unknown, err := b.Beat(lease, nil, "a test") // a late one
		require.NoError(t, err)
		require.Empty(t, unknown)
	})
	await(t, "", a, b)
	a.checkIn("2", time.Minute)
	await(t, "2", a, b) // what b gave back would be there before
	awaitKept(t, url, "2")
	for _, r := range []replica{a, b} {
		unknown, err := r.Beat(lease, nil, "a test")
		require.NoError(t, err)
		require.Equal(t, lease, unknown)
	}
}

func TestReplicasThatChangeTheSameHostEndWithTheSame(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	a, b := start(t, url, patience), start(t, url, patience)
	a.checkIn("1", time.Minute)
	await(t, "1", a, b)
	var changing sync.WaitGroup
	for name, r := range map[string]replica{"a": a, "b": b} {
		// Ends by itself; the test waits below.
		changing.Go(func() {
			for i := range 300 {
				h := hostOf("1", time.Minute)
				h.Revision = fmt.Sprint(name, i)
				if _, err := r.CheckIn(h, "a test"); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
		})
	}
	changing.Wait()
	revision := func(r replica) string {
		list, err := r.List("users")
		require.NoError(t, err)
		return list.Hosts[0].Host.Revision
	}
	s := open(t, url, patience)
	servicetest.Eventually(t, "both have what redis has", func() bool {
		contents, err := s.Load(t.Context())
		return err == nil && revision(a) == contents.Records[0].Host.Revision && revision(b) == revision(a)
	})
}

// A host that is heard by one replica lives on all, for longer than its TTL; one
// that nobody hears dies on all.
func TestAHostLivesWhereverItBeats(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	url := "redis://" + servicetest.Redis(t).Address
	a, b := start(t, url, patience), start(t, url, patience)
	a.checkIn("beats", ttl)
	a.checkIn("dies", ttl)
	await(t, "beats dies", b)
	ctx, cancel := context.WithCancel(t.Context())
	var beating sync.WaitGroup
	// Ends with ctx; the test waits below.
	beating.Go(func() {
		tick := time.NewTicker(ttl / 10)
		defer tick.Stop()
		for ctx.Err() == nil {
			a.checkIn("beats", ttl)
			<-tick.C
		}
	})
	await(t, "beats", a, b)
	born := time.Now()
	servicetest.Eventually(t, "it lives on for more than its TTL", func() bool {
		require.Equal(t, "beats", b.ids())
		return time.Since(born) > ttl+ttl/2
	})
	cancel()
	beating.Wait()
	await(t, "", a, b)
}

func TestReplicasGoOnWithoutRedisAndGiveBackWhatItLost(t *testing.T) {
	server := servicetest.Redis(t)
	url := "redis://" + server.Address
	a, b := start(t, url, patience), start(t, url, patience)
	a.checkIn("1", time.Minute)
	b.checkIn("2", time.Minute)
	await(t, "1 2", a, b)

	server.Kill()
	a.checkIn("3", time.Minute)
	require.Equal(t, "1 2 3", a.ids(), "check-ins are taken")
	require.Equal(t, "1 2", b.ids(), "reads are answered")

	server.Start() // empty
	await(t, "1 2 3", a, b)
	awaitKept(t, url, "1 2 3")
}

func TestNothingIsLostWhenRedisIsFlushed(t *testing.T) {
	server := servicetest.Redis(t)
	url := "redis://" + server.Address
	a, b := start(t, url, patience), start(t, url, patience)
	a.checkIn("1", time.Minute)
	b.checkIn("2", time.Minute)
	await(t, "1 2", a, b)
	server.Command("FLUSHALL")
	server.Command("SCRIPT FLUSH")
	b.checkIn("3", time.Minute) // the first that is written anew
	await(t, "1 2 3", a, b)
	awaitKept(t, url, "1 2 3")
}

func TestAReplicaThatStartsDoesNotTakeForAllWhatOneThatWarmsUpWrote(t *testing.T) {
	server := servicetest.Redis(t)
	url := "redis://" + server.Address
	a := startWarming(t, url, patience, time.Hour)
	a.checkIn("1", time.Minute)
	awaitKept(t, url, "1")
	b := startWarming(t, url, patience, time.Hour)
	require.Equal(t, "1", b.ids())
	require.True(t, b.Partial(), "a, of which it is, has not heard of all yet")

	awaitComplete := func() {
		t.Helper()
		servicetest.Eventually(t, "redis has all", func() bool { return server.Command("GET sd:{0}:state") == stateComplete })
	}
	warm := start(t, url, patience)
	awaitComplete()
	require.False(t, startWarming(t, url, patience, time.Hour).Partial())

	server.Command("FLUSHALL")
	require.True(t, startWarming(t, url, patience, time.Hour).Partial(), "others may not have given all back yet")
	warm.checkIn("2", time.Minute)
	awaitComplete()
	awaitKept(t, url, "1 2")
	require.False(t, startWarming(t, url, patience, time.Hour).Partial())
}

func TestAReplicaThatStartsOnWhatIsLeftIsGivenTheRestByOneThatRuns(t *testing.T) {
	server := servicetest.Redis(t)
	url := "redis://" + server.Address
	a := start(t, url, patience)
	a.checkIn("1", time.Minute)
	a.checkIn("2", time.Minute)
	awaitKept(t, url, "1 2")
	servicetest.Eventually(t, "redis has all", func() bool { return server.Command("GET sd:{0}:state") == stateComplete })
	var b replica
	a.deaf(func() { // or else it may have given it back by then
		server.Command("HDEL " + usersKeys("rec")[0] + " 5:users/1")
		b = startWarming(t, url, patience, time.Hour)
	})
	require.True(t, b.Partial(), "what is left is not all")
	await(t, "1 2", a, b)
	awaitKept(t, url, "1 2")
}

func TestNothingIsLostWhenRedisComesBackAsItWasBefore(t *testing.T) {
	server := servicetest.Redis(t)
	url := "redis://" + server.Address
	a, b := start(t, url, patience), start(t, url, patience)
	a.checkIn("1", time.Minute)
	await(t, "1", a, b)
	server.Command("SAVE")
	b.checkIn("2", time.Minute)
	await(t, "1 2", a, b)
	server.Kill()
	server.Start() // with what was saved
	awaitKept(t, url, "1 2")
	require.Equal(t, "1 2", a.ids())
	require.Equal(t, "1 2", b.ids())
}

func TestReplicasFollowASentinelsMasterToAnotherServer(t *testing.T) {
	group := servicetest.Sentinel(t)
	url := "redis+sentinel://" + group.Address + "/" + group.Name
	a, b := start(t, url, time.Second), start(t, url, time.Second)
	a.checkIn("1", time.Minute)
	await(t, "1", a, b)
	group.Replica.Command("REPLICAOF 127.0.0.1 1") // so it lacks what comes now
	b.checkIn("2", time.Minute)
	await(t, "1 2", a, b)
	group.Master.Kill()
	a.checkIn("3", time.Minute)
	await(t, "1 2 3", a, b)
	awaitKept(t, "redis://"+group.Replica.Address, "1 2 3")
}

func TestAHungRedisIsAwayWithinTheTimeout(t *testing.T) {
	server := servicetest.Redis(t)
	s := open(t, "redis://"+server.Address, impatience)
	r := storetest.Record("users", "a", 1)
	servicetest.Eventually(t, "redis answers in time", func() bool {
		return s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}) == nil
	})
	require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
	beats := []registry.Beat{{Key: r.Host.Key, At: time.Now()}}
	before := runtime.NumGoroutine()
	soonest := map[string]time.Duration{} // of three, as a busy machine may hold up one
	for range 3 {
		for name, call := range map[string]func() error{
			"append": func() error { return s.Append(t.Context(), []registry.Change{{Key: r.Host.Key}}) },
			"flush":  func() error { _, err := s.Flush(t.Context(), beats); return err },
			"expire": func() error { _, err := s.Expire(t.Context(), beats); return err },
			"load":   func() error { _, err := s.Load(t.Context()); return err },
			"follow": func() error { return s.Follow(t.Context(), func(registry.Update) {}) },
		} {
			begin := time.Now()
			require.ErrorContains(t, call(), "redis at "+server.Address, name)
			if took, again := time.Since(begin), soonest[name]; again == 0 || took < again {
				soonest[name] = took
			}
		}
	}
	for name, took := range soonest {
		require.Less(t, took, impatience+2*time.Second, "%s: the timeout, on a machine that may be busy", name)
	}
	servicetest.Eventually(t, "no more than one for each connection is left", func() bool { return runtime.NumGoroutine() <= before+5 })
	require.NoError(t, server.Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "redis is there again", func() bool {
		contents, err := s.Load(t.Context())
		return err == nil && len(contents.Records) <= 1
	})
}

// serviceOnEach is a service on each server of a Cluster, by its address.
func (s *Store) serviceOnEach(masters []*servicetest.RedisServer) map[string]string {
	services := map[string]string{}
	for i := 0; len(services) < len(masters); i++ {
		service := fmt.Sprint("service-", i)
		if master, err := s.client.(*goredis.ClusterClient).MasterForKey(context.Background(), s.keys(partitionOf(service), "rec")[0]); err == nil {
			services[master.Options().Addr] = service
		}
	}
	return services
}

func TestAStoppedServerOfAClusterDoesNotHoldUpTheOthers(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	url := "redis+cluster://" + masters[0].Address
	a, b := open(t, url, 3*time.Second), open(t, url, 3*time.Second)
	view := storetest.Follow(t, b)
	services := a.serviceOnEach(masters)
	put := func(service, id string) error {
		r := storetest.Record(service, id, 1)
		return a.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}})
	}
	require.NoError(t, masters[2].Process().Signal(syscall.SIGSTOP))
	for _, m := range masters[:2] {
		service := services[m.Address]
		servicetest.Eventually(t, "a host on another server is followed", func() bool {
			_ = put(service, "a")
			return view.Hosts()[registry.Key{Service: service, ID: "a"}].Host != nil
		})
	}
	require.Error(t, put(services[masters[2].Address], "a"))
	require.NoError(t, masters[2].Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "a host on the server that was stopped is followed", func() bool {
		_ = put(services[masters[2].Address], "a")
		return len(view.Hosts()) == len(masters)
	})
}

func TestAServerOfAClusterThatIsAwayForLongKeepsNothingFromTheOthers(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	s := open(t, "redis+cluster://"+masters[0].Address, 3*time.Second)
	services := s.serviceOnEach(masters)
	var first, second []registry.Change
	var beats []registry.Beat
	for _, service := range services {
		first = append(first, putOf(service, "a"))
		second = append(second, putOf(service, "b"))
		beats = append(beats, registry.Beat{Key: first[len(first)-1].Key, At: time.Now().Add(time.Hour)})
	}
	servicetest.Eventually(t, "the hosts are there", func() bool { return s.Append(t.Context(), first) == nil })
	require.NoError(t, masters[2].Process().Signal(syscall.SIGSTOP))
	for _, service := range services { // which nobody has read for so long
		p := &s.partitions[partitionOf(service)]
		c := *p.clock.Load()
		c.at = c.at.Add(-clockLife)
		p.clock.Store(&c)
	}
	for _, m := range masters[:2] {
		key, member := s.keys(partitionOf(services[m.Address]), "beat")[0], hostMember(registry.Key{Service: services[m.Address], ID: "a"})
		m.Command("ZADD " + key + " 1 " + member)
		servicetest.Eventually(t, "a beat on another server is noted", func() bool {
			_, err := s.Flush(t.Context(), beats)
			require.Error(t, err)
			return m.Command("ZSCORE "+key+" "+member) != "1"
		})
		servicetest.Eventually(t, "a host on another server is noted", func() bool {
			var failed *registry.AppendError
			require.ErrorAs(t, s.Append(t.Context(), second), &failed)
			kept := m.Command("HLEN "+s.keys(partitionOf(services[m.Address]), "rec")[0]) == "2"
			left := slices.ContainsFunc(failed.Left, func(c registry.Change) bool { return c.Key.Service == services[m.Address] })
			require.True(t, kept || left, "what is not kept is left")
			require.True(t, slices.ContainsFunc(failed.Left, func(c registry.Change) bool {
				return c.Key.Service == services[masters[2].Address]
			}))
			return kept && !left
		})
	}
	require.NoError(t, masters[2].Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "the server that was stopped takes what it was not told", func() bool {
		_, err := s.Flush(t.Context(), beats)
		return err == nil && s.Append(t.Context(), second) == nil
	})
}

// A store that was never loaded, as where Redis was away at the start, knows what the
// other servers have after one round, be the one that is away that of the state.
func TestAStoppedServerOfAClusterDoesNotKeepTheOthersFromBeingRead(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	url := "redis+cluster://" + masters[0].Address + "," + masters[1].Address + "," + masters[2].Address
	a, b := open(t, url, 3*time.Second), open(t, url, 3*time.Second)
	owner := func(p int) string {
		master, err := a.client.(*goredis.ClusterClient).MasterForKey(t.Context(), a.keys(p, "rec")[0])
		require.NoError(t, err)
		return master.Options().Addr
	}
	var puts []registry.Change
	for i := range 64 {
		puts = append(puts, putOf(fmt.Sprint("service-", i), "a"))
	}
	require.NoError(t, a.Append(t.Context(), puts))
	var away []int
	followed := map[registry.Key]bool{}
	for p := range partitionCount {
		if owner(p) == owner(statePartition) {
			away = append(away, p)
		}
	}
	stopped := masters[slices.IndexFunc(masters, func(m *servicetest.RedisServer) bool { return m.Address == owner(statePartition) })]
	follow := func() error {
		_, err := b.followOnce(t.Context(), true, func(u registry.Update) {
			for i := range u.Whole.Records {
				followed[u.Whole.Records[i].Host.Key] = true
			}
		})
		return err
	}
	require.NoError(t, b.client.Ping(t.Context()).Err())
	require.NoError(t, stopped.Process().Signal(syscall.SIGSTOP))
	require.Error(t, follow())
	require.True(t, b.unsaid, "the state is on the server that is away")
	for p := range b.partitions {
		require.Equal(t, !slices.Contains(away, p), b.partitions[p].known, "partition %d", p)
	}
	for _, put := range puts {
		require.Equal(t, !slices.Contains(away, partitionOf(put.Key.Service)), followed[put.Key], put.Key.Service)
	}
	require.NoError(t, stopped.Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "all is followed", func() bool { return follow() == nil })
	require.Len(t, followed, len(puts))
	state, err := b.state(t.Context())
	require.NoError(t, err)
	require.Equal(t, statePartial, state)
}

func TestAnExchangeReadsSomeThousandHosts(t *testing.T) {
	s := open(t, "redis://"+servicetest.Redis(t).Address, patience)
	for p, hosts := range map[int]int{3: exchangeSize + 1, 4: exchangeSize - 1, 5: 1, 6: 1} {
		var fields []any
		for i := range hosts {
			fields = append(fields, i, "x")
		}
		require.NoError(t, s.client.HSet(t.Context(), s.keys(p, "rec")[0], fields...).Err())
	}
	var list []int
	for p := range 25 {
		list = append(list, p)
	}
	batches, hosts, err := s.batches(t.Context(), list)
	require.NoError(t, err)
	require.Equal(t, 2*exchangeSize+2, hosts)
	require.Equal(t, [][]int{list[:3], list[3:4], list[4:6], list[6:22], list[22:]}, batches)
}

func TestTheSweepLeaseMovesWhenItsHolderDies(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	a, b := open(t, url, patience), open(t, url, patience)
	first, second := storetest.Record("users", "a", 1), storetest.Record("users", "b", 1)
	for _, r := range []registry.Record{first, second} {
		require.NoError(t, a.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	}
	gone, err := a.Expire(t.Context(), []registry.Beat{{Key: first.Host.Key, At: time.Now()}})
	require.NoError(t, err)
	require.Len(t, gone, 1)
	servicetest.Eventually(t, "the other takes over", func() bool {
		gone, err := b.Expire(t.Context(), []registry.Beat{{Key: second.Host.Key, At: time.Now()}})
		return err == nil && len(gone) == 1
	})
}

// updates collects what followOnce hands over.
func updates(t *testing.T, s *Store) (list []registry.Update) {
	t.Helper()
	_, err := s.followOnce(t.Context(), true, func(u registry.Update) { list = append(list, u) })
	require.NoError(t, err)
	return list
}

// one is a store with a host, loaded, and a second one on the same data.
func one(t *testing.T) (s, other *Store, server *servicetest.RedisServer) {
	server = servicetest.Redis(t)
	url := "redis://" + server.Address
	s, other = open(t, url, patience), open(t, url, patience)
	r := storetest.Record("users", "a", 1)
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	s.looks = partitionOf("users") // have the digest of that computed
	require.Empty(t, updates(t, s), "nothing happened")
	return s, other, server
}

// key is that of the partition of users.
func (s *Store) key(name string) string { return s.keys(partitionOf("users"), name)[0] }

// Redis does not say which of the keys is the wrong one.
func TestALogOfAnotherTypeIsNamedAndTheOthersAreFollowed(t *testing.T) {
	s, other, server := one(t)
	server.Command("DEL " + s.key("log"))
	server.Command("SET " + s.key("log") + " x")
	for range 2 {
		put := putOf("orders", "a")
		put.Record.Lease = registry.NewLease()
		put.Parts = registry.Parts{Anew: true, Whole: true}
		require.NoError(t, other.Append(t.Context(), []registry.Change{put}))
		var told []registry.Change
		_, err := s.followOnce(t.Context(), true, func(u registry.Update) { told = append(told, u.Changes...) })
		require.ErrorIs(t, err, registry.ErrRefused)
		require.ErrorContains(t, err, s.key("log")+": WRONGTYPE")
		require.Len(t, told, 1)
		require.Equal(t, put.Key, told[0].Key)
	}
	server.Command("DEL " + s.key("log"))
	updates(t, s)
}

func TestAnEntryThatNoReplicaWroteIsLeftOutAndSaidOnce(t *testing.T) {
	for name, c := range map[string]struct {
		fields string
		reads  int // how often all of the partition is read for it
		says   string
	}{
		"of other fields": {"who ann", 0, "left out entries in redis that no replica wrote"},
		"of our fields":   {"w ann g x b y d z k p", 1, "partitions of redis were read anew"},
	} {
		t.Run(name, func(t *testing.T) {
			s, other, server := one(t)
			var log strings.Builder
			s.options.Log = slog.New(slog.NewTextHandler(&log, nil))
			server.Command("XADD " + s.key("log") + " * " + c.fields)
			reads := 0
			for range 5 {
				for _, u := range updates(t, s) {
					require.False(t, u.Lost)
					require.NotNil(t, u.Whole)
					reads++
				}
			}
			require.Equal(t, c.reads, reads)
			require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
			require.Contains(t, log.String(), c.says)

			put := putOf("users", "b")
			require.NoError(t, other.Append(t.Context(), []registry.Change{put}))
			list := updates(t, s)
			require.Len(t, list, 1)
			require.Len(t, list[0].Changes, 1, "what replicas write is followed")
			require.Equal(t, put.Key, list[0].Changes[0].Key)
		})
	}
}

func TestATrimmedLogHasThePartitionReadAnew(t *testing.T) {
	s, other, server := one(t)
	for _, id := range []string{"b", "c"} {
		r := storetest.Record("users", id, 1)
		require.NoError(t, other.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	}
	server.Command("XTRIM " + s.key("log") + " MAXLEN 1")
	list := updates(t, s)
	require.Len(t, list, 1)
	require.NotNil(t, list[0].Whole)
	require.False(t, list[0].Lost)
	require.Len(t, list[0].Whole.Records, 3)
	require.True(t, list[0].Covers("users"))
	require.False(t, list[0].Covers("orders"))
	require.Empty(t, updates(t, s), "once is enough")
}

func TestDataThatWentByOtherMeansIsToldAsLost(t *testing.T) {
	for name, destroy := range map[string]func(s *Store, server *servicetest.RedisServer){
		"everything": func(_ *Store, server *servicetest.RedisServer) { server.Command("FLUSHALL") },
		"the log and all": func(s *Store, server *servicetest.RedisServer) {
			server.Command("DEL " + s.key("meta") + " " + s.key("log"))
		},
		"a record": func(s *Store, server *servicetest.RedisServer) {
			server.Command("HDEL " + s.key("rec") + " 5:users/a")
			s.looks = partitionOf("users") // whose turn comes
		},
		"all records": func(s *Store, server *servicetest.RedisServer) {
			server.Command("DEL " + s.key("rec"))
			s.looks = partitionOf("users")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, server := one(t)
			destroy(s, server)
			list := updates(t, s)
			require.Len(t, list, 1)
			require.True(t, list[0].Lost)
			require.True(t, list[0].Covers("users"))
			require.Empty(t, updates(t, s), "once is enough")
		})
	}
}

// The digest of a partition is computed anew once in 256 looks, or where the count tells
// that it must be.
func TestAPartOfAPartitionThatWentIsSeenWithTheNextLook(t *testing.T) {
	for name, destroy := range map[string]func(s *Store, server *servicetest.RedisServer){
		"a record": func(s *Store, server *servicetest.RedisServer) {
			server.Command("HDEL " + s.key("rec") + " 5:users/a")
		},
		"all records": func(s *Store, server *servicetest.RedisServer) { server.Command("DEL " + s.key("rec")) },
		"a setting":   func(s *Store, server *servicetest.RedisServer) { server.Command("DEL " + s.key("ovr")) },
	} {
		t.Run(name, func(t *testing.T) {
			s, other, server := one(t)
			drain := storetest.Setting(registry.Scope{Service: "users"}, registry.Drain)
			require.NoError(t, other.Append(t.Context(), []registry.Change{putOf("users", "b"), {SettingKey: drain.Key(), Setting: &drain}}))
			gone, err := other.Expire(t.Context(), []registry.Beat{{Key: putOf("users", "b").Key, At: time.Now()}})
			require.NoError(t, err)
			require.Len(t, gone, 1)
			updates(t, s)
			require.Equal(t, "2", server.Command("HGET "+s.key("meta")+" count"))

			destroy(s, server)
			s.looks = partitionOf("users") + 1 // the turn of another
			list := updates(t, s)
			require.Len(t, list, 1)
			require.True(t, list[0].Lost)
			require.Empty(t, updates(t, s), "once is enough")
		})
	}
}

func TestACountThatAnEarlierVersionDidNotKeepIsMadeRight(t *testing.T) {
	s, _, server := one(t)
	for _, spoil := range []string{"HDEL " + s.key("meta") + " count", "HSET " + s.key("meta") + " count 7", "HSET " + s.key("meta") + " count x"} {
		server.Command(spoil)
		require.Empty(t, updates(t, s), "nothing is lost")
		require.Equal(t, "1", server.Command("HGET "+s.key("meta")+" count"))
	}
}

func TestHostsThatWereThereAreLostWhenItIsLoaded(t *testing.T) {
	s, other, server := one(t)
	lost := func() bool {
		t.Helper()
		contents, err := other.Load(t.Context())
		require.NoError(t, err)
		return contents.Lost
	}
	require.False(t, lost(), "they are there")
	server.Command("HSET " + s.key("rec") + " 5:users/a x")
	require.True(t, lost(), "it cannot be understood")
	server.Command("DEL " + s.key("rec"))
	require.True(t, lost())
	r := storetest.Record("orders", "b", 1)
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	require.True(t, lost(), "one is not all")
	require.NoError(t, s.Complete(t.Context()))
	require.False(t, lost())
	server.Command("FLUSHALL")
	require.False(t, lost(), "nobody knows of any")
}

// putOf is the change that puts a host.
func putOf(service, id string) registry.Change {
	r := storetest.Record(service, id, 1)
	return registry.Change{Key: r.Host.Key, Record: &r}
}

// What is left of a partition, or of a partition among others, is not all there is.
func TestAPartThatIsLeftIsNotTakenForAllWhenItIsLoaded(t *testing.T) {
	for name, destroy := range map[string]func(s *Store, server *servicetest.RedisServer){
		"a record is gone": func(s *Store, server *servicetest.RedisServer) {
			server.Command("HDEL " + s.key("rec") + " 5:users/a")
		},
		"all records of a service are gone": func(s *Store, server *servicetest.RedisServer) {
			server.Command("DEL " + s.key("rec"))
		},
		"a setting is gone": func(s *Store, server *servicetest.RedisServer) {
			server.Command("DEL " + s.key("ovr"))
		},
		"a record is another": func(s *Store, server *servicetest.RedisServer) {
			server.Command("HSET " + s.key("rec") + " 5:users/a " + strings.Repeat("1", valueHead) + "{}")
		},
		"what tells of all is gone": func(s *Store, server *servicetest.RedisServer) {
			server.Command("DEL " + s.key("meta"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			running, starting, server := one(t)
			drain := storetest.Setting(registry.Scope{Service: "users"}, registry.Drain)
			require.NoError(t, running.Append(t.Context(), []registry.Change{
				putOf("users", "b"), putOf("orders", "c"), {SettingKey: drain.Key(), Setting: &drain},
			}))
			require.NoError(t, running.Complete(t.Context()))
			for len(updates(t, running)) > 0 { // it hears of its own
			}
			contents, err := starting.Load(t.Context())
			require.NoError(t, err)
			require.False(t, contents.Lost || contents.Partial, "all of it is there")

			destroy(running, server)
			contents, err = starting.Load(t.Context())
			require.NoError(t, err)
			require.True(t, contents.Lost)
			require.True(t, contents.Partial)
			require.GreaterOrEqual(t, len(contents.Records), 1, "what is left is told")
			told := slices.ContainsFunc(updates(t, running), func(u registry.Update) bool { return u.Lost })
			require.True(t, told, "who runs hears of it at once, and gives it back")
		})
	}
}

func TestADigestIsOfWhatIsThereWhileItIsWritten(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	writer, reader := open(t, url, patience), open(t, url, patience)
	require.NoError(t, writer.Append(t.Context(), []registry.Change{putOf("users", "0")}))
	require.NoError(t, writer.Complete(t.Context()))
	written := make(chan error, 1)
	// Ends by itself; the test waits below.
	go func() {
		for i := range 200 {
			change := putOf("users", strconv.Itoa(i%7))
			if i%3 == 0 {
				change = registry.Change{Key: change.Key}
			}
			if err := writer.Append(t.Context(), []registry.Change{change}); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for done := false; !done; {
		select {
		case err := <-written:
			require.NoError(t, err)
			done = true
		default:
		}
		contents, err := reader.Load(t.Context())
		require.NoError(t, err)
		require.False(t, contents.Lost || contents.Partial)
	}
}

// malformed are values that no replica writes, some of which one reader of numbers
// takes and another does not.
var malformed = []string{
	"", "x", "1234567", "123456789", "fedcba98", "FEDCBA9800000001", "00000001fffffffftail", "zzzzzzzz00000001",
	"-1234567-0000001", "+1234567", " 1234567 1234567", "1234567 1234567 ", "0x1234560X123456", "\t1234567", "1_345678", "1234\x005678", "1e000001",
}

func TestASumIsThatOfTheScript(t *testing.T) {
	_, s, _ := one(t)
	users := []int{partitionOf("users")}
	for _, value := range malformed {
		require.NoError(t, s.client.HSet(t.Context(), s.key("rec"), "5:users/b", value).Err())
		require.NoError(t, s.run(t.Context(), []*call{s.lookCall(users[0], true)}))
		wholes, err := s.readWhole(t.Context(), users, 0)
		require.NoError(t, err)
		require.False(t, wholes[0].isTorn(), "%q", value)

		require.NoError(t, s.Append(t.Context(), []registry.Change{putOf("users", "b")}), "%q is written over", value)
		wholes, err = s.readWhole(t.Context(), users, 0)
		require.NoError(t, err)
		require.False(t, wholes[0].isTorn(), "after %q", value)
	}
}

func TestAHostWithALeaseThatScriptsReadOtherwiseIsLeftOut(t *testing.T) {
	_, s, _ := one(t)
	member := hostMember(putOf("users", "a").Key)
	have, err := s.client.HGet(t.Context(), s.key("rec"), member).Result()
	require.NoError(t, err)
	_, err = decodeHost(new(record.HostDecoder), member, have)
	require.NoError(t, err)
	_, err = decodeHost(new(record.HostDecoder), member, have[:16]+leaseText(77)+have[valueHead:])
	require.ErrorContains(t, err, `its lease is "000000000000004d", and that of the record `)
}

func TestATimeThatIsNoneIsReadAlike(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "x": 0, "nan": 0, "-inf": 0, "-1": 0, "1700000000000": 1700000000000000, "1700000000000.123": 1700000000000123,
		"inf": 1 << 53, "1e300": 1 << 53, "1e999": 1 << 53, "9007199254740993": 1 << 53,
	} {
		require.Equal(t, want, micros(text), text)
	}
}

// A beat of a time that never comes keeps no host for ever.
func TestABeatOfATimeThatNeverComesIsMadeOneOfNow(t *testing.T) {
	s, _, server := one(t)
	server.Command("ZADD " + s.key("beat") + " +inf 5:users/a")
	s.looks = 0 // that beats are read with
	updates(t, s)
	score, err := strconv.ParseInt(server.Command("ZSCORE "+s.key("beat")+" 5:users/a"), 10, 64)
	require.NoError(t, err)
	require.LessOrEqual(t, score, time.Now().UnixMilli())
}

func TestAReplicaWhosePresenceIsMalformedTellsItAnew(t *testing.T) {
	s, _, server := one(t)
	server.Command("HSET " + s.keys(presencePartition, "replicas")[0] + " " + s.writer + " x")
	require.Empty(t, updates(t, s))
	require.Regexp(t, `^\d+ \d+ `, server.Command("HGET "+s.keys(presencePartition, "replicas")[0]+" "+s.writer))
}

func TestOneMetaThatIsMalformedDoesNotHoldUpTheOthers(t *testing.T) {
	s, other, server := one(t)
	server.Command("HSET " + s.key("meta") + " last x")
	put := putOf("orders", "a")
	require.NoError(t, other.Append(t.Context(), []registry.Change{put}))
	var told []registry.Change
	before := time.Now()
	_, err := s.followOnce(t.Context(), true, func(u registry.Update) { told = append(told, u.Changes...) })
	require.ErrorContains(t, err, fmt.Sprintf("partition %d: %q is not the id of an entry", partitionOf("users"), "x"))
	require.Len(t, told, 1)
	require.False(t, s.partitions[partitionOf("users")].clock.Load().at.Before(before), "the clock is read all the same")
}

// spoiled are ways to make the partition of users one that no look can compare.
var spoiled = map[string]func(s *Store, server *servicetest.RedisServer){
	"a malformed id": func(s *Store, server *servicetest.RedisServer) {
		server.Command("HSET " + s.key("meta") + " last x")
	},
	"records of another type": func(s *Store, server *servicetest.RedisServer) {
		server.Command("DEL " + s.key("rec"))
		server.Command("SET " + s.key("rec") + " x")
	},
	"a meta of another type": func(s *Store, server *servicetest.RedisServer) {
		server.Command("DEL " + s.key("meta"))
		server.Command("SET " + s.key("meta") + " x")
	},
}

// age has the clock of the partition of users be one that was read so long ago.
func (s *Store) age(by time.Duration) {
	p := &s.partitions[partitionOf("users")]
	c := *p.clock.Load()
	p.clock.Store(&clock{at: c.at.Add(-by), earliest: c.earliest - by.Microseconds(), latest: c.latest - by.Microseconds()})
}

func TestAPartitionThatNoLookCanCompareKeepsNoBeatsFromRedis(t *testing.T) {
	for name, spoil := range spoiled {
		t.Run(name, func(t *testing.T) {
			s, _, server := one(t)
			put := putOf("orders", "a")
			require.NoError(t, s.Append(t.Context(), []registry.Change{put}))
			spoil(s, server)
			s.age(clockLife)
			_, err := s.followOnce(t.Context(), true, func(registry.Update) {})
			require.Error(t, err)

			members := map[string]string{
				s.key("beat"):                            "5:users/a",
				s.keys(partitionOf("orders"), "beat")[0]: "6:orders/a",
			}
			for key, member := range members {
				server.Command("ZADD " + key + " 1 " + member)
			}
			now := time.Now()
			_, err = s.Flush(t.Context(), []registry.Beat{{Key: putOf("users", "a").Key, At: now}, {Key: put.Key, At: now}})
			require.NoError(t, err)
			for key, member := range members {
				require.NotEqual(t, "1", server.Command("ZSCORE "+key+" "+member), member)
			}
		})
	}
}

func TestBeatsAreNotSetBackByAClockThatWasReadLongAgo(t *testing.T) {
	for name, spoil := range spoiled {
		t.Run(name, func(t *testing.T) {
			s, _, server := one(t)
			spoil(s, server)
			s.age(time.Hour)
			beat := strconv.FormatInt(time.Now().UnixMilli(), 10)
			server.Command("ZADD " + s.key("beat") + " " + beat + " 5:users/a")
			s.looks = 0 // that beats are read with
			_, err := s.followOnce(t.Context(), true, func(registry.Update) {})
			require.Error(t, err)
			require.Equal(t, beat, server.Command("ZSCORE "+s.key("beat")+" 5:users/a"))
		})
	}
}

func TestAGenerationThatIsMissingIsDrawnOnce(t *testing.T) {
	s, other, server := one(t)
	server.Command("HDEL " + s.key("meta") + " gen")
	require.NoError(t, other.Append(t.Context(), []registry.Change{putOf("users", "b")}))
	gen := server.Command("HGET " + s.key("meta") + " gen")
	require.NotEmpty(t, gen)
	list := updates(t, s)
	require.Len(t, list, 1)
	require.True(t, list[0].Lost, "it may be another partition")
	require.NoError(t, other.Append(t.Context(), []registry.Change{putOf("users", "c")}))
	require.Equal(t, gen, server.Command("HGET "+s.key("meta")+" gen"))
	list = updates(t, s)
	require.Len(t, list, 1)
	require.Nil(t, list[0].Whole, "the log tells of it")
	require.Len(t, list[0].Changes, 1)
}

func TestAChangeThatTheLogDoesNotTakeIsRefusedUntilItDoes(t *testing.T) {
	s, _, server := one(t)
	server.Command("DEL " + s.key("log"))
	server.Command("SET " + s.key("log") + " x")
	changes := []registry.Change{putOf("users", "b")}
	dead := []registry.Beat{{Key: putOf("users", "a").Key, At: time.Now()}}
	for range 2 { // the second must not take what the first left for done
		require.ErrorIs(t, s.Append(t.Context(), changes), registry.ErrRefused)
		_, err := s.Expire(t.Context(), dead)
		require.ErrorIs(t, err, registry.ErrRefused)
	}
	require.Equal(t, "1", server.Command("HLEN "+s.key("rec")), "nothing changed")
	server.Command("DEL " + s.key("log"))
	require.NoError(t, s.Append(t.Context(), changes))
	gone, err := s.Expire(t.Context(), dead)
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.Equal(t, "2", server.Command("XLEN "+s.key("log")))
}

func TestDataOfAnotherSchemaIsNotTouched(t *testing.T) {
	s, other, server := one(t)
	server.Command("HSET " + s.key("meta") + " schema 2/512")
	_, err := other.Load(t.Context())
	require.ErrorContains(t, err, `its data has schema "2/512", and this version knows "1/256"`)
	r := storetest.Record("users", "a", 2)
	require.ErrorContains(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}), "SCHEMA")
	_, err = s.Expire(t.Context(), []registry.Beat{{Key: r.Host.Key, At: time.Now()}})
	require.ErrorContains(t, err, "SCHEMA")
	require.Equal(t, "1", server.Command("HLEN "+s.key("rec")))
}

func TestWhatCannotBeUnderstoodIsLeftOutAndLogged(t *testing.T) {
	_, other, server := one(t)
	var log strings.Builder
	other.options.Log = slog.New(slog.NewTextHandler(&log, nil))
	for _, text := range []string{"x", strings.Repeat("0", 32) + "{}"} {
		server.Command("HSET " + other.key("rec") + " 5:users/b " + text)
		contents, err := other.Load(t.Context())
		require.NoError(t, err)
		require.Len(t, contents.Records, 1)
	}
	require.Contains(t, log.String(), "a value of 1 bytes")
	require.Contains(t, log.String(), "a host without service")
}

func TestASettingInTheLogThatCannotBeUnderstoodIsLoggedWithItsPartition(t *testing.T) {
	s, _, server := one(t)
	var log strings.Builder
	s.options.Log = slog.New(slog.NewTextHandler(&log, nil))
	p := &s.partitions[partitionOf("users")]
	server.Command("XADD " + s.key("log") + " * w another g " + p.gen + " b " + p.digest + " d " + p.digest + " k s m none v none e {}")
	updates(t, s)
	require.Contains(t, log.String(), fmt.Sprint("partition=", partitionOf("users")))
}

func TestScriptsAreMadeKnownAnew(t *testing.T) {
	s, _, server := one(t)
	server.Command("SCRIPT FLUSH")
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, contents.Records, 1)
}

func TestLoadReturnsThePastOldestFirst(t *testing.T) {
	s, other, _ := one(t)
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for i, service := range []string{"users", "orders", "users"} {
		r := storetest.Record(service, fmt.Sprint(i), 1)
		require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r, Event: &registry.Event{
			At: at.Add(time.Duration(i) * time.Second), Kind: registry.Registered, Service: service, ID: r.Host.ID,
		}}}))
	}
	contents, err := other.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, contents.Events, 3)
	for i, e := range contents.Events {
		require.Equal(t, fmt.Sprint(i), e.ID)
	}
}

func TestTheRightsInTheREADMEAreEnough(t *testing.T) {
	text, err := os.ReadFile("../../../README.md")
	require.NoError(t, err)
	_, rights, found := strings.Cut(string(text), "\nACL SETUSER discovery")
	require.True(t, found)
	rights, _, _ = strings.Cut(rights, "\n```")
	server := servicetest.Redis(t)
	server.Command("ACL SETUSER discovery " + strings.Join(strings.Fields(strings.ReplaceAll(rights, "\\", "")), " "))
	url := "redis://discovery:password@" + server.Address
	server.Command("ACL SETUSER default nocommands +ping +flushall")
	a, b := start(t, url, patience), open(t, url, patience)
	r := storetest.Record("users", "2", 81)
	drain := storetest.Setting(registry.Scope{Service: "users"}, registry.Maintenance)
	require.NoError(t, b.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}, {SettingKey: drain.Key(), Setting: &drain}}))
	a.checkIn("1", time.Minute)
	await(t, "1 2", a)
	missing, err := b.Flush(t.Context(), []registry.Beat{{Key: registry.Key{Service: "none", ID: "none"}, At: time.Now()}})
	require.NoError(t, err)
	require.Len(t, missing, 1)
	gone, err := b.Expire(t.Context(), []registry.Beat{{Key: r.Host.Key, At: time.Now()}})
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.NoError(t, b.Append(t.Context(), []registry.Change{{Key: registry.Key{Service: "users", ID: "1"}}, {SettingKey: drain.Key()}}))
	await(t, "", a)
	b.looks = partitionOf("users")
	updates(t, b)
}

func TestAWrongPasswordIsAnErrorOfEachCall(t *testing.T) {
	server := servicetest.Redis(t)
	server.Command("CONFIG SET requirepass right")
	s := open(t, "redis://:wrong@"+server.Address, patience)
	_, err := s.Load(t.Context())
	require.ErrorContains(t, err, "WRONGPASS")
	r := storetest.Record("users", "a", 1)
	require.ErrorContains(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}), "WRONGPASS")
	require.ErrorContains(t, s.Follow(t.Context(), func(registry.Update) {}), "WRONGPASS")
	s = open(t, "redis://:right@"+server.Address, patience)
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
}

func TestBeatsOfHostsWithAShortTTLAreReadWithEveryLook(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	s, other := open(t, url, patience), open(t, url, patience)
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	short, long := storetest.Record("users", "a", 1), storetest.Record("orders", "a", 1)
	short.Host.TTL = 5 * time.Second
	for _, r := range []registry.Record{short, long} {
		require.NoError(t, other.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	}
	updates(t, other) // which tells of it
	updates(t, s)     // it hears of both
	heard := map[registry.Key]int{}
	for range 2 * hearEvery {
		now := time.Now()
		_, err := other.Flush(t.Context(), []registry.Beat{{Key: short.Host.Key, At: now}, {Key: long.Host.Key, At: now}})
		require.NoError(t, err)
		for _, u := range updates(t, s) {
			for _, b := range u.Beats {
				heard[b.Key]++
			}
		}
	}
	require.Equal(t, map[registry.Key]int{short.Host.Key: 2 * hearEvery, long.Host.Key: 2}, heard)
}

func TestAClockThatIsSetBackKeepsNoDeadHost(t *testing.T) {
	s, _, server := one(t)
	key := storetest.Record("users", "a", 1).Host.Key
	hour := time.Now().Add(time.Hour).UnixMilli()
	server.Command(fmt.Sprintf("ZADD %s XX %d 5:users/a", s.key("beat"), hour))
	server.Command(fmt.Sprintf("SET %s another PX %d", s.key("sweep"), time.Hour.Milliseconds()))
	s.looks = 0 // that beats are read with
	list := updates(t, s)
	require.Len(t, list, 1)
	require.Len(t, list[0].Beats, 1, "once it is heard")

	score, err := strconv.ParseInt(server.Command("ZSCORE "+s.key("beat")+" 5:users/a"), 10, 64)
	require.NoError(t, err)
	require.LessOrEqual(t, score, time.Now().UnixMilli(), "and later beats are noted again")

	gone, err := s.Expire(t.Context(), []registry.Beat{{Key: key, At: time.Now()}})
	require.NoError(t, err)
	require.Equal(t, []registry.Key{key}, gone, "whoever holds a lease for so long")
}
