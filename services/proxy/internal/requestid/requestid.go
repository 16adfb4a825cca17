// Package requestid reads what an x-request-id tells beside who it is: a number, by
// which all proxies on the way choose the same requests, and why the request is
// traced, which stands in the place of the version in its UUID, as Envoy's
// extension envoy.request_id.uuid has it. It makes no ids.
package requestid

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Header is the name of the field.
const Header = "x-request-id"

// TraceReason is why a request is traced, by the digit that says so.
type TraceReason byte

// The reasons.
const (
	NotTraced TraceReason = '4' // the version that a random UUID has
	Sampled   TraceReason = '9'
	ByService TraceReason = 'a' // x-envoy-force-trace asked for it
	ByClient  TraceReason = 'b' // x-client-trace-id did
)

// The text of a UUID.
const (
	length    = 36
	versionAt = 14
)

// Number is the first 32 bits of the id of a request, and whether it has one that
// begins with them.
func Number(h *message.Headers) (uint32, bool) {
	id, _ := h.Get(Header)
	if len(id) < 8 {
		return 0, false
	}
	var first [4]byte
	if _, err := hex.Decode(first[:], id[:8]); err != nil {
		return 0, false
	}
	return binary.BigEndian.Uint32(first[:]), true
}

// Marked is what the id says of the request; one that is no UUID says NotTraced.
func Marked(h *message.Headers) TraceReason {
	if id, _ := h.Get(Header); len(id) == length {
		switch reason := TraceReason(id[versionAt]); reason {
		case Sampled, ByService, ByClient:
			return reason
		}
	}
	return NotTraced
}

// Mark has the id say so; one that is no UUID stays as it is.
func Mark(h *message.Headers, reason TraceReason) {
	if id, _ := h.Get(Header); len(id) == length {
		id[versionAt] = byte(reason) // in the memory of h
	}
}
