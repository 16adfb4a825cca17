package hold_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/hold"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

type closer struct{ closed int }

func (c *closer) Close() error {
	c.closed++
	return nil
}

func TestACutClosesWhatIsHeldUntilTheHolderIsRenewed(t *testing.T) {
	var h hold.Holder
	before, held, later, renewed := &closer{}, &closer{}, &closer{}, &closer{}
	h.Hold(before)
	h.Hold(nil)
	h.Hold(held)
	h.Cut()
	require.Zero(t, before.closed, "it is not held any more")
	require.Equal(t, 1, held.closed)
	h.Hold(later)
	require.Equal(t, 1, later.closed, "at once")
	h.Renew()
	h.Hold(renewed)
	require.Zero(t, renewed.closed)
	h.Cut()
	require.Equal(t, 1, renewed.closed)
}

func TestASleepEndsWithItsTimeItsContextOrACut(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   func(h *hold.Holder, cancel func())
		after time.Duration
		slept bool
	}{
		{"its time", nil, time.Hour, true},
		{"a cut", func(h *hold.Holder, _ func()) { h.Cut() }, time.Minute, false},
		{"its context", func(_ *hold.Holder, cancel func()) { cancel() }, time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h hold.Holder
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.end != nil {
					time.AfterFunc(time.Minute, func() { c.end(&h, cancel) })
				}
				began := time.Now()
				require.Equal(t, c.slept, h.Sleep(ctx, time.Hour))
				require.Equal(t, c.after, time.Since(began))
			})
		})
	}
	t.Run("a cut before", func(t *testing.T) {
		var h hold.Holder
		h.Cut()
		require.False(t, h.Sleep(t.Context(), time.Hour))
	})
}

// connection is an upstream on which so much has moved, both ways.
type connection struct {
	closer
	wire uint64
}

func (c *connection) Traffic() (received, sent message.Traffic) {
	return message.Traffic{Wire: c.wire}, message.Traffic{Headers: c.wire}
}

func TestTheTrafficOfAllUpstreamsCountsWhileTheyAreHeld(t *testing.T) {
	var h hold.Holder
	requireMoved := func(want uint64) {
		t.Helper()
		received, sent := h.Traffic()
		require.Equal(t, message.Traffic{Wire: want}, received)
		require.Equal(t, message.Traffic{Headers: want}, sent)
	}
	requireMoved(0)
	h.Hold(&connection{wire: 1000}) // of a call of the proxy's own
	requireMoved(0)
	first, second, third := &connection{}, &connection{wire: 5}, &connection{wire: 7}
	h.HoldUpstream(first)
	first.wire = 10
	requireMoved(10)
	h.Hold(nil)
	first.wire = 1000 // for another request
	requireMoved(10)
	h.HoldUpstream(second)
	requireMoved(15)
	h.Hold(&closer{})
	requireMoved(15)
	h.HoldUpstream(third)
	require.True(t, h.Sleep(t.Context(), 0))
	third.wire = 1000
	requireMoved(22)
	h.Cut()
	h.HoldUpstream(second)
	require.Equal(t, 1, second.closed, "at once")
	h.Renew()
	requireMoved(0)
}
