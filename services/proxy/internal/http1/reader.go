package http1

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Reader reads the messages of one side of one connection, one after another:
// a head, then its body to the end, then the next head. It is used by one
// goroutine at a time.
type Reader struct {
	// Options are set before the first message.
	Options Options

	source io.Reader
	limits Limits
	// buf[start:end] was received and is not yet consumed. buf is nil while nothing
	// is in it, and stays nil while a socket has nothing to read.
	buf        []byte
	start, end int
	large      bool // the next buffer is a large one, as long as bodies are long
	body       body
	opening    startLine // of the message read last; nothing if its head was refused
	closes     bool      // of the response read last
	ended      bool      // the peer has sent all
	received   uint64
	// Of what was received, what is consumed, and the fields among it.
	taken, headers atomic.Uint64

	// Of a source that is a socket, which can be asked whether there is something to
	// read.
	socket syscall.RawConn
	try    func(fd uintptr) (done bool) // tryRead, once
	got    int                          // what it got
	failed error
	before func() error // what tryRead calls first if nothing is there; nil but for ReadAfter
	// Of any other: what Wait reads into.
	first *[waitSize]byte
}

// NewReader reads from source. Of a connection of the net package it asks the socket;
// what wraps one is read by its own Read, which may do more.
func NewReader(source io.Reader, limits Limits) *Reader {
	r := &Reader{source: source, limits: limits}
	switch source.(type) {
	case *net.TCPConn, *net.UnixConn:
		r.socket, _ = source.(syscall.Conn).SyscallConn() // it fails for no connection that was made
		r.try = r.tryRead
	}
	return r
}

// The buffers of no Reader: most connections wait most of the time, and have none
// meanwhile. Nothing that a Reader gave out is in a buffer by then.
var (
	buffers      = sync.Pool{New: func() any { return new([bufferSize]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeSize]byte) }}
)

// hold has the Reader hold a buffer.
func (r *Reader) hold() {
	switch {
	case r.buf != nil:
	case r.large:
		r.buf = largeBuffers.Get().(*[largeSize]byte)[:]
	default:
		r.buf = buffers.Get().(*[bufferSize]byte)[:]
	}
}

// release gives the buffer away, unless something is in it.
func (r *Reader) release() {
	if r.Buffered() {
		return
	}
	switch len(r.buf) {
	case bufferSize:
		buffers.Put((*[bufferSize]byte)(r.buf))
	case largeSize:
		largeBuffers.Put((*[largeSize]byte)(r.buf))
	} // else it has grown, and is garbage
	r.buf, r.start, r.end = nil, 0, 0
}

// isLong says whether so many bytes, which are still to come of a body, want a large
// buffer. What is no socket gives no more at once than a small one takes, and would
// hold it while it waits.
func (r *Reader) isLong(left int64) bool { return r.socket != nil && left > bufferSize }

// Buffered says whether bytes were received that belong to no message read so
// far: the next pipelined request, or what a server sent beyond its response.
func (r *Reader) Buffered() bool { return r.start < r.end }

// HeadReady says whether the whole of the next head was received, so that reading
// it waits for nothing.
func (r *Reader) HeadReady() bool {
	return bytes.Contains(r.buf[r.start:r.end], []byte("\r\n\r\n"))
}

// HTTP10 says whether the request read last was of HTTP/1.0: its client knows
// neither chunks nor interim responses.
func (r *Reader) HTTP10() bool { return r.opening.http10 }

// Closes says whether the server has announced, with the response read last, that it
// closes the connection behind it.
func (r *Reader) Closes() bool { return r.closes }

// Ended says whether the end of the connection was read.
func (r *Reader) Ended() bool { return r.ended }

// Received counts the bytes read from the source.
func (r *Reader) Received() uint64 { return r.received }

// Traffic counts the messages so far: what was read of them, without what is here of
// those to come. Of a field it counts name, colon, value and the end of the line. Others may
// ask meanwhile.
func (r *Reader) Traffic() message.Traffic {
	headers := r.headers.Load()
	return message.Traffic{Wire: r.taken.Load(), Headers: headers, Decompressed: headers}
}

// spoil counts what was received as taken, and forgets what the start line said, since
// nobody can make a message of it.
func (r *Reader) spoil() {
	r.taken.Add(uint64(r.end - r.start))
	r.opening = startLine{}
}

// take consumes n bytes of what was received.
func (r *Reader) take(n int) {
	r.start += n
	r.taken.Add(uint64(n))
}

// Tunnel is what follows the head read last, to the end of the connection, for
// a protocol that is not HTTP.
func (r *Reader) Tunnel() message.Body { return r.body.begin(r, message.Unknown, false, nil) }

// Wait blocks until at least one byte of the next message is there, and holds no
// buffer meanwhile. It returns io.EOF if the peer closed instead.
func (r *Reader) Wait() error {
	if r.Buffered() {
		return nil
	}
	r.release()
	if r.socket != nil {
		// Who has something to do goes first: the next message often comes meanwhile, and
		// to look for it too early costs a system call that finds nothing.
		runtime.Gosched()
		return r.fill()
	}
	if r.first == nil {
		r.first = new([waitSize]byte)
	}
	n, err := r.source.Read(r.first[:])
	r.received += uint64(n)
	if n == 0 {
		return cmp.Or(err, io.ErrNoProgress)
	}
	r.hold()
	r.end = copy(r.buf, r.first[:n])
	return nil
}

// Preface says, without taking anything, whether the connection begins with
// preface instead of a message, and reads as much as that takes. It returns what
// was received so far if so, which the caller takes over: the Reader is of no use
// any more then. Errors are those of Wait.
func (r *Reader) Preface(preface string) (received []byte, err error) {
	for {
		if err := r.Wait(); err != nil {
			return nil, err
		}
		got := r.buf[r.start:r.end]
		switch {
		case len(got) >= len(preface) && string(got[:len(preface)]) == preface:
			return got, nil
		case len(got) >= len(preface) || preface[:len(got)] != string(got):
			return nil, nil
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads once, after making room: by moving what is left to the front of
// the buffer if there is no space behind it. The buffer must not be full.
func (r *Reader) fill() error {
	if r.buf != nil && r.end == len(r.buf) {
		copy(r.buf, r.buf[r.start:r.end])
		r.end -= r.start
		r.start = 0
	}
	n, err := r.read()
	r.end += n
	r.received += uint64(n)
	if n > 0 {
		return nil
	}
	return cmp.Or(err, io.ErrNoProgress)
}

// read waits until there is something, and takes as much as the buffer has room
// for.
func (r *Reader) read() (n int, err error) {
	if r.socket == nil {
		r.hold()
		n, err = r.source.Read(r.buf[r.end:])
	} else if err = r.socket.Read(r.try); err == nil {
		n, err = r.got, r.failed
	}
	if errors.Is(err, io.EOF) {
		r.ended = true
	}
	return n, err
}

// tryRead reads from the socket without waiting, and is done unless it would have
// to: then it is called again when there is something to read, be it the end.
func (r *Reader) tryRead(fd uintptr) (done bool) {
	if before := r.before; before != nil {
		r.before = nil
		if r.got, r.failed = 0, ErrUnasked; Quiet(fd) {
			r.failed = before()
		}
		return r.failed != nil
	}
	r.hold()
	n, err := syscall.Read(int(fd), r.buf[r.end:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), r.buf[r.end:])
	}
	switch {
	case err == syscall.EAGAIN:
		r.release()
		return false
	case err != nil:
		r.release()
		r.got, r.failed = 0, os.NewSyscallError("read", err)
	case n == 0:
		r.release()
		r.got, r.failed = 0, io.EOF
	default:
		r.got, r.failed = n, nil
	}
	return true
}

// ErrUnasked is that the peer sent something before it was asked, or closed.
var ErrUnasked = errors.New("the peer sent something unasked, or closed")

// Quiet says, without waiting, whether nothing is there to be read from a socket, not
// even the end.
func Quiet(fd uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN
}

// ReadAfter has write send what the peer is to answer, and reads what comes first.
// Errors are those of write and of reading, and ErrUnasked, with nothing sent. Of a
// socket it looks before, and not between the two, when nothing is there nearly always
// and to look costs a system call: whatever comes from the look on ends the wait.
// What is no socket it leaves to the next read.
func (r *Reader) ReadAfter(write func() error) error {
	if r.socket == nil || r.Buffered() {
		return write()
	}
	r.before = write
	n, err := r.read()
	r.before = nil // if the deadline had passed before
	r.end += n
	r.received += uint64(n)
	return err
}

// head returns the next head, from its start line to the CRLF of its empty
// line, and consumes it; what the start line says is in r.opening. Before the head of a
// request an empty line may come, which a client may send between two (RFC 9112 §2.2).
// Errors: io.EOF if the connection ended before the first byte, io.ErrUnexpectedEOF if
// within the head, *message.ProtocolError.
//
// Whoever begins otherwise speaks another protocol, and may wait for us: that is told
// as soon as it is seen, and not at the end of a head that may never come.
func (r *Reader) head(request bool) ([]byte, error) {
	scanned, blank := 0, !request // whether all empty lines have come that may
	for {
		if scanned == 0 && r.Buffered() {
			if err := checkStart(r.buf[r.start:r.end], request); err != nil {
				return nil, err
			}
		}
		line := bytes.IndexByte(r.buf[r.start+scanned:r.end], '\n')
		if line < 0 {
			scannedTo := r.end - r.start
			if scannedTo >= r.limits.HeadBytes+len(crlf) {
				return nil, errHeadTooLong
			}
			if err := r.more(); err != nil {
				if errors.Is(err, io.EOF) && scannedTo > 0 {
					return nil, io.ErrUnexpectedEOF
				}
				return nil, err
			}
			continue
		}
		if line > 1 && scanned+line >= r.limits.HeadBytes {
			return nil, errHeadTooLong
		}
		at := r.start + scanned + line // of the LF
		if line == 0 || r.buf[at-1] != '\r' {
			return nil, malformed("a line that ends in LF without CR")
		}
		if line > 1 {
			if scanned == 0 {
				if err := r.opening.parse(r.buf[r.start:at-1], request); err != nil {
					return nil, err
				}
			}
			scanned += line + 1
			continue
		}
		if scanned == 0 { // an empty line before the start line
			if blank {
				return nil, malformed("empty lines before the start line")
			}
			blank = true
			r.take(len(crlf))
			continue
		}
		head := r.buf[r.start : at+1]
		r.take(len(head))
		return head, nil
	}
}

// more reads once, growing the buffer if the head fills it.
func (r *Reader) more() error {
	if r.start == 0 && r.end == len(r.buf) && r.buf != nil {
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	return r.fill()
}

// framing is what the header fields say of a message's body.
type framing struct {
	length      int64 // of content-length; −1 without
	chunked     bool
	hosts       int
	count       int // of fields
	host        []byte
	expect      bool
	closes      bool // connection: close, or proxy-connection
	keepAlive   bool // connection: keep-alive
	hasTransfer bool
	badTransfer bool // its transfer-encoding is not one chunked
}

// fields parses the header fields of block from offset at into h and notes
// what matters for framing. Host is taken out of h, since it is the authority.
func (r *Reader) fields(h *message.Headers, block []byte, at int) (framing, error) {
	f := framing{length: -1}
	counted := 0
	if r.Options.KeepSpelling {
		h.KeepSpelling()
	}
	for ; ; f.count++ {
		if block[at] == '\r' {
			if block[at+1] != '\n' {
				return f, malformed("a line that begins with CR")
			}
			r.headers.Add(uint64(counted))
			return f, nil
		}
		if f.count == r.limits.Headers {
			return f, errHeaders
		}
		name := at
		for tchar[block[at]] {
			block[at] = lower[block[at]]
			at++
		}
		if err := checkName(block, name, at); err != nil {
			return f, err
		}
		nameEnd := at
		at++
		for block[at] == ' ' || block[at] == '\t' {
			at++
		}
		value := at
		for fieldChar[block[at]] {
			at++
		}
		if block[at] != '\r' || block[at+1] != '\n' {
			return f, malformed("control character %#02x in the value of %q", block[at], block[name:nameEnd])
		}
		valueEnd := at
		for valueEnd > value && (block[valueEnd-1] == ' ' || block[valueEnd-1] == '\t') {
			valueEnd--
		}
		at += 2
		counted += fieldBytes(nameEnd-name, valueEnd-value)
		keep, err := f.note(block[name:nameEnd], block[value:valueEnd])
		if err != nil {
			return f, err
		}
		if keep && r.Options.Underscores != AllowUnderscores {
			if keep, err = r.checkUnderscore(block[name:nameEnd]); err != nil {
				return f, err
			}
		}
		if keep {
			h.Mark(name, nameEnd, value, valueEnd)
		}
	}
}

// fieldBytes is how many bytes Traffic counts for a field that came with a name and a value
// of so many.
func fieldBytes(name, value int) int { return name + len(":") + value + len(crlf) }

// checkUnderscore says whether a field stays.
func (r *Reader) checkUnderscore(name []byte) (keep bool, err error) {
	switch {
	case bytes.IndexByte(name, '_') < 0:
		return true, nil
	case r.Options.Underscores == RejectUnderscores:
		return false, ErrUnderscore
	case r.Options.Dropped != nil:
		r.Options.Dropped()
	}
	return false, nil
}

// checkName refuses what is no field name followed by a colon.
func checkName(block []byte, name, end int) error {
	switch c := block[end]; {
	case end == name && (c == ' ' || c == '\t'):
		return malformed("a header field folded over two lines")
	case end == name:
		return malformed("a header field without a name")
	case c == ' ' || c == '\t':
		return malformed("space between the field name %q and its colon", block[name:end])
	case c != ':':
		return malformed("character %#02x in the field name after %q", c, block[name:end])
	}
	return nil
}

// note looks at one field's meaning for the framing and says whether the field
// stays in the table.
func (f *framing) note(name, value []byte) (keep bool, err error) {
	switch string(name) {
	case "host":
		f.hosts++
		f.host = value
		return false, nil
	case "content-length":
		if f.length >= 0 {
			return false, malformed("two content-length fields")
		}
		f.length, err = parseLength(value)
		return true, err
	case "transfer-encoding":
		if f.hasTransfer || !equalFold(value, "chunked") {
			f.badTransfer = true
		}
		f.hasTransfer, f.chunked = true, true
		return false, nil
	case "connection":
		for token := range tokens(value) {
			f.closes = f.closes || equalFold(token, "close")
			f.keepAlive = f.keepAlive || equalFold(token, "keep-alive")
		}
	case "proxy-connection": // no standard's, but sent to proxies, and heeded by Envoy
		for token := range tokens(value) {
			f.closes = f.closes || equalFold(token, "close")
		}
	case "expect":
		if equalFold(value, "100-continue") {
			f.expect = true
			return false, nil
		}
	}
	return true, nil
}

// check refuses framing that could be read in two ways.
func (f *framing) check() error {
	if f.badTransfer {
		return errTransferCoding
	}
	if f.chunked && f.length >= 0 {
		return errBothLengths
	}
	return nil
}

// parseLength reads a content-length: digits alone, at most 2⁶³−1.
func parseLength(value []byte) (int64, error) {
	if len(value) == 0 {
		return 0, malformed("an empty content-length")
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, malformed("content-length %q is not a number", value)
		}
		d := int64(c - '0')
		if n > (1<<63-1-d)/10 {
			return 0, malformed("content-length %q is too large", value)
		}
		n = n*10 + d
	}
	return n, nil
}

// tokens yields the parts of a comma-separated list, without their spaces and
// without empty ones.
func tokens(list []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(list) > 0 {
			part := list
			if i := bytes.IndexByte(list, ','); i >= 0 {
				part, list = list[:i], list[i+1:]
			} else {
				list = nil
			}
			if part = bytes.Trim(part, " \t"); len(part) > 0 && !yield(part) {
				return
			}
		}
	}
}
