package connpool_test

import (
	"context"
	"net"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// limits are breakers with these thresholds.
func limits(t testing.TB, thresholds string) *breaker.Set {
	t.Helper()
	m := &clusterv3.CircuitBreakers{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"thresholds": [{`+thresholds+`}]}`), m))
	return breaker.New(breaker.Parse(m), stats.NewRegistry().Scope("c"))[0]
}

// got is what came of a Get.
type got struct {
	conn *connpool.Conn
	err  error
}

// await gets a connection on a goroutine of its own, and returns once it waits.
func await(ctx context.Context, t *testing.T, pool *connpool.Pool, set *breaker.Set) chan got {
	t.Helper()
	result := make(chan got, 1)
	before := set.PendingRequests.Used()
	go func() { // ends with a connection, or ctx
		conn, err := pool.Get(ctx, set)
		result <- got{conn, err}
	}()
	servicetest.Eventually(t, "the request waits", func() bool { return set.PendingRequests.Used() > before })
	return result
}

func TestRequestsWaitForAConnectionBeyondTheLimit(t *testing.T) {
	address, _ := server(t)
	pool, open := newPool(t, address, time.Hour)
	set := limits(t, `"max_connections": 1`)
	first, err := pool.Get(t.Context(), set)
	require.NoError(t, err)
	a := await(t.Context(), t, pool, set)
	b := await(t.Context(), t, pool, set)
	first.Release()
	// The first to come is the first to go, on the connection that there is.
	require.Equal(t, got{first, nil}, <-a)
	require.True(t, first.Reused)
	first.Discard()
	next := <-b
	require.NoError(t, next.err)
	require.NotSame(t, first, next.conn, "a connection that is gone makes room for another")
	require.EqualValues(t, 1, open.Load())
	require.EqualValues(t, 1, set.Connections.Used())
	next.conn.Discard()
	require.Zero(t, set.Connections.Used())
	require.Zero(t, set.PendingRequests.Used())
}

func TestFirstConnectionIsMadeWhateverTheLimit(t *testing.T) {
	address, _ := server(t)
	set := limits(t, `"max_connections": 1`)
	for range 3 { // of as many hosts
		pool, _ := newPool(t, address, time.Hour)
		c, err := pool.Get(t.Context(), set)
		require.NoError(t, err)
		defer c.Discard()
	}
	require.EqualValues(t, 3, set.Connections.Used())
}

func TestFewRequestsMayWait(t *testing.T) {
	address, _ := server(t)
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Hour})
	set := limits(t, `"max_connections": 1, "max_pending_requests": 1`)
	c, err := pool.Get(t.Context(), set)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	waits := await(ctx, t, pool, set)
	_, err = pool.Get(t.Context(), set)
	require.ErrorIs(t, err, connpool.ErrOverflow)
	cancel()
	require.ErrorIs(t, (<-waits).err, context.Canceled)
	require.EqualValues(t, 1, counts.cancelled.Load())
	c.Release()
	require.Same(t, c, pool.Idle(), "who went takes nothing with it")
	c.Discard()

	_, err = pool.Get(t.Context(), limits(t, `"max_pending_requests": 0`))
	require.ErrorIs(t, err, connpool.ErrOverflow, "a new connection is waited for too")
}

func TestConnectThatFailsEjectsWhoWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	pool, counts := makePool(t, l.Addr().String(), connpool.Options{IdleTimeout: time.Hour})
	set := limits(t, `"max_connections": 1`)
	held, err := pool.Get(t.Context(), set)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	a := await(t.Context(), t, pool, set)
	b := await(t.Context(), t, pool, set)
	held.Discard() // so that the first tries to connect
	require.ErrorContains(t, (<-a).err, "connection refused")
	require.ErrorContains(t, (<-b).err, "connection refused")
	require.EqualValues(t, 1, counts.failed.Load(), "of which the second waited in vain")
	require.Zero(t, counts.open.Load())
	require.Zero(t, set.Connections.Used())
}

func TestThoseWhoWaitAreServedThoughThePoolCloses(t *testing.T) {
	for name, options := range map[string]connpool.Options{
		"HTTP/1": {},
		"HTTP/2": {HTTP2: http2.NewClientOptions(http2.Options{}), MaxStreams: 1},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := server(t)
			if options.HTTP2 != nil {
				address = newPeer(t, http2.Options{}, no).address
			}
			pool, counts := makePool(t, address, options)
			set := limits(t, `"max_connections": 1`)
			first, err := pool.Get(t.Context(), set)
			require.NoError(t, err)
			waits := await(t.Context(), t, pool, set)
			servicetest.Eventually(t, "it is in the queue", func() bool { return counts.met[connpool.MaxConnections].Load() == 1 })
			pool.Close()
			first.Release()
			next := <-waits
			require.NoError(t, next.err)
			id := next.conn.ID
			next.conn.Release()
			require.EqualValues(t, 1, id, "on the connection that there is")
			servicetest.Eventually(t, "nothing is kept", func() bool { return counts.open.Load() == 0 })
			require.EqualValues(t, 1, counts.opened.Load())
		})
	}
}
