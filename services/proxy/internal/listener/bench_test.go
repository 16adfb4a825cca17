package listener_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// answerer is a network filter that reads once, answers, and waits for the client's end.
type answerer struct{ conn net.Conn }

func (answerer) ConfigType() protoreflect.FullName { return "google.protobuf.Empty" }
func (answerer) Fields() strict.Fields             { return nil }
func (a answerer) Parse(proto.Message, strict.Path, *strict.Report) networkfilter.Filter {
	return a
}
func (answerer) NewConnection(conn net.Conn) networkfilter.Connection { return &answerer{conn} }
func (*answerer) Drain()                                              {}
func (a *answerer) Finish()                                           { _ = a.conn.Close() }
func (a *answerer) Cut()                                              { _ = a.conn.Close() }
func (a *answerer) Serve(context.Context) {
	buffer := make([]byte, 64)
	_, _ = a.conn.Read(buffer)
	_, _ = io.WriteString(a.conn, "hello")
	_, _ = a.conn.Read(buffer)
	_ = a.conn.Close()
}

// BenchmarkAccept is one connection from the client's connect to its end, which listener
// filters look at or not.
func BenchmarkAccept(b *testing.B) {
	for name, filters := range map[string]string{"unseen": "", "inspected": look("")} {
		b.Run(name, func(b *testing.B) { benchmarkAccept(b, filters) })
	}
}

func benchmarkAccept(b *testing.B, filters string) {
	message := &listenerv3.Listener{}
	require.NoError(b, protojson.Unmarshal([]byte(`{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
		"listener_filters": [`+filters+`], `+chain+`}`), message))
	config := listener.Parse(message, "", listener.Filters{
		Listener: []listenerfilter.Factory{&lookers{}}, Network: []networkfilter.Factory{answerer{}},
	}, &strict.Report{})
	registry := stats.NewRegistry()
	l, err := listener.Open(config, registry, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	listener.Place(config, registry)
	served := make(chan error)
	go func() { served <- l.Serve() }() // ends with Stop
	address, greeting := l.Addr().String(), make([]byte, 5)
	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", address)
		require.NoError(b, err)
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		require.NoError(b, err)
		_, err = io.ReadFull(conn, greeting)
		require.NoError(b, err)
		require.NoError(b, conn.(*net.TCPConn).SetLinger(0)) // else ports run out
		require.NoError(b, conn.Close())
	}
	require.NoError(b, l.Stop(b.Context()))
	require.NoError(b, <-served)
}
