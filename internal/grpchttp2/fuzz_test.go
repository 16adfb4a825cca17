package grpchttp2_test

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/http2"
)

// FuzzRequest sends requests of all kinds, and wants each answered with a status of
// gRPC or reset, and the server to stop in good order.
func FuzzRequest(f *testing.F) {
	for _, seed := range []struct{ path, fields, body string }{
		{askPath, plain, message(0, value(3))},
		{talkPath, plain + "grpc-timeout: 5S\n", message(0, value(3)) + message(0, value(0))},
		{talkPath, plain + "grpc-encoding: gzip\na-bin: AAE=\n", message(1, zipped(value(50))) + "\x00\x00\x00"},
		{askPath, plain + "grpc-timeout: 1n\n", ""},
		{askPath, plain + "grpc-encoding: identity\n", message(1, zipped("x"))},
		{"/test.Calls/", "content-type: application/grpc+proto\n", "\x00\xff\xff\xff\xff"},
		{"/grpc.health.v1.Health/Check", "content-type: text/plain\na-bin: !,=\n", message(2, "")},
	} {
		f.Add(seed.path, seed.fields, []byte(seed.body))
	}
	server := serve(f, grpchttp2.Options{MaxMessage: 1000, HTTP2: http2.Options{StreamWindow: 500}}, handlers{})
	f.Fuzz(func(t *testing.T, path, lines string, body []byte) {
		conn, err := net.Dial("tcp", server.listener.Addr().String())
		require.NoError(t, err)
		client := http2.NewClient(conn, http2.NewClientOptions(http2.Options{}))
		defer client.Close()
		var fields http2.Fields
		for line := range strings.SplitSeq(lines, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				fields.Add(strings.ToLower(name), value)
			}
		}
		s, err := client.Open(post(path), &fields, false)
		require.NoError(t, err)
		defer s.Close()
		_ = s.WriteData(body, true) // the server may be done with it, or have refused it
		var head http2.Head
		if s.ReadHead(&head) != nil {
			return // HTTP/2 refused it
		}
		_, told := head.Fields.Get("grpc-status")
		for err == nil {
			_, err = s.Next()
		}
		var trailers http2.Fields
		if s.ReadTrailers(&trailers) {
			require.False(t, told, "a status twice")
			_, told = trailers.Get("grpc-status")
		}
		require.True(t, told, "no status")
	})
}
