package connpool_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/http2/http2test"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// limits are breakers with these thresholds.
func limits(t testing.TB, thresholds string) *breaker.Set {
	t.Helper()
	return breakers(t, `{"thresholds": [{`+thresholds+`}]}`)
}

// breakers are those of the default priority of a CircuitBreakers.
func breakers(t testing.TB, text string) *breaker.Set {
	t.Helper()
	m, report := &clusterv3.CircuitBreakers{}, &strict.Report{}
	require.NoError(t, protojson.Unmarshal([]byte(text), m))
	set := breaker.New(breaker.Parse(m, "", report), stats.NewRegistry().Scope("c"))[0]
	require.NoError(t, report.Err())
	return set
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
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Hour})
	open := &counts.open
	set := limits(t, `"max_connections": 1`)
	first, err := pool.Get(t.Context(), set)
	require.NoError(t, err)
	a := await(t.Context(), t, pool, set)
	b := await(t.Context(), t, pool, set)
	first.Release()
	// The first to come is the first to go, on the connection that there is.
	require.Equal(t, got{first, nil}, <-a)
	require.True(t, first.Reused)
	require.EqualValues(t, 3, counts.met[connpool.MaxConnections].Load(), "the other one met the limit once more")
	first.Discard()
	require.EqualValues(t, 2, counts.ends[0].Requests)
	next := <-b
	require.NoError(t, next.err)
	require.NotSame(t, first, next.conn, "a connection that is gone makes room for another")
	require.EqualValues(t, 1, open.Load())
	require.EqualValues(t, 1, set.Connections.Used())
	next.conn.Discard()
	require.Zero(t, set.Connections.Used())
	require.Zero(t, set.PendingRequests.Used())
}

func TestAFirstConnectionBeyondTheLimitIsCounted(t *testing.T) {
	address, _ := server(t)
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Hour})
	conn, err := pool.Get(t.Context(), limits(t, `"max_connections": 0`))
	require.NoError(t, err)
	require.EqualValues(t, 1, counts.met[connpool.MaxConnections].Load())
	conn.Discard()
}

func TestRequestsWaitForAConnectionBeyondTheLimitOfTheirHost(t *testing.T) {
	address, _ := server(t)
	set := breakers(t, `{"per_host_thresholds": [{"max_connections": 2}, {"max_connections": 9}]}`)
	var open atomic.Int64
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Hour, Open: &open})
	other, _ := makePool(t, address, connpool.Options{IdleTimeout: time.Hour, Open: &open}) // of the same host
	apart, _ := newPool(t, address, time.Hour)
	first, err := pool.Get(t.Context(), set)
	require.NoError(t, err)
	second, err := other.Get(t.Context(), set)
	require.NoError(t, err)
	waits := await(t.Context(), t, pool, set)
	elsewhere, err := apart.Get(t.Context(), set)
	require.NoError(t, err, "another host has a limit of its own")
	elsewhere.Discard()
	first.Release()
	require.Equal(t, got{first, nil}, <-waits)
	require.EqualValues(t, 1, counts.met[connpool.MaxConnections].Load())
	second.Discard()
	third, err := pool.Get(t.Context(), set)
	require.NoError(t, err, "one that is gone makes room for another")
	require.EqualValues(t, 2, open.Load())
	first.Discard()
	third.Discard()
	require.Zero(t, open.Load())
}

func TestOnlySoManyPoolsHaveConnections(t *testing.T) {
	for name, options := range map[string]connpool.Options{
		"HTTP/1": {IdleTimeout: time.Hour},
		"HTTP/2": {IdleTimeout: time.Hour, HTTP2: http2.NewClientOptions(http2.Options{})},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := server(t)
			if options.HTTP2 != nil {
				address = http2test.NewHost(t, http2.Options{}, no).Address
			}
			set := limits(t, `"max_connection_pools": 1, "max_connections": 1`)
			pool, counts := makePool(t, address, options)
			other, refused := makePool(t, address, options)
			first, err := pool.Get(t.Context(), set)
			require.NoError(t, err)
			_, err = other.Get(t.Context(), set)
			require.ErrorIs(t, err, connpool.ErrPools)
			require.EqualValues(t, 1, refused.met[connpool.MaxPools].Load())
			require.Zero(t, set.PendingRequests.Used())
			first.Release()
			_, err = other.Get(t.Context(), set)
			require.ErrorIs(t, err, connpool.ErrPools, "an idle one is one")
			again, err := pool.Get(t.Context(), set)
			require.NoError(t, err)
			again.Release()
			pool.Close()
			servicetest.Eventually(t, "it has none any more", func() bool { return counts.open.Load() == 0 && set.Pools.Used() == 0 })
			next, err := other.Get(t.Context(), set)
			require.NoError(t, err)
			require.EqualValues(t, 1, set.Pools.Used())
			next.Release()
			other.Close()
			servicetest.Eventually(t, "nothing is counted", func() bool { return set.Pools.Used() == 0 })
		})
	}
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
				address = http2test.NewHost(t, http2.Options{}, no).Address
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
