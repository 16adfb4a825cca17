// Package http1 is the proxy's own codec for HTTP/1.1 (RFC 9112): a Reader
// that parses heads and bodies of requests and responses, and a Writer that
// frames them anew. It holds both sides strictly to the grammar, since what
// two parsers read differently is how requests are smuggled. It sets no
// deadline, opens and closes no connection, and decides nothing about routing.
package http1

import (
	"fmt"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// RESPONSE_CODE_DETAILS of requests that are refused, in Envoy's words.
const (
	codecError      = "http1.codec_error"
	headersTooLarge = "http1.headers_too_large"
	tooManyHeaders  = "http1.too_many_headers"
	lowVersion      = "low_version"
)

// refusal is what is told of a peer that broke the protocol.
func refusal(status int, detail, responseCodeDetails string) error {
	return &message.ProtocolError{Status: status, Detail: detail, ResponseCodeDetails: responseCodeDetails}
}

// malformed is what breaks the grammar, in words.
func malformed(format string, args ...any) error {
	return refusal(400, fmt.Sprintf(format, args...), codecError)
}

// Limits bounds what a Reader takes from its peer.
type Limits struct {
	// HeadBytes is the longest head, with its start line, and the longest trailer
	// section.
	HeadBytes int
	// Headers is the greatest number of header fields, and of trailer fields unless
	// those are dropped.
	Headers int
}

// What is refused in several places, or has a reason of its own in Envoy's words.
var (
	errHeadTooLong     = refusal(431, "the head is longer than the limit", headersTooLarge)
	errHeaders         = refusal(431, "more header fields than the limit", tooManyHeaders)
	errTrailersTooLong = refusal(431, "the trailers are longer than the limit", headersTooLarge)
	errTrailers        = refusal(431, "more trailer fields than the limit", tooManyHeaders)
	errBothLengths     = refusal(400, "both content-length and transfer-encoding", "http1.content_length_and_chunked_not_allowed")
	errTransferCoding  = refusal(501, "a transfer-encoding other than one chunked", "http1.invalid_transfer_encoding")
)

// ErrUnderscore refuses a field whose name has an underscore, where
// RejectUnderscores wants that.
var ErrUnderscore = refusal(400, "an underscore in a field name", "http1.unexpected_underscore")

// ErrAbsoluteTarget refuses a target in absolute form, where RefuseAbsolute
// wants that.
var ErrAbsoluteTarget = refusal(404, "a request target in absolute form", codecError)

// Options are what a Reader does beyond the rules that hold always. The zero
// value is Envoy's default.
type Options struct {
	// AcceptHTTP10 takes requests of HTTP/1.0, which are else refused with 426
	// (Http1ProtocolOptions.accept_http_10).
	AcceptHTTP10 bool
	// DefaultHost is the host of HTTP/1.0 requests that name none; they are
	// refused if it is empty (default_host_for_http_10).
	DefaultHost string
	// RefuseAbsolute refuses targets such as http://a/b (allow_absolute_url: false).
	RefuseAbsolute bool
	// Trailers keeps trailers, which are else dropped (enable_trailers).
	Trailers bool
	// KeepSpelling keeps how field names are spelt (header_key_format with
	// preserve_case), so that they are written so.
	KeepSpelling bool
	// Underscores is what happens to fields with an underscore in their name
	// (HttpProtocolOptions.headers_with_underscores_action).
	Underscores Underscores
	// Dropped, if set, is called for each field that DropUnderscores drops.
	Dropped func()
}

// Underscores is what happens to fields with an underscore in their name, which
// some servers take for a hyphen.
type Underscores int

// The ways to deal with underscores.
const (
	AllowUnderscores  Underscores = iota
	RejectUnderscores             // ErrUnderscore
	DropUnderscores
)

// bufferSize is what a connection's read buffer begins with; it grows up to
// the longest head.
const bufferSize = 16 << 10

// largeSize is what the buffer has room for on a connection that carries long
// bodies, 64 kB with their head: each read and each write costs far more than to
// move a few kB.
const largeSize = 72 << 10

// waitSize is what a connection that is no socket has room for while it waits for a
// message: most heads come in one piece that fits.
const waitSize = 1 << 10

// extensionBytes bounds the chunk extensions of one body, all together.
const extensionBytes = 4 << 10

// tchar marks the bytes of a token (RFC 9110 §5.6.2).
var tchar = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

// fieldChar marks the bytes of a field value (RFC 9110 §5.5): no control but
// the tab.
var fieldChar = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != 0x7f || c == '\t'
	}
	return t
}()

// lower maps ASCII capitals to small letters.
var lower = func() (t [256]byte) {
	for c := range t {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] += 'a' - 'A'
		}
	}
	return t
}()

// equalFold compares with want, which is lower case, without heed to case.
func equalFold(got []byte, want string) bool {
	if len(got) != len(want) {
		return false
	}
	for i, c := range got {
		if lower[c] != want[i] {
			return false
		}
	}
	return true
}
