package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/storetest"
)

// usual is what a busy machine may add to most times; to any one of them it may
// add as long as servicetest.Patience.
const usual = 2 * time.Second

// hour is a limit whose window is unlikely to end during a test.
var hour = algorithm.Limit{Requests: 1 << 30, Window: time.Hour}

// openWith opens a store that the test closes at its end, in which what is not
// given is as for open.
func openWith(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = long
	}
	o.Connections, o.ExpirationJitter, o.Metrics = 10, time.Second, prometheus.NewRegistry()
	s, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// hit counts one hit of key and returns what its counter stands at.
func hit(ctx context.Context, s *Store, key string) (uint64, error) {
	ops := []limiter.Op{{Key: []byte(key), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1}}
	err := s.Apply(ctx, &limiter.Call{Ops: ops, Now: time.Now()})
	return ops[0].Decision.After, err
}

// windowKey is what Redis calls the counter that hit counts in.
func windowKey(key string) string {
	return fmt.Sprintf("%s@%d", key, fixedwindow.Algorithm{}.WindowEnd(hour, time.Now()).Unix())
}

// load hits key from some callers again and again until it is told to end.
type load struct {
	granted, failed atomic.Int64
	slowest         atomic.Int64 // nanoseconds
	lastFailure     atomic.Pointer[error]
	end             func() // waits for the callers

	mu    sync.Mutex
	times []time.Duration // of all calls
	waits []time.Duration // of those that failed, and not at once
}

// note keeps how long a call took.
func (l *load) note(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, took)
	if err != nil && kindOf(err) != breakerFault {
		l.waits = append(l.waits, took)
	}
}

// keepsTo checks that few calls failed only after a wait, and that calls took no
// longer than the timeout: most of all, and of those that had to wait for it a
// tenth, as there are few of them, most of which one pause of the machine can
// delay together.
func (l *load) keepsTo(t *testing.T, timeout time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Less(t, len(l.waits), len(l.times)/10)
	slices.Sort(l.times)
	require.Less(t, l.times[len(l.times)*95/100], timeout+usual, "of %d calls", len(l.times))
	slices.Sort(l.waits)
	require.Less(t, l.waits[len(l.waits)/10], timeout+usual, "of %d calls that waited", len(l.waits))
}

func startLoad(t *testing.T, s *Store, key string) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 32 {
		// Ends after the call that is under way when end is called, which waits.
		callers.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				_, err := hit(context.WithoutCancel(ctx), s, key)
				took := int64(time.Since(begin))
				l.note(time.Duration(took), err)
				for old := l.slowest.Load(); took > old && !l.slowest.CompareAndSwap(old, took); old = l.slowest.Load() {
				}
				if err != nil {
					l.failed.Add(1)
					l.lastFailure.Store(&err)
					time.Sleep(time.Millisecond) // leave the machine to the others
					continue
				}
				l.granted.Add(1)
			}
		})
	}
	l.end = func() { cancel(); callers.Wait() }
	t.Cleanup(l.end)
	return l
}

// more waits until another call was counted.
func (l *load) more(t *testing.T) {
	t.Helper()
	n := l.granted.Load()
	servicetest.Eventually(t, "a call is counted", func() bool { return l.granted.Load() > n })
}

func TestAStoppedRedisCostsOnlyTheFirstCallersTheTimeout(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: 50 * time.Millisecond})
	l := startLoad(t, s, "k")
	l.more(t)
	l.slowest.Store(0)
	l.lastFailure.Store(nil)

	require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
	servicetest.Eventually(t, "calls fail at once", func() bool {
		err := l.lastFailure.Load()
		return err != nil && strings.Contains((*err).Error(), "has failed for")
	})
	require.Error(t, s.Ping(t.Context()))
	require.Equal(t, 1.0, gauge(t, s, "ratelimit_redis_breaker_open"))
	failed := l.failed.Load()
	servicetest.Eventually(t, "they fail often", func() bool { return l.failed.Load() > failed+10_000 })
	require.NoError(t, server.Process().Signal(syscall.SIGCONT))
	l.more(t)
	l.end()
	require.Less(t, time.Duration(l.slowest.Load()), servicetest.Patience)
	l.keepsTo(t, 50*time.Millisecond)
	require.NoError(t, s.Ping(t.Context()))
	require.Zero(t, gauge(t, s, "ratelimit_redis_breaker_open"))
	require.Zero(t, gauge(t, s, "ratelimit_redis_calls_in_flight"))
}

func TestARedisThatComesBackFullIsAskedAgain(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: 50 * time.Millisecond})
	l := startLoad(t, s, "k")
	l.more(t)
	server.Command("CONFIG SET maxmemory 1")
	require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
	servicetest.Eventually(t, "calls are refused", func() bool { return gauge(t, s, "ratelimit_redis_breaker_open") == 1 })
	require.NoError(t, server.Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "it is asked, and says why itself", func() bool {
		err := l.lastFailure.Load()
		return gauge(t, s, "ratelimit_redis_breaker_open") == 0 && strings.Contains((*err).Error(), "OOM")
	})
	server.Command("CONFIG SET maxmemory 0")
	l.more(t)
	l.end()
}

// gauge is the sum of a metric of the store.
func gauge(t *testing.T, s *Store, name string) (sum float64) {
	t.Helper()
	families, err := s.options.Metrics.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestARedisKilledAndStartedEmptyCountsFromNone(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	l := startLoad(t, s, "k")
	l.more(t)
	server.Kill()
	n := l.failed.Load()
	servicetest.Eventually(t, "calls fail", func() bool { return l.failed.Load() > n })
	server.Start()
	l.more(t)
	l.end()
	servicetest.Eventually(t, "every counter has a time to live", func() bool {
		keys := server.Command("INFO keyspace") // with the probe's or without
		return strings.Contains(keys, "keys=1,expires=1,") || strings.Contains(keys, "keys=2,expires=2,")
	})
}

func TestCountsGoOnAfterAFailover(t *testing.T) {
	group := servicetest.Sentinel(t)
	s := openWith(t, Options{Type: "Sentinel", URL: group.Name + "," + group.Address, Timeout: long})
	servicetest.Eventually(t, "a hit is counted", func() bool {
		_, err := hit(t.Context(), s, "k")
		return err == nil
	})
	n, err := hit(t.Context(), s, "k")
	require.NoError(t, err)
	servicetest.Eventually(t, "the replica has it", func() bool {
		return group.Replica.Command("GET "+windowKey("k")) == fmt.Sprint(n)
	})
	require.NoError(t, s.Ping(t.Context()))
	group.Master.Kill()
	var after uint64
	servicetest.Eventually(t, "a hit is counted", func() bool {
		begin := time.Now()
		after, err = hit(t.Context(), s, "k")
		require.Less(t, time.Since(begin), servicetest.Patience, "the dead master is not waited for")
		return err == nil
	})
	require.GreaterOrEqual(t, after, n+1, "it goes on where the master was")
	require.NoError(t, s.Ping(t.Context()))
}

func TestAServerThatBecomesAReplicaIsLeftAtOnceAndAsked(t *testing.T) {
	server, other := servicetest.Redis(t), servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	_, err := hit(t.Context(), s, "k")
	require.NoError(t, err)
	opened := testutil.ToFloat64(s.stats.opened)
	server.Command("REPLICAOF " + strings.Replace(other.Address, ":", " ", 1))
	for range 3 {
		_, err = hit(t.Context(), s, "k")
		require.ErrorContains(t, err, "READONLY")
	}
	require.ErrorContains(t, s.Ping(t.Context()), "READONLY")
	step := []limiter.Op{
		{Key: []byte("a"), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1},
		{Key: []byte("b"), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1},
	}
	require.ErrorContains(t, s.Apply(t.Context(), &limiter.Call{Ops: step, Now: time.Now(), StopWhenOver: true}), "READONLY")
	step[0].Hits = 0 // a look is answered
	before := testutil.ToFloat64(s.stats.opened)
	for range 2 {
		require.ErrorContains(t, s.Apply(t.Context(), &limiter.Call{Ops: step, Now: time.Now()}), "READONLY")
	}
	require.Greater(t, testutil.ToFloat64(s.stats.opened), before)
	require.Greater(t, testutil.ToFloat64(s.stats.opened), opened, "whatever the name stands for now is asked")
	server.Command("REPLICAOF NO ONE")
	_, err = hit(t.Context(), s, "k")
	require.NoError(t, err)
}

// inCluster opens a store in a Cluster, and returns a key of each master.
func inCluster(t *testing.T, timeout time.Duration) (*Store, []*servicetest.RedisServer, []string) {
	masters := servicetest.RedisCluster(t)
	s := openWith(t, Options{Type: "CLUSTER", URL: masters[1].Address + "," + masters[2].Address, Timeout: timeout})
	keys := make([]string, len(masters))
	for i := 0; slices.Contains(keys, ""); i++ {
		key := fmt.Sprint("k", i)
		_, err := hit(t.Context(), s, key)
		require.NoError(t, err)
		h, err := s.nodes.shardOf([]byte(windowKey(key)))
		require.NoError(t, err)
		for m := range masters {
			if h.name == masters[m].Address {
				keys[m] = key
			}
		}
	}
	return s, masters, keys
}

func TestADeadMasterOfAClusterDoesNotConcernTheOthers(t *testing.T) {
	s, masters, keys := inCluster(t, long)
	require.NoError(t, s.Ping(t.Context()))
	masters[0].Kill()
	dead, alive := startLoad(t, s, keys[0]), startLoad(t, s, keys[1])
	servicetest.Eventually(t, "calls to the dead one fail at once", func() bool {
		err := dead.lastFailure.Load()
		return err != nil && strings.Contains((*err).Error(), "has failed for")
	})
	alive.more(t)
	require.Error(t, s.Ping(t.Context()))
	require.Zero(t, dead.granted.Load())
	masters[0].Start()
	servicetest.Eventually(t, "calls to it are counted", func() bool { return dead.granted.Load() > 0 })
	dead.end()
	alive.end()
	if err := alive.lastFailure.Load(); err != nil {
		require.NoError(t, *err)
	}
	require.Less(t, time.Duration(dead.slowest.Load()), servicetest.Patience, "refused, not waited for")
}

func TestAStoppedMasterOfAClusterDoesNotHoldUpCallsToTheOthers(t *testing.T) {
	const timeout = 5 * time.Second // in which the others answer on a busy machine too
	s, masters, keys := inCluster(t, timeout)
	require.NoError(t, masters[0].Process().Signal(syscall.SIGSTOP))
	hung, alive := startLoad(t, s, keys[0]), startLoad(t, s, keys[1])
	servicetest.Eventually(t, "calls to the stopped one fail at once", func() bool {
		err := hung.lastFailure.Load()
		return err != nil && strings.Contains((*err).Error(), "redis at "+masters[0].Address+" has failed for")
	})
	alive.more(t)
	require.NoError(t, masters[0].Process().Signal(syscall.SIGCONT))
	hung.more(t)
	hung.end()
	alive.end()
	if err := alive.lastFailure.Load(); err != nil {
		require.NoError(t, *err)
	}
	require.Less(t, time.Duration(hung.slowest.Load()), timeout+servicetest.Patience)
}

func TestACallOverSeveralMastersCountsInAll(t *testing.T) {
	s, _, keys := inCluster(t, long)
	var ops []limiter.Op
	for range 2 {
		for _, key := range keys {
			ops = append(ops, limiter.Op{Key: []byte("new" + key), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 2})
		}
	}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}))
	for i := range ops {
		require.Equal(t, uint64(2+i/3*2), ops[i].Decision.After)
	}
	ops = ops[:2]
	require.ErrorIs(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now(), StopWhenOver: true}), errManySlots)
}

// overTwo is a call on a counter of each of two masters.
func overTwo(keys []string) *limiter.Call {
	c := &limiter.Call{Now: time.Now()}
	for _, key := range keys[:2] {
		c.Ops = append(c.Ops, limiter.Op{Key: []byte(key), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1})
	}
	return c
}

func TestOperationsKeepTheirDecisionWhereThoseOnAnotherMasterFail(t *testing.T) {
	s, masters, keys := inCluster(t, long)
	c := overTwo(keys)
	require.NoError(t, s.Apply(t.Context(), c))
	after := c.Ops[1].Decision.After
	masters[0].Kill()
	servicetest.Eventually(t, "the dead one is asked no more", func() bool {
		err := s.Apply(t.Context(), c)
		require.Error(t, err)
		require.Equal(t, c.Ops[0].Err, err)
		require.NoError(t, c.Ops[1].Err)
		after++
		require.Equal(t, after, c.Ops[1].Decision.After, "the other is asked nevertheless")
		return strings.Contains(err.Error(), "has failed for")
	})
	before := errorCount(s)
	require.Error(t, s.Apply(t.Context(), c))
	require.Equal(t, before+1, errorCount(s), "a call is counted once")
	after++

	c.StopWhenOver, c.Ops[1].Hits, c.Ops[1].Refund = true, 0, true // a lone operation that counts needs no script
	require.ErrorContains(t, s.Apply(t.Context(), c), "has failed for")
	require.Error(t, c.Ops[0].Err)
	require.Error(t, c.Ops[1].Err, "such a call fails as a whole")
	n, err := hit(t.Context(), s, keys[1])
	require.NoError(t, err)
	require.Equal(t, after+1, n)
}

func TestOperationsKeepTheirDecisionWhereThoseOnAnotherMasterTakeTooLong(t *testing.T) {
	const timeout = 5 * time.Second // in which the others answer on a busy machine too
	s, masters, keys := inCluster(t, timeout)
	require.NoError(t, masters[0].Process().Signal(syscall.SIGSTOP))
	c := overTwo(keys)
	require.Error(t, s.Apply(t.Context(), c))
	require.Error(t, c.Ops[0].Err)
	require.NoError(t, c.Ops[1].Err)
	require.Positive(t, c.Ops[1].Decision.After)

	c = overTwo(keys)
	ctx, cancel := context.WithTimeout(t.Context(), timeout/2)
	defer cancel()
	require.ErrorIs(t, s.Apply(ctx, c), context.DeadlineExceeded)
	require.ErrorIs(t, c.Ops[0].Err, context.DeadlineExceeded)
	require.NoError(t, c.Ops[1].Err)
	require.NoError(t, masters[0].Process().Signal(syscall.SIGCONT))
}

func TestAStepGoesToTheShardOfItsFirstOperation(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	s := openWith(t, Options{Type: "cluster", URL: masters[0].Address, DomainTags: true, KeyPrefix: "{p}"})
	require.NoError(t, s.nodes.wait(t.Context()))
	var apart []byte // a key without the prefix, whose tag leads to another server
	domain := ""
	shardOf := func(key string) *shard {
		var d command
		s.name(&d, []byte(key), domain, time.Unix(60, 0))
		h, err := s.nodes.shardOf(d.key)
		require.NoError(t, err)
		return h
	}
	for i := 0; apart == nil; i++ {
		if domain = fmt.Sprint(i); shardOf("k") != shardOf("{p}k") {
			apart = []byte("k")
		}
	}
	c := newCall()
	request := &limiter.Call{Domain: domain, StopWhenOver: true, Now: time.Now()}
	for _, key := range [][]byte{[]byte("{p}k"), apart} {
		request.Ops = append(request.Ops, limiter.Op{Key: key, Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1})
	}
	require.NoError(t, s.fill(c, request))
	require.Len(t, c.parts, 1)
	require.Same(t, shardOf("{p}k"), c.parts[0].shard)
	require.Same(t, c.parts[0].shard, c.commands[1].shard)
}

func TestKeysWhoseSlotMovesAreCountedWhereItIs(t *testing.T) {
	s, masters, keys := inCluster(t, long)
	key := windowKey(keys[0])
	slot := masters[0].Command("CLUSTER KEYSLOT " + key)
	from, to := masters[0].Command("CLUSTER MYID"), masters[1].Command("CLUSTER MYID")

	// While the slot is on its way, a key that has gone already is asked for
	// at the new place.
	masters[1].Command("CLUSTER SETSLOT " + slot + " IMPORTING " + from)
	masters[0].Command("CLUSTER SETSLOT " + slot + " MIGRATING " + to)
	masters[0].Command("DEL " + key)
	n, err := hit(t.Context(), s, keys[0])
	require.NoError(t, err)
	require.Equal(t, uint64(1), n)
	ops := []limiter.Op{{Key: []byte(keys[0]), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1, Refund: true}}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}))
	require.Zero(t, ops[0].Decision.After, "a script moves too")

	for _, m := range masters[1:] {
		m.Command("CLUSTER SETSLOT " + slot + " NODE " + to)
	}
	masters[0].Command("CLUSTER SETSLOT " + slot + " NODE " + to)
	for after := uint64(1); after <= 2; after++ {
		n, err = hit(t.Context(), s, keys[0])
		require.NoError(t, err)
		require.Equal(t, after, n)
	}
	require.Zero(t, errorCount(s))
}

func TestWhatWasCountedOfAServerStaysUntilItsLastShardIsForgotten(t *testing.T) {
	s := openWith(t, Options{Type: "cluster", URL: "127.0.0.1:1"})
	var shards []*shard
	for range 2 {
		client := goredis.NewClient(&goredis.Options{Addr: "127.0.0.1:1"})
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		shards = append(shards, s.nodes.add(client))
	}
	s.nodes.forget(shards[0])
	require.Equal(t, []*shard{shards[1]}, s.all())
	require.Equal(t, 1, testutil.CollectAndCount(s.stats.time))
	require.Equal(t, 1, testutil.CollectAndCount(s.stats.calls))
	s.nodes.forget(shards[1])
	require.Empty(t, s.all())
	require.Zero(t, testutil.CollectAndCount(s.stats.time))
	require.Zero(t, testutil.CollectAndCount(s.stats.calls))
}

func TestOneServerOfAClusterIsNotTakenForAll(t *testing.T) {
	_, masters, keys := inCluster(t, long)
	s := openWith(t, Options{URL: masters[0].Address})
	_, err := hit(t.Context(), s, keys[0])
	require.NoError(t, err)
	_, err = hit(t.Context(), s, keys[1])
	require.ErrorContains(t, err, "MOVED")
}

func TestContractInACluster(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	storetest.Run(t, func(t *testing.T) limiter.Store {
		for _, m := range masters {
			m.Command("FLUSHALL")
		}
		return openWith(t, Options{Type: "cluster", URL: masters[0].Address, DomainTags: true})
	})
}

func TestContractOfASentinelsMaster(t *testing.T) {
	group := servicetest.Sentinel(t)
	storetest.Run(t, func(t *testing.T) limiter.Store {
		group.Master.Command("FLUSHALL")
		return openWith(t, Options{Type: "sentinel", URL: group.Name + "," + group.Address})
	})
}

func TestAClusterThatIsAwayIsLearntOfWhenItIsBack(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	for _, m := range masters {
		require.NoError(t, m.Process().Signal(syscall.SIGSTOP))
	}
	s := openWith(t, Options{Type: "cluster", URL: masters[0].Address, Timeout: 50 * time.Millisecond})
	for range 3 {
		begin := time.Now()
		_, err := hit(t.Context(), s, "k")
		require.ErrorContains(t, err, "learn the layout of the redis cluster at "+masters[0].Address)
		require.Less(t, time.Since(begin), servicetest.Patience)
	}
	require.Error(t, s.Ping(t.Context()))
	for _, m := range masters {
		require.NoError(t, m.Process().Signal(syscall.SIGCONT))
	}
	servicetest.Eventually(t, "a hit is counted", func() bool {
		_, err := hit(t.Context(), s, "k")
		return err == nil
	})
}

func TestHitsThatRaceThroughTwoStoresAreAllCountedAndNoneAdmittedTooMany(t *testing.T) {
	const requests, callers = 10000, 100
	server := servicetest.Redis(t)
	stores := []*Store{openWith(t, Options{URL: server.Address}), openWith(t, Options{URL: server.Address})}
	limit := algorithm.Limit{Requests: 3333, Window: time.Hour}
	now := time.Now()
	var granted atomic.Int64
	var wait sync.WaitGroup
	for i := range callers {
		// Ends after its calls; the test waits for it below.
		wait.Go(func() {
			ops := []limiter.Op{{Key: []byte("k"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1}}
			for range requests / callers {
				if stores[i%2].Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}) != nil {
					return
				}
				if !ops[0].Decision.Over {
					granted.Add(1)
				}
			}
		})
	}
	wait.Wait()
	require.Equal(t, int64(3333), granted.Load())
	ops := []limiter.Op{{Key: []byte("k"), Algorithm: fixedwindow.Algorithm{}, Limit: limit}}
	require.NoError(t, stores[0].Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	require.Equal(t, uint64(requests), ops[0].Decision.After)
}

func TestAConnectionThatTheServerEndedIsClosedBeforeItIsUsed(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	_, err := hit(t.Context(), s, "k")
	require.NoError(t, err)
	require.Zero(t, testutil.ToFloat64(s.stats.closed))
	opened := testutil.ToFloat64(s.stats.opened)
	server.Command("CLIENT KILL TYPE normal SKIPME yes")
	_, err = hit(t.Context(), s, "k")
	require.NoError(t, err)
	require.Equal(t, 1.0, testutil.ToFloat64(s.stats.closed))
	require.Equal(t, opened+1, testutil.ToFloat64(s.stats.opened))
}
