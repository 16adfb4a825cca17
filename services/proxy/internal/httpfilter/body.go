package httpfilter

import (
	"errors"
	"net"
	"os"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// BodyFailed makes the reply to a request whose body ended with err, which is not
// io.EOF, and notes why: the client broke the protocol, fell silent or left.
func BodyFailed(s *stream.Stream, err error) *Reply {
	f := &s.Facts
	protocol, malformed := errors.AsType[*message.ProtocolError](err)
	switch {
	case malformed:
		f.Details, f.Flags = protocol.ResponseCodeDetails, f.Flags|format.DownstreamProtocolError
		return &Reply{Status: protocol.Status, Body: protocol.Detail}
	case errors.Is(err, os.ErrDeadlineExceeded):
		if why := s.Expired(); why != nil {
			return Expired(s, why)
		}
		f.Details, f.Flags = "stream_idle_timeout", f.Flags|format.StreamIdleTimeout
		return &Reply{Status: 408, Body: "stream timeout"}
	case errors.Is(err, net.ErrClosed): // by the proxy itself, as the time for its end was up
		f.Details, f.Flags = "downstream_local_disconnect", f.Flags|format.DownstreamConnectionTermination
		return &Reply{Status: 400, Body: "the request's body ended early"}
	default:
		f.Details, f.Flags = "downstream_remote_disconnect", f.Flags|format.DownstreamConnectionTermination
		return &Reply{Status: 400, Body: "the request's body ended early"}
	}
}

// Expired makes the reply to a request whose stream is out of time, and notes why. If the
// client has left, it is one that goes nowhere.
func Expired(s *stream.Stream, why *stream.Expiry) *Reply {
	why.Tell(&s.Facts)
	if why.GRPCStatus != 0 && IsGRPC(&s.Request) {
		return GRPCReply(why.GRPCStatus, why.Text)
	}
	return &Reply{Status: why.Status, Body: why.Text}
}

// BodyTooLarge makes the reply to a request whose body is longer than a filter takes,
// in Envoy's words, and notes why.
func BodyTooLarge(s *stream.Stream) *Reply {
	s.Facts.Details = DetailsTooLarge
	return &Reply{Status: 413, Body: "Payload Too Large"}
}

// DetailsTooLarge is RESPONSE_CODE_DETAILS of such a reply.
const DetailsTooLarge = "request_payload_too_large"
