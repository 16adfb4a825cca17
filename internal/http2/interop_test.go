package http2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// handlerFunc is a Handler that is a function.
type handlerFunc func(s *http2.Stream)

func (f handlerFunc) ServeStream(s *http2.Stream) { f(s) }

// listen serves connections until the test ends, and returns the address.
func listen(t testing.TB, options http2.Options, handler http2.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := http2.NewServer(options)
	var serving sync.WaitGroup
	var mu sync.Mutex
	var conns []*http2.Conn
	// Ends with the listener; the clean-up waits for it.
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c := server.Conn(conn, handler)
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			// Ends with the connection; the clean-up waits for it.
			serving.Go(func() { _ = c.Serve(nil) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		serving.Wait()
		server.Close()
	})
	return listener.Addr().String()
}

// connect is a client of an address until the test ends.
func connect(t testing.TB, address string, options http2.Options) *http2.Client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	client := http2.NewClient(conn, http2.NewClientOptions(options))
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// echo answers with the request's body and trailers as they come, behind an
// interim response.
func echo(s *http2.Stream) {
	var head http2.Head
	if s.ReadHead(&head) != nil {
		return
	}
	_ = s.WriteHead(103, &head.Fields, false)
	var fields http2.Fields
	fields.Add("method", string(head.Method))
	fields.Add("path", string(head.Path))
	if s.WriteHead(200, &fields, false) != nil {
		return
	}
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || s.WriteData(chunk, false) != nil {
			return
		}
		if !s.Ready() && s.Flush() != nil {
			return
		}
	}
	var trailers http2.Fields
	if s.ReadTrailers(&trailers) {
		_ = s.WriteTrailers(&trailers)
		return
	}
	_ = s.WriteData(nil, true)
}

// pattern is a body whose bytes tell where they belong.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>10) ^ byte(i)
	}
	return b
}

// exchange sends a body by one goroutine while another reads the answer.
func exchange(c *http2.Client, path string, body []byte, trailer string) (string, error) {
	var fields http2.Fields
	fields.Add("trailer", "x-trailer") // net/http wants to be told
	s, err := c.Open(request("POST", path), &fields, false)
	if err != nil {
		return "", err
	}
	defer s.Close()
	sent := make(chan error, 1)
	// Ends with the body, or the stream.
	go func() {
		err := s.WriteData(body, trailer == "")
		if err == nil && trailer != "" {
			var trailers http2.Fields
			trailers.Add("x-trailer", trailer)
			err = s.WriteTrailers(&trailers)
		}
		sent <- err
	}()
	var got bytes.Buffer
	var head http2.Head
	for head.Status < 200 && err == nil {
		err = s.ReadHead(&head)
	}
	for err == nil {
		var chunk []byte
		chunk, err = s.Next()
		got.Write(chunk)
	}
	if !errors.Is(err, io.EOF) {
		s.Interrupt(err)
		<-sent
		return "", err
	}
	if err := <-sent; err != nil {
		return "", err
	}
	if !bytes.Equal(got.Bytes(), body) {
		return "", fmt.Errorf("%d bytes came back for %d, or others", got.Len(), len(body))
	}
	var trailers http2.Fields
	s.ReadTrailers(&trailers)
	value, _ := trailers.Get("x-trailer")
	return fmt.Sprint(head.Status, " ", string(value)), nil
}

// pipes serves over connections that are no sockets, with small windows.
func pipes(t *testing.T, options http2.Options) *http2.Client {
	near, far := net.Pipe()
	server := http2.NewServer(options)
	conn := server.Conn(far, handlerFunc(echo))
	ended := make(chan error, 1)
	// Ends with the connection.
	go func() { ended <- conn.Serve(nil) }()
	client := http2.NewClient(near, http2.NewClientOptions(options))
	t.Cleanup(func() {
		_ = client.Close()
		<-ended
		server.Close()
	})
	return client
}

func TestBothSides(t *testing.T) {
	small := http2.Options{StreamWindow: 5000, ConnectionWindow: 70000}
	large := http2.Options{MaxFrameSize: 1 << 20}
	for _, c := range []struct {
		name    string
		connect func(t *testing.T) *http2.Client
	}{
		{"sockets", func(t *testing.T) *http2.Client {
			return connect(t, listen(t, http2.Options{}, handlerFunc(echo)), http2.Options{})
		}},
		{"sockets, small windows", func(t *testing.T) *http2.Client {
			return connect(t, listen(t, small, handlerFunc(echo)), small)
		}},
		{"sockets, large frames", func(t *testing.T) *http2.Client {
			return connect(t, listen(t, large, handlerFunc(echo)), large)
		}},
		{"pipes, small windows", func(t *testing.T) *http2.Client { return pipes(t, small) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := c.connect(t)
			for _, size := range []int{1, 100, 16384, 16385, 3 << 20} {
				got, err := exchange(client, "/", pattern(size), "yes")
				require.NoError(t, err, size)
				require.Equal(t, "200 yes", got)
			}
			var group sync.WaitGroup
			failures := make(chan error, 100)
			for i := range 100 {
				group.Go(func() {
					if _, err := exchange(client, fmt.Sprint("/", i), pattern(10_000+i), ""); err != nil {
						failures <- err
					}
				})
			}
			group.Wait()
			close(failures)
			require.NoError(t, <-failures)
			servicetest.Eventually(t, "no stream is open", func() bool { n, _ := client.Streams(); return n == 0 })
		})
	}
}

// standardClient is net/http's, which is x/net's, over HTTP/2 without TLS.
func standardClient(t *testing.T) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestServerOfXNetsClient(t *testing.T) {
	address := listen(t, http2.Options{}, handlerFunc(echo))
	client := standardClient(t)
	ask := func(size int) error {
		body := pattern(size)
		var interim int
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				if header.Get("X-Asked") == "yes" {
					interim = code
				}
				return nil
			},
		})
		r, err := http.NewRequestWithContext(ctx, "POST", "http://"+address+"/path", struct{ io.Reader }{bytes.NewReader(body)})
		if err != nil {
			return err
		}
		r.Header.Set("x-asked", "yes")
		r.Header.Set("cookie", "a=b; c=d")
		r.Trailer = http.Header{"X-Trailer": {"t"}}
		response, err := client.Do(r)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return err
		case !bytes.Equal(body, got):
			return fmt.Errorf("%d bytes came back for %d, or others", len(got), len(body))
		case response.ProtoMajor != 2 || response.Header.Get("path") != "/path" || interim != 103 || response.Trailer.Get("x-trailer") != "t":
			return fmt.Errorf("got %v, interim %d", response, interim)
		}
		return nil
	}
	for _, size := range []int{1, 20_000, 3 << 20} {
		require.NoError(t, ask(size), size)
	}
	var group sync.WaitGroup
	failures := make(chan error, 200)
	for i := range 200 {
		group.Go(func() { failures <- ask(1000 * (i % 10)) })
	}
	group.Wait()
	for range 200 {
		require.NoError(t, <-failures)
	}
}

func TestXNetsClientCancels(t *testing.T) {
	ended := make(chan error, 1)
	address := listen(t, http2.Options{}, handlerFunc(func(s *http2.Stream) {
		s.OnReset(func(err error) { ended <- err })
		_ = s.WriteHead(200, nil, false)
		_ = s.Flush()
		_, err := s.Next()
		if err == nil {
			_, err = s.Next()
		}
		ended <- err
	}))
	ctx, cancel := context.WithCancel(t.Context())
	body, write := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+address, body)
	require.NoError(t, err)
	response, err := standardClient(t).Do(r)
	require.NoError(t, err)
	_, err = write.Write([]byte("a"))
	require.NoError(t, err)
	cancel()
	response.Body.Close()
	for range 2 {
		require.Equal(t, &http2.StreamError{ID: 1, Code: http2.Cancel, Remote: true}, <-ended)
	}
}

// standardServer is net/http's, over HTTP/2 without TLS.
func standardServer(t *testing.T, handler http.HandlerFunc) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	server.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan error, 1)
	// Ends with the server.
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	return listener.Addr().String()
}

func TestClientOfXNetsServer(t *testing.T) {
	address := standardServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-interim", "yes")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("trailer", "x-trailer")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 10_000)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("x-trailer", r.Trailer.Get("x-trailer"))
	})
	client := connect(t, address, http2.Options{})
	for _, size := range []int{1, 20_000, 3 << 20} {
		got, err := exchange(client, "/", pattern(size), "yes")
		require.NoError(t, err, size)
		require.Equal(t, "200 yes", got)
	}
	var group sync.WaitGroup
	failures := make(chan error, 100)
	for i := range 100 {
		group.Go(func() {
			_, err := exchange(client, "/", pattern(1000*(i%10+1)), "x")
			failures <- err
		})
	}
	group.Wait()
	for range 100 {
		require.NoError(t, <-failures)
	}
}

func TestXNetsServerAnswersEarlyAndShutsDown(t *testing.T) {
	address := standardServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "enough", http.StatusRequestEntityTooLarge)
	})
	client := connect(t, address, http2.Options{})
	s, err := client.Open(request("POST", "/"), nil, false)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.WriteData([]byte("a"), false))
	var head http2.Head
	require.NoError(t, s.ReadHead(&head))
	require.Equal(t, 413, head.Status)
	var body []byte
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		body = append(body, chunk...)
	}
	require.Equal(t, "enough\n", string(body))
	servicetest.Eventually(t, "the server has reset the request", func() bool { return s.WriteData([]byte("a"), false) != nil })
	var reset *http2.StreamError
	require.ErrorAs(t, s.WriteData([]byte("a"), false), &reset)
	require.Equal(t, http2.NoError, reset.Code)
}

// TestAReaderThatStopsBoundsMemory counts what a writer gets rid of.
func TestAReaderThatStopsBoundsMemory(t *testing.T) {
	const window = 100_000
	options := http2.Options{StreamWindow: window, ConnectionWindow: 3*window + 1}
	goOn := make(chan struct{})
	address := listen(t, options, handlerFunc(func(s *http2.Stream) {
		<-goOn
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		_ = s.WriteHead(200, nil, true)
	}))
	client := connect(t, address, http2.Options{})
	ping, err := client.Open(request("GET", "/"), nil, true) // its SETTINGS are here once this is answered
	require.NoError(t, err)
	defer ping.Close()
	goOn <- struct{}{}
	require.NoError(t, ping.ReadHead(&http2.Head{}))

	var mu sync.Mutex
	total := 0
	var streams []*http2.Stream
	var writers sync.WaitGroup
	for range 5 {
		s, err := client.Open(request("POST", "/"), nil, false)
		require.NoError(t, err)
		streams = append(streams, s)
		writers.Go(func() {
			for range 2 * window / 1000 {
				if s.WriteData(make([]byte, 1000), false) != nil {
					return
				}
				mu.Lock()
				total += 1000
				mu.Unlock()
			}
			_ = s.WriteData(nil, true)
		})
	}
	servicetest.Eventually(t, "the connection's window is used up", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return total >= 3*window-5*1000
	})
	mu.Lock()
	require.LessOrEqual(t, total, 3*window+1, "no more than the connection's window")
	mu.Unlock()
	close(goOn)
	writers.Wait()
	for _, s := range streams {
		var head http2.Head
		require.NoError(t, s.ReadHead(&head))
		require.Equal(t, 200, head.Status)
		s.Close()
	}
	require.Equal(t, 5*2*window, total)
}

func TestOverTLS(t *testing.T) {
	authority := servicetest.NewAuthority(t)
	certificate, err := tls.X509KeyPair(authority.Issue(x509.Certificate{DNSNames: []string{"localhost"}}))
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	server := http2.NewServer(http2.Options{})
	ended := make(chan error, 1)
	// Ends with the connection.
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			ended <- err
			return
		}
		ended <- server.Conn(conn, handlerFunc(echo)).Serve(nil)
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: authority.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	client := http2.NewClient(conn, http2.NewClientOptions(http2.Options{}))
	got, err := exchange(client, "/", pattern(2<<20), "yes")
	require.NoError(t, err)
	require.Equal(t, "200 yes", got)
	require.NoError(t, client.Close())
	require.Error(t, <-ended, "the client has gone")
	listener.Close()
	server.Close()
}

func TestServerEndsWithItsConnection(t *testing.T) {
	started, ended := make(chan bool), make(chan error, 1)
	address := listen(t, http2.Options{}, handlerFunc(func(s *http2.Stream) {
		started <- true
		_, err := s.Next()
		ended <- err
	}))
	client := connect(t, address, http2.Options{})
	s, err := client.Open(request("POST", "/"), nil, false)
	require.NoError(t, err)
	require.NoError(t, s.Flush())
	<-started
	require.NoError(t, client.Close())
	err = <-ended
	require.True(t, errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET), err)
	require.ErrorIs(t, s.ReadHead(&http2.Head{}), http2.ErrClosed)
	_, err = s.Next()
	require.ErrorIs(t, err, http2.ErrClosed)
	s.Close()
}

func TestHeadsLongerThanAFrame(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 2500)
	address := listen(t, http2.Options{}, handlerFunc(func(s *http2.Stream) {
		var head http2.Head
		if s.ReadHead(&head) == nil {
			_ = s.WriteHead(200, &head.Fields, true)
		}
	}))
	client := connect(t, address, http2.Options{})
	var fields http2.Fields
	fields.Add("x-long", long)
	fields.Add("x-short", "a")
	s, err := client.Open(request("GET", "/"), &fields, true)
	require.NoError(t, err)
	defer s.Close()
	var head http2.Head
	require.NoError(t, s.ReadHead(&head))
	require.Equal(t, 2, head.Fields.Len())
	for i := range fields.Len() {
		wantName, wantValue := fields.At(i)
		name, value := head.Fields.At(i)
		require.Equal(t, string(wantName), string(name))
		require.Equal(t, string(wantValue), string(value))
	}

	r, err := http.NewRequest("GET", "http://"+address, nil)
	require.NoError(t, err)
	r.Header.Set("x-long", long)
	response, err := standardClient(t).Do(r)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, long, response.Header.Get("x-long"))
}
