package httpfilter_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// TestRepliesToGRPC has replies as a client of gRPC gets them: in headers alone.
func TestRepliesToGRPC(t *testing.T) {
	s := &stream.Stream{}
	s.Request.Method = []byte("POST")
	s.Request.Headers.Add("content-type", "application/grpc")
	for _, c := range []struct {
		name  string
		reply *httpfilter.Reply
		want  []string
	}{
		{"a status and a body", &httpfilter.Reply{Status: 503, Body: "50% off\n"}, []string{"content-type: application/grpc", "grpc-status: 14", "grpc-message: 50%25 off%0A"}},
		{"no body", &httpfilter.Reply{Status: 404}, []string{"content-type: application/grpc", "grpc-status: 12"}},
		{"one that is no failure", &httpfilter.Reply{Status: 200, Body: "k"}, []string{"content-type: application/grpc", "grpc-status: 2", "grpc-message: k"}},
		{"headers stay, but for the type", &httpfilter.Reply{Status: 429, Headers: []httpfilter.Header{{"content-type", "text/html"}, {"x-a", "1"}}},
			[]string{"content-type: application/grpc", "grpc-status: 14", "x-a: 1"}},
		{"one of gRPC already", httpfilter.GRPCReply(8, "no"), []string{"content-type: application/grpc", "grpc-status: 8", "grpc-message: no"}},
	} {
		c.reply.Fill(s)
		m := &s.Response
		var got []string
		for i := range m.Headers.Len() {
			name, value := m.Headers.At(i)
			got = append(got, string(name)+": "+string(value))
		}
		require.Equal(t, c.want, got, c.name)
		require.Equal(t, 200, m.Status)
		require.Nil(t, m.Body)
	}
}
