package hcm

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// prepare makes the request's headers those that an upstream may see: without
// what belongs to this hop and what only we may say, with what we know of the
// client. The error is an *http1.ProtocolError.
func (m *manager) prepare(s *stream.Stream, peer netip.Addr) error {
	h := &s.Request.Headers
	if err := dropHopByHop(h); err != nil {
		return err
	}
	h.Keep(func(name, _ []byte) bool { return !reserved(name) })
	s.ClientAddress = peer
	if m.useRemoteAddress {
		h.Remove("x-forwarded-proto")
		appendForwardedFor(h, peer)
		setAddress(h, "x-envoy-external-address", peer)
	} else if forwarded, ok := lastForwardedFor(h); ok {
		s.ClientAddress = forwarded
	}
	if !h.Has("x-forwarded-proto") {
		h.Add("x-forwarded-proto", "http")
	}
	if m.generateRequestID && (m.useRemoteAddress || !h.Has("x-request-id")) {
		h.Remove("x-request-id")
		var id [36]byte
		h.AddBytes("x-request-id", uuid(&id))
	}
	return nil
}

// finish makes the response's headers those that the client may see.
func (m *manager) finish(r *message.Response) {
	for _, name := range named(&r.Headers) {
		if !protected(name) {
			r.Headers.Remove(name)
		}
	}
	r.Headers.Keep(func(name, _ []byte) bool { return !hopByHop(name) })
	r.Headers.Set("server", m.serverName)
	if !r.Headers.Has("date") {
		r.Headers.Add("date", m.clock.text())
	}
}

// clock writes the date of responses that come without one (RFC 9110 §6.6.1),
// once a second.
type clock struct{ last atomic.Pointer[second] }

// dateFormat is IMF-fixdate (RFC 9110 §5.6.7).
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

type second struct {
	unix int64
	text string
}

func (c *clock) text() string {
	now := time.Now()
	last := c.last.Load()
	if last == nil || last.unix != now.Unix() {
		last = &second{now.Unix(), now.UTC().Format(dateFormat)}
		c.last.Store(last)
	}
	return last.text
}

// dropHopByHop takes out the fields that belong to one connection (RFC 9110
// §7.6.1): the known ones and those that Connection names. It refuses a
// Connection that names a field which others rely on, and an upgrade, since
// none is configured.
func dropHopByHop(h *message.Headers) error {
	if err := dropNamed(h); err != nil {
		return err
	}
	h.Keep(func(name, value []byte) bool {
		return !hopByHop(name) && (string(name) != "te" || string(value) == "trailers")
	})
	return nil
}

// plainConnection says whether Connection says nothing that concerns others,
// as is nearly always so.
func plainConnection(value []byte) bool {
	return bytes.EqualFold(value, []byte("keep-alive")) || bytes.EqualFold(value, []byte("close"))
}

func dropNamed(h *message.Headers) error {
	for _, name := range named(h) {
		switch {
		case name == "upgrade":
			if protocol, ok := h.Get("upgrade"); ok && !bytes.EqualFold(protocol, []byte("h2c")) {
				return &http1.ProtocolError{Status: 403, Detail: "no upgrade is configured"}
			}
		case protected(name):
			return &http1.ProtocolError{Status: 400, Detail: "connection names " + name}
		default:
			h.Remove(name)
		}
	}
	return nil
}

// named are the fields that Connection names, in lower case, less the options
// that are no fields.
func named(h *message.Headers) []string {
	var names []string
	for i := range h.Len() {
		name, value := h.At(i)
		if string(name) != "connection" || plainConnection(value) {
			continue
		}
		for _, token := range strings.Split(string(value), ",") {
			switch token = strings.ToLower(strings.TrimSpace(token)); token {
			case "", "close", "keep-alive", "te":
			default:
				names = append(names, token)
			}
		}
	}
	return names
}

// protected says whether others rely on a field, so that Connection cannot take
// it away.
func protected(name string) bool {
	switch name {
	case "host", "content-length", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host":
		return true
	}
	return strings.HasPrefix(name, ":")
}

// hopByHop says whether a field belongs to one connection.
func hopByHop(name []byte) bool {
	switch string(name) {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings":
		return true
	}
	return false
}

// reserved says whether only a trusted proxy may send a field: clients could
// steer retries and timeouts with it.
func reserved(name []byte) bool {
	if !bytes.HasPrefix(name, []byte("x-envoy-")) {
		return false
	}
	switch string(name[len("x-envoy-"):]) {
	case "original-path", "original-host", "attempt-count", "decorator-operation",
		"downstream-service-cluster", "downstream-service-node", "external-address":
		return false
	}
	return true
}

// appendForwardedFor adds the peer at the end of x-forwarded-for.
func appendForwardedFor(h *message.Headers, peer netip.Addr) {
	var text [2*46 + 256]byte
	list := text[:0]
	for i := range h.Len() {
		if name, value := h.At(i); string(name) == "x-forwarded-for" {
			list = append(append(list, value...), ',')
		}
	}
	h.Remove("x-forwarded-for")
	h.AddBytes("x-forwarded-for", peer.AppendTo(list))
}

// lastForwardedFor is the last address of x-forwarded-for, which the proxy in
// front of us added.
func lastForwardedFor(h *message.Headers) (netip.Addr, bool) {
	for i := h.Len() - 1; i >= 0; i-- {
		if name, value := h.At(i); string(name) == "x-forwarded-for" {
			if comma := bytes.LastIndexByte(value, ','); comma >= 0 {
				value = value[comma+1:]
			}
			address, err := netip.ParseAddr(string(bytes.TrimSpace(value)))
			return address, err == nil
		}
	}
	return netip.Addr{}, false
}

func setAddress(h *message.Headers, name string, address netip.Addr) {
	var text [46]byte
	h.Remove(name)
	h.AddBytes(name, address.AppendTo(text[:0]))
}

// uuid writes a random UUID (RFC 9562 §5.4). Request ids are to be unique, not
// secret.
func uuid(text *[36]byte) []byte {
	var raw [16]byte
	high, low := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	hex.Encode(text[0:], raw[0:4])
	hex.Encode(text[9:], raw[4:6])
	hex.Encode(text[14:], raw[6:8])
	hex.Encode(text[19:], raw[8:10])
	hex.Encode(text[24:], raw[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return text[:]
}
