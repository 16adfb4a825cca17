package http2_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// plain answers with 128 bytes; its memory is used again.
type plain struct {
	fields http2.Fields
	heads  sync.Pool
}

var body128 = make([]byte, 128)

func newPlain() *plain {
	p := &plain{heads: sync.Pool{New: func() any { return new(http2.Head) }}}
	p.fields.Add("content-type", "text/plain")
	p.fields.Add("content-length", "128")
	p.fields.Add("server", "test")
	return p
}

func (p *plain) ServeStream(s *http2.Stream) {
	head := p.heads.Get().(*http2.Head)
	defer p.heads.Put(head)
	if s.ReadHead(head) != nil {
		return
	}
	_ = s.WriteHead(200, &p.fields, false)
	_ = s.WriteData(body128, true)
}

// caller is one who asks again and again.
type caller struct {
	client  *http2.Client
	request *http2.Request
	fields  http2.Fields
	head    http2.Head
}

func newCaller(client *http2.Client) *caller {
	c := &caller{client: client, request: request("GET", "/path")}
	c.fields.Add("user-agent", "test/1.0")
	c.fields.Add("accept", "*/*")
	c.fields.Add("x-request-id", "6f1d3a2e-4d6c-4f4b-9d53-0a2f9be0a4f1")
	return c
}

func (c *caller) ask() error {
	s, err := c.client.Open(c.request, &c.fields, true)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.ReadHead(&c.head); err != nil {
		return err
	}
	for {
		if _, err := s.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// TestARequestAllocatesNothing counts both sides at once.
func TestARequestAllocatesNothing(t *testing.T) {
	c := newCaller(connect(t, listen(t, http2.Options{}, newPlain()), http2.Options{}))
	for range 10 {
		require.NoError(t, c.ask())
	}
	servicetest.Allocations(t, 1, func() {
		if err := c.ask(); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	for _, c := range []struct {
		name    string
		callers int
	}{{"1 stream", 1}, {"100 streams", 100}} {
		b.Run(c.name, func(b *testing.B) {
			client := connect(b, listen(b, http2.Options{}, newPlain()), http2.Options{})
			b.ReportAllocs()
			var group sync.WaitGroup
			turns := make(chan struct{}, c.callers)
			for range c.callers {
				caller := newCaller(client)
				group.Go(func() {
					for range turns {
						if err := caller.ask(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			before := cpuTime(b)
			for b.Loop() {
				turns <- struct{}{}
			}
			close(turns)
			group.Wait()
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what the process has used, which tells more than the time that
// passes where others work too.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkRequestByNetHTTP is the same between net/http's sides.
func BenchmarkRequestByNetHTTP(b *testing.B) {
	for _, c := range []struct {
		name    string
		callers int
	}{{"1 stream", 1}, {"100 streams", 100}} {
		b.Run(c.name, func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a benchmark's
				w.Header().Set("content-length", "128")
				_, _ = w.Write(body128)
			})}
			server.Protocols.SetUnencryptedHTTP2(true)
			// Ends with Close.
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetUnencryptedHTTP2(true)
			defer transport.CloseIdleConnections()
			b.ReportAllocs()
			var group sync.WaitGroup
			turns := make(chan struct{}, c.callers)
			for range c.callers {
				group.Go(func() {
					for range turns {
						r, _ := http.NewRequest("GET", "http://"+listener.Addr().String()+"/path", nil)
						response, err := transport.RoundTrip(r)
						if err != nil {
							b.Error(err)
							continue
						}
						_, _ = io.Copy(io.Discard, response.Body)
						response.Body.Close()
					}
				})
			}
			before := cpuTime(b)
			for b.Loop() {
				turns <- struct{}{}
			}
			close(turns)
			group.Wait()
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func BenchmarkBody(b *testing.B) {
	client := connect(b, listen(b, http2.Options{}, handlerFunc(func(s *http2.Stream) {
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		_ = s.WriteHead(200, nil, true)
	})), http2.Options{})
	body := make([]byte, 1<<20)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := client.Open(request("POST", "/"), nil, false)
		require.NoError(b, err)
		require.NoError(b, s.WriteData(body, true))
		require.NoError(b, s.ReadHead(&http2.Head{}))
		s.Close()
	}
}

// idleBytes is what one side of a connection with one idle stream costs in heap
// and stacks, beside its socket. The other side is a socket and nothing else.
func idleBytes(t testing.TB, side int) int {
	const connections = 300
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var sides, others []net.Conn
	for range connections {
		a, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		b, err := listener.Accept()
		require.NoError(t, err)
		sides, others = append(sides, a), append(others, b)
	}
	const path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	var fields http2.Fields
	fields.Add("content-type", "application/grpc")
	fields.Add("te", "trailers")
	server := http2.NewServer(http2.Options{})
	options := http2.NewClientOptions(http2.Options{})
	waiting := make(chan bool, connections)
	serving := handlerFunc(func(s *http2.Stream) {
		_ = s.WriteHead(200, &fields, false)
		_ = s.Flush()
		if side == aServerThatParks && !s.Ready() {
			s.Park(nil)
			waiting <- true
			return
		}
		waiting <- true
		_, _ = s.Next()
	})
	var ended sync.WaitGroup
	var streams []*http2.Stream
	var clients []*http2.Client
	before := inUse()
	for i, socket := range sides {
		if side != aClient {
			conn := server.Conn(socket, serving)
			// Ends with the connection.
			ended.Go(func() { _ = conn.Serve(nil) })
			_, err := io.WriteString(others[i], preface+settings()+
				headers(whole, 1, post(path)+"content-type: application/grpc\nte: trailers\n"))
			require.NoError(t, err)
			<-waiting
			continue
		}
		c := http2.NewClient(socket, options)
		clients = append(clients, c)
		s, err := c.Open(request("POST", path), &fields, false)
		require.NoError(t, err)
		_, err = io.WriteString(others[i], settings()+headers(whole, 1, ":status: 200\ncontent-type: application/grpc\n"))
		require.NoError(t, err)
		require.NoError(t, s.ReadHead(&http2.Head{}))
		streams = append(streams, s)
	}
	after := inUse()
	for i := range sides {
		sides[i].Close()
		others[i].Close()
	}
	for _, s := range streams {
		s.Close()
	}
	for _, c := range clients {
		_ = c.Close()
	}
	ended.Wait()
	server.Close()
	return (after - before) / connections
}

// The sides that idleBytes measures.
const (
	aClient = iota
	aServer
	aServerThatParks
)

// inUse is the memory of heap and stacks.
func inUse() int {
	for range 3 { // what pools hold goes
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// TestAllocatedByAnIdleConnection wants an idle connection with an open stream
// to cost less than 8 KB, the stack of the goroutine that reads included. A
// server's has a second one, of its handler, unless that parks the stream.
func TestAllocatedByAnIdleConnection(t *testing.T) {
	client, server, parked := idleBytes(t, aClient), idleBytes(t, aServer), idleBytes(t, aServerThatParks)
	t.Logf("a client's takes %d bytes, a server's %d with a handler that waits and %d without", client, server, parked)
	if servicetest.AllocationsCount(t) {
		require.Less(t, client, 8<<10)
		require.Less(t, server, 12<<10)
		require.Less(t, parked, 8<<10)
	}
}

func BenchmarkIdleConnection(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(idleBytes(b, aClient)), "B/client")
		b.ReportMetric(float64(idleBytes(b, aServer)), "B/server")
		b.ReportMetric(float64(idleBytes(b, aServerThatParks)), "B/parked")
	}
}
