package redis

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// long is a timeout that no test waits for.
const long = 10 * time.Minute

// queued is the number of calls that no sender has taken.
func (h *shard) queued() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting)
}

// startHits begins n hits, one after the other, of which all that find a sender
// are in an exchange before the next begins. Each sends its error to the channel
// of its own.
func startHits(t *testing.T, s *Store, n int) []chan error {
	outcomes := make([]chan error, n)
	for i := range outcomes {
		outcomes[i] = make(chan error, 1)
		// Ends when Redis answers, or the call is refused; the test waits for it.
		go func() {
			_, err := hit(context.WithoutCancel(t.Context()), s, "k")
			outcomes[i] <- err
		}()
		servicetest.Eventually(t, "the call is on its way", func() bool {
			return s.one.flying() == i+1 && s.one.queued() == max(0, i+1-early)
		})
	}
	return outcomes
}

// pingInVain has pings that last as long as those of the service fail until
// calls are refused.
func pingInVain(t *testing.T, s *Store) {
	for range pings {
		require.NoError(t, s.one.refusal())
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		require.Error(t, s.Ping(ctx))
		cancel()
	}
	require.ErrorContains(t, s.one.refusal(), "has failed for")
}

func TestPingsHaveCallsRefusedLongBeforeALongTimeoutEnds(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: long})
	_, err := hit(t.Context(), s, "k")
	require.NoError(t, err)
	servicetest.Eventually(t, "no sender runs", func() bool { return s.one.flying() == 0 })

	require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
	outcomes := startHits(t, s, early+2)
	pingInVain(t, s)
	for _, outcome := range outcomes[early:] {
		require.ErrorContains(t, <-outcome, "has failed for", "those that waited are refused too")
	}
	require.Equal(t, early, s.one.flying())
	_, err = hit(t.Context(), s, "k")
	require.ErrorContains(t, err, "has failed for")
	require.Equal(t, 3.0, testutil.ToFloat64(s.stats.kinds[breakerFault]))

	require.NoError(t, server.Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "a hit is counted", func() bool {
		_, err := hit(t.Context(), s, "k")
		return err == nil
	})
	for _, outcome := range outcomes[:early] {
		require.NoError(t, <-outcome, "those that were sent are answered")
	}
	servicetest.Eventually(t, "nothing is under way", func() bool { return s.one.flying() == 0 })
	require.NoError(t, s.Ping(t.Context()))
}

func TestAPingThatIsAnsweredEndsTheRefusal(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	for range 3 {
		server.Kill()
		for range pings {
			require.Error(t, s.Ping(t.Context()))
		}
		require.Error(t, s.one.refusal())
		server.Start()
		servicetest.Eventually(t, "Redis answers", func() bool { return s.Ping(t.Context()) == nil })
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
	}
}

func TestAPingThatWasGivenNoTimeSaysNothingOfTheServer(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * pings {
		require.Error(t, s.Ping(ctx))
	}
	require.NoError(t, s.one.refusal())
	server.Command("REPLICAOF 127.0.0.1 1")
	for range 2 * pings {
		require.ErrorContains(t, s.Ping(t.Context()), "READONLY")
	}
	require.NoError(t, s.one.refusal(), "a server that answers is asked")
}

func TestCallsOfCallersThatLeftDoNotPileUpAndAreTimeouts(t *testing.T) {
	const callers, each = 64, 100
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: long})
	_, err := hit(t.Context(), s, "k")
	require.NoError(t, err)

	require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
	var wait sync.WaitGroup
	var piled atomic.Bool
	for range callers {
		// Ends after its calls; the test waits for it below.
		wait.Go(func() {
			for range each {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				_, err := hit(ctx, s, "k")
				cancel()
				if err == nil || s.one.queued() >= crowd(callers) {
					piled.Store(true)
				}
			}
		})
	}
	wait.Wait()
	require.False(t, piled.Load())
	require.LessOrEqual(t, s.one.flying(), crowd(callers)+s.options.Connections*batched)
	require.Equal(t, float64(callers*each), testutil.ToFloat64(s.stats.kinds[timeoutFault]))
	require.Equal(t, float64(callers*each), errorCount(s))

	pingInVain(t, s)
	require.Zero(t, s.one.queued())
	require.NoError(t, server.Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "a hit is counted", func() bool {
		_, err := hit(t.Context(), s, "k")
		return err == nil
	})
	servicetest.Eventually(t, "nothing is under way", func() bool { return s.one.flying() == 0 })
}

func TestSendersThatHangInAnExchangeDoNotHoldUpCallsOnceRedisIsBack(t *testing.T) {
	server := servicetest.Redis(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := openWith(t, Options{URL: listener.Addr().String(), Timeout: long})
	var mute atomic.Bool // what is accepted then gets no answer
	mute.Store(true)
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	// Ends when the listener is closed at the end of the test, which waits.
	work.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			if mute.Load() {
				continue
			}
			to, err := net.Dial("tcp", server.Address)
			if err != nil {
				_ = c.Close()
				continue
			}
			// Both end when c is closed, by the test or by the store.
			work.Go(func() { _, _ = io.Copy(to, c); _ = to.Close() })
			work.Go(func() { _, _ = io.Copy(c, to); _ = c.Close() })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})

	outcomes := startHits(t, s, early)
	pingInVain(t, s)
	mute.Store(false)
	servicetest.Eventually(t, "a hit is counted", func() bool {
		_, err := hit(t.Context(), s, "k")
		return err == nil
	})
	servicetest.Eventually(t, "only the first are still there", func() bool { return s.one.flying() == early })
	for _, outcome := range outcomes {
		require.Empty(t, outcome)
	}
}
