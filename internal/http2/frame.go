package http2

import "encoding/binary"

// The frame types of RFC 9113 §6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

// The flags of frames.
const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	frameHeaderLen   = 9
	defaultFrameSize = 1 << 14   // RFC 9113 §6.5.2; also the least
	maxFrameSize     = 1<<24 - 1 // the most
	maxStreamID      = 1<<31 - 1
	preface          = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// frame is a frame's header (RFC 9113 §4.1).
type frame struct {
	length int
	kind   uint8
	flags  uint8
	stream uint32
}

func (f frame) has(flag uint8) bool { return f.flags&flag != 0 }

// parseFrame reads the first nine bytes of b.
func parseFrame(b []byte) frame {
	_ = b[frameHeaderLen-1]
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3],
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID,
	}
}

// appendFrame appends a frame's header.
func appendFrame(b []byte, length int, kind, flags uint8, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func appendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

func appendReset(b []byte, stream uint32, code ErrCode) []byte {
	return appendUint32(appendFrame(b, 4, frameReset, 0, stream), uint32(code))
}

func appendWindowUpdate(b []byte, stream, increment uint32) []byte {
	return appendUint32(appendFrame(b, 4, frameWindowUpdate, 0, stream), increment)
}

func appendPing(b []byte, flags uint8, data [8]byte) []byte {
	return append(appendFrame(b, 8, framePing, flags, 0), data[:]...)
}

func appendGoAway(b []byte, last uint32, code ErrCode, reason string) []byte {
	b = appendFrame(b, 8+len(reason), frameGoAway, 0, 0)
	b = appendUint32(appendUint32(b, last), uint32(code))
	return append(b, reason...)
}

// unpad takes the padding off the payload of a DATA or HEADERS frame, and says
// whether there is not more of it than payload (RFC 9113 §6.1).
func unpad(f frame, payload []byte) ([]byte, bool) {
	if !f.has(flagPadded) {
		return payload, true
	}
	if len(payload) == 0 || int(payload[0]) >= len(payload) {
		return nil, false
	}
	return payload[1 : len(payload)-int(payload[0])], true
}
