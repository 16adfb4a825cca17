package redis

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// used is how often the server carried out a command.
func used(server *servicetest.RedisServer, command string) string {
	found := regexp.MustCompile("cmdstat_" + command + `:calls=(\d+)`).FindStringSubmatch(server.Command("INFO commandstats"))
	if found == nil {
		return "0"
	}
	return found[1]
}

func TestAWarmKeyCostsOneCommand(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	for range 100 {
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
	}
	require.Equal(t, "100", used(server, "incrby"))
	require.Equal(t, "1", used(server, "pexpire"))
	require.Equal(t, "0", used(server, "get"))

	_, err := hit(t.Context(), openWith(t, Options{URL: server.Address}), "k")
	require.NoError(t, err)
	require.Equal(t, "2", used(server, "pexpire"), "each process makes sure of it once")
}

func TestEveryKeyHasATimeToLiveWhateverWasLost(t *testing.T) {
	allExpire := func(t *testing.T, server *servicetest.RedisServer) {
		servicetest.Eventually(t, "the counter has a time to live", func() bool {
			return strings.Contains(server.Command("INFO keyspace"), "keys=1,expires=1,")
		})
	}
	t.Run("the_keys", func(t *testing.T) {
		server := servicetest.Redis(t)
		s := openWith(t, Options{URL: server.Address})
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
		server.Command("FLUSHALL")
		n, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
		require.Equal(t, uint64(1), n)
		allExpire(t, server)
	})
	t.Run("the_command_that_sets_it", func(t *testing.T) {
		server := servicetest.Redis(t)
		server.Command("ACL SETUSER default -pexpire")
		s := openWith(t, Options{URL: server.Address})
		for range 3 {
			_, err := hit(t.Context(), s, "k")
			require.NoError(t, err, "its answer does not matter to the caller")
		}
		server.Command("ACL SETUSER default +pexpire")
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
		allExpire(t, server)
	})
	t.Run("the_connection", func(t *testing.T) {
		server := servicetest.Redis(t)
		s := openWith(t, Options{URL: server.Address})
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
		require.True(t, s.given.has(s.given.hash([]byte(windowKey("k")))))
		server.Kill()
		_, err = hit(t.Context(), s, "k")
		require.Error(t, err)
		require.False(t, s.given.has(s.given.hash([]byte(windowKey("k")))))
	})
	t.Run("one_that_a_refund_finds_gone", func(t *testing.T) {
		server := servicetest.Redis(t)
		s := openWith(t, Options{URL: server.Address})
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
		server.Command("FLUSHALL")
		ops := oneHit()
		ops[0].Refund = true
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}))
		require.Empty(t, server.Command("INFO keyspace")[len("# Keyspace\r\n"):])
	})
	t.Run("one_of_a_step", func(t *testing.T) {
		server := servicetest.Redis(t)
		s := openWith(t, Options{URL: server.Address})
		ops := []limiter.Op{oneHit()[0], oneHit()[0]}
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now(), StopWhenOver: true}))
		allExpire(t, server)
	})
}

func TestALookMakesNoKey(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	ops := oneHit()
	ops[0].Hits = 0
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}))
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: append(ops, ops[0]), Now: time.Now(), StopWhenOver: true}))
	require.Equal(t, "0", server.Command("DBSIZE"))
}

func TestScriptsThatRedisForgotAreLoadedAgain(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	for range 3 {
		ops := oneHit()
		ops = append(ops, ops[0], ops[0])
		ops[1].Refund = true
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}))
		require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now(), StopWhenOver: true}))
		server.Command("SCRIPT FLUSH")
	}
	require.Equal(t, "6", server.Command("GET "+keysOf(t, s)[0]), "counted once, though asked for twice")
	require.Zero(t, errorCount(s))
}

func keysOf(t *testing.T, s *Store) []string {
	keys, err := s.one.client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	return keys
}

func TestAStepOnACounterThatIsNoNumberCountsNothing(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	_, err := hit(t.Context(), s, "bad")
	require.NoError(t, err)
	server.Command("SET " + windowKey("bad") + " text")
	ops := []limiter.Op{
		{Key: []byte("good"), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1},
		{Key: []byte("bad"), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1},
	}
	require.ErrorContains(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now(), StopWhenOver: true}), "not an integer")
	require.Equal(t, "1", server.Command("DBSIZE"))
	ops = ops[1:]
	ops[0].Refund = true
	require.ErrorContains(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: time.Now()}), "not an integer")
	require.Equal(t, 2.0, errorCount(s))
}

func TestAFullCounterIsOverInAStepToo(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	ops := append(oneHit(), oneHit()...)
	ops[1].Key = []byte("other")
	now := time.Now()
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
	for _, key := range keysOf(t, s) {
		server.Command("SET " + key + " 9223372036854775807")
	}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now, StopWhenOver: true}))
	require.True(t, ops[0].Decision.Over)
	require.True(t, ops[1].Decision.Over)
}

func TestBracesInKeysOfAClusterDecideNoSlot(t *testing.T) {
	for _, c := range []struct {
		name               string
		prefix, key        string
		cluster, perDomain bool
		want               string
	}{
		{"without_a_cluster_keys_stay_as_they_are", "rl:", "rl:{x}", false, true, "rl:{x}@60"},
		{"a_key_without_braces_too", "rl:", "rl:x", true, false, "rl:x@60"},
		{"empty_braces_go_before_others", "rl:", "rl:a{x}", true, false, "rl:{}a{x}@60"},
		{"those_of_the_prefix_decide", "{rl}:", "{rl}:a{x}", true, false, "{rl}:{}a{x}@60"},
		{"a_key_that_does_not_begin_with_the_prefix", "rl:", "other{x}", true, false, "{}other{x}@60"},
		{"a_domain_decides_if_asked_for", "rl:", "rl:{x}", true, true, "rl:{01c2078a}{x}@60"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Store{options: Options{KeyPrefix: c.prefix, DomainTags: c.perDomain}, given: newMemo()}
			if c.cluster {
				s.nodes = &nodes{}
			}
			var d command
			s.name(&d, []byte(c.key), "do}main", time.Unix(60, 0))
			require.Equal(t, c.want, string(d.key))
		})
	}
}

func TestALoneCallAllocatesNothingButWhatTheDriverDoes(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	call := &limiter.Call{Ops: oneHit(), Now: time.Now()}
	// The driver's share is 2, to ask whether the server has hung up; pools are
	// empty now and then.
	servicetest.Allocations(t, 4, func() {
		if err := s.Apply(context.Background(), call); err != nil {
			t.Error(err)
		}
	})
}

func TestCallersOfOneCounterInABatchCostOneCommandAndAreToldApart(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: long})
	const callers = 64
	limit := algorithm.Limit{Requests: 1 << 30, Window: time.Hour}
	now := time.Now()
	hot := limiter.Op{Key: []byte("hot"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 3}
	other := limiter.Op{Key: []byte("other"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: 1}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: []limiter.Op{hot, other}, Now: now}))

	require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
	afters := make(chan [2]uint64, callers)
	var wait sync.WaitGroup
	for range callers {
		// Ends with the answer; the test waits for it below.
		wait.Go(func() {
			call := &limiter.Call{Ops: []limiter.Op{hot, other}, Now: now}
			if err := s.Apply(context.Background(), call); err != nil {
				t.Error(err)
			}
			afters <- [2]uint64{call.Ops[0].Decision.After, call.Ops[1].Decision.After}
		})
	}
	servicetest.Eventually(t, "all have come", func() bool { return s.one.flying() == callers })
	require.NoError(t, server.Process().Signal(syscall.SIGCONT))
	wait.Wait()
	close(afters)
	seen := map[uint64]bool{}
	for after := range afters {
		require.False(t, seen[after[0]], "no two stand at the same hit")
		seen[after[0]] = true
		require.Equal(t, uint64(0), after[0]%3)
		require.LessOrEqual(t, after[0], uint64(3*(callers+1)))
		require.Greater(t, after[0], uint64(3))
		require.LessOrEqual(t, after[1], uint64(callers+1))
	}
	require.Len(t, seen, callers)
	info, err := s.client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	var commands int
	_, err = fmt.Sscanf(info[strings.Index(info, "cmdstat_incrby:"):], "cmdstat_incrby:calls=%d", &commands)
	require.NoError(t, err)
	require.Less(t, commands, callers, "of %d that were asked for", 2*(callers+1))
}

func TestACallThatAlsoGivesBackKeepsItsOwnOrderBesideOthers(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: long})
	limit := algorithm.Limit{Requests: 5, Window: time.Hour}
	now := time.Now()
	op := func(hits uint64, refund bool) limiter.Op {
		return limiter.Op{Key: []byte("k"), Algorithm: fixedwindow.Algorithm{}, Limit: limit, Hits: hits, Refund: refund}
	}
	// A script that the server does not know yet is carried out after the rest.
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: []limiter.Op{op(1, true)}, Now: now}))
	call := &limiter.Call{Ops: []limiter.Op{op(5, false), op(5, true), op(5, false)}, Now: now}
	require.NoError(t, s.Apply(t.Context(), call))
	for i, want := range []uint64{5, 0, 5} {
		require.Equal(t, want, call.Ops[i].Decision.After)
		require.False(t, call.Ops[i].Decision.Over)
	}
}

// Calls that share a batch share what the driver allocates.
func TestCallsThatShareABatchAllocateLessThanOneEach(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	const callers = 100
	calls := make([]*limiter.Call, callers)
	for i := range calls {
		calls[i] = &limiter.Call{Ops: oneHit(), Now: time.Now()}
	}
	start, done := make(chan *limiter.Call), make(chan error)
	var wait sync.WaitGroup
	for range callers {
		// Ends when start is closed; the test waits for it below.
		wait.Go(func() {
			for call := range start {
				done <- s.Apply(context.Background(), call)
			}
		})
	}
	defer wait.Wait()
	defer close(start)
	servicetest.Allocations(t, callers, func() {
		for _, call := range calls {
			start <- call
		}
		for range calls {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestCallsOfVeryManyOperationsLeaveNoMemoryBehind(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: time.Minute})
	heap := func() uint64 {
		servicetest.Eventually(t, "no sender runs", func() bool {
			s.one.mu.Lock()
			defer s.one.mu.Unlock()
			return s.one.senders == 0
		})
		runtime.GC()
		runtime.GC() // what was pooled is kept through the first
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	_, err := hit(t.Context(), s, "k")
	require.NoError(t, err)
	before := heap()
	for round := range 2 { // whose keys are new to Redis, and then lost without the store's knowledge
		var wait sync.WaitGroup
		for caller := range 16 {
			// Ends with the answer; the test waits for it below.
			wait.Go(func() {
				call := &limiter.Call{Now: time.Now()}
				for i := range 2_500 {
					op := limiter.Op{Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1}
					op.Key = fmt.Appendf(nil, "%d %d", caller, i)
					call.Ops = append(call.Ops, op)
				}
				if err := s.Apply(context.Background(), call); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if round == 0 {
			server.Command("FLUSHALL")
		}
	}
	require.Less(t, heap(), before+4<<20, "of about 20 MB")
	_, err = hit(t.Context(), s, "k")
	require.NoError(t, err)
	s.one.mu.Lock()
	defer s.one.mu.Unlock()
	for _, x := range s.one.free {
		require.LessOrEqual(t, cap(x.send), kept)
		require.LessOrEqual(t, cap(x.unset), kept)
		for _, sent := range x.send[:cap(x.send)] {
			require.Nil(t, sent, "what was sent is let go of")
		}
	}
}

func TestCallsAreRefusedOnlyAfterManyFailuresInARowAndOverAWhile(t *testing.T) {
	fault := errors.New("no answer")
	// began makes the first of the failures in a row one of so long ago.
	began := func(s *Store, ago time.Duration) {
		s.one.breaker.mu.Lock()
		defer s.one.breaker.mu.Unlock()
		s.one.breaker.since = time.Now().Add(-ago)
	}
	for _, c := range []struct {
		name    string
		before  int
		ago     time.Duration
		between func(*Store)
		refused bool
	}{
		{"few", failures - 2, time.Hour, func(*Store) {}, false},
		{"many", failures - 1, time.Hour, func(*Store) {}, true},
		{"many_at_once", 100, -time.Hour, func(*Store) {}, false},
		{"many_with_a_success_between", 100, time.Hour, func(s *Store) { s.one.breaker.succeeded() }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openWith(t, Options{URL: "127.0.0.1:1"})
			s.one.breaker.failing.Store(int32(c.before))
			began(s, c.ago)
			c.between(s)
			s.one.breaker.failed(fault)
			require.Equal(t, c.refused, s.one.refusal() != nil)
		})
	}
}

func TestOnlyShardsThatHaveNotFinishedAreChargedForACallThatIsLate(t *testing.T) {
	s := openWith(t, Options{URL: "127.0.0.1:1"})
	refused := errors.New("refused")
	c := newCall()
	for _, name := range []string{"finished", "refused", "late"} {
		h := newShard(s, name, s.one.client)
		c.parts = append(c.parts, part{shard: h})
		c.commands = append(c.commands, &command{shard: h, after: 1})
	}
	c.left.Store(2)
	c.parts[1].err = refused
	c.finish(c.parts[0].shard)
	s.late(c)
	for i, want := range []int32{0, 0, 1} {
		require.Equal(t, want, c.parts[i].shard.breaker.failing.Load(), c.parts[i].shard.name)
	}
	request := &limiter.Call{Ops: slices.Repeat(oneHit(), 3), Now: time.Now()}
	require.ErrorIs(t, c.settle(request), refused, "the first")
	require.NoError(t, request.Ops[0].Err)
	require.Equal(t, uint64(1), request.Ops[0].Decision.After)
	require.ErrorIs(t, request.Ops[1].Err, refused)
	require.EqualError(t, request.Ops[2].Err, "redis at 127.0.0.1:1 did not answer within 10m0s")
	require.Equal(t, timeoutFault, kindOf(request.Ops[2].Err))
}

func TestARefusalTellsSinceWhenAndWhy(t *testing.T) {
	s := openWith(t, Options{URL: "127.0.0.1:1", Timeout: time.Millisecond})
	servicetest.Eventually(t, "calls are refused", func() bool {
		_, err := hit(t.Context(), s, "k")
		return err != nil && regexp.MustCompile(
			`^redis at 127\.0\.0\.1:1 has failed for [0-9.]+m?s and is asked again every 250ms: .*(connection refused|did not answer within 1ms)`,
		).MatchString(err.Error())
	})
	require.Positive(t, testutil.ToFloat64(s.stats.kinds[breakerFault]))
}
