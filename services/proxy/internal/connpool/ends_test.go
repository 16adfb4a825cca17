package connpool_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/http2/http2test"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// TestWhoEndsAConnection has one of HTTP/1 end in each way that there is.
func TestWhoEndsAConnection(t *testing.T) {
	closed := func(t *testing.T, c *connpool.Conn, peer net.Conn) {
		c.Release()
		require.NoError(t, peer.Close())
		servicetest.Eventually(t, "the close is there", func() bool { return !c.Usable() })
	}
	for _, c := range []struct {
		name   string
		end    func(t *testing.T, pool *connpool.Pool, c *connpool.Conn, peer net.Conn)
		remote bool
		active int
	}{
		{"idle for too long", func(_ *testing.T, pool *connpool.Pool, c *connpool.Conn, _ net.Conn) {
			c.Release()
			pool.CloseExpired(time.Now().Add(time.Hour))
		}, false, 0},
		{"the pool closes", func(_ *testing.T, pool *connpool.Pool, c *connpool.Conn, _ net.Conn) {
			c.Release()
			pool.Close()
		}, false, 0},
		{"closed by its server while idle", func(t *testing.T, pool *connpool.Pool, c *connpool.Conn, peer net.Conn) {
			closed(t, c, peer)
			pool.CloseExpired(time.Now().Add(time.Hour))
		}, true, 0},
		{"and then to be taken", func(t *testing.T, pool *connpool.Pool, c *connpool.Conn, peer net.Conn) {
			closed(t, c, peer)
			require.Nil(t, pool.Idle())
		}, true, 0},
		{"and taken unseen", func(t *testing.T, pool *connpool.Pool, c *connpool.Conn, peer net.Conn) {
			closed(t, c, peer)
			c = pool.IdleUnseen()
			require.Equal(t, connpool.ErrStale, c.Ask(func() error { return errors.New("it went out") }))
			c.Discard()
		}, true, 0},
		{"given up", func(_ *testing.T, _ *connpool.Pool, c *connpool.Conn, _ net.Conn) { c.Discard() }, false, 1},
		{"given up behind the response", func(_ *testing.T, _ *connpool.Pool, c *connpool.Conn, _ net.Conn) {
			c.Answered()
			c.Discard()
		}, false, 0},
		{"given up the second time", func(_ *testing.T, pool *connpool.Pool, c *connpool.Conn, _ net.Conn) {
			c.Answered()
			c.Release()
			pool.Idle().Discard()
		}, false, 1},
		{"closed in place of a response", func(t *testing.T, _ *connpool.Pool, c *connpool.Conn, peer net.Conn) {
			require.NoError(t, peer.Close())
			_, err := c.Reader.ReadHead(&message.Response{}, []byte("GET"))
			require.ErrorIs(t, err, io.EOF)
			c.Discard()
		}, true, 1},
		{"gone while it is written to", func(_ *testing.T, _ *connpool.Pool, c *connpool.Conn, _ net.Conn) {
			c.Lost()
			c.Discard()
		}, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, accepted := server(t)
			pool, counts := makePool(t, address, connpool.Options{IdleTimeout: time.Minute})
			conn := get(t, pool)
			c.end(t, pool, conn, <-accepted)
			remote, active := counts.ended(t)
			require.Equal(t, c.remote, remote)
			require.Equal(t, c.active, active)
		})
	}
}

// TestWhoEndsASharedConnection does the same with one of HTTP/2.
func TestWhoEndsASharedConnection(t *testing.T) {
	for _, c := range []struct {
		name   string
		serve  func(*http2.Stream)
		end    func(pool *connpool.Pool, c *connpool.Conn, peer *http2.Conn)
		remote bool
		active int
	}{
		{"the pool closes", no, func(pool *connpool.Pool, c *connpool.Conn, _ *http2.Conn) {
			c.Release()
			pool.Close()
		}, false, 0},
		{"its server closes it", no, func(_ *connpool.Pool, c *connpool.Conn, peer *http2.Conn) {
			c.Release()
			_ = peer.Close()
		}, true, 0},
		{"its server closes it within a request", func(s *http2.Stream) { _ = s.Conn().Close() }, func(_ *connpool.Pool, c *connpool.Conn, _ *http2.Conn) {
			c.Discard()
		}, true, 1},
		{"its server breaks the rules", func(s *http2.Stream) { s.Conn().Abort(http2.InternalError, "") }, func(_ *connpool.Pool, c *connpool.Conn, _ *http2.Conn) {
			c.Discard()
		}, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := http2test.NewHost(t, http2.Options{}, c.serve)
			pool, counts := makeSharedPool(t, p.Address, connpool.Options{IdleTimeout: time.Hour})
			conn := get(t, pool)
			_, err := ask(conn, request())
			require.Equal(t, c.active > 0, err != nil)
			c.end(pool, conn, <-p.Conns)
			remote, active := counts.ended(t)
			require.Equal(t, c.remote, remote)
			require.Equal(t, c.active, active)
		})
	}
}

// TestBytesAreCountedAsRequestsEnd has two requests on one connection.
func TestBytesAreCountedAsRequestsEnd(t *testing.T) {
	const response = "HTTP/1.1 204 No Content\r\n\r\n"
	address, accepted := server(t)
	pool, counts := makePool(t, address, connpool.Options{})
	c, sent := get(t, pool), uint64(0)
	peer := <-accepted
	for i := range 2 {
		if i > 0 {
			c = pool.Idle()
		}
		c.Writer.WriteRequest(request())
		require.NoError(t, c.Writer.Flush())
		_, err := io.WriteString(peer, response)
		require.NoError(t, err)
		_, err = c.Reader.ReadHead(&message.Response{}, []byte("GET"))
		require.NoError(t, err)
		require.Greater(t, c.Sent(), sent)
		require.Equal(t, sent, counts.sent.Load())
		sent = c.Sent()
		c.Release()
		require.Equal(t, sent, counts.sent.Load())
		require.EqualValues(t, (i+1)*len(response), counts.received.Load())
	}
}

// TestBytesOfASharedConnectionAreCountedAsRequestsEnd compares them with those of the
// server.
func TestBytesOfASharedConnectionAreCountedAsRequestsEnd(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, counts := makeSharedPool(t, p.Address, connpool.Options{IdleTimeout: time.Hour})
	for range 2 {
		before := counts.received.Load()
		c := get(t, pool)
		_, err := ask(c, request())
		require.NoError(t, err)
		c.Release()
		require.Greater(t, counts.received.Load(), before)
	}
	peer := <-p.Conns
	pool.Close()
	servicetest.Eventually(t, "all bytes are counted", func() bool {
		received, sent := peer.Bytes()
		return counts.open.Load() == 0 && counts.received.Load() == sent && counts.sent.Load() == received
	})
}
