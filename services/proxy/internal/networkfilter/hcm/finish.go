package hcm

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// serverHeader is what happens to the response's server header
// (server_header_transformation).
type serverHeader int

const (
	overwriteServer serverHeader = iota
	appendServerIfAbsent
	passServer
)

// finish makes the response's headers those that the client may see.
func (m *manager) finish(s *stream.Stream) {
	r := &s.Response
	for _, name := range named(&r.Headers) {
		if !protected(name) && name != "upgrade" {
			r.Headers.Remove(name)
		}
	}
	switched := r.Status == 101
	r.Headers.Keep(func(name, _ []byte) bool { return !hopByHop(name) || switched && string(name) == "upgrade" })
	if m.server == overwriteServer || m.server == appendServerIfAbsent && !r.Headers.Has("server") {
		r.Headers.Set("server", m.serverName)
	}
	if !r.Headers.Has("date") {
		r.Headers.Add("date", m.clock.text())
	}
	// The codec would add it too, unseen by what logs the response, but not to an answer
	// of ours to a HEAD, which is told what a GET would get.
	if r.BodyLength > 0 && r.Status != 204 && r.Status != 304 && !r.Headers.Has("content-length") {
		var text [20]byte
		r.Headers.AddBytes("content-length", strconv.AppendInt(text[:0], r.BodyLength, 10))
	}
	if m.identity.Via != "" {
		r.Headers.Join("via", ", ", []byte(m.identity.Via))
	}
	if m.answerRequestID || s.Request.Headers.Has("x-envoy-force-trace") {
		if id, ok := s.Request.Headers.Get(requestid.Header); ok {
			r.Headers.Remove(requestid.Header)
			r.Headers.AddBytes(requestid.Header, id)
		}
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
