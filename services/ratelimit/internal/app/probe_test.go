package app

import (
	"context"
	"errors"
	"log/slog"
	"testing"

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

// ruled is a source that has had rules.
type ruled struct{}

func (ruled) NoRules() error { return nil }

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
			h := newHealth(ruled{}, &flaky{pings: c.pings}, slog.New(slog.DiscardHandler))
			require.Equal(t, c.ready, h.state().Ready)
			h.probe(t.Context())
			require.True(t, h.state().Ready, "it comes back with the next probe")
			h.drain()
			h.probe(t.Context())
			require.False(t, h.state().Ready, "a stop is never taken back")
		})
	}
}
