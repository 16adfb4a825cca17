package http1

import (
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// gatherSize is what a Writer's buffer begins with; it grows with the longest head.
const gatherSize = 16 << 10

// flushSize is how much of a body a Writer gathers before it writes: what frames it
// fits behind.
const flushSize = gatherSize - 64

// Writer frames messages for one side of one connection: a head, then its
// body's chunks, then Finish. What it gathers goes out with Flush, or when it
// gathered enough. After an error every call returns that error. It is used by
// one goroutine at a time.
type Writer struct {
	// Trailers writes trailers, which are else dropped (enable_trailers).
	Trailers bool
	// ProperCase capitalises the words of field names whose spelling the message
	// does not remember (header_key_format with proper_case_words).
	ProperCase bool
	// HTTP10 says that the next response goes to a client of HTTP/1.0. One of
	// unknown length must then close the connection.
	HTTP10 bool

	conn    net.Conn
	buf     []byte
	pieces  [2][]byte
	vector  net.Buffers // of pieces, consumed by each write
	chunked bool
	sent    atomic.Uint64
	headers atomic.Uint64 // of it, or of what is gathered
	err     error
}

// NewWriter writes to conn.
func NewWriter(conn net.Conn) *Writer {
	return &Writer{conn: conn}
}

// gathered are the buffers of no Writer: it has one from the first byte that it
// gathers until that is written.
var gathered = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// hold has the Writer hold a buffer.
func (w *Writer) hold() {
	if w.buf == nil {
		w.buf = gathered.Get().(*[gatherSize]byte)[:0]
	}
}

// release gives away a buffer whose bytes are written, unless it has grown: then
// it is garbage.
func (w *Writer) release() {
	if cap(w.buf) == gatherSize {
		gathered.Put((*[gatherSize]byte)(w.buf[:gatherSize]))
	}
	w.buf = nil
}

// Sent counts the bytes written to the connection. Others may ask meanwhile.
func (w *Writer) Sent() uint64 { return w.sent.Load() }

// Traffic counts the messages that were written to the connection. Of heads and trailers it
// counts the lines of fields, those that are gathered too. Others may ask meanwhile.
func (w *Writer) Traffic() message.Traffic {
	headers := w.headers.Load()
	return message.Traffic{Wire: w.sent.Load(), Headers: headers, Decompressed: headers}
}

// WriteRequest gathers the head of m for an upstream. Its headers must hold
// none that belong to one hop.
func (w *Writer) WriteRequest(m *message.Request) {
	upgrade := len(m.Upgrade) > 0
	w.chunked = m.BodyLength == message.Unknown && !upgrade
	w.hold()
	b := append(w.buf, m.Method...)
	b = append(b, ' ')
	b = append(b, m.Path...)
	b = append(b, " HTTP/1.1\r\n"...)
	start := len(b)
	b = w.appendField(b, &m.Headers, "host", m.Authority)
	b = w.appendFields(b, &m.Headers, m.BodyLength, !upgrade && (m.BodyLength != 0 || mayHaveBody(m.Method)))
	if upgrade {
		b = w.appendField(b, &m.Headers, "connection", []byte("Upgrade"))
		b = w.appendField(b, &m.Headers, "upgrade", m.Upgrade)
	}
	w.headers.Add(uint64(len(b) - start))
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
// if closes is set, or, behind a 101, what belongs to that.
func (w *Writer) WriteResponse(m *message.Response, closes bool) {
	switched := m.Status == 101
	w.chunked = m.BodyLength == message.Unknown && !m.Bodiless && !w.HTTP10 && !switched
	w.hold()
	b := w.appendStatus(w.buf, m.Status)
	start := len(b)
	b = w.appendFields(b, &m.Headers, m.BodyLength, !m.Bodiless && !switched)
	switch {
	case switched:
		b = w.appendField(b, &m.Headers, "connection", []byte("Upgrade"))
	case closes:
		b = w.appendField(b, &m.Headers, "connection", []byte("close"))
	case w.HTTP10:
		b = w.appendField(b, &m.Headers, "connection", []byte("keep-alive"))
	}
	w.headers.Add(uint64(len(b) - start))
	w.buf = append(b, "\r\n"...)
}

// WriteInterim sends an interim response at once.
func (w *Writer) WriteInterim(m *message.Response) error {
	w.chunked = false
	w.hold()
	b := w.appendStatus(w.buf, m.Status)
	start := len(b)
	b = w.appendFields(b, &m.Headers, 0, false)
	w.headers.Add(uint64(len(b) - start))
	w.buf = append(b, "\r\n"...)
	return w.Flush()
}

func (w *Writer) appendStatus(b []byte, status int) []byte {
	if w.HTTP10 {
		b = append(b, "HTTP/1.0 "...)
	} else {
		b = append(b, "HTTP/1.1 "...)
	}
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason(status)...)
	return append(b, "\r\n"...)
}

// appendFields writes the header fields and those that frame the body. A
// message without a body may keep the content-length that describes another.
func (w *Writer) appendFields(b []byte, h *message.Headers, length int64, body bool) []byte {
	b = w.appendList(b, h)
	switch {
	case w.chunked:
		b = w.appendField(b, h, "transfer-encoding", []byte("chunked"))
	case body && length >= 0 && !h.Has("content-length"):
		var text [20]byte
		b = w.appendField(b, h, "content-length", strconv.AppendInt(text[:0], length, 10))
	}
	return b
}

// appendList writes the fields of h, but no length of a chunked message.
func (w *Writer) appendList(b []byte, h *message.Headers) []byte {
	spelt := h.Spelt()
	for i := range h.Len() {
		name, value := h.At(i)
		if w.chunked && string(name) == "content-length" {
			continue
		}
		switch {
		case spelt:
			b = append(b, h.Spelling(i)...)
		case w.ProperCase:
			b = appendProper(b, name)
		default:
			b = append(b, name...)
		}
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return b
}

// appendField writes a field that is not in the list, its name as the message
// received spelt it.
func (w *Writer) appendField(b []byte, h *message.Headers, name string, value []byte) []byte {
	switch {
	case h.Spelt():
		b = append(b, h.SpellingOf([]byte(name))...)
	case w.ProperCase:
		b = appendProper(b, []byte(name))
	default:
		b = append(b, name...)
	}
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// appendProper writes a name with a capital at its start and behind each
// character that is neither letter nor digit, as proper_case_words has it.
func appendProper(b, name []byte) []byte {
	start := true
	for _, c := range name {
		letter := 'a' <= c && c <= 'z'
		if letter && start {
			b = append(b, c-'a'+'A')
		} else {
			b = append(b, c)
		}
		start = !letter && !digit(c)
	}
	return b
}

// WriteContinue sends a 100 (Continue) at once.
func (w *Writer) WriteContinue() error {
	w.hold()
	w.buf = append(w.buf, "HTTP/1.1 100 Continue\r\n\r\n"...)
	return w.Flush()
}

// WriteChunk gathers or writes one chunk of the body, which must not be empty.
func (w *Writer) WriteChunk(chunk []byte) error {
	if w.chunked {
		w.hold()
		w.buf = strconv.AppendUint(w.buf, uint64(len(chunk)), 16)
		w.buf = append(w.buf, "\r\n"...)
	}
	if len(w.buf)+len(chunk) <= flushSize {
		w.hold()
		w.buf = append(w.buf, chunk...)
	} else if w.err == nil {
		// One system call for the head or size line and the chunk itself.
		w.pieces = [2][]byte{w.buf, chunk}
		w.vector = w.pieces[:]
		var n int64
		n, w.err = w.vector.WriteTo(w.conn)
		w.sent.Add(uint64(n))
		w.pieces = [2][]byte{}
		w.release()
	}
	if w.chunked {
		w.hold()
		w.buf = append(w.buf, "\r\n"...)
	}
	return w.err
}

// Finish gathers the end of the body, with the trailers if those are on and the
// body is chunked.
func (w *Writer) Finish(trailers *message.Headers) {
	if !w.chunked {
		return
	}
	w.hold()
	w.buf = append(w.buf, "0\r\n"...)
	if w.Trailers && trailers != nil {
		start := len(w.buf)
		w.buf = w.appendList(w.buf, trailers)
		w.headers.Add(uint64(len(w.buf) - start))
	}
	w.buf = append(w.buf, "\r\n"...)
}

// Err is the error that every call returns from now on, nil if there was none.
func (w *Writer) Err() error { return w.err }

// Flush writes all that was gathered.
func (w *Writer) Flush() error {
	if w.err == nil && len(w.buf) > 0 {
		var n int
		n, w.err = w.conn.Write(w.buf)
		w.sent.Add(uint64(n))
	}
	w.release()
	return w.err
}
