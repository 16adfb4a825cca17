package http2

import (
	"errors"
	"fmt"
)

// ErrCode is an error code of RFC 9113 §7.
type ErrCode uint32

// The error codes.
const (
	NoError            ErrCode = 0x0
	ProtocolError      ErrCode = 0x1
	InternalError      ErrCode = 0x2
	FlowControlError   ErrCode = 0x3
	SettingsTimeout    ErrCode = 0x4
	StreamClosed       ErrCode = 0x5
	FrameSizeError     ErrCode = 0x6
	RefusedStream      ErrCode = 0x7
	Cancel             ErrCode = 0x8
	CompressionError   ErrCode = 0x9
	ConnectError       ErrCode = 0xa
	EnhanceYourCalm    ErrCode = 0xb
	InadequateSecurity ErrCode = 0xc
	HTTP11Required     ErrCode = 0xd
)

var errCodeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
	"CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String is the RFC's name of the code.
func (c ErrCode) String() string {
	if int(c) < len(errCodeNames) {
		return errCodeNames[c]
	}
	return fmt.Sprintf("error code %#x", uint32(c))
}

// ConnectionError is why a connection ended: it, or the peer by GOAWAY, found
// something that no stream survives (RFC 9113 §5.4.1).
type ConnectionError struct {
	Code ErrCode
	// Reason says what was wrong, in a few words; of a peer, its debug data.
	Reason string
	// Remote says that the peer found it.
	Remote bool
	// Flood is what the peer did too often, 0 if that is not the reason.
	Flood Flood
}

func (e *ConnectionError) Error() string {
	if e.Remote {
		return fmt.Sprintf("peer ended the connection with %v: %q", e.Code, e.Reason)
	}
	return fmt.Sprintf("connection error %v: %s", e.Code, e.Reason)
}

// StreamError is why a stream ended before its time (RFC 9113 §5.4.2).
type StreamError struct {
	ID   uint32
	Code ErrCode
	// Reason says what was wrong, in a few words; empty for a peer's reset.
	Reason string
	// Remote says that the peer reset the stream, or will not serve it. With
	// RefusedStream no part of the request was acted on: it is safe to try again.
	Remote bool
}

func (e *StreamError) Error() string {
	switch {
	case e.Remote && e.Reason == "":
		return fmt.Sprintf("stream %d: peer reset it with %v", e.ID, e.Code)
	case e.Remote:
		return fmt.Sprintf("stream %d: %v: %s", e.ID, e.Code, e.Reason)
	}
	return fmt.Sprintf("stream %d error %v: %s", e.ID, e.Code, e.Reason)
}

var (
	// ErrClosed is what calls return after Close of their connection or stream.
	ErrClosed = errors.New("http2: closed")
	// ErrUnavailable is what Open returns on a connection that takes no more
	// streams: it drains, or its identifiers are used up. Nothing was sent.
	ErrUnavailable = errors.New("http2: the connection takes no more streams")
	// ErrBusy is what Open returns while as many streams are open as the peer
	// allows. Nothing was sent.
	ErrBusy = errors.New("http2: as many streams are open as the peer allows")
	// ErrKeepalive is why a connection ended whose peer left a PING unanswered.
	ErrKeepalive = errors.New("http2: the peer left a PING unanswered")
)

func connectionError(code ErrCode, format string, args ...any) error {
	return &ConnectionError{Code: code, Reason: fmt.Sprintf(format, args...)}
}
