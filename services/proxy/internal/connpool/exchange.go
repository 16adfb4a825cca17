package connpool

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// exchange is one stream: the request that is written to it, and the response that
// is read. It implements Reader, Writer and transport, and is the response's body.
type exchange struct {
	shared *shared

	// writing is held by whoever writes, who may not be who reads.
	writing sync.Mutex
	ended   bool  // the request was written to its end
	err     error // of what was written; it stays

	mu     sync.Mutex    // against the stream's end
	stream *http2.Stream // nil before WriteRequest and behind end
	cut    bool          // Close was called

	request   http2.Request
	head      http2.Head
	response  *message.Response
	tunnel    []byte // the protocol that the request wants to go on with
	accept    string // of a WebSocket: sec-websocket-accept
	sent      uint64 // streams
	delivered bool   // the body has come to its end
}

// errNoStream is what is returned before the request was written, and behind the end.
var errNoStream = net.ErrClosed

// WriteRequest implements Writer. It opens the stream, on which the head goes out
// at once if nothing follows it.
func (x *exchange) WriteRequest(m *message.Request) {
	x.writing.Lock()
	defer x.writing.Unlock()
	r := &x.request
	*r = http2.Request{Method: m.Method, Scheme: m.URLScheme(), Authority: m.Authority, Path: m.Path}
	if m.BodyLength == message.Unknown {
		m.Headers.Remove("content-length")
	}
	fields := &m.Headers
	x.tunnel, x.accept = nil, ""
	if len(m.Upgrade) > 0 { // RFC 8441 §5
		x.tunnel = append(x.tunnel[:0], m.Upgrade...)
		r.Method, r.Protocol = methodConnect, m.Upgrade
		if key, ok := fields.Get("sec-websocket-key"); ok {
			sum := sha1.Sum(append(append([]byte(nil), key...), webSocketGUID...))
			x.accept = base64.StdEncoding.EncodeToString(sum[:])
			// The request keeps it: it may go out once more, be it over HTTP/1.
			fields = &message.Headers{}
			fields.Copy(&m.Headers)
			fields.Remove("sec-websocket-key")
		}
	}
	x.ended = m.Body == nil && len(x.tunnel) == 0
	stream, err := x.shared.client.Open(r, fields, x.ended)
	if err != nil {
		x.err = &UnprocessedError{err}
		return
	}
	x.sent++
	x.mu.Lock()
	x.stream = stream
	cut := x.cut
	x.mu.Unlock()
	if cut {
		stream.Interrupt(errNoStream)
	}
}

var methodConnect = []byte("CONNECT")

// webSocketGUID is what the answer to a key is made with (RFC 6455 §1.3).
const webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// WriteChunk implements Writer.
func (x *exchange) WriteChunk(chunk []byte) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.err == nil {
		x.err = x.write(chunk, false)
	}
	return x.err
}

// Finish implements Writer.
func (x *exchange) Finish(trailers *message.Headers) {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.err != nil || x.ended {
		return
	}
	x.ended = true
	if trailers == nil || trailers.Len() == 0 {
		x.err = x.write(nil, true)
		return
	}
	if s := x.open(); s != nil {
		x.err = failure(s.WriteTrailers(trailers))
	}
}

func (x *exchange) write(chunk []byte, end bool) error {
	s := x.open()
	if s == nil {
		return errNoStream
	}
	return failure(s.WriteData(chunk, end))
}

// Flush implements Writer.
func (x *exchange) Flush() error {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.err != nil {
		return x.err
	}
	s := x.open()
	if s == nil {
		return errNoStream
	}
	if !x.ended { // the end has sent all
		x.err = failure(s.Flush())
	}
	return x.err
}

// traffic is Conn.Traffic.
func (x *exchange) traffic() (received, sent message.Traffic) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stream == nil {
		return message.Traffic{}, message.Traffic{}
	}
	in, out := x.stream.Traffic()
	return message.Traffic(in), message.Traffic(out)
}

func (x *exchange) open() *http2.Stream {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stream
}

// statusLimit is one more than the highest status that the proxy knows.
const statusLimit = 600

// ReadHead implements Reader.
func (x *exchange) ReadHead(m *message.Response, method []byte) (keepAlive bool, err error) {
	s := x.open()
	if s == nil {
		return false, errNoStream
	}
	if err := s.ReadHead(&x.head); err != nil {
		return false, failure(err)
	}
	h := &x.head
	if h.Status >= statusLimit {
		return false, &message.ProtocolError{Status: 400, Detail: "a status above 599"}
	}
	m.Headers.Swap(&h.Fields)
	m.Status, m.Body = h.Status, nil
	if m.Status < 200 {
		m.BodyLength, m.Bodiless = 0, true
		return false, nil
	}
	if len(x.tunnel) > 0 && m.Status < 300 {
		x.switched(m)
		return true, nil
	}
	m.Bodiless = m.Status == 204 || m.Status == 304 || string(method) == "HEAD"
	m.BodyLength = h.ContentLength
	switch {
	case h.End && !m.Bodiless:
		m.BodyLength = 0
	case m.BodyLength < 0:
		m.BodyLength = message.Unknown
	case m.BodyLength == 0 && !h.End: // trailers may follow
		m.BodyLength = message.Unknown
	}
	if m.Status == 204 {
		m.Headers.Remove("content-length")
	}
	if !h.End && !m.Bodiless {
		x.response, m.Body = m, x
	}
	return true, nil
}

// switched makes of the answer to an extended CONNECT what HTTP/1 has for it.
func (x *exchange) switched(m *message.Response) {
	m.Status = 101
	m.Headers.Set("upgrade", string(x.tunnel))
	if x.accept != "" {
		m.Headers.Set("sec-websocket-accept", x.accept)
	}
	x.response = m
}

// Tunnel implements Reader.
func (x *exchange) Tunnel() message.Body { return x }

// Buffered implements Reader: nothing that was sent beyond a response can be taken
// for the next one here.
func (x *exchange) Buffered() bool { return false }

// Next implements message.Body.
func (x *exchange) Next() ([]byte, error) {
	s := x.open()
	if s == nil {
		return nil, errNoStream
	}
	chunk, err := s.Next()
	if errors.Is(err, io.EOF) {
		if !x.delivered && s.ReadTrailers(&x.head.Fields) {
			x.response.Trailers.Swap(&x.head.Fields)
		}
		x.delivered = true
		return nil, io.EOF
	}
	return chunk, failure(err)
}

// Ready implements message.Body.
func (x *exchange) Ready() bool {
	s := x.open()
	return s == nil || s.Ready()
}

// SetReadDeadline implements transport.
func (x *exchange) SetReadDeadline(at time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stream != nil {
		x.stream.SetDeadline(at)
	}
	return nil
}

// Close implements transport: it lets go of whoever reads or writes, and tells the
// server. Others may call it.
func (x *exchange) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cut = true
	if x.stream != nil {
		x.stream.Interrupt(errNoStream)
		x.stream.Reset(http2.Cancel)
	}
	return nil
}

// end takes the stream out of use, once nobody writes any more.
func (x *exchange) end() {
	s := x.open()
	if s != nil {
		s.Interrupt(errNoStream)
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	x.stream = nil
	x.mu.Unlock()
	if s != nil {
		s.Close()
	}
	x.err = errNoStream
}

// reset makes the exchange fit for another request.
func (x *exchange) reset() {
	x.shared, x.response, x.err = nil, nil, nil
	x.cut, x.ended, x.delivered, x.sent = false, false, false, 0
	x.request = http2.Request{}
}

// failure says what the end of a stream is to those who know no HTTP/2.
func failure(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*http2.StreamError](err); ok {
		switch {
		case e.Remote && e.Code == http2.RefusedStream:
			return &UnprocessedError{err}
		case e.Remote:
			return &ResetError{err}
		case e.Code == http2.Cancel: // by Close
			return errNoStream
		}
		return &message.ProtocolError{Status: 400, Detail: e.Error()}
	}
	if e, ok := errors.AsType[*http2.ConnectionError](err); ok && !e.Remote {
		return &message.ProtocolError{Status: 400, Detail: e.Error()}
	}
	return err
}
