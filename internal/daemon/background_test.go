package daemon_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/daemon"
)

func TestBackgroundWorkEndsWithItsStopAndIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finished := false
		group := &daemon.Group{Log: slog.New(slog.DiscardHandler), Deadline: time.Minute}
		group.Add(daemon.Background("sweeper", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second) // the last of its work
			finished = true
			return nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, group.Run(ctx))
		require.True(t, finished)
	})
}

func TestBackgroundWorkEndsInOrderThoughOthersUsedUpTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		group := &daemon.Group{Log: slog.New(slog.DiscardHandler), Deadline: time.Second}
		group.Add(daemon.Part{Name: "store", Stop: func(context.Context) error {
			order = append(order, "store")
			return nil
		}})
		group.Add(daemon.Background("registry", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Millisecond)
			order = append(order, "registry")
			return nil
		}))
		group.Add(daemon.Part{Name: "slow", Stop: func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, group.Run(ctx))
		require.Equal(t, []string{"registry", "store"}, order)
	})
}

func TestBackgroundWorkThatFailsEndsTheProcess(t *testing.T) {
	group := &daemon.Group{Log: slog.New(slog.DiscardHandler), Deadline: time.Minute}
	group.Add(daemon.Background("sweeper", func(context.Context) error { return errors.New("broom broke") }))
	require.EqualError(t, group.Run(t.Context()), "sweeper: broom broke")
}

func TestBackgroundWorkThatDoesNotEndIsLeftBehindAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		group := &daemon.Group{Log: slog.New(slog.DiscardHandler), Deadline: time.Minute}
		group.Add(daemon.Background("sweeper", func(context.Context) error { <-stuck; return nil }))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := group.Run(ctx)
		require.ErrorContains(t, err, "stop sweeper: wait for its end: context deadline exceeded")
		require.ErrorContains(t, err, "sweeper: runs on after its stop")
		close(stuck)
	})
}
