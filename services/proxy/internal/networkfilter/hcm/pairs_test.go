package hcm_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

const speaksHTTP2 = `"explicit_http_config": {"http2_protocol_options": {}}`

// protocols are one version of HTTP in net/http, without TLS.
func protocols(version int) *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(version == 1)
	p.SetUnencryptedHTTP2(version == 2)
	return p
}

// answerer is a server of net/http that does what the path says.
type answerer struct {
	release chan bool
	written atomic.Int64 // bytes of /endless
	stuck   atomic.Int64 // requests of /stuck
	ended   atomic.Int64 // requests that their client gave up
}

func (a *answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if r.Context().Err() != nil {
			a.ended.Add(1)
		}
	}()
	switch r.URL.Path {
	case "/echo":
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		n, _ := w.Write(body)
		_ = http.NewResponseController(w).Flush() // else a length is told, which leaves HTTP/1 no room for trailers
		w.Header().Set("X-Sum", fmt.Sprintf("%d of %s%s", n, r.Proto, r.Trailer.Get("X-Also")))
	case "/status":
		status, _ := strconv.Atoi(r.URL.RawQuery)
		w.WriteHeader(status)
	case "/early":
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case "/cut":
		w.Header().Set("Content-Length", "1000000")
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/endless":
		chunk := make([]byte, 32<<10)
		for a.written.Load() < 1<<30 {
			n, err := w.Write(chunk)
			a.written.Add(int64(n))
			if err != nil {
				return
			}
		}
	case "/stuck":
		_, _ = io.Copy(io.Discard, r.Body)
		a.stuck.Add(1)
		<-r.Context().Done()
	case "/unread":
		select {
		case <-r.Context().Done():
		case <-a.release: // HTTP/1 does not see that its client left before it has read all
		}
	}
}

// pair is a client of one version in front of a proxy, and a server of one behind.
type pair struct {
	*proxy
	client *http.Client
	server *answerer
}

func newPair(t *testing.T, client, server int) *pair {
	a := &answerer{release: make(chan bool)}
	s := httptest.NewUnstartedServer(a)
	s.Config.Protocols = protocols(server)
	s.Start()
	t.Cleanup(s.Close)
	c := config{
		fields: `"http_protocol_options": {"enable_trailers": true},`, http1: `"enable_trailers": true`,
		route: `, "timeout": "0s"`,
	}
	if server == 2 {
		c.version = speaksHTTP2
	}
	p := start(t, s.Listener.Addr().String(), c)
	transport := &http.Transport{Protocols: protocols(client), MaxIdleConnsPerHost: 10}
	t.Cleanup(transport.CloseIdleConnections)
	return &pair{p, &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, a}
}

func (p *pair) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.address+path, body)
	require.NoError(p.t, err)
	return p.client.Do(r)
}

func eachPair(t *testing.T, test func(t *testing.T, p *pair)) {
	for _, client := range []int{1, 2} {
		for _, server := range []int{1, 2} {
			t.Run(fmt.Sprintf("HTTP %d to %d", client, server), func(t *testing.T) { test(t, newPair(t, client, server)) })
		}
	}
}

func TestPairsPassOnBodiesTrailersAndStatuses(t *testing.T) {
	eachPair(t, func(t *testing.T, p *pair) {
		for _, n := range []int{1, 1000, 3 << 20} { // less than a window, and more
			sent := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
			r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+p.address+"/echo", io.MultiReader(bytes.NewReader(sent))) // of no known length
			require.NoError(t, err)
			r.Trailer = http.Header{"X-Also": {"and-a-trailer"}}
			response, err := p.client.Do(r)
			require.NoError(t, err)
			got, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(sent, got), "%d bytes of %d", len(got), n)
			require.Equal(t, "weir", response.Header.Get("Server"))
			require.Contains(t, response.Trailer.Get("X-Sum"), fmt.Sprintf("%d of HTTP/", n))
			require.Contains(t, response.Trailer.Get("X-Sum"), "and-a-trailer")
		}
		for _, c := range []struct {
			method, path string
			status       int
			length       int64
		}{
			{"HEAD", "/echo", 200, -1}, {"GET", "/status?204", 204, 0}, {"GET", "/status?304", 304, -1}, {"POST", "/early", 413, 0},
			{"DELETE", "/status?500", 500, 0}, {"GET", "/status?302", 302, 0},
		} {
			response, err := p.do(t.Context(), c.method, c.path, nil)
			require.NoError(t, err, c)
			require.Equal(t, c.status, response.StatusCode, c)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Empty(t, body)
		}
	})
}

func TestPairsPassOnResets(t *testing.T) {
	eachPair(t, func(t *testing.T, p *pair) {
		response, err := p.do(t.Context(), "GET", "/cut", nil)
		if err == nil {
			_, err = io.ReadAll(response.Body)
		}
		if err == nil { // a reset may overtake the head
			require.Equal(t, 503, response.StatusCode)
		}

		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := p.do(ctx, "POST", "/stuck", strings.NewReader("x"))
			gone <- err
		}()
		servicetest.Eventually(t, "the request is there", func() bool { return p.server.stuck.Load() == 1 })
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		servicetest.Eventually(t, "the server hears that its client left", func() bool { return p.server.ended.Load() >= 1 })
		servicetest.Eventually(t, "nothing is left", func() bool {
			return p.stat("http.test.downstream_rq_active") == 0 && p.stat("cluster.up.upstream_rq_active") == 0
		})
	})
}

// TestPairsHoldASenderWhoseReaderStopped has a server send a GiB to a client that
// stops reading, and a client to a server that does.
func TestPairsHoldASenderWhoseReaderStopped(t *testing.T) {
	const most = 16 << 20
	stopped := func(t *testing.T, moved *atomic.Int64) {
		last, since := int64(-1), time.Now()
		servicetest.Eventually(t, "the sender stands still", func() bool {
			if n := moved.Load(); n != last {
				last, since = n, time.Now()
			}
			return last > 0 && time.Since(since) > 300*time.Millisecond
		})
		require.Less(t, last, int64(64<<20), "it stands still far from the end")
	}
	eachPair(t, func(t *testing.T, p *pair) {
		before := heapInUse()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		response, err := p.do(ctx, "GET", "/endless", nil)
		require.NoError(t, err)
		_, err = io.ReadFull(response.Body, make([]byte, 1000))
		require.NoError(t, err)
		stopped(t, &p.server.written)
		require.Less(t, heapInUse(), before+most)
		cancel()
		_ = response.Body.Close()

		before = heapInUse()
		body := &countingReader{}
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		gone := make(chan error, 1)
		go func() {
			_, err := p.do(ctx, "POST", "/unread", body)
			gone <- err
		}()
		stopped(t, &body.n)
		require.Less(t, heapInUse(), before+most)
		cancel()
		require.Error(t, <-gone)
		close(p.server.release)
		servicetest.Eventually(t, "nothing is left", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
	})
}

// countingReader has a GiB.
type countingReader struct{ n atomic.Int64 }

func (r *countingReader) Read(p []byte) (int, error) {
	if r.n.Load() >= 1<<30 {
		return 0, io.EOF
	}
	r.n.Add(int64(len(p)))
	return len(p), nil
}

func TestTheClientsVersionIsUsedWhereThatIsWanted(t *testing.T) {
	a := &answerer{release: make(chan bool)}
	s := httptest.NewUnstartedServer(a)
	s.Config.Protocols = protocols(1)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	p := start(t, s.Listener.Addr().String(), config{version: `"use_downstream_protocol_config": {"http_protocol_options": {"enable_trailers": true}, "http2_protocol_options": {}}`,
		fields: `"http_protocol_options": {"enable_trailers": true},`})
	for client, want := range []string{1: "3 of HTTP/1.1", 2: "3 of HTTP/2.0"} {
		if want == "" {
			continue
		}
		transport := &http.Transport{Protocols: protocols(client)}
		response, err := (&http.Client{Transport: transport}).Post("http://"+p.address+"/echo", "text/plain", strings.NewReader("abc"))
		require.NoError(t, err)
		_, err = io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, want, response.Trailer.Get("X-Sum"))
		transport.CloseIdleConnections()
	}
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_http1_total"))
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_http2_total"))
}

// TestUpstreamThatTakesNoBodyIsLate has an upstream take less of a body than there is, all of
// which the proxy has: it is the route's time then.
func TestUpstreamThatTakesNoBodyIsLate(t *testing.T) {
	a := &answerer{release: make(chan bool)}
	server := httptest.NewUnstartedServer(a)
	server.Config.Protocols = protocols(2)
	server.Config.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 1000}
	server.Start()
	t.Cleanup(server.Close)
	for _, c := range []struct {
		name    string
		version int // of the client
		body    io.Reader
		retry   string
	}{
		{"of HTTP/1 with a length", 1, bytes.NewReader(make([]byte, 1500)), ""},
		{"of HTTP/2 with a length", 2, bytes.NewReader(make([]byte, 1500)), ""},
		// Its end comes with its bytes; one that comes behind them is not heard of in time.
		{"of HTTP/2 without one", 2, iotest.DataErrReader(bytes.NewReader(make([]byte, 1500))), ""},
		{"that may be sent again", 1, bytes.NewReader(make([]byte, 1500)), `, "retry_policy": {"retry_on": "5xx", "per_try_timeout": "0.05s"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, server.Listener.Addr().String(), config{version: speaksHTTP2, route: `, "timeout": "0.2s"` + c.retry})
			transport := &http.Transport{Protocols: protocols(c.version)}
			t.Cleanup(transport.CloseIdleConnections)
			through := pair{proxy: p, client: &http.Client{Transport: transport}}
			status := func(method, path string, body io.Reader) int {
				response, err := through.do(t.Context(), method, path, body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				return response.StatusCode
			}
			require.Equal(t, 200, status(http.MethodGet, "/status?200", nil), "which brings the server's settings")
			require.Equal(t, 504, status(http.MethodPost, "/unread", c.body))
		})
	}
}
