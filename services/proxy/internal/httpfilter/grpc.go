package httpfilter

import (
	"fmt"
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
		{"content-type", grpcType}, {"grpc-status", strconv.Itoa(status)}, {"grpc-message", text},
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
	headers := []Header{{"content-type", grpcType}, {"grpc-status", strconv.Itoa(GRPCStatus(reply.Status))}}
	if reply.Body != "" {
		headers = append(headers, Header{"grpc-message", percentEncoded(reply.Body)})
	}
	for _, h := range reply.Headers {
		if h.Name != "content-type" {
			headers = append(headers, h)
		}
	}
	return &Reply{Status: 200, Headers: headers}
}

// percentEncoded is a text as grpc-message has it (gRPC over HTTP/2, Status-Message).
func percentEncoded(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

const grpcType = "application/grpc"

// GRPCStatus is the status of gRPC that stands for one of HTTP
// (grpc/doc/http-grpc-status-mapping.md).
func GRPCStatus(http int) int {
	switch http {
	case 200:
		return 0
	case 400:
		return 13 // INTERNAL
	case 401:
		return 16 // UNAUTHENTICATED
	case 403:
		return 7 // PERMISSION_DENIED
	case 404:
		return 12 // UNIMPLEMENTED
	case 429, 502, 503, 504:
		return 14 // UNAVAILABLE
	}
	return 2 // UNKNOWN
}
