package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// severed is a fakeStore that cannot be followed while it is broken.
type severed struct{ *fakeStore }

func (s severed) Follow(ctx context.Context, apply func(Update)) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		err := s.broken
		s.mu.Unlock()
		if err != nil {
			return err
		}
		apply(Update{}) // it answers
		pause.For(ctx, 100*time.Millisecond)
	}
	return nil
}

func TestItIsLoggedOnceThatChangesCannotBeFollowedAndOnceThatTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := severed{newFakeStore()}
		r := newRegistry(store)
		var log strings.Builder
		r.log = slog.New(slog.NewTextHandler(&log, nil))
		run(t, r)
		<-r.Loaded()
		for range 2 {
			store.fail(errors.New("no route to host"))
			time.Sleep(time.Minute)
			store.fail(nil)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		require.Equal(t, 2, strings.Count(log.String(), "cannot be followed"), log.String())
		require.Equal(t, 2, strings.Count(log.String(), "are followed again"), log.String())
	})
}
