package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestAPauseLastsUntilItIsOverOrNobodyWaitsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		begin := time.Now()
		require.True(t, pause.For(ctx, time.Minute))
		require.Equal(t, time.Minute, time.Since(begin))
		require.False(t, pause.For(ctx, time.Minute))
		require.Equal(t, 90*time.Second, time.Since(begin))
	})
}
