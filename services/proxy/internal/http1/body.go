package http1

import (
	"bytes"
	"errors"
	"io"
	"math"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// body reads the body of the message whose head was read last. A Reader has
// one, used again for each message.
type body struct {
	r *Reader
	// left counts the bytes still to come of the body, or of the chunk when
	// chunked.
	left       int64
	open       bool // ends with the connection: left counts nothing
	chunked    bool
	inChunk    bool // a chunk has begun: its CRLF is still to come
	extensions int  // bytes of chunk extensions so far
	trailers   *message.Headers
	err        error
}

// begin makes the body of a head that announced length; the result is nil if
// there is no body. Trailers get those of a chunked one.
func (b *body) begin(r *Reader, length int64, chunked bool, trailers *message.Headers) message.Body {
	*b = body{r: r, left: length, chunked: chunked, trailers: trailers}
	r.large = r.isLong(length)
	switch {
	case length == 0:
		b.err = io.EOF
		r.release()
		return nil
	case chunked:
		b.left = 0
	case length == message.Unknown:
		b.left, b.open = math.MaxInt64, true
	}
	return b
}

// Next implements message.Body. Chunks are views of the connection's buffer.
func (b *body) Next() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	chunk, err := b.next()
	if err != nil {
		b.err = err
		b.r.release()
	}
	return chunk, err
}

// Ready implements message.Body. Of a chunked body it needs the next size line
// and what follows it: the first byte of the chunk, or the whole end.
func (b *body) Ready() bool {
	received := b.r.buf[b.r.start:b.r.end]
	if b.err != nil || !b.chunked && b.left == 0 {
		return true
	}
	if !b.chunked || b.left > 0 {
		return len(received) > 0
	}
	if b.inChunk {
		_, received, _ = bytes.Cut(received, crlf) // of the chunk before
	}
	size, rest, _ := bytes.Cut(received, crlf)
	if bytes.HasPrefix(size, []byte("0")) { // the last one, but for needless zeros
		return bytes.HasPrefix(rest, crlf) || bytes.Contains(rest, []byte("\r\n\r\n"))
	}
	return len(rest) > 0
}

var crlf = []byte("\r\n")

func (b *body) next() ([]byte, error) {
	if b.chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return nil, err
		}
	}
	if b.left == 0 {
		return nil, io.EOF
	}
	r := b.r
	if !r.Buffered() {
		r.start, r.end = 0, 0
		if len(r.buf) < largeSize && r.isLong(b.left) {
			r.large = true
			r.release() // for a large one
		}
		if err := r.fill(); err != nil {
			if !errors.Is(err, io.EOF) {
				return nil, err
			}
			if b.open {
				return nil, io.EOF
			}
			return nil, io.ErrUnexpectedEOF
		}
	}
	n := int(min(b.left, int64(r.end-r.start)))
	chunk := r.buf[r.start : r.start+n : r.start+n] // nobody appends into what follows
	r.take(n)
	if !b.open {
		b.left -= int64(n)
	}
	return chunk, nil
}

// nextChunk reads the end of one chunk and the size line of the next (RFC 9112
// §7.1); behind the last it reads the trailer section and returns io.EOF.
func (b *body) nextChunk() error {
	if b.inChunk {
		end, err := b.r.line(0)
		if _, ok := errors.AsType[*message.ProtocolError](err); err != nil && !ok {
			return err
		}
		if err != nil || len(end) != 0 {
			return malformed("bytes between a chunk's data and its CRLF")
		}
	}
	line, err := b.r.line(extensionBytes + 32)
	if err != nil {
		return err
	}
	size, rest, err := chunkSize(line)
	if err != nil {
		return err
	}
	if b.extensions += len(rest); b.extensions > extensionBytes {
		return malformed("more than %d bytes of chunk extensions", extensionBytes)
	}
	b.left, b.inChunk = size, true
	if size > 0 {
		return nil
	}
	return b.r.readTrailers(b.trailers)
}

// mostDigits is how many a chunk size may have. A number needs no more, and
// there are readers that go wrong on longer ones.
const mostDigits = 16

// chunkSize parses a size line without its CRLF. Rest is what follows the
// digits: nothing, or the extensions with their leading semicolon.
func chunkSize(line []byte) (size int64, rest []byte, err error) {
	digits := 0
	for digits < len(line) && hexDigit(line[digits]) {
		if digits == mostDigits {
			return 0, nil, malformed("chunk size %q has more than %d digits", clip(line), mostDigits)
		}
		c := line[digits]
		switch {
		case c >= 'a':
			c -= 'a' - 10
		case c >= 'A':
			c -= 'A' - 10
		default:
			c -= '0'
		}
		if size > math.MaxInt64>>4 {
			return 0, nil, malformed("chunk size %q is too large", clip(line))
		}
		size = size<<4 | int64(c)
		digits++
	}
	rest = line[digits:]
	// RFC 9112 §7.1.1 allows space before the semicolon, but nobody needs it
	// and others read it as the end of the size.
	if digits == 0 || len(rest) > 0 && rest[0] != ';' {
		return 0, nil, malformed("chunk size %q", clip(line))
	}
	for _, c := range rest {
		if !fieldChar[c] {
			return 0, nil, malformed("control character %#02x in a chunk extension", c)
		}
	}
	return size, rest, nil
}

// readTrailers reads the trailer section and holds it to the grammar and the limits
// of header fields. What it may say goes into trailers if those are wanted, and is
// dropped otherwise, as a proxy may (RFC 9110 §6.5.1). It returns io.EOF.
func (r *Reader) readTrailers(trailers *message.Headers) error {
	bytesLeft := r.limits.HeadBytes
	for count := 0; ; count++ {
		line, err := r.line(max(bytesLeft, 0))
		switch {
		case errors.Is(err, errLineTooLong):
			return errTrailersTooLong
		case err != nil:
			return err
		case len(line) == 0:
			return io.EOF
		case count == r.limits.Headers && r.Options.Trailers:
			return errTrailers
		}
		bytesLeft -= len(line) + len(crlf)
		end := 0
		for end < len(line) && tchar[line[end]] {
			line[end] = lower[line[end]]
			end++
		}
		if end == len(line) {
			return malformed("a trailer field without a colon")
		}
		if err := checkName(line, 0, end); err != nil {
			return err
		}
		for _, c := range line[end+1:] {
			if !fieldChar[c] {
				return malformed("control character %#02x in the trailer %q", c, line[:end])
			}
		}
		value := bytes.Trim(line[end+1:], " \t")
		r.headers.Add(uint64(fieldBytes(end, len(value))))
		keep, err := r.keepTrailer(line[:end])
		if err != nil {
			return err
		}
		if keep {
			trailers.AddBytes(string(line[:end]), value)
		}
	}
}

// keepTrailer says whether a trailer goes on: if trailers do, and if it is none
// that frames or routes messages or belongs to one connection (RFC 9110 §6.5.1).
func (r *Reader) keepTrailer(name []byte) (keep bool, err error) {
	if !r.Options.Trailers {
		return false, nil
	}
	if string(name) == "host" || message.Framing(string(name)) {
		return false, nil
	}
	if r.Options.Underscores != AllowUnderscores {
		return r.checkUnderscore(name)
	}
	return true, nil
}

var errLineTooLong = malformed("a line of a chunked body is over the limit")

// line reads one line and returns it without its CRLF, a view until the next
// read. A longer one than limit is errLineTooLong; LF without CR and CR without LF
// are errors too.
func (r *Reader) line(limit int) ([]byte, error) {
	for scanned := 0; ; {
		length := r.end - r.start // of the line as far as it was received
		lf := bytes.IndexByte(r.buf[r.start+scanned:r.end], '\n')
		if lf >= 0 {
			length = scanned + lf
		}
		if length > limit+1 {
			return nil, errLineTooLong
		}
		if lf >= 0 {
			line := r.buf[r.start : r.start+length]
			r.take(length + 1)
			switch bytes.IndexByte(line, '\r') {
			case -1:
				return nil, malformed("a line that ends in LF without CR")
			case length - 1:
				return line[:length-1], nil
			default:
				return nil, malformed("CR within a line of a chunked body")
			}
		}
		scanned = length
		if err := r.more(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
