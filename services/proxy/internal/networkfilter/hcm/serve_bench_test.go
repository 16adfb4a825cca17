package hcm_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

var benchmarkRequest = []byte("GET /path?query=1 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
	"Accept-Encoding: gzip\r\nX-One: 1\r\nX-Two: 2\r\nCookie: a=b; c=d\r\n\r\n")

var benchmarkResponse = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n" +
	"01234567890123456789012345678901234567890123456789")

// cannedUpstream answers every request, which must come whole in one read.
func cannedUpstream(t testing.TB) string { return cannedUpstreamOf(t, benchmarkResponse) }

func cannedUpstreamOf(t testing.TB, response []byte) string {
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) { // ends with the connection
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					if _, err := conn.Write(response); err != nil {
						return
					}
				}
			}(conn)
		}
	}()
	return l.Addr().String()
}

// exchanger returns a function that makes one request on a kept connection.
func exchanger(t testing.TB) func() { return exchangerOf(t, config{}) }

func exchangerOf(t testing.TB, c config) func() { return exchangerWith(t, cannedUpstream(t), 50, c) }

// exchangerWith is for an upstream that answers with so many bytes.
func exchangerWith(t testing.TB, upstream string, length int, c config) func() {
	p := start(t, upstream, c)
	conn, err := net.Dial("tcp", p.address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	r := bufio.NewReader(conn)
	return func() {
		if _, err := conn.Write(benchmarkRequest); err != nil {
			t.Fatal(err)
		}
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				t.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(length); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkServe is one small GET over kept connections, with client, proxy
// and upstream in this process.
func BenchmarkServe(b *testing.B) {
	exchange := exchanger(b)
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}

// longExchanger is exchanger for answers of 64 kB.
func longExchanger(t testing.TB) func() {
	const length = 64 << 10
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, strings.Repeat("x", length))
	return exchangerWith(t, cannedUpstreamOf(t, response), length, config{})
}

// BenchmarkServeLong is BenchmarkServe with an answer of 64 kB.
func BenchmarkServeLong(b *testing.B) {
	exchange := longExchanger(b)
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}

func TestLongExchangeAllocatesNothing(t *testing.T) {
	exchange := longExchanger(t)
	for range 10 {
		exchange()
	}
	servicetest.Allocations(t, 0, exchange)
}

func TestPlainExchangeAllocatesNothing(t *testing.T) {
	exchange := exchanger(t)
	for range 10 {
		exchange()
	}
	servicetest.Allocations(t, 0, exchange)
}

// cannedHTTP2 answers every request over HTTP/2.
type cannedHTTP2 struct{ fields *http2.Fields }

func (c cannedHTTP2) ServeStream(s *http2.Stream) {
	if s.WriteHead(200, c.fields, false) == nil {
		_ = s.WriteData(benchmarkResponse[len(benchmarkResponse)-50:], true)
	}
}

// cannedUpstreamHTTP2 is cannedUpstream over HTTP/2.
func cannedUpstreamHTTP2(t testing.TB) string {
	l := listen(t)
	server := http2.NewServer(http2.Options{})
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := server.Conn(conn, cannedHTTP2{fieldList("content-type: text/plain", "content-length: 50", "date: Mon, 23 Nov 2026 00:00:00 GMT")})
			serving.Go(func() { _ = c.Serve(nil) }) // ends with the pool
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
		server.Close()
	})
	return l.Addr().String()
}

// exchangerHTTP2 is exchanger with a client of HTTP/2.
func exchangerHTTP2(t testing.TB, upstream string, c config) func() {
	p := start(t, upstream, c)
	client := p.dialHTTP2()
	request := &http2.Request{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("example.com"), Path: []byte("/path?query=1")}
	fields := fieldList("user-agent: bench/1.0", "accept: */*", "accept-encoding: gzip", "x-one: 1", "x-two: 2", "cookie: a=b; c=d")
	var head http2.Head
	return func() {
		s, err := client.Open(request, fields, true)
		if err == nil {
			err = s.ReadHead(&head)
		}
		n := 0
		for err == nil {
			var chunk []byte
			chunk, err = s.Next()
			n += len(chunk)
		}
		if n != 50 || !errors.Is(err, io.EOF) {
			t.Fatal(n, err)
		}
		s.Close()
	}
}

// BenchmarkServeHTTP2 is BenchmarkServe with a client of HTTP/2.
func BenchmarkServeHTTP2(b *testing.B) {
	exchange := exchangerHTTP2(b, cannedUpstream(b), config{})
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}

// BenchmarkServeHTTP2ToHTTP2 is the same with an upstream of HTTP/2 too.
func BenchmarkServeHTTP2ToHTTP2(b *testing.B) {
	exchange := exchangerHTTP2(b, cannedUpstreamHTTP2(b), config{version: speaksHTTP2})
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}

func TestPlainHTTP2ExchangeAllocatesNothing(t *testing.T) {
	for _, exchange := range []func(){
		exchangerHTTP2(t, cannedUpstream(t), config{}),
		exchangerHTTP2(t, cannedUpstreamHTTP2(t), config{version: speaksHTTP2}),
	} {
		for range 10 {
			exchange()
		}
		servicetest.Allocations(t, 0, exchange)
	}
}
