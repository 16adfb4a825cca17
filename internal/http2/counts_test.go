package http2_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// TestWhatIsCounted resets a stream from the client's side: both sides are told of
// it, the server's handler too, and the bytes of one side are those of the other.
func TestWhatIsCounted(t *testing.T) {
	var mu sync.Mutex
	var told []string
	count := func(side string) func(*http2.StreamError) {
		return func(e *http2.StreamError) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%s: %v remote=%v", side, e.Code, e.Remote))
		}
	}
	ended := make(chan error, 2)
	conns := make(chan *http2.Conn, 1)
	address := listen(t, http2.Options{OnStreamError: count("server")}, handlerFunc(func(s *http2.Stream) {
		conns <- s.Conn()
		var reset error
		s.OnReset(func(err error) { reset = err })
		_, err := s.Next()
		s.OnReset(nil) // waits for the one that runs
		ended <- reset
		ended <- err
	}))
	client := connect(t, address, http2.Options{OnStreamError: count("client")})
	s, err := client.Open(request("POST", "/"), nil, false)
	require.NoError(t, err)
	require.NoError(t, s.Flush())
	server := <-conns
	s.Reset(http2.Cancel)
	s.Close()
	require.ErrorContains(t, <-ended, "CANCEL")
	require.ErrorContains(t, <-ended, "CANCEL")
	mu.Lock()
	require.ElementsMatch(t, []string{"client: CANCEL remote=false", "server: CANCEL remote=true"}, told)
	mu.Unlock()
	servicetest.Eventually(t, "the bytes of both sides agree", func() bool {
		received, sent := client.Bytes()
		theirs, ours := server.Bytes()
		return received > 0 && sent > 0 && theirs == sent && ours == received
	})
}

// TestOpenStreamsAreCounted has streams end in each way that there is.
func TestOpenStreamsAreCounted(t *testing.T) {
	var ours, theirs atomic.Int64
	add := func(n *atomic.Int64) func(int) { return func(more int) { n.Add(int64(more)) } }
	release := make(chan bool)
	address := listen(t, http2.Options{OnStreams: add(&theirs)}, handlerFunc(func(s *http2.Stream) {
		<-release
		_ = s.WriteHead(204, nil, true)
	}))
	client := connect(t, address, http2.Options{OnStreams: add(&ours)})
	both := func(want int64) {
		servicetest.Eventually(t, "both sides have as many", func() bool { return ours.Load() == want && theirs.Load() == want })
	}
	var streams []*http2.Stream
	for range 4 {
		s, err := client.Open(request("GET", "/"), nil, true)
		require.NoError(t, err)
		require.NoError(t, s.Flush())
		streams = append(streams, s)
	}
	both(4)
	streams[0].Reset(http2.Cancel)
	both(3)
	release <- true // of which one may be the handler of the stream that was reset
	release <- true
	servicetest.Eventually(t, "one ends at least", func() bool { return ours.Load() < 3 })
	_ = client.Close()
	both(0)
	close(release)
	for _, s := range streams {
		s.Close()
	}
	both(0)
}

// TestGoAwaysAndWhatTheyBreakAreCounted drains a server's connection in its two steps,
// and has another one end in the midst of its streams.
func TestGoAwaysAndWhatTheyBreakAreCounted(t *testing.T) {
	var mu sync.Mutex
	var told []string
	count := func(side string) func(bool) {
		return func(remote bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%s remote=%v", side, remote))
		}
	}
	conns := make(chan *http2.Conn, 1)
	address := listen(t, http2.Options{OnGoAway: count("server")}, handlerFunc(func(s *http2.Stream) {
		conns <- s.Conn()
		_, _ = s.Next()
	}))
	ask := func() (*http2.Client, *http2.Stream, *http2.Conn) {
		client := connect(t, address, http2.Options{OnGoAway: count("client")})
		s, err := client.Open(request("POST", "/"), nil, false)
		require.NoError(t, err)
		require.NoError(t, s.Flush())
		return client, s, <-conns
	}
	client, s, server := ask()
	server.Drain()
	server.Finish()
	servicetest.Eventually(t, "the client hears of it", func() bool { return client.Capacity() == 0 })
	s.Close()
	<-client.Done()
	mu.Lock()
	require.ElementsMatch(t, []string{"server remote=false", "server remote=false", "client remote=true"}, told)
	told = nil
	mu.Unlock()
	require.Zero(t, client.Broken())

	client, s, server = ask()
	server.Abort(http2.EnhanceYourCalm, "")
	<-client.Done()
	require.Equal(t, 1, client.Broken())
	s.Close()
	mu.Lock()
	require.Equal(t, []string{"client remote=true"}, told, "an error is not in good order")
	mu.Unlock()
}

// TestAWholeResponseIsNotBrokenOff has a connection end whose response was whole before
// the request was.
func TestAWholeResponseIsNotBrokenOff(t *testing.T) {
	conns := make(chan *http2.Conn, 1)
	address := listen(t, http2.Options{}, handlerFunc(func(s *http2.Stream) {
		_ = s.WriteHead(204, nil, true)
		conns <- s.Conn()
		_, _ = s.Next()
	}))
	client := connect(t, address, http2.Options{})
	s, err := client.Open(request("POST", "/"), nil, false)
	require.NoError(t, err)
	require.NoError(t, s.ReadHead(&http2.Head{}))
	server := <-conns
	server.Abort(http2.EnhanceYourCalm, "")
	<-client.Done()
	require.Zero(t, client.Broken())
	require.Zero(t, server.Broken())
	s.Close()
}

// TestHeadsOverTheLimitAreCounted has a request and a response that are.
func TestHeadsOverTheLimitAreCounted(t *testing.T) {
	var ours, theirs atomic.Int64
	fields := &http2.Fields{}
	fields.Add("x-long", strings.Repeat("a", 500))
	address := listen(t, http2.Options{MaxHeaderBytes: 400, OnTooLarge: func() { theirs.Add(1) }}, handlerFunc(func(s *http2.Stream) {
		_ = s.WriteHead(200, fields, true)
	}))
	client := connect(t, address, http2.Options{MaxHeaderBytes: 400, OnTooLarge: func() { ours.Add(1) }})
	for _, more := range []*http2.Fields{{}, fields} {
		s, err := client.Open(request("GET", "/"), more, true)
		require.NoError(t, err)
		require.Error(t, s.ReadHead(&http2.Head{}))
		s.Close()
	}
	require.EqualValues(t, 1, ours.Load())
	require.EqualValues(t, 1, theirs.Load())
}

// TestTheTrafficOfAStreamIsCounted has a request and a response with trailers, whose
// heads take more than one frame, between streams of which nothing counts.
func TestTheTrafficOfAStreamIsCounted(t *testing.T) {
	type counts struct{ received, sent http2.Traffic }
	fields, trailers := &http2.Fields{}, &http2.Fields{}
	fields.Add("x-long", strings.Repeat("~", 20_000))
	trailers.Add("x-end", "1")
	const size = 100_000
	served := make(chan counts, 3)
	address := listen(t, http2.Options{StreamWindow: size / 2}, handlerFunc(func(s *http2.Stream) {
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		_ = s.WriteHead(103, nil, false)
		_ = s.WriteHead(200, fields, false)
		_ = s.WriteData(make([]byte, 10), false)
		_ = s.WriteTrailers(trailers)
		received, sent := s.Traffic()
		served <- counts{received, sent}
	}))
	client := connect(t, address, http2.Options{})
	for range 3 {
		s, err := client.Open(request("POST", "/path"), fields, false)
		require.NoError(t, err)
		require.NoError(t, s.WriteData(make([]byte, size), false))
		require.NoError(t, s.WriteTrailers(trailers))
		require.NoError(t, s.ReadHead(&http2.Head{}))
		require.NoError(t, s.ReadHead(&http2.Head{}))
		for err == nil {
			_, err = s.Next()
		}
		require.ErrorIs(t, err, io.EOF)
		received, sent := s.Traffic()
		require.Equal(t, counts{sent, received}, <-served, "each side has what the other one sent")
		s.Close()

		const frame = 9 // bytes before the payload of one
		require.Greater(t, sent.Headers, uint64(20_000+3*frame), "a head of two frames, and trailers")
		require.EqualValues(t, len(":methodPOST:schemehttp:authoritya:path/pathx-longx-end1")+20_000, sent.Decompressed)
		data := sent.Wire - sent.Headers - size
		require.Zero(t, data%frame)
		require.GreaterOrEqual(t, data, uint64(size/(16<<10)*frame))
		require.EqualValues(t, len(":status103:status200x-longx-end1")+20_000, received.Decompressed)
		credit := received.Wire - received.Headers - 10 - frame
		require.Zero(t, credit%(frame+4))
		require.Positive(t, credit)
	}
}

// TestFinishBeforeServe asks a connection to end that nobody serves yet: the
// client gets SETTINGS first and a GOAWAY behind them.
func TestFinishBeforeServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		defer server.Close()
		conn := server.Conn(far, handlerFunc(func(*http2.Stream) {}))
		conn.Finish()
		p := newPeer(t, near)
		got := p.got()
		require.Len(t, got, 3)
		require.Contains(t, got[0], "SETTINGS")
		require.Equal(t, "GOAWAY 0 NO_ERROR", got[2])
		require.ErrorIs(t, conn.Serve(nil), http2.ErrClosed)
	})
}
