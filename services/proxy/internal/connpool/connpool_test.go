package connpool_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/http2/http2test"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// server accepts connections and hands them to the test.
func server(t *testing.T) (address string, accepted chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted = make(chan net.Conn, 10)
	done := make(chan struct{})
	go func() { // ends with the listener; the cleanup waits for it
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		close(accepted)
		for conn := range accepted {
			_ = conn.Close()
		}
	})
	return l.Addr().String(), accepted
}

// counts are the Stats of a test's pool.
type counts struct {
	opened, open, failed atomic.Int64
	begun                atomic.Int64
	refused, givenUp     atomic.Int64 // connects
	met                  [connpool.MaxPools + 1]atomic.Int64
	received, sent       atomic.Uint64
	cancelled            atomic.Int64

	mu   sync.Mutex
	ends []connpool.End
}

func (c *counts) Began() { c.begun.Add(1) }
func (c *counts) Unmade(remote bool) {
	if remote {
		c.refused.Add(1)
	} else {
		c.givenUp.Add(1)
	}
}

func (c *counts) Opened(time.Duration) {
	c.opened.Add(1)
	c.open.Add(1)
}
func (c *counts) Failed(error)             { c.failed.Add(1) }
func (c *counts) Met(limit connpool.Limit) { c.met[limit].Add(1) }
func (c *counts) Cancelled()               { c.cancelled.Add(1) }
func (c *counts) Moved(received, sent uint64) {
	c.received.Add(received)
	c.sent.Add(sent)
}

func (c *counts) Closed(end connpool.End) {
	c.mu.Lock()
	c.ends = append(c.ends, end)
	c.mu.Unlock()
	c.open.Add(-1)
}

// ended waits for the end of a pool's one connection, and returns who has ended it and
// what that broke off.
func (c *counts) ended(t *testing.T) (remote bool, active int) {
	t.Helper()
	servicetest.Eventually(t, "it has ended", func() bool { return c.opened.Load() == 1 && c.open.Load() == 0 })
	require.Len(t, c.ends, 1)
	require.Positive(t, c.ends[0].Age)
	require.Positive(t, c.ends[0].Requests)
	return c.ends[0].Remote, c.ends[0].Active
}

// makePool makes a pool that the test's end closes, and what counts its connections.
func makePool(t *testing.T, address string, options connpool.Options) (*connpool.Pool, *counts) {
	t.Helper()
	counts := &counts{}
	options.Stats = counts
	options.ConnectTimeout = servicetest.Patience
	options.Limits = http1.Limits{HeadBytes: 1 << 10, Headers: 10}
	pool := connpool.New(address, options)
	t.Cleanup(pool.Close)
	return pool, counts
}

// newPool makes one of HTTP/1; open counts its connections.
func newPool(t *testing.T, address string, idle time.Duration) (pool *connpool.Pool, open *atomic.Int64) {
	t.Helper()
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: idle})
	return pool, &counts.open
}

func get(t *testing.T, pool *connpool.Pool) *connpool.Conn {
	t.Helper()
	c, err := pool.Get(t.Context(), nil)
	require.NoError(t, err)
	return c
}

func TestConnectionUsedLastIsTakenFirst(t *testing.T) {
	address, _ := server(t)
	pool, open := newPool(t, address, time.Hour)
	a, b := get(t, pool), get(t, pool)
	require.False(t, a.Reused)
	a.Release()
	b.Release()
	require.Same(t, b, get(t, pool))
	require.Same(t, a, get(t, pool))
	require.True(t, a.Reused)
	require.EqualValues(t, 2, open.Load())
	a.Discard()
	b.Discard()
	require.Zero(t, open.Load())
}

func TestConnectionThatItsServerClosedOrSpokeOnIsNotTaken(t *testing.T) {
	for name, spoil := range map[string]func(net.Conn){
		"closed":     func(c net.Conn) { _ = c.Close() },
		"spoke":      func(c net.Conn) { _, _ = io.WriteString(c, "x") },
		"half-close": func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			address, accepted := server(t)
			pool, open := newPool(t, address, time.Hour)
			c := get(t, pool)
			c.Release()
			spoil(<-accepted)
			servicetest.Eventually(t, "another connection is made", func() bool {
				next := get(t, pool)
				defer next.Release()
				return next != c
			})
			require.EqualValues(t, 1, open.Load())
		})
	}
}

func TestAskTellsOfAConnectionThatItsServerClosed(t *testing.T) {
	address, accepted := server(t)
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Hour, MaxRequests: 2})
	c := get(t, pool)
	peer := <-accepted
	ask := func() error {
		_, err := io.WriteString(peer, "HTTP/1.1 204 No Content\r\n\r\n") // in place of the server
		return err
	}
	require.NoError(t, c.Ask(ask))
	var m message.Response
	_, err := c.Reader.ReadHead(&m, []byte("GET"))
	require.NoError(t, err)
	c.Release()

	require.NoError(t, peer.Close())
	servicetest.Eventually(t, "the close is there", func() bool { return !c.Usable() })
	c = pool.IdleUnseen()
	require.True(t, c.Reused)
	require.Equal(t, connpool.ErrStale, c.Ask(func() error { return errors.New("it went out") }))
	c.Discard()
	require.Nil(t, pool.IdleUnseen())
	require.Zero(t, counts.open.Load())
	require.Zero(t, counts.met[connpool.MaxRequests].Load(), "it had carried one request")
}

func TestSurplusBytesCostTheConnection(t *testing.T) {
	address, accepted := server(t)
	pool, open := newPool(t, address, time.Hour)
	c := get(t, pool)
	_, err := io.WriteString(<-accepted, "surplus")
	require.NoError(t, err)
	require.NoError(t, c.Reader.(*http1.Reader).Wait())
	c.Release()
	require.Zero(t, open.Load())
}

func TestConnectionThatWasCutOffIsNotTakenAgain(t *testing.T) {
	address, _ := server(t)
	pool, open := newPool(t, address, time.Hour)
	c := get(t, pool)
	c.Answered()
	require.NoError(t, c.Close()) // by who ends a stream, as its response was whole already
	c.Release()
	require.Nil(t, pool.IdleUnseen())
	require.Zero(t, open.Load())
}

func TestIdleConnectionsExpire(t *testing.T) {
	address, _ := server(t)
	pool, open := newPool(t, address, time.Minute)
	c := get(t, pool)
	c.Release()
	pool.CloseExpired(time.Now().Add(30 * time.Second))
	require.EqualValues(t, 1, open.Load())
	pool.CloseExpired(time.Now().Add(time.Minute))
	require.Zero(t, open.Load())

	pool, open = newPool(t, address, time.Nanosecond)
	get(t, pool).Release()
	require.False(t, get(t, pool).Reused, "expired, though it may be there yet")
	servicetest.Eventually(t, "the expired one is closed", func() bool { return open.Load() == 1 })

	pool, open = newPool(t, address, 0)
	get(t, pool).Release()
	require.True(t, get(t, pool).Reused, "without limit")
	require.EqualValues(t, 1, open.Load())
}

// TestIdleConnectionsExpireByThemselves has several of each version of HTTP become
// idle one after another, and none be asked for.
func TestIdleConnectionsExpireByThemselves(t *testing.T) {
	for name, options := range map[string]connpool.Options{
		"HTTP/1": {},
		"HTTP/2": {HTTP2: http2.NewClientOptions(http2.Options{}), MaxStreams: 1},
	} {
		t.Run(name, func(t *testing.T) {
			options.IdleTimeout = 20 * time.Millisecond
			address, _ := server(t)
			if options.HTTP2 != nil {
				address = http2test.NewHost(t, http2.Options{}, no).Address
			}
			pool, counts := makePool(t, address, options)
			var used []*connpool.Conn
			for range 3 {
				used = append(used, get(t, pool))
			}
			for i, c := range used {
				c.Release()
				servicetest.Eventually(t, "it is closed", func() bool { return counts.open.Load() == int64(2-i) })
			}
			require.GreaterOrEqual(t, counts.met[connpool.IdleTimeout].Load(), int64(3), "beside those that expired before they were taken")
			for range 2 { // and together
				get(t, pool).Release()
			}
			servicetest.Eventually(t, "all are closed", func() bool { return counts.open.Load() == 0 })
		})
	}
}

// TestConnectionsGrowOldByThemselves has one be idle and one be in use when it is old.
func TestConnectionsGrowOldByThemselves(t *testing.T) {
	for name, options := range map[string]connpool.Options{
		"HTTP/1": {},
		"HTTP/2": {HTTP2: http2.NewClientOptions(http2.Options{}), MaxStreams: 1},
	} {
		t.Run(name, func(t *testing.T) {
			options.IdleTimeout, options.MaxDuration = time.Hour, 20*time.Millisecond
			address, _ := server(t)
			if options.HTTP2 != nil {
				address = http2test.NewHost(t, http2.Options{}, no).Address
			}
			pool, counts := makePool(t, address, options)
			used, idle := get(t, pool), get(t, pool)
			idle.Release()
			servicetest.Eventually(t, "the idle one is closed", func() bool { return counts.open.Load() == 1 })
			old := used.Connected.Add(options.MaxDuration)
			servicetest.Eventually(t, "the other one is old too", func() bool { return time.Now().After(old) })
			used.Release()
			servicetest.Eventually(t, "it ends with its request", func() bool { return counts.open.Load() == 0 })
			require.EqualValues(t, 2, counts.met[connpool.MaxDuration].Load())
			require.Zero(t, counts.met[connpool.IdleTimeout].Load())
			require.EqualValues(t, 2, counts.opened.Load())
		})
	}
}

func TestClosedPoolKeepsNothingThatComesBack(t *testing.T) {
	address, _ := server(t)
	pool, open := newPool(t, address, time.Hour)
	idle, used := get(t, pool), get(t, pool)
	idle.Release()
	pool.Close()
	require.EqualValues(t, 1, open.Load())
	used.Release()
	require.Zero(t, open.Load())
}

func TestConnectErrorIsThatOfTheConnect(t *testing.T) {
	pool, counts := makePool(t, servicetest.FreeAddress(t), connpool.Options{IdleTimeout: time.Hour})
	_, err := pool.Get(t.Context(), nil)
	require.ErrorContains(t, err, "connection refused")
	require.Zero(t, counts.open.Load())
	require.EqualValues(t, 1, counts.begun.Load())
	require.EqualValues(t, 1, counts.refused.Load())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = pool.Get(ended, nil)
	require.Error(t, err)
	require.Equal(t, counts.begun.Load()-1, counts.givenUp.Load())
}

func BenchmarkGetAndRelease(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	pool := connpool.New(l.Addr().String(), connpool.Options{
		ConnectTimeout: servicetest.Patience, IdleTimeout: time.Hour, Stats: &counts{},
	})
	defer pool.Close()
	b.ReportAllocs()
	for b.Loop() {
		c, err := pool.Get(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		c.Release()
	}
}

func TestConnectionsToComeAreToTheNewAddress(t *testing.T) {
	before, accepted := server(t)
	pool, open := newPool(t, before, time.Minute)
	old := get(t, pool)
	peer := <-accepted
	defer peer.Close()
	after, moved := server(t)
	pool.Readdress(after)
	fresh := get(t, pool)
	arrived := <-moved
	defer arrived.Close()
	require.Equal(t, arrived.RemoteAddr().String(), fresh.Local.String())
	old.Release()
	require.Same(t, old, get(t, pool), "those that are there stay in use")
	require.EqualValues(t, 2, open.Load())
	old.Discard()
	fresh.Discard()
}

func TestConnectionCarriesAsManyRequestsAsItMay(t *testing.T) {
	address, _ := server(t)
	pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Hour, MaxRequests: 2})
	open, wornOut := &counts.open, &counts.met[connpool.MaxRequests]
	first := get(t, pool)
	first.Release()
	require.Same(t, first, get(t, pool))
	first.Return()
	require.Same(t, first, get(t, pool), "nothing had gone out on it")
	require.Zero(t, wornOut.Load())
	first.Release()
	require.Zero(t, open.Load())
	require.EqualValues(t, 1, wornOut.Load())
	second := get(t, pool)
	require.False(t, second.Reused)
	second.Discard()
	require.EqualValues(t, 1, wornOut.Load(), "it had carried one request")
}
