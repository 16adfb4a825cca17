package app

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// flaky is a store whose pings fail as scripted, and then do not.
type flaky struct {
	limiter.Store
	pings []error
}

func (f *flaky) Ping(context.Context) error {
	if len(f.pings) == 0 {
		return nil
	}
	err := f.pings[0]
	f.pings = f.pings[1:]
	return err
}

// ruled is a source of rules that has had some.
func ruled() error { return nil }

func TestReadinessFollowsTheStore(t *testing.T) {
	late := errors.New("late")
	for _, c := range []struct {
		name  string
		pings []error
		ready bool
	}{
		{"an_answer_is_ready", nil, true},
		{"one_late_answer_is_ready_still", []error{late}, true},
		{"two_in_a_row_are_not", []error{late, late}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHealth(ruled, &flaky{pings: c.pings}, slog.New(slog.DiscardHandler))
			require.Equal(t, c.ready, h.state().Ready)
			h.probe(t.Context())
			require.True(t, h.state().Ready, "it comes back with the next probe")
			h.drain()
			h.probe(t.Context())
			require.False(t, h.state().Ready, "a stop is never taken back")
		})
	}
}

func TestReadinessFollowsTheFirstRulesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ruled atomic.Bool
		h := newHealth(func() error {
			if ruled.Load() {
				return nil
			}
			return errors.New("no rules yet")
		}, &flaky{}, slog.New(slog.DiscardHandler))
		b := build{loaded: make(chan struct{}, 1)}
		h.loaded = b.loaded
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = h.run(ctx) }() // ends with ctx; the bubble waits for it
		defer stop()
		done := b.load(0)
		synctest.Wait()
		require.Equal(t, "no rules yet", h.state().Text)
		ruled.Store(true)
		done()
		synctest.Wait()
		require.True(t, h.state().Ready, "and no time has passed")
	})
}

// hanging is a store that answers no ping while hung is set.
type hanging struct {
	limiter.Store
	hung atomic.Bool
}

func (s *hanging) Ping(ctx context.Context) error {
	if !s.hung.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestAStoreThatHangsIsToldWithinTwoSecondsAndItsReturnWithinOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hanging{}
		h := newHealth(ruled, store, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = h.run(ctx) }() // ends with ctx; the bubble waits for it
		defer stop()
		time.Sleep(probeInterval + time.Nanosecond) // the worst moment: just after a probe
		require.True(t, h.state().Ready)
		store.hung.Store(true)
		time.Sleep(2 * time.Second)
		require.False(t, h.state().Ready)
		time.Sleep(time.Minute)
		store.hung.Store(false)
		time.Sleep(probeInterval + 2*probeWait)
		require.True(t, h.state().Ready)
	})
}
