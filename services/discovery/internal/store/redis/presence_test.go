package redis

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/guard"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

// cable is a network to one address that a test cuts and mends.
type cable struct {
	listener net.Listener
	working  sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

// newCable lays one until the test ends.
func newCable(t *testing.T, target string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{listener: listener, conns: map[net.Conn]struct{}{}}
	// Ends with the listener; the cleanup waits for it.
	c.working.Go(func() {
		for {
			caller, err := listener.Accept()
			if err != nil {
				return
			}
			c.carry(caller, target)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		c.set(true)
		c.working.Wait()
	})
	return c
}

// set cuts the cable, with which all connections break, or mends it.
func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
}

// carry connects a caller, unless the cable is cut.
func (c *cable) carry(caller net.Conn, target string) {
	server, err := net.Dial("tcp", target)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.cut {
		_ = caller.Close()
		if err == nil {
			_ = server.Close()
		}
		return
	}
	for from, to := range map[net.Conn]net.Conn{caller: server, server: caller} {
		c.conns[from] = struct{}{}
		// Ends when either is closed, which set does; the cleanup waits for it.
		c.working.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		})
	}
}

// careful runs a replica that guards as the app does by default, for losses of
// replicas of half a minute at most.
func careful(t *testing.T, url, name string) replica {
	t.Helper()
	s, err := Open(Options{URL: url, Timeout: time.Second, Name: name, Log: discard})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	o := registrytest.Options()
	o.Store = s
	o.Guard = guard.Limits{
		ServiceShare: 0.25, GlobalShare: 0.15, GlobalLeast: 10, LastHost: 2, Ceiling: time.Hour,
		BeatLoss: 0.5, BeatLeast: 10, ReplicaLoss: 30 * time.Second,
	}
	r := registry.New(o)
	registrytest.Run(t, r)
	<-r.Loaded()
	return replica{t, r, s}
}

// lasts says whether a cause of r is not over.
func (r replica) lasts(cause guard.Cause) bool {
	for _, s := range r.Guard().Suspensions {
		if s.Cause == cause.String() {
			return s.Lasting
		}
	}
	return false
}

// beatThrough has hosts beat through replicas until the test ends, or the function
// returned is called.
func beatThrough(t *testing.T, ttl time.Duration, through map[string]replica) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var beating sync.WaitGroup
	// Ends with done; stop waits for it.
	beating.Go(func() {
		tick := time.NewTicker(ttl / 8)
		defer tick.Stop()
		for {
			for id, r := range through {
				if _, err := r.CheckIn(hostOf(id, ttl), "a test"); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(done)
		beating.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// One of three replicas hears a third of the hosts and cannot tell of them: no
// other lets one go, and all let go of a dead one once it is back.
func TestHostsOfAReplicaThatIsCutOffStayInTheListsOfTheOthers(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	server := servicetest.Redis(t)
	network := newCable(t, server.Address)
	a := careful(t, "redis://"+network.listener.Addr().String(), "a")
	b, c := careful(t, "redis://"+server.Address, "b"), careful(t, "redis://"+server.Address, "c")
	beatThrough(t, ttl, map[string]replica{"1": a, "2": a, "3": b, "4": b, "5": c, "6": c})
	b.checkIn("7", ttl) // and never again
	const all = "1 2 3 4 5 6 7"
	await(t, all, a, b, c)
	network.set(true)
	tick := time.NewTicker(ttl / 100)
	defer tick.Stop()
	var missed [2]bool // by each, at some time: a machine that stands still hears of nobody
	for cut := time.Now(); time.Since(cut) < 2*ttl+ttl/2; <-tick.C {
		for i, r := range []replica{b, c} {
			require.Contains(t, []string{all, "1 2 3 4 5 6"}, r.ids(), "%v after the cut", time.Since(cut))
			missed[i] = missed[i] || r.lasts(guard.ReplicaLost)
		}
	}
	require.Equal(t, [2]bool{true, true}, missed)
	network.set(false)
	servicetest.Eventually(t, "it is missed no more", func() bool {
		return !b.lasts(guard.ReplicaLost) && !c.lasts(guard.ReplicaLost)
	})
	for mended := time.Now(); a.ids() == all || b.ids() == all || c.ids() == all; <-tick.C {
		for _, r := range []replica{a, b, c} {
			require.Contains(t, []string{all, "1 2 3 4 5 6"}, r.ids())
		}
		require.Less(t, time.Since(mended), servicetest.Patience, "the dead host goes")
	}
}

// Hosts that beat through another replica are cut off from that.
func TestBeatsThatTheStoreToldOfAreMissed(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	url := "redis://" + servicetest.Redis(t).Address
	a, b := careful(t, url, "a"), careful(t, url, "b")
	stop := beatThrough(t, ttl, map[string]replica{"1": a, "2": a, "3": a, "4": a, "5": a})
	servicetest.Eventually(t, "it is usual that they beat", func() bool { return b.Guard().UsualBeatsPerSecond > 1 })
	began := time.Now()
	servicetest.Eventually(t, "for some time", func() bool { return time.Since(began) > ttl })
	stop()
	servicetest.Eventually(t, "beats are lost", func() bool { return b.lasts(guard.BeatsLost) })
	require.Equal(t, "1 2 3 4 5", b.ids())
}

// others are the names of the replicas that are silent, as s tells.
func (s *Store) lookFor(t *testing.T) (silent []string, told bool) {
	t.Helper()
	for _, u := range updates(t, s) {
		if u.Silent == nil {
			continue
		}
		told, silent = true, nil
		for _, r := range u.Silent {
			silent = append(silent, r.Name)
		}
	}
	return silent, told
}

func TestReplicasThatFallSilentAreTold(t *testing.T) {
	t.Parallel()
	server := servicetest.Redis(t)
	named := func(name string) *Store {
		s, err := Open(Options{URL: "redis://" + server.Address, Timeout: patience, Name: name, Log: discard})
		require.NoError(t, err)
		return s
	}
	s, gone, crashed := named("s"), named("gone"), named("crashed")
	defer s.Close()
	for _, one := range []*Store{gone, crashed} {
		updates(t, one)
	}
	require.NoError(t, gone.Close())
	// told waits until s is told of silent replicas.
	told := func() (silent []string) {
		t.Helper()
		servicetest.Eventually(t, "it is told of silent replicas", func() bool {
			list, told := s.lookFor(t)
			silent = list
			return told
		})
		return silent
	}
	require.Equal(t, []string{"crashed"}, told(), "who took leave is not missed")
	_, again := s.lookFor(t)
	require.False(t, again, "once is enough")

	updates(t, crashed)
	require.Empty(t, told(), "it was only away")
	require.Equal(t, []string{"crashed"}, told())
	anew := named("crashed")
	defer anew.Close()
	updates(t, anew)
	require.Empty(t, told(), "it has started again")
	require.Equal(t, "2", server.Command("HLEN "+s.keys(presencePartition, "replicas")[0]))
	require.NoError(t, crashed.client.Close())
}

// As where several run on one machine, the name of which is theirs.
func TestReplicasOfOneNameAreToldApart(t *testing.T) {
	t.Parallel()
	server := servicetest.Redis(t)
	var stores []*Store
	for range 3 {
		stores = append(stores, open(t, "redis://"+server.Address, patience))
	}
	for range 3 {
		for _, s := range stores {
			_, told := s.lookFor(t)
			require.False(t, told)
		}
	}
	require.Equal(t, "3", server.Command("HLEN "+stores[0].keys(presencePartition, "replicas")[0]))
	servicetest.Eventually(t, "the others are told of the third", func() bool {
		first, told := stores[0].lookFor(t)
		updates(t, stores[1])
		return told && len(first) == 1
	})
	require.Equal(t, "3", server.Command("HLEN "+stores[0].keys(presencePartition, "replicas")[0]))
}

func TestASetClockSilencesNoReplica(t *testing.T) {
	t.Parallel()
	server := servicetest.Redis(t)
	s := open(t, "redis://"+server.Address, patience)
	other := open(t, "redis://"+server.Address, patience)
	updates(t, s)
	updates(t, other)
	key := s.keys(presencePartition, "replicas")[0]
	began := time.Now()
	servicetest.Eventually(t, "looks for longer than a silence", func() bool {
		updates(t, other)
		// As of a clock that was put forward by an hour since.
		server.Command("HSET " + key + " " + other.writer + " '0 " + time.Now().Format("0405000000") + " '")
		_, told := s.lookFor(t)
		require.False(t, told)
		return time.Since(began) > silence+time.Second
	})
}

func TestAReplicaReadsBeatsWithFewLooksUntilThereIsAnother(t *testing.T) {
	s, other, _ := one(t)
	host := storetest.Record("users", "a", 1).Host.Key
	// heard is with how many of so many looks a beat is read that was made before it.
	heard := func(looks int) (n int) {
		for range looks {
			_, err := s.Flush(t.Context(), []registry.Beat{{Key: host, At: time.Now()}})
			require.NoError(t, err)
			if !s.presences.asked.IsZero() {
				s.presences.asked = time.Now() // however long this takes
			}
			for _, u := range updates(t, s) {
				n += len(u.Beats)
			}
		}
		return n
	}
	s.looks = 0
	heard(1) // it is told that there is no other
	require.Equal(t, 1, heard(hearAlone))
	updates(t, other) // which tells of it
	heard(1)
	require.Equal(t, 2, heard(2*hearEvery))
	other.leave()
	heard(1)
	require.Equal(t, 1, heard(hearAlone))

	s.presences.asked = s.presences.asked.Add(-silence)
	require.False(t, s.presences.alone(time.Now()), "what was told long ago does not hold")
}

// counted is a hook of the driver's that counts how often the logs are read, and how
// many looks are taken.
type counted struct{ reads, looks atomic.Int64 }

func (*counted) DialHook(next goredis.DialHook) goredis.DialHook { return next }
func (c *counted) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, command goredis.Cmder) error {
		if command.Name() == "xread" {
			c.reads.Add(1)
		}
		return next(ctx, command)
	}
}

func (c *counted) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, list []goredis.Cmder) error {
		if sends(list, presenceScript) {
			c.looks.Add(1)
		}
		return next(ctx, list)
	}
}

// apart is how often the logs were read without a look, over some looks. One more may be
// on its way.
func (c *counted) apart(t *testing.T) int64 {
	t.Helper()
	looks, reads := c.looks.Load(), c.reads.Load()
	servicetest.Eventually(t, "some looks", func() bool { return c.looks.Load() >= looks+3 })
	reads = c.reads.Load() - reads
	return reads - (c.looks.Load() - looks)
}

func TestAReplicaThatIsAloneHearsOfOneThatBegins(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	a := start(t, url, patience)
	count := &counted{}
	a.store.client.AddHook(count)
	servicetest.Eventually(t, "is told that there is no other", a.store.isAlone)
	servicetest.Eventually(t, "reads the logs with looks alone", func() bool { return count.apart(t) <= 1 })
	b := start(t, url, patience)
	b.checkIn("1", time.Minute)
	await(t, "1", a, b)
	servicetest.Eventually(t, "both know of each other", func() bool { return !a.store.isAlone() && !b.store.isAlone() })
	a.checkIn("2", time.Minute)
	await(t, "1 2", a, b)
	servicetest.Eventually(t, "reads the logs without looks too", func() bool { return count.apart(t) > 1 })
}
