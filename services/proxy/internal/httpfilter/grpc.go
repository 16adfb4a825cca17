package httpfilter

import (
	"strconv"

	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// IsGRPC says whether a request is one of gRPC, by its content-type.
func IsGRPC(r *message.Request) bool {
	value, _ := r.Headers.Get("content-type")
	return grpcwire.IsContentType(value)
}

// GRPCReply is a reply of gRPC that has a status, and a message of printable
// ASCII without %, alone.
func GRPCReply(status int, text string) *Reply {
	return &Reply{Status: 200, Headers: []Header{
		{"content-type", grpcwire.ContentType}, {"grpc-status", strconv.Itoa(status)}, {"grpc-message", text},
	}}
}

// grpc is the reply as a response of gRPC has it, in headers alone: its status as
// one of gRPC, its body as the message. One that has a status of gRPC already stays.
func (reply *Reply) grpc() *Reply {
	for _, h := range reply.Headers {
		if h.Name == "grpc-status" {
			return reply
		}
	}
	headers := []Header{{"content-type", grpcwire.ContentType}, {"grpc-status", strconv.FormatInt(grpcwire.OfHTTP(reply.Status), 10)}}
	if reply.Body != "" {
		headers = append(headers, Header{"grpc-message", grpcwire.Escape(reply.Body)})
	}
	for _, h := range reply.Headers {
		if h.Name != "content-type" {
			headers = append(headers, h)
		}
	}
	return &Reply{Status: 200, Headers: headers}
}
