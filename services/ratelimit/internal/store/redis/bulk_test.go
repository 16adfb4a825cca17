package redis

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// bulkOf is a request that hits as many counters.
func bulkOf(n int) *limiter.Call {
	c := &limiter.Call{Now: time.Now()}
	for i := range n {
		c.Ops = append(c.Ops, limiter.Op{Key: fmt.Append(nil, "bulk", i), Algorithm: fixedwindow.Algorithm{}, Limit: hour, Hits: 1})
	}
	return c
}

// watcher is told of each pipeline before it is sent.
type watcher struct {
	before func(commands []goredis.Cmder)
}

func (watcher) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (w watcher) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, c goredis.Cmder) error {
		w.before([]goredis.Cmder{c})
		return next(ctx, c)
	}
}

func (w watcher) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, commands []goredis.Cmder) error {
		w.before(commands)
		return next(ctx, commands)
	}
}

func TestACallOfManyOperationsGoesInPiecesWithOthersBetween(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	s.options.Connections = 1
	require.NoError(t, s.Ping(t.Context())) // so that there is a connection
	var mu sync.Mutex
	var sizes []int // of the pipelines with a bulk's piece, 0 for one with other calls
	first, others := make(chan struct{}), make(chan struct{})
	s.one.client.AddHook(watcher{func(commands []goredis.Cmder) {
		mu.Lock()
		defer mu.Unlock()
		if len(commands) < bulk {
			sizes = append(sizes, 0)
			return
		}
		if sizes = append(sizes, len(commands)); len(sizes) == 1 {
			close(first)
			<-others
		}
	}})
	const pieces = 4
	big := bulkOf(pieces * bulk)
	done := make(chan error, 3)
	go func() { done <- s.Apply(t.Context(), big) }() // ends when it is counted; the test waits for it
	<-first
	for i := range cap(done) - 1 {
		// Ends when it is counted; the test waits for it.
		go func() {
			_, err := hit(t.Context(), s, fmt.Sprint("small", i))
			done <- err
		}()
	}
	servicetest.Eventually(t, "the others wait", func() bool { return s.one.queued() == cap(done)-1 })
	close(others)
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.Equal(t, []int{2 * bulk, 0, 2 * bulk, 2 * bulk, 2 * bulk}, sizes)
	for i := range big.Ops {
		require.NoError(t, big.Ops[i].Err)
		require.Equal(t, uint64(1), big.Ops[i].Decision.After)
	}
	servicetest.Eventually(t, "nothing is under way", func() bool { return s.one.flying() == 0 })
}

func TestACallThatIsOneStepIsNotCut(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	call := bulkOf(2 * bulk)
	call.StopWhenOver = true
	require.NoError(t, s.Apply(t.Context(), call))
	require.Equal(t, uint64(1), call.Ops[2*bulk-1].Decision.After)
}

func TestWhatACallSentBeforeItsRestWasRefusedKeepsItsDecision(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address})
	require.NoError(t, s.Ping(t.Context())) // so that there is a connection
	sent := 0
	s.one.client.AddHook(watcher{func([]goredis.Cmder) {
		if sent++; sent == 2 {
			server.Kill()
		}
	}})
	call := bulkOf(3 * bulk)
	require.Error(t, s.Apply(t.Context(), call))
	require.NoError(t, call.Ops[0].Err)
	require.Equal(t, uint64(1), call.Ops[bulk-1].Decision.After)
	require.Error(t, call.Ops[bulk].Err)
	require.Error(t, call.Ops[3*bulk-1].Err)
}

func TestCallsThatAreLateWhileRedisAnswersDoNotHaveItLeftUnasked(t *testing.T) {
	const timeout = 500 * time.Millisecond // in which Redis answers on a busy machine too
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, Timeout: timeout})
	// Each piece takes a while in which Redis is not asked, so that a call of
	// many is late.
	s.one.client.AddHook(watcher{func(commands []goredis.Cmder) {
		if len(commands) >= bulk {
			<-time.After(timeout / 4)
		}
	}})
	for range 2 * failures {
		err := s.Apply(t.Context(), bulkOf(9*bulk))
		require.Error(t, err)
		require.Equal(t, timeoutFault, kindOf(err))
		require.NoError(t, s.one.refusal())
	}
}
