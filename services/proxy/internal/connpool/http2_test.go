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
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func newSharedPool(t *testing.T, address string, most uint32) (pool *connpool.Pool, open *atomic.Int64) {
	t.Helper()
	pool, counts := makeSharedPool(t, address, connpool.Options{IdleTimeout: time.Minute, MaxStreams: most})
	return pool, &counts.open
}

// makeSharedPool makes a pool of HTTP/2 that the test's end closes, and waits for.
func makeSharedPool(t *testing.T, address string, options connpool.Options) (*connpool.Pool, *counts) {
	t.Helper()
	if options.HTTP2 == nil {
		options.HTTP2 = http2.NewClientOptions(http2.Options{})
	}
	pool, counts := makePool(t, address, options)
	t.Cleanup(func() {
		pool.Close()
		servicetest.Eventually(t, "all connections are closed", func() bool { return counts.open.Load() == 0 })
	})
	return pool, counts
}

// request is one without a body.
func request() *message.Request {
	return &message.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a")}
}

// ask sends a request and reads the head of its response.
func ask(c *connpool.Conn, r *message.Request) (*message.Response, error) {
	before := c.Sent()
	c.Writer.WriteRequest(r)
	if err := c.Writer.Flush(); err != nil {
		return nil, err
	}
	if c.Sent() == before {
		return nil, errors.New("nothing was sent")
	}
	m := &message.Response{}
	_, err := c.Reader.ReadHead(m, r.Method)
	return m, err
}

func no(s *http2.Stream) { _ = s.WriteHead(204, nil, true) }

func TestExchangesShareAConnectionUntilItIsFull(t *testing.T) {
	release := make(chan bool)
	p := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
		<-release
		no(s)
	})
	pool, open := newSharedPool(t, p.Address, 2)
	var used []*connpool.Conn
	for range 5 {
		c := get(t, pool)
		require.True(t, c.HTTP2())
		c.Writer.WriteRequest(request())
		used = append(used, c)
	}
	require.EqualValues(t, 3, open.Load())
	require.Equal(t, []uint64{1, 1, 2, 2, 3}, []uint64{used[0].ID, used[1].ID, used[2].ID, used[3].ID, used[4].ID})
	require.False(t, used[0].Reused)
	require.True(t, used[1].Reused)
	close(release)
	for _, c := range used {
		var m message.Response
		_, err := c.Reader.ReadHead(&m, []byte("GET"))
		require.NoError(t, err)
		require.Equal(t, 204, m.Status)
		c.Release()
	}
	c := get(t, pool)
	require.EqualValues(t, 1, c.ID)
	c.Discard()
	get(t, pool).Return()
	require.EqualValues(t, 3, open.Load(), "a stream is no connection")
}

func TestAllWaitForOneConnect(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, open := newSharedPool(t, p.Address, 0)
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			c, err := pool.Get(t.Context(), nil)
			if err == nil {
				_, err = ask(c, request())
				c.Release()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	require.EqualValues(t, 1, open.Load())

	pool, _ = newSharedPool(t, servicetest.FreeAddress(t), 0)
	_, err := pool.Get(t.Context(), nil)
	require.ErrorContains(t, err, "connection refused")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = pool.Get(ctx, nil)
	require.Error(t, err)
}

// TestThoseWhoWaitGetAsManyConnectionsAsTheyNeed has ten requests at once whose
// connections carry fewer.
func TestThoseWhoWaitGetAsManyConnectionsAsTheyNeed(t *testing.T) {
	for name, c := range map[string]struct {
		options                  connpool.Options
		server                   http2.Options
		limits                   string
		want, waiting, overflows int64
	}{
		"one request each":                         {options: connpool.Options{MaxRequests: 1}, want: 10},
		"four at once":                             {options: connpool.Options{MaxStreams: 4}, want: 3},
		"as many as the server says":               {server: http2.Options{MaxConcurrentStreams: 2}, want: 5},
		"as many as may be":                        {options: connpool.Options{MaxRequests: 1}, limits: `"max_connections": 3`, want: 3, waiting: 7, overflows: 7},
		"the first one whatever is used elsewhere": {limits: `"max_connections": 0`, want: 1, overflows: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var serving atomic.Int64
			release := make(chan bool)
			p := http2test.NewHost(t, c.server, func(s *http2.Stream) {
				serving.Add(1)
				<-release
				no(s)
			})
			c.options.IdleTimeout = time.Hour
			pool, counts := makeSharedPool(t, p.Address, c.options)
			set := limits(t, c.limits)
			var asking sync.WaitGroup
			for range 10 {
				asking.Go(func() {
					c, err := pool.Get(t.Context(), set)
					if err == nil {
						_, err = ask(c, request())
						c.Release()
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			servicetest.Eventually(t, "all are served that may be", func() bool {
				return serving.Load() == 10-c.waiting && set.PendingRequests.Used() == c.waiting
			})
			require.Equal(t, c.want, counts.open.Load())
			require.Equal(t, c.want, set.Connections.Used())
			require.Equal(t, c.overflows, counts.met[connpool.MaxConnections].Load())
			close(release)
			asking.Wait()
			require.EqualValues(t, 10, serving.Load())
			require.Zero(t, set.PendingRequests.Used())
		})
	}
}

// TestAServerThatTakesNoRequestsIsAskedOnceForEach has servers that end what they
// accept with different words.
func TestAServerThatTakesNoRequestsIsAskedOnceForEach(t *testing.T) {
	const (
		settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
		none     = "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00"
		goAway   = "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	)
	for name, words := range map[string]string{
		"closes": "", "says something else": "HTTP/1.1 400 Bad Request\r\n\r\n", "allows no streams": none, "drains": settings + goAway,
	} {
		t.Run(name, func(t *testing.T) {
			address, accepted := server(t)
			pool, counts := makeSharedPool(t, address, connpool.Options{IdleTimeout: time.Hour})
			set := limits(t, "")
			asked := make(chan struct{})
			var asking sync.WaitGroup
			for range 10 {
				asking.Go(func() {
					c, err := pool.Get(t.Context(), set)
					if err != nil {
						return
					}
					if m, err := ask(c, request()); err == nil {
						t.Errorf("answered %d", m.Status)
					}
					c.Discard()
				})
			}
			go func() {
				asking.Wait()
				close(asked)
			}()
			for over := false; !over; {
				select {
				case conn := <-accepted:
					_, _ = io.WriteString(conn, words)
					_ = conn.(*net.TCPConn).CloseWrite()
				case <-asked:
					over = true
				}
			}
			require.Positive(t, counts.opened.Load())
			require.LessOrEqual(t, counts.opened.Load(), int64(10))
			servicetest.Eventually(t, "all are closed", func() bool { return counts.open.Load() == 0 })
		})
	}
}

// TestAServerThatSaysNothingCostsAConnectionForItsIdleTimeout has one that accepts and never
// sends its SETTINGS. Nothing bounds the wait for them as such, nor does in Envoy: who waits
// does so for its own time.
func TestAServerThatSaysNothingCostsAConnectionForItsIdleTimeout(t *testing.T) {
	address, _ := server(t)
	pool, counts := makeSharedPool(t, address, connpool.Options{IdleTimeout: time.Millisecond})
	set := limits(t, "")
	first, err := pool.Get(t.Context(), set)
	require.NoError(t, err)
	first.Writer.WriteRequest(request())
	require.NoError(t, first.Writer.Flush())

	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := pool.Get(ctx, set)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.Zero(t, set.PendingRequests.Used())
	require.EqualValues(t, 1, set.Connections.Used(), "all have waited for the one")

	next := make(chan *connpool.Conn, 1)
	go func() { // ends with what it gets, which is received below
		c, _ := pool.Get(t.Context(), set)
		next <- c
	}()
	servicetest.Eventually(t, "another one waits", func() bool { return set.PendingRequests.Used() == 1 })
	first.Discard()
	second := <-next
	require.NotNil(t, second)
	require.EqualValues(t, 1, second.ID)
	second.Discard()
	servicetest.Eventually(t, "the connection is given up", func() bool { return set.Connections.Used() == 0 })
	require.EqualValues(t, 1, counts.met[connpool.IdleTimeout].Load())
	require.EqualValues(t, 1, counts.opened.Load())
}

// TestAConnectionThatNobodyWaitsForAnyMoreEndsWithThePool has the pool closed before it is made.
func TestAConnectionThatNobodyWaitsForAnyMoreEndsWithThePool(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, counts := makeSharedPool(t, p.Address, connpool.Options{IdleTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := pool.Get(ctx, nil); err == nil { // it was faster
		c.Return()
	}
	pool.Close()
	servicetest.Eventually(t, "it is made", func() bool { return counts.opened.Load() == 1 })
	servicetest.Eventually(t, "and closed", func() bool { return counts.open.Load() == 0 })
}

func TestADrainingConnectionGetsNoMore(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, open := newSharedPool(t, p.Address, 0)
	c := get(t, pool)
	_, err := ask(c, request())
	require.NoError(t, err)
	c.Release()
	(<-p.Conns).Drain()
	servicetest.Eventually(t, "another connection is made", func() bool {
		c := get(t, pool)
		defer c.Release()
		return c.ID == 2
	})
	servicetest.Eventually(t, "the old one ends", func() bool { return open.Load() == 1 })
}

func TestWhatIsSafeToSendAgain(t *testing.T) {
	answers := make(chan func(*http2.Stream), 10)
	p := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) { (<-answers)(s) })
	pool, _ := newSharedPool(t, p.Address, 0)
	exchange := func(answer func(*http2.Stream)) error {
		answers <- answer
		c := get(t, pool)
		defer c.Discard()
		_, err := ask(c, request())
		return err
	}
	var unprocessed *connpool.UnprocessedError
	var reset *connpool.ResetError
	require.NoError(t, exchange(no))
	require.ErrorAs(t, exchange(func(s *http2.Stream) { s.Reset(http2.RefusedStream) }), &unprocessed)
	require.ErrorAs(t, exchange(func(s *http2.Stream) { s.Reset(http2.InternalError) }), &reset)
	require.ErrorIs(t, exchange(func(s *http2.Stream) { _ = s.Conn().Close() }), io.ErrUnexpectedEOF)

	// A connection that goes between Get and the request.
	answers <- no
	c := get(t, pool)
	for range 2 {
		_ = (<-p.Conns).Close()
	}
	servicetest.Eventually(t, "the pool sees it", func() bool {
		next, err := pool.Get(t.Context(), nil)
		if err != nil {
			return false
		}
		defer next.Discard()
		return next.ID != c.ID
	})
	_, err := ask(c, request())
	require.ErrorAs(t, err, &unprocessed)
	c.Discard()
}

// TestAWebSocketThatIsAskedForAgainHasItsKey is with the key and its answer of RFC 6455
// §1.3.
func TestAWebSocketThatIsAskedForAgainHasItsKey(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{ConnectProtocol: true}, func(s *http2.Stream) {
		var head http2.Head
		if s.ReadHead(&head) != nil {
			return
		}
		status := 200
		if _, ok := head.Fields.Get("sec-websocket-key"); ok { // RFC 8441 §5
			status = 400
		}
		_ = s.WriteHead(status, nil, true)
	})
	pool, _ := newSharedPool(t, p.Address, 0)
	r := request()
	r.Upgrade = []byte("websocket")
	r.Headers.Add("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
	for range 2 {
		c := get(t, pool)
		settled := c.AwaitTunnels(t.Context())
		m, err := ask(c, r)
		c.Discard()
		require.NoError(t, settled)
		require.NoError(t, err)
		require.Equal(t, 101, m.Status)
		accept, _ := m.Headers.Get("sec-websocket-accept")
		require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", string(accept))
	}
}

func TestBodiesAndTrailersBothWays(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
		var head http2.Head
		_ = s.ReadHead(&head)
		_ = s.WriteHead(200, &head.Fields, false)
		for {
			chunk, err := s.Next()
			if err != nil {
				break
			}
			_ = s.WriteData(chunk, false)
		}
		var trailers http2.Fields
		s.ReadTrailers(&trailers)
		_ = s.WriteTrailers(&trailers)
	})
	pool, _ := newSharedPool(t, p.Address, 0)
	for range 2 { // the second uses what the first has left
		c := get(t, pool)
		r := request()
		r.Body, r.BodyLength = message.NewBytes([]byte("hello")), message.Unknown
		r.Headers.Add("x-a", "1")
		r.Headers.Add("content-length", "7") // of a body that a filter has changed
		r.Trailers.Add("t", "v")
		c.Writer.WriteRequest(r)
		require.NoError(t, c.Writer.WriteChunk([]byte("hello")))
		c.Writer.Finish(&r.Trailers)
		require.NoError(t, c.Writer.Flush())
		var m message.Response
		_, err := c.Reader.ReadHead(&m, r.Method)
		require.NoError(t, err)
		require.Equal(t, 200, m.Status)
		require.True(t, m.Headers.Has("x-a"))
		require.False(t, m.Headers.Has("content-length"))
		chunk, err := m.Body.Next()
		require.NoError(t, err)
		require.Equal(t, "hello", string(chunk))
		_, err = m.Body.Next()
		require.ErrorIs(t, err, io.EOF)
		value, _ := m.Trailers.Get("t")
		require.Equal(t, "v", string(value))
		c.Release()
	}
}

func TestAnExchangeIsCutOff(t *testing.T) {
	reset := make(chan error, 1)
	p := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
		s.OnReset(func(err error) { reset <- err })
		_, _ = s.Next() // which never comes
	})
	pool, _ := newSharedPool(t, p.Address, 0)
	c := get(t, pool)
	r := request()
	r.Body, r.BodyLength = message.NewBytes(nil), message.Unknown
	done := make(chan error, 1)
	c.Writer.WriteRequest(r)
	require.NoError(t, c.Writer.Flush())
	go func() {
		var m message.Response
		_, err := c.Reader.ReadHead(&m, r.Method)
		done <- err
	}()
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-done, net.ErrClosed)
	require.ErrorContains(t, <-reset, "CANCEL")
	c.Discard()
	require.ErrorIs(t, c.Writer.WriteChunk([]byte("late")), net.ErrClosed)

	c = get(t, pool)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	c.Writer.WriteRequest(r)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	var m message.Response
	_, err := c.Reader.ReadHead(&m, r.Method)
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
	c.Discard()
}

func TestIdleSharedConnectionsExpire(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, open := newSharedPool(t, p.Address, 0)
	c := get(t, pool)
	_, err := ask(c, request())
	require.NoError(t, err)
	c.Release()
	pool.CloseExpired(time.Now().Add(30 * time.Second))
	require.EqualValues(t, 1, open.Load())
	pool.CloseExpired(time.Now().Add(2 * time.Minute))
	servicetest.Eventually(t, "it is closed", func() bool { return open.Load() == 0 })

	c = get(t, pool)
	pool.Close()
	require.EqualValues(t, 1, open.Load(), "it is in use")
	_, err = ask(c, request())
	require.NoError(t, err)
	c.Release()
	c = get(t, pool) // for an exchange that began before
	_, err = ask(c, request())
	require.NoError(t, err)
	c.Release()
	servicetest.Eventually(t, "nothing is kept", func() bool { return open.Load() == 0 })
}

func TestSharedConnectionEndsWhoseServerIsSilent(t *testing.T) {
	address, _ := server(t) // which reads nothing
	pool, counts := makeSharedPool(t, address, connpool.Options{HTTP2: http2.NewClientOptions(http2.Options{
		KeepaliveInterval: 10 * time.Millisecond, KeepaliveTimeout: 10 * time.Millisecond,
	})})
	c := get(t, pool)
	servicetest.Eventually(t, "it is counted", func() bool { return counts.met[connpool.KeepaliveTimeout].Load() == 1 })
	servicetest.Eventually(t, "it is closed", func() bool { return counts.open.Load() == 0 })
	c.Discard()
}

func TestSharedConnectionThatIsOldCarriesNoFurtherRequest(t *testing.T) {
	release := make(chan bool)
	p := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
		<-release
		no(s)
	})
	pool, counts := makeSharedPool(t, p.Address, connpool.Options{MaxDuration: time.Hour})
	c := get(t, pool)
	c.Writer.WriteRequest(request())
	require.NoError(t, c.Writer.Flush())
	pool.CloseExpired(time.Now().Add(30 * time.Minute))
	next := get(t, pool)
	require.EqualValues(t, 1, next.ID)
	next.Return()
	pool.CloseExpired(time.Now().Add(time.Hour))
	require.EqualValues(t, 1, counts.met[connpool.MaxDuration].Load())
	require.EqualValues(t, 1, counts.open.Load(), "it is in use")
	next = get(t, pool)
	require.EqualValues(t, 2, next.ID)
	next.Return()
	close(release)
	_, err := c.Reader.ReadHead(&message.Response{}, []byte("GET"))
	require.NoError(t, err)
	c.Release()
	servicetest.Eventually(t, "it ends with its last request", func() bool { return counts.open.Load() == 1 })
	pool.CloseExpired(time.Now().Add(2 * time.Hour))
	servicetest.Eventually(t, "the idle one ends at once", func() bool { return counts.open.Load() == 0 })
	require.EqualValues(t, 2, counts.met[connpool.MaxDuration].Load())
	require.Zero(t, counts.met[connpool.IdleTimeout].Load())
}

func TestSharedConnectionCarriesAsManyRequestsAsItMay(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, counts := makeSharedPool(t, p.Address, connpool.Options{IdleTimeout: time.Hour, MaxRequests: 2})
	open, wornOut := &counts.open, &counts.met[connpool.MaxRequests]
	first, second := get(t, pool), get(t, pool)
	second.Return()
	second = get(t, pool) // on the same one: nothing had gone out
	third := get(t, pool)
	require.Equal(t, []uint64{1, 1, 2}, []uint64{first.ID, second.ID, third.ID})
	for _, c := range []*connpool.Conn{first, second, third} { // all that were taken go out
		_, err := ask(c, request())
		require.NoError(t, err)
	}
	first.Release()
	require.Zero(t, wornOut.Load(), "it is in use")
	second.Release()
	servicetest.Eventually(t, "the first connection ends with its last request", func() bool { return open.Load() == 1 })
	require.EqualValues(t, 1, wornOut.Load())
	third.Return()
	third = get(t, pool)
	require.EqualValues(t, 2, third.ID)
	require.False(t, third.Reused)
	third.Release()
	pool.Close()
	servicetest.Eventually(t, "the other one ends with the pool", func() bool { return open.Load() == 0 })
	require.EqualValues(t, 1, wornOut.Load())
}

// TestThoseWhoWaitTakeConnectionsThatOthersWearOut has connections be taken, used and
// ended by the first of many who waited for them, before the others look.
func TestThoseWhoWaitTakeConnectionsThatOthersWearOut(t *testing.T) {
	p := http2test.NewHost(t, http2.Options{}, no)
	pool, counts := makeSharedPool(t, p.Address, connpool.Options{IdleTimeout: time.Hour, MaxRequests: 1})
	var asking sync.WaitGroup
	for range 200 {
		asking.Go(func() {
			c, err := pool.Get(t.Context(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err = ask(c, request()); err != nil {
				t.Error(err)
			}
			c.Release()
		})
	}
	asking.Wait()
	servicetest.Eventually(t, "all connections are closed", func() bool { return counts.open.Load() == 0 })
}
