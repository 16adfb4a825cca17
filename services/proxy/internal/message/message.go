package message

import (
	"bytes"
	"io"
)

// Unknown is the BodyLength of a body whose end only its sender knows: chunked,
// or ended by the close of the connection.
const Unknown = -1

// Request is the head of a request and the way to its body. Method, Path and
// Authority are views that stay valid until the head is read anew.
type Request struct {
	Method []byte
	// Path is what the request asks for, with its query: "/a?b=c", or "*".
	Path []byte
	// Authority is the host asked for, with its port if it came with one.
	Authority []byte
	// Scheme is what a client of HTTP/2 says it is, in its spelling; of HTTP/1 it
	// is empty. URLScheme is for whoever wants the scheme of any request.
	Scheme []byte
	// Headers holds all fields but Host, which is Authority.
	Headers Headers
	// BodyLength counts the body's bytes; 0 is no body, Unknown one of any length.
	BodyLength int64
	// ExpectContinue says that the client waits for a 100 before it sends the body.
	ExpectContinue bool
	// Upgrade is the protocol that the client wants to go on with, "websocket",
	// where that is allowed; else empty. Body is then what the client sends in
	// that protocol, for whoever gets a 101; before, nobody may pull it.
	Upgrade []byte
	// Body is nil when BodyLength is 0.
	Body Body
	// Trailers are complete once Body returned io.EOF.
	Trailers Headers
}

// schemes are those that a request can have.
var schemes = [...][]byte{[]byte("http"), []byte("https")}

// URLScheme is the scheme of the URL that is asked for, http or https, as Envoy has
// it: what a client of HTTP/2 says, else what x-forwarded-proto says, else http, as
// there is no TLS. It must not be changed.
func (r *Request) URLScheme() []byte {
	said := r.Scheme
	if len(said) == 0 {
		said, _ = r.Headers.Get("x-forwarded-proto")
	}
	if bytes.EqualFold(said, schemes[1]) {
		return schemes[1]
	}
	return schemes[0]
}

// Response is the head of a response and the way to its body.
type Response struct {
	// Status is 200 to 599, or 101 for a request with Upgrade: Body is then what
	// the server sends in the new protocol. Interim responses are not kept here.
	Status  int
	Headers Headers
	// BodyLength counts the body's bytes; 0 is no body, Unknown one of any length.
	BodyLength int64
	// Bodiless says that no body follows whatever the headers announce: the
	// answer to a HEAD, a 204 and a 304.
	Bodiless bool
	// Body is nil when BodyLength is 0 or Bodiless is set.
	Body Body
	// Trailers are complete once Body returned io.EOF.
	Trailers Headers
}

// Body is the body of a message in the making: whoever can take a chunk asks
// for it, so that a slow reader slows the sender down and nothing piles up.
type Body interface {
	// Next waits for the next chunk, which is never empty and valid until the
	// next call. After the last chunk it returns io.EOF; another error means
	// that the sender broke off or broke the protocol, and that the rest of
	// its connection can't be used.
	Next() ([]byte, error)
	// Ready says whether Next will return without waiting for the network, so
	// that what was gathered so far can wait to go out with more.
	Ready() bool
}

// Bytes is a Body of one chunk that is in memory already.
type Bytes struct{ rest []byte }

// NewBytes makes a Body of text, which is not copied.
func NewBytes(text []byte) *Bytes { return &Bytes{rest: text} }

// Next implements Body.
func (b *Bytes) Next() ([]byte, error) {
	if len(b.rest) == 0 {
		return nil, io.EOF
	}
	chunk := b.rest
	b.rest = nil
	return chunk, nil
}

// Ready implements Body.
func (b *Bytes) Ready() bool { return true }

// ProtocolError says that the sender of a message broke the protocol, and what to
// answer it if it is a client. Every codec returns it, for heads and for bodies. After
// it nothing more can be read of what the sender had to say.
type ProtocolError struct {
	// Status is 400, 404, 426, 431 or 501.
	Status int
	// Detail names the offence in a few words: "space before the colon".
	Detail string
	// ResponseCodeDetails is why a client is answered so, in Envoy's words; a server's
	// offence has none.
	ResponseCodeDetails string
}

// Error implements error.
func (e *ProtocolError) Error() string { return e.Detail }
