package httpfilter

import (
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// IsGRPC says whether a request is one of gRPC, by its content-type.
func IsGRPC(r *message.Request) bool {
	value, _ := r.Headers.Get("content-type")
	rest, ok := strings.CutPrefix(string(value), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// GRPCReply is a reply of gRPC that has a status, and a message of printable
// ASCII without %, alone.
func GRPCReply(status int, text string) *Reply {
	return &Reply{Status: 200, Headers: []Header{
		{"content-type", "application/grpc"}, {"grpc-status", strconv.Itoa(status)}, {"grpc-message", text},
	}}
}
