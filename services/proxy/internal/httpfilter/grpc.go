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

// grpcWords are what a response of gRPC says of itself, in headers alone.
type grpcWords struct{ status, message string }

// grpc is the reply as a response of gRPC has it: what it says of its status, the one of
// gRPC that it has already or what its status stands for, with its body as the message,
// and the rest.
func (reply *Reply) grpc() (*Reply, grpcWords) {
	words := grpcWords{strconv.FormatInt(grpcwire.OfHTTP(reply.Status), 10), grpcwire.Escape(reply.Body)}
	rest := &Reply{Status: 200}
	for _, h := range reply.Headers {
		switch h.Name {
		case "content-type":
		case "grpc-status":
			words.status = h.Value
		case "grpc-message":
			words.message = h.Value
		default:
			rest.Headers = append(rest.Headers, h)
		}
	}
	return rest, words
}

// tell adds them to headers that the route has changed: a status that the route adds
// counts, and a HEAD gets no message, as in Envoy.
func (w grpcWords) tell(h *message.Headers, head bool) {
	h.Set("content-type", grpcwire.ContentType)
	if !h.Has("grpc-status") {
		h.Add("grpc-status", w.status)
	}
	if w.message != "" && !head {
		h.Set("grpc-message", w.message)
	}
}
