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
	f, http10, err := r.responseHead(m)
	if err != nil {
		return false, err
	}
	if m.Status < 200 {
		m.Headers.Remove("content-length") // as of a 204 below
		m.BodyLength, m.Bodiless = 0, true
		m.Body = nil
		return false, nil
	}
	r.closes = f.closes || http10 && !f.keepAlive
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
func (r *Reader) responseHead(m *message.Response) (f framing, http10 bool, err error) {
	block, err := r.head(false)
	if errors.Is(err, io.ErrUnexpectedEOF) { // whatever came was no response
		err = malformed("the connection ended within the head")
	}
	if err != nil {
		r.spoil()
		return f, false, err
	}
	m.Status, http10 = r.opening.status, r.opening.http10
	if f, err = r.fields(&m.Headers, m.Headers.Load(block), r.opening.end); err != nil {
		return f, false, err
	}
	if http10 && f.chunked {
		return f, false, malformed("transfer-encoding in HTTP/1.0")
	}
	return f, http10, f.check()
}

// parseStatus reads "HTTP/1.1 SP 200 SP reason" (RFC 9112 §4); the reason, and
// the space before it, may be missing.
func (l *startLine) parseStatus(line []byte) error {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '1' && line[7] != '0' || line[8] != ' ' ||
		!digit(line[9]) || !digit(line[10]) || !digit(line[11]) || len(line) > 12 && line[12] != ' ' {
		return malformed("status line %q", clip(line))
	}
	l.status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	if l.status < 100 || l.status > 599 {
		return malformed("status %d", l.status)
	}
	for _, c := range line[12:] {
		if !fieldChar[c] {
			return malformed("control character %#02x in the reason", c)
		}
	}
	l.http10 = line[7] == '0'
	return nil
}
