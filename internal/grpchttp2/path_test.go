package grpchttp2_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// TestWhatACallAllocates counts both sides, of which the client's costs nothing.
func TestWhatACallAllocates(t *testing.T) {
	c := serve(t, grpchttp2.Options{}, handlers{}).raw(t)
	var fields http2.Fields
	fields.Add("content-type", "application/grpc")
	body, r := []byte(message(0, value(10))), post(askPath)
	var head http2.Head
	one := func() {
		s, err := c.Open(r, &fields, false)
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.WriteData(body, true))
		require.NoError(t, s.ReadHead(&head))
		for err == nil {
			_, err = s.Next()
		}
		require.ErrorIs(t, err, io.EOF)
	}
	one()
	servicetest.Allocations(t, 40, one)
}

// TestWhatAMessageOfAStreamAllocates counts a message each way.
func TestWhatAMessageOfAStreamAllocates(t *testing.T) {
	c := serve(t, grpchttp2.Options{}, handlers{}).raw(t)
	s := c.open(post(talkPath), plain)
	defer s.Close()
	body := []byte(message(0, value(10)))
	one := func() {
		require.NoError(t, s.WriteData(body, false))
		for got := 0; got < len(body); {
			p, err := s.Next()
			require.NoError(t, err)
			got += len(p)
		}
	}
	require.NoError(t, s.WriteData(body, false))
	require.NoError(t, s.ReadHead(&http2.Head{}))
	for got := 0; got < len(body); {
		p, err := s.Next()
		require.NoError(t, err)
		got += len(p)
	}
	servicetest.Allocations(t, 12, one)
}

// servers are ours and grpc-go's, to compare.
var servers = map[string]func(t testing.TB, h handlers) (address string){
	"grpchttp2": func(t testing.TB, h handlers) string {
		return serve(t, grpchttp2.Options{HTTP2: http2.Options{StreamWindow: 64 << 10, ConnectionWindow: 64 << 10}}, h).listener.Addr().String()
	},
	"grpc-go": func(t testing.TB, h handlers) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := grpc.NewServer(grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(16<<10), grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10))
		server.RegisterService(described, &h)
		var serving sync.WaitGroup
		// Ends with the stop, which the cleanup waits for.
		serving.Go(func() { _ = server.Serve(listener) })
		t.Cleanup(func() { server.Stop(); serving.Wait() })
		return listener.Addr().String()
	},
}

// inUse is the memory of heap and stacks.
func inUse() int {
	for range 3 { // what pools hold goes
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// restBytes is what a connection with a stream, on which nothing goes on after a
// message each way, costs its server, whose handler waits or leaves the rest for
// later. The clients are sockets and nothing else.
func restBytes(t testing.TB, server string, later bool) int {
	const connections = 300
	received := make(chan bool)
	address := servers[server](t, handlers{echo, func(wire grpc.ServerStream) error {
		one := func() (bool, error) {
			m := &bytesValue{}
			err := wire.RecvMsg(m)
			if err == nil {
				err = wire.SendMsg(m)
			}
			if err == nil {
				received <- true
			}
			return err == nil, err
		}
		if later {
			call, _ := grpchttp2.CallOf(wire.Context())
			call.Later(one)
			return nil
		}
		for {
			if more, err := one(); !more {
				return err
			}
		}
	}})
	before := inUse()
	var sockets []net.Conn
	for range connections {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		sockets = append(sockets, conn)
		_, err = io.WriteString(conn, opening)
		require.NoError(t, err)
		<-received
	}
	after := inUse()
	for _, conn := range sockets {
		conn.Close()
	}
	return (after - before) / connections
}

// opening is what a client says that opens a stream and sends a message, as bytes
// of HTTP/2: the fields as literals.
var opening = func() string {
	frame := func(kind, flags byte, stream uint32, payload string) string {
		return string([]byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags, 0, 0, 0, byte(stream)}) + payload
	}
	field := func(name, value string) string {
		return "\x00" + string(rune(len(name))) + name + string(rune(len(value))) + value
	}
	fields := field(":method", "POST") + field(":scheme", "http") + field(":path", talkPath) + field(":authority", "localhost") +
		field("content-type", "application/grpc") + field("te", "trailers") + field("user-agent", "grpc-go/1.85.0")
	return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "") + frame(1, 4, 1, fields) + frame(0, 0, 1, message(0, value(10)))
}()

// TestAStreamAtRestTakesLittleMemory wants it to cost less than 15 KB on a
// connection of its own: the connection, a goroutine that reads and one that runs
// the handler; and less than 11 KB without that.
func TestAStreamAtRestTakesLittleMemory(t *testing.T) {
	for _, c := range []struct {
		name, server string
		later        bool
		most         int
	}{
		// Of what the first leaves behind, the others use again: each is exact alone.
		{"without a handler that waits", "grpchttp2", true, 11 << 10},
		{"with one", "grpchttp2", false, 15 << 10},
		{"with grpc-go, for comparison", "grpc-go", false, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) { // whose end waits for the server's
			bytes := restBytes(t, c.server, c.later)
			t.Logf("%d bytes", bytes)
			if servicetest.AllocationsCount(t) {
				require.Less(t, bytes, c.most)
			}
		})
	}
}

// cpuTime is what the process has used, clients included.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCall has grpc-go's client call, from 32 goroutines.
func BenchmarkCall(b *testing.B) {
	for _, name := range []string{"grpchttp2", "grpc-go"} {
		b.Run(name, func(b *testing.B) {
			c, err := grpc.NewClient(servers[name](b, handlers{echo, echoes}), grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(b, err)
			defer c.Close()
			b.ReportAllocs()
			before := cpuTime(b)
			b.SetParallelism(16)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := ask(context.Background(), c, 100); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
