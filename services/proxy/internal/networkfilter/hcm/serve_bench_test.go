package hcm_test

import (
	"bufio"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

var benchmarkRequest = []byte("GET /path?query=1 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
	"Accept-Encoding: gzip\r\nX-One: 1\r\nX-Two: 2\r\nCookie: a=b; c=d\r\n\r\n")

var benchmarkResponse = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n" +
	"01234567890123456789012345678901234567890123456789")

// cannedUpstream answers every request, which must come whole in one read.
func cannedUpstream(t testing.TB) string {
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
					if _, err := conn.Write(benchmarkResponse); err != nil {
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

func exchangerOf(t testing.TB, c config) func() {
	p := start(t, cannedUpstream(t), c)
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
		if _, err := r.Discard(50); err != nil {
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

func TestPlainExchangeAllocatesNothing(t *testing.T) {
	exchange := exchanger(t)
	for range 10 {
		exchange()
	}
	servicetest.Allocations(t, 0, exchange)
}
