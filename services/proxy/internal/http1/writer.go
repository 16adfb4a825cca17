package http1

import (
	"net"
	"strconv"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// flushSize is how much a Writer gathers before it writes.
const flushSize = 16 << 10

// Writer frames messages for one side of one connection: a head, then its
// body's chunks, then Finish. What it gathers goes out with Flush, or when it
// gathered enough. After an error every call returns that error. It is used by
// one goroutine at a time.
type Writer struct {
	conn    net.Conn
	buf     []byte
	pieces  [2][]byte
	vector  net.Buffers // of pieces, consumed by each write
	chunked bool
	err     error
}

// NewWriter writes to conn.
func NewWriter(conn net.Conn) *Writer {
	return &Writer{conn: conn, buf: make([]byte, 0, 4<<10)}
}

// WriteRequest gathers the head of m for an upstream. Its headers must hold
// none that belong to one hop.
func (w *Writer) WriteRequest(m *message.Request) {
	w.chunked = m.BodyLength == message.Unknown
	b := append(w.buf, m.Method...)
	b = append(b, ' ')
	b = append(b, m.Path...)
	b = append(b, " HTTP/1.1\r\nhost: "...)
	b = append(b, m.Authority...)
	b = append(b, "\r\n"...)
	b = w.appendFields(b, &m.Headers, m.BodyLength, m.BodyLength != 0 || mayHaveBody(m.Method))
	w.buf = append(b, "\r\n"...)
}

// mayHaveBody says whether a request of that method without a body says so
// (RFC 9110 §8.6), for servers that would miss it.
func mayHaveBody(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "DELETE", "TRACE", "CONNECT":
		return false
	}
	return true
}

// WriteResponse gathers the head of m for a client, with "connection: close"
// if closes is set.
func (w *Writer) WriteResponse(m *message.Response, closes bool) {
	w.chunked = m.BodyLength == message.Unknown && !m.Bodiless
	b := append(w.buf, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(m.Status), 10)
	b = append(b, ' ')
	b = append(b, reason(m.Status)...)
	b = append(b, "\r\n"...)
	b = w.appendFields(b, &m.Headers, m.BodyLength, !m.Bodiless)
	if closes {
		b = append(b, "connection: close\r\n"...)
	}
	w.buf = append(b, "\r\n"...)
}

// appendFields writes the header fields and those that frame the body. A
// message without a body may keep the content-length that describes another.
func (w *Writer) appendFields(b []byte, h *message.Headers, length int64, body bool) []byte {
	announced := false
	for i := range h.Len() {
		name, value := h.At(i)
		if string(name) == "content-length" {
			if w.chunked {
				continue
			}
			announced = true
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	switch {
	case w.chunked:
		b = append(b, "transfer-encoding: chunked\r\n"...)
	case body && !announced:
		b = append(b, "content-length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	}
	return b
}

// WriteContinue sends a 100 (Continue) at once.
func (w *Writer) WriteContinue() error {
	w.buf = append(w.buf, "HTTP/1.1 100 Continue\r\n\r\n"...)
	return w.Flush()
}

// WriteChunk gathers or writes one chunk of the body, which must not be empty.
func (w *Writer) WriteChunk(chunk []byte) error {
	if w.chunked {
		w.buf = strconv.AppendUint(w.buf, uint64(len(chunk)), 16)
		w.buf = append(w.buf, "\r\n"...)
	}
	if len(w.buf)+len(chunk) <= flushSize {
		w.buf = append(w.buf, chunk...)
	} else if w.err == nil {
		// One system call for the head or size line and the chunk itself.
		w.pieces = [2][]byte{w.buf, chunk}
		w.vector = w.pieces[:]
		_, w.err = w.vector.WriteTo(w.conn)
		w.buf = w.buf[:0]
	}
	if w.chunked {
		w.buf = append(w.buf, "\r\n"...)
	}
	return w.err
}

// Finish gathers the end of the body.
func (w *Writer) Finish() {
	if w.chunked {
		w.buf = append(w.buf, "0\r\n\r\n"...)
	}
}

// Flush writes all that was gathered.
func (w *Writer) Flush() error {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.conn.Write(w.buf)
	}
	w.buf = w.buf[:0]
	return w.err
}
