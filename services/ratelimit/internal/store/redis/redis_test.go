package redis

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
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

func TestMain(m *testing.M) { servicetest.Main(m) }

// open opens a store that the test closes at its end. The timeout is long, so
// that a busy machine fails no test that is not about it.
func open(t testing.TB, url string, timeout time.Duration) *Store {
	s, err := New(Options{
		URL: url, Timeout: timeout, Connections: 2, ExpirationJitter: time.Second, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestContract(t *testing.T) {
	server := servicetest.Redis(t)
	client := goredis.NewClient(&goredis.Options{Addr: server.Address})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	storetest.Run(t, func(t *testing.T) limiter.Store {
		require.NoError(t, client.FlushAll(t.Context()).Err())
		return open(t, "redis://"+server.Address, long)
	})
}

func oneHit() []limiter.Op {
	return []limiter.Op{{
		Key: []byte("k"), Algorithm: fixedwindow.Algorithm{},
		Limit: algorithm.Limit{Requests: 5, Window: time.Minute}, Hits: 1,
	}}
}

func TestCountersAreSharedByStores(t *testing.T) {
	server := servicetest.Redis(t)
	a, b := open(t, server.Address, long), open(t, server.Address, long)
	ops, now := oneHit(), time.Now()
	require.NoError(t, a.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	require.NoError(t, b.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	require.Equal(t, uint64(2), ops[0].Decision.After)
}

func TestCountersExpireAfterTheirWindow(t *testing.T) {
	server := servicetest.Redis(t)
	s := open(t, server.Address, long)
	now := time.Now()
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: now}))
	keys, err := s.one.client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.True(t, strings.HasPrefix(keys[0], "k@"), keys[0])
	ttl, err := s.one.client.PTTL(t.Context(), keys[0]).Result()
	require.NoError(t, err)
	end := fixedwindow.Algorithm{}.WindowEnd(oneHit()[0].Limit, now)
	require.LessOrEqual(t, ttl, end.Sub(now)+time.Second)
	require.Greater(t, ttl, time.Until(end)-time.Second)
}

func TestKeysOutliveTheirWindowAtRandom(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	s.options.ExpirationJitter = 10_000 * time.Hour // which none of them meets in its first second
	now := time.Now()
	end := fixedwindow.Algorithm{}.WindowEnd(oneHit()[0].Limit, now)
	outlives := func() bool {
		ttl, err := s.one.client.PTTL(t.Context(), fmt.Sprintf("k@%d", end.Unix())).Result()
		require.NoError(t, err)
		return ttl > end.Sub(now)+time.Second
	}
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: now}))
	require.True(t, outlives(), "one that is new")
	server.Command("FLUSHALL")
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: now}))
	servicetest.Eventually(t, "one that Redis had lost", outlives)
	server.Command("FLUSHALL")
	step := []limiter.Op{oneHit()[0], oneHit()[0]}
	step[1].Key = []byte("l")
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: step, Now: now, StopWhenOver: true}))
	require.True(t, outlives(), "one of a call that is one step")
}

func TestACounterThatIsFullRefuses(t *testing.T) {
	server := servicetest.Redis(t)
	s := open(t, server.Address, long)
	ops, now := oneHit(), time.Now()
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	keys, err := s.one.client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.NoError(t, s.one.client.Set(t.Context(), keys[0], "9223372036854775807", 0).Err())
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	require.True(t, ops[0].Decision.Over)
}

func TestAReplyThatIsAnErrorIsAnError(t *testing.T) {
	server := servicetest.Redis(t)
	s := open(t, server.Address, long)
	ops, now := oneHit(), time.Now()
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}))
	keys, err := s.one.client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.NoError(t, s.one.client.Set(t.Context(), keys[0], "text", 0).Err())
	require.ErrorContains(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}), "not an integer")
	require.Error(t, ops[0].Err)
	ops = append(ops, oneHit()...)
	ops[0].Key = []byte("other")
	require.ErrorContains(t, s.Apply(t.Context(), &limiter.Call{Ops: ops, Now: now}), "not an integer")
	require.NoError(t, ops[0].Err, "other counters go on")
	require.Equal(t, uint64(1), ops[0].Decision.After)
	require.Error(t, ops[1].Err)
}

// A call ends at its own deadline or at the timeout, whichever is sooner; the
// other is far away. More calls than there are connections wait in the queue.
func TestAHungRedisCostsACallerNoMoreThanItsDeadlineOrTheTimeout(t *testing.T) {
	for _, c := range []struct {
		name              string
		timeout, deadline time.Duration
	}{
		{"its_deadline_is_sooner", long, 50 * time.Millisecond},
		{"the_timeout_is_sooner", 50 * time.Millisecond, long},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := servicetest.Redis(t)
			s := open(t, server.Address, c.timeout)
			servicetest.Eventually(t, "a hit is counted", func() bool {
				return s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: time.Now()}) == nil
			})
			require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
			fails := func(call func(context.Context) error) {
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				begin := time.Now()
				require.Error(t, call(ctx))
				require.Less(t, time.Since(begin), servicetest.Patience, "50 ms on a machine that may be busy")
			}
			for range 4 {
				fails(func(ctx context.Context) error { return s.Apply(ctx, &limiter.Call{Ops: oneHit(), Now: time.Now()}) })
				fails(s.Ping)
			}
			require.NoError(t, server.Process().Signal(syscall.SIGCONT))
			servicetest.Eventually(t, "hits are counted again", func() bool {
				return s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: time.Now()}) == nil
			})
		})
	}
}

// Who takes connections and never answers is closed before the count is read,
// so that the senders have come to their ends too.
func TestACallThatRedisFailsIsOneErrorAndOneThatItsCallerTakesBackIsNone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, c := range []struct {
		name              string
		timeout, deadline time.Duration
		cancels           bool
		want              float64
	}{
		{"redis_is_late", 20 * time.Millisecond, time.Minute, false, 3},
		{"redis_is_late_for_the_caller", 500 * time.Millisecond, 20 * time.Millisecond, false, 3},
		{"the_caller_takes_it_back", 5 * time.Second, time.Minute, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(Options{
				URL: l.Addr().String(), Timeout: c.timeout, Connections: 1, Metrics: prometheus.NewRegistry(),
			})
			require.NoError(t, err)
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				if c.cancels {
					time.AfterFunc(time.Millisecond, cancel)
				}
				require.Error(t, s.Apply(ctx, &limiter.Call{Ops: oneHit(), Now: time.Now()}))
				cancel()
			}
			require.NoError(t, s.Close())
			require.Equal(t, c.want, errorCount(s))
			require.Equal(t, c.want, testutil.ToFloat64(s.stats.kinds[timeoutFault]))
		})
	}
}

func TestACallThatDoesNotComeToRedisIsCountedByTheKindOfItsError(t *testing.T) {
	expired, end := context.WithTimeout(t.Context(), -time.Second)
	defer end()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	two := append(oneHit(), oneHit()...)
	foreign := oneHit()
	foreign[0].Algorithm = uncounted{}
	// away makes a store in a Cluster that is not there.
	away := func(t *testing.T) *Store {
		s := openWith(t, Options{Type: "cluster", URL: "127.0.0.1:1", Timeout: 20 * time.Millisecond})
		servicetest.Eventually(t, "it is known to be away", func() bool { return s.nodes.fault.Load() != nil })
		return s
	}
	// lost makes one that took it for known.
	lost := func(t *testing.T) *Store {
		s := away(t)
		close(s.nodes.known)
		return s
	}
	one := func(t *testing.T) *Store { return openWith(t, Options{URL: "127.0.0.1:1"}) }
	for _, c := range []struct {
		name string
		open func(*testing.T) *Store
		ctx  context.Context
		call limiter.Call
		kind fault // -1 for none
		text string
	}{
		{"its_deadline_had_ended", one, expired, limiter.Call{Ops: oneHit()}, timeoutFault, "deadline exceeded"},
		{"its_caller_had_gone", one, cancelled, limiter.Call{Ops: oneHit()}, -1, "canceled"},
		{"the_layout_is_not_known", away, t.Context(), limiter.Call{Ops: oneHit()}, connectionFault, "learn the layout"},
		{"the_layout_is_lost", lost, t.Context(), limiter.Call{Ops: oneHit()}, connectionFault, "find the server of a key"},
		{"its_counters_lie_apart", lost, t.Context(), limiter.Call{Ops: two, StopWhenOver: true}, connectionFault, "must share a slot"},
		{"plain_commands_cannot_express_it", one, t.Context(), limiter.Call{Ops: foreign}, connectionFault, "redis cannot count for the algorithm uncounted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			c.call.Now = time.Now()
			require.ErrorContains(t, s.Apply(c.ctx, &c.call), c.text)
			for _, op := range c.call.Ops {
				require.ErrorContains(t, op.Err, c.text)
			}
			if c.kind < 0 {
				require.Zero(t, errorCount(s))
				return
			}
			require.Equal(t, 1.0, errorCount(s))
			require.Equal(t, 1.0, testutil.ToFloat64(s.stats.kinds[c.kind]))
		})
	}
	t.Run("its_caller_goes_while_the_layout_is_not_known", func(t *testing.T) {
		s := openWith(t, Options{Type: "cluster", URL: "127.0.0.1:1"})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		require.ErrorContains(t, s.Apply(ctx, &limiter.Call{Ops: oneHit(), Now: time.Now()}), "learn the layout")
		require.Zero(t, errorCount(s))
	})
}

func TestARedisThatIsAwayIsSeenAtOnceAndItsReturnToo(t *testing.T) {
	server := servicetest.Redis(t)
	s := open(t, server.Address, long)
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: time.Now()}))
	server.Kill()
	for range 20 {
		begin := time.Now()
		require.Error(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: begin}))
		require.Less(t, time.Since(begin), servicetest.Patience, "it is not waited for")
	}
	require.Error(t, s.Ping(t.Context()))
	server.Start()
	servicetest.Eventually(t, "Redis answers", func() bool { return s.Ping(t.Context()) == nil })
	require.NoError(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: time.Now()}))
}

// uncounted is an algorithm that plain commands cannot express.
type uncounted struct{}

func (uncounted) Name() string { return "uncounted" }

func (uncounted) Refund(algorithm.Limit, algorithm.State, uint64, time.Time) (algorithm.State, algorithm.Decision) {
	return algorithm.State{}, algorithm.Decision{}
}

func (uncounted) Apply(algorithm.Limit, algorithm.State, uint64, time.Time) (algorithm.State, algorithm.Decision) {
	return algorithm.State{}, algorithm.Decision{}
}

func TestURL(t *testing.T) {
	const (
		hidden  = "redis address (not shown, for it may hold a password)"
		misread = " is not a URL: in a user, password or path, what means something in URLs must be percent-encoded"
	)
	for _, c := range []struct{ url, address, fault string }{
		{url: "localhost:6379", address: "localhost:6379"},
		{url: "redis://localhost:6379/3", address: "localhost:6379"},
		{url: "rediss://:pw@cache:6380", address: "cache:6380"},
		{url: "unix:///run/redis.sock", address: "/run/redis.sock"},
		{url: "localhost", fault: `redis address "localhost" is neither a URL nor host:port`},
		{url: "redis://u:p@ss@cache:6380/3?read_timeout=5", address: "cache:6380"},
		{url: "unix:///run/a%40b.sock", address: "/run/a@b.sock"},
		{url: "http://localhost", fault: `redis address "http://localhost" begins with none of redis://, rediss://, unix://`},
		{url: "redis://local host", fault: `redis address "redis://local host": invalid character " " in host name`},
		{url: "redis://localhost/x", fault: `redis address "redis://localhost/x": redis: invalid database number: "x"`},
		{url: "user:secret@host:6379", fault: hidden + " is neither a URL nor host:port"},
		{url: "secret@127.0.0.1:1", fault: hidden + " is neither a URL nor host:port"},
		{url: "secret://word@localhost", fault: hidden + " begins with none of redis://, rediss://, unix://"},
		{url: "redis://:secret@local host", fault: hidden + misread},
		{url: "redis://:secret%zz@localhost", fault: hidden + misread},
		{url: "redis://user:sec/ret@localhost", fault: hidden + misread},
		{url: "redis://sec/ret@localhost", fault: hidden + misread},
		{url: "redis://sec?ret=1@localhost", fault: hidden + misread},
		{url: "redis://sec#ret@localhost", fault: hidden + misread},
		{url: "unix:///secret@/run/redis.sock", fault: hidden + misread},
		{url: "redis://secret@localhost/x", fault: hidden + `: redis: invalid database number: "x"`},
	} {
		t.Run(c.url, func(t *testing.T) {
			place, err := Options{URL: c.url}.place()
			require.Equal(t, c.address, Address(Options{URL: c.url}))
			if c.fault != "" {
				require.EqualError(t, err, "URL: "+c.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{c.address}, place.addresses)
			require.Equal(t, strings.HasPrefix(c.url, "rediss:"), place.tls != nil)
		})
	}
}

func TestAServerThatAnswersNonsenseIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	// Ends when the listener is closed below, which the test waits for.
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	s := open(t, l.Addr().String(), time.Second)
	require.Error(t, s.Apply(t.Context(), &limiter.Call{Ops: oneHit(), Now: time.Now()}))
	require.Error(t, s.Ping(t.Context()))
	require.NoError(t, l.Close())
	<-done
}

// errorCount is the number of errors of all kinds.
func errorCount(s *Store) (sum float64) {
	for _, kind := range s.stats.kinds {
		sum += testutil.ToFloat64(kind)
	}
	return sum
}

func BenchmarkApply(b *testing.B) {
	server := servicetest.Redis(b)
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(callers, "_callers"), func(b *testing.B) {
			s := open(b, server.Address, long)
			before, own := processorTime(b, server.Process().Pid), processorTime(b, os.Getpid())
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			if callers == 1 {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			}
			storetest.Benchmark(b, s)
			perCall := func(spent, since time.Duration) float64 {
				return float64((spent - since).Nanoseconds()) / 1000 / float64(b.N)
			}
			b.ReportMetric(perCall(processorTime(b, server.Process().Pid), before), "redis-us/op")
			b.ReportMetric(perCall(processorTime(b, os.Getpid()), own), "own-us/op")
		})
	}
}

// processorTime is what a process has used.
func processorTime(b *testing.B, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("no /proc to read the processor time from")
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	require.NoError(b, err)
	system, err := strconv.Atoi(fields[12])
	require.NoError(b, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
