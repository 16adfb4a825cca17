package http1

import (
	"errors"
	"io"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// InterimLimit is how many 1xx responses a server may send before the final one.
const InterimLimit = 5

// ReadResponse is ReadHead for the final response: interim ones are passed
// over, up to InterimLimit; a 101 is an error.
func (r *Reader) ReadResponse(m *message.Response, method []byte) (keepAlive bool, err error) {
	for range InterimLimit + 1 {
		keepAlive, err := r.ReadHead(m, method)
		switch {
		case err != nil:
			return false, err
		case m.Status == 101:
			return false, ErrSwitched
		case m.Status >= 200:
			return keepAlive, nil
		}
	}
	return false, ErrInterim
}

// ErrSwitched is a 101 that was not asked for.
var ErrSwitched = malformed("a 101 that was not asked for")

// ErrInterim is an interim response beyond InterimLimit.
var ErrInterim = malformed("more than %d interim responses", InterimLimit)

// ReadHead reads the head of the next response to a request of that method into
// m, whose Body then reads from this Reader. It may be an interim one (status
// 1xx), which has no body; behind a 101, Tunnel reads what follows. It says
// whether the connection can carry another request once the body of a final
// response was read.
//
// Errors are those of ReadRequest; io.EOF means that the server closed before
// the first byte, so that it may never have seen the request. A head that the close
// cuts off is a *message.ProtocolError, and so are bytes without one, as of HTTP/0.9.
func (r *Reader) ReadHead(m *message.Response, method []byte) (keepAlive bool, err error) {
	f, err := r.responseHead(m)
	if err != nil {
		return false, err
	}
	if m.Status < 200 {
		m.Headers.Remove("content-length") // as of a 204 below
		m.BodyLength, m.Bodiless = 0, true
		m.Body = nil
		return false, nil
	}
	r.closes = f.closes || r.opening.http10 && !f.keepAlive
	keepAlive = !r.closes
	m.Bodiless = m.Status == 204 || m.Status == 304 || string(method) == "HEAD"
	switch {
	case f.chunked:
		m.BodyLength = message.Unknown
	case f.length >= 0:
		m.BodyLength = f.length
	default: // ended by the close of the connection (RFC 9112 §6.3)
		m.BodyLength = message.Unknown
		keepAlive = keepAlive && m.Bodiless
	}
	if m.Status == 204 {
		// It has none (RFC 9110 §8.6), and a client could wait for its bytes.
		m.Headers.Remove("content-length")
	}
	if m.Bodiless {
		m.Body = r.body.begin(r, 0, false, nil)
	} else {
		m.Body = r.body.begin(r, m.BodyLength, f.chunked, &m.Trailers)
	}
	return keepAlive, nil
}

// responseHead reads one head, interim or final.
func (r *Reader) responseHead(m *message.Response) (f framing, err error) {
	block, err := r.head(false)
	if errors.Is(err, io.ErrUnexpectedEOF) { // whatever came was no response
		err = malformed("the connection ended within the head")
	}
	if err != nil {
		r.spoil()
		return f, err
	}
	m.Status = r.opening.status
	if f, err = r.fields(&m.Headers, m.Headers.Load(block), r.opening.end); err != nil {
		return f, err
	}
	if r.opening.http10 && f.chunked {
		return f, malformed("transfer-encoding in HTTP/1.0")
	}
	return f, f.check()
}
