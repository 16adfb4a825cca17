package httpfilter_test

import (
	"cmp"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// TestRepliesToGRPC has replies as a client of gRPC gets them: in headers alone.
func TestRepliesToGRPC(t *testing.T) {
	s := &stream.Stream{}
	s.Request.Path, s.Request.Authority = []byte("/"), []byte("h")
	s.Request.Headers.Add("content-type", "application/grpc")
	for _, c := range []struct {
		name   string
		reply  *httpfilter.Reply
		want   []string
		method string // POST if it is empty
		adds   string // a grpc-status that the route adds
	}{
		{"a status and a body", &httpfilter.Reply{Status: 503, Body: "50% off\n"}, []string{"content-type: application/grpc", "grpc-status: 14", "grpc-message: 50%25 off%0A"}, "", ""},
		{"a HEAD gets no message", &httpfilter.Reply{Status: 503, Body: "no"}, []string{"content-type: application/grpc", "grpc-status: 14"}, "HEAD", ""},
		{"nor one of gRPC already", httpfilter.GRPCReply(8, "no"), []string{"content-type: application/grpc", "grpc-status: 8"}, "HEAD", ""},
		{"the status that the route adds", &httpfilter.Reply{Status: 503, Body: "no"}, []string{"grpc-status: 9", "content-type: application/grpc", "grpc-message: no"}, "", "9"},
		{"no body", &httpfilter.Reply{Status: 404}, []string{"content-type: application/grpc", "grpc-status: 12"}, "", ""},
		{"one that is no failure", &httpfilter.Reply{Status: 200, Body: "k"}, []string{"content-type: application/grpc", "grpc-status: 2", "grpc-message: k"}, "", ""},
		{"headers stay, but for the type", &httpfilter.Reply{Status: 429, Headers: []httpfilter.Header{{"content-type", "text/html"}, {"x-a", "1"}}},
			[]string{"x-a: 1", "content-type: application/grpc", "grpc-status: 14"}, "", ""},
		{"one of gRPC already", httpfilter.GRPCReply(8, "no"), []string{"content-type: application/grpc", "grpc-status: 8", "grpc-message: no"}, "", ""},
	} {
		s.Request.Method, s.Route = []byte(cmp.Or(c.method, "POST")), nil
		if c.adds != "" {
			routeThatAdds(t, s, "grpc-status", c.adds, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
		}
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
