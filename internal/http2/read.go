package http2

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// bufferSize holds a frame of the default size.
	bufferSize = defaultFrameSize + frameHeaderLen
	// restSize is what a connection keeps to read into whose socket can't be
	// waited for without a buffer.
	restSize = 512
)

// readBuffers are shared by all connections: one has a buffer only while there
// is something in it.
var readBuffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// reader is what the goroutine that reads a connection works with.
type reader struct {
	c          *Conn
	buf        []byte
	pooled     *[bufferSize]byte // buf, if it came from the pool
	rest       []byte            // buf while little comes; made when needed
	start, end int               // of what was received and not taken
	last       int               // bytes that the last read brought
	readFD     func(fd uintptr) bool
	readN      int
	readErr    error

	decoder     decoder
	block       []byte    // the header block so far, while one is incomplete
	blockFrame  frame     // the HEADERS frame that it began with; stream 0 is none
	blockWire   int       // bytes of the frames of the present header block
	gotSettings bool      // the first frame was
	began       time.Time // when it began, zero if none is incomplete
	timed       bool      // HeaderTimeout runs
}

func (r *reader) init(c *Conn) {
	r.c = c
	r.decoder = newDecoder()
	r.decoder.longest = int(c.options.MaxFieldBytes)
	if c.raw != nil {
		r.readFD = r.readSocket
	}
}

// serve reads frames until the connection ends, and returns why. Steps: the
// preface; frames; then what the peer still sends is thrown away for a while, so
// that it can read our last words.
func (c *Conn) serve(received []byte) error {
	r := &c.r
	r.receive(received)
	err := r.readPreface()
	for err == nil {
		err = r.readFrame()
	}
	if r.timed && errors.Is(err, os.ErrDeadlineExceeded) {
		err = connectionError(EnhanceYourCalm, "a header block took longer than %v", c.options.HeaderTimeout)
	}
	c.mu.Lock()
	switch {
	case c.peerReason != nil && errors.Is(err, io.EOF):
		err = c.peerReason
	case c.w.err != nil: // which was first
		err = c.w.err
	}
	c.fail(err)
	err = c.err
	c.mu.Unlock()
	r.release()
	c.linger()
	return err
}

// linger closes the connection: its write side as soon as all is written, the
// rest once the peer closed too, or too late.
func (c *Conn) linger() {
	c.mu.Lock()
	deadline := time.Now().Add(c.options.Linger)
	told := !errors.Is(c.err, ErrClosed) && c.w.err == nil
	if told {
		// For what is being written, and for reading below.
		_ = c.net.SetDeadline(deadline)
		for c.w.flushing {
			c.w.idle.Wait()
		}
		told = c.w.err == nil
	}
	_, failed := errors.AsType[*ConnectionError](c.err)
	c.mu.Unlock()
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && told && failed && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.net, 1<<20))
	}
	_ = c.net.Close()
}

// receive takes over what was read from the connection before.
func (r *reader) receive(received []byte) {
	if len(received) == 0 {
		return
	}
	r.move(len(received))
	r.end = copy(r.buf, received)
	r.c.received.Add(uint64(r.end))
}

// readPreface reads what a client begins with (RFC 9113 §3.4).
func (r *reader) readPreface() error {
	if r.c.client {
		return nil
	}
	for have := 0; have < len(preface); have = r.end - r.start {
		if string(r.buf[r.start:r.end]) != preface[:have] {
			break
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
	if r.end-r.start < len(preface) || string(r.buf[r.start:r.start+len(preface)]) != preface {
		return connectionError(ProtocolError, "no connection preface")
	}
	r.start += len(preface)
	return nil
}

// readFrame reads one frame and deals with it. DATA is handed on as it comes,
// other frames once they are there as a whole.
func (r *reader) readFrame() error {
	if err := r.need(frameHeaderLen); err != nil {
		return err
	}
	f := parseFrame(r.buf[r.start:])
	if err := r.check(f); err != nil {
		return err
	}
	if f.kind == frameData {
		r.start += frameHeaderLen
		return r.readData(f)
	}
	total := frameHeaderLen + f.length
	if f.kind == frameHeaders && (!f.has(flagEndHeaders) || r.end-r.start < total) {
		r.began = time.Now()
		r.timeHeaders(r.began.Add(r.c.options.HeaderTimeout))
	}
	if err := r.need(total); err != nil {
		return err
	}
	payload := r.buf[r.start+frameHeaderLen : r.start+total]
	r.start += total
	err := r.c.receive(f, payload)
	if !r.began.IsZero() && r.blockFrame.stream == 0 {
		r.began = time.Time{}
		r.timeHeaders(time.Time{})
	}
	return err
}

// timeHeaders has a header block that is not there as a whole at once come until a
// time (HeaderTimeout); zero is its end.
func (r *reader) timeHeaders(until time.Time) {
	if r.c.options.HeaderTimeout == 0 {
		return
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.c.err != nil {
		return // the deadline serves to tell that
	}
	_ = r.c.net.SetReadDeadline(until)
	r.timed = !until.IsZero()
}

// check is for what a frame's header alone can break.
func (r *reader) check(f frame) error {
	switch {
	case f.length > int(r.c.options.MaxFrameSize):
		return connectionError(FrameSizeError, "a frame of %d bytes", f.length)
	case !r.gotSettings && (f.kind != frameSettings || f.has(flagAck)):
		return connectionError(ProtocolError, "the first frame is not SETTINGS")
	case r.blockFrame.stream != 0 && (f.kind != frameContinuation || f.stream != r.blockFrame.stream):
		return connectionError(ProtocolError, "frame of type %d on stream %d within the header block of stream %d",
			f.kind, f.stream, r.blockFrame.stream)
	case r.blockFrame.stream == 0 && f.kind == frameContinuation:
		return connectionError(ProtocolError, "CONTINUATION without a header block")
	}
	return nil
}

// readData reads the payload of a DATA frame, whose header was read.
func (r *reader) readData(f frame) error {
	padding, left := 0, f.length
	if f.has(flagPadded) {
		if left == 0 {
			return connectionError(FrameSizeError, "padded DATA without padding length")
		}
		if err := r.need(1); err != nil {
			return err
		}
		padding = int(r.buf[r.start])
		r.start++
		if left--; padding > left {
			return connectionError(ProtocolError, "%d bytes of padding in %d of DATA", padding, left)
		}
		left -= padding
	}
	s, err := r.c.beginData(f, left)
	if err != nil {
		return err
	}
	for left > 0 {
		if r.start == r.end {
			if err := r.fill(); err != nil {
				return err
			}
		}
		n := min(left, r.end-r.start)
		left -= n
		r.c.data(s, f.stream, r.buf[r.start:r.start+n])
		r.start += n
	}
	for padding > 0 {
		if r.start == r.end {
			if err := r.fill(); err != nil {
				return err
			}
		}
		n := min(padding, r.end-r.start)
		padding -= n
		r.start += n
	}
	return r.c.endData(f)
}

// need waits until n bytes are there in one piece.
func (r *reader) need(n int) error {
	for r.end-r.start < n {
		if r.start+n > len(r.buf) && r.end > r.start {
			r.move(n)
		}
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && r.end > r.start {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// move makes room for n bytes from start on.
func (r *reader) move(n int) {
	if n <= len(r.buf) {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
		return
	}
	var buf []byte
	var pooled *[bufferSize]byte
	if n <= bufferSize {
		pooled = readBuffers.Get().(*[bufferSize]byte)
		buf = pooled[:]
	} else {
		buf = make([]byte, n)
	}
	end := copy(buf, r.buf[r.start:r.end])
	r.release()
	r.buf, r.pooled, r.start, r.end = buf, pooled, 0, end
}

// release gives the buffer back.
func (r *reader) release() {
	if r.pooled != nil {
		readBuffers.Put(r.pooled)
	}
	r.buf, r.pooled, r.start, r.end = nil, nil, 0, 0
}

// fill reads more. Before it waits it sees to it that what was gathered to be
// written is on its way.
func (r *reader) fill() error {
	r.c.mu.Lock()
	if len(r.c.w.buf) > 0 {
		r.c.flush()
	}
	r.c.mu.Unlock()
	if r.start == r.end {
		if r.pooled == nil || r.c.raw == nil && r.last < restSize/2 {
			r.release()
		}
		r.start, r.end = 0, 0
	}
	var n int
	var err error
	if r.c.raw != nil {
		n, err = r.fillSocket()
	} else {
		r.ensure(r.last < restSize/2)
		n, err = r.c.net.Read(r.buf[r.end:])
	}
	r.last = n
	r.end += n
	if n > 0 {
		r.c.received.Add(uint64(n))
		r.c.heard()
		return nil
	}
	return err // nil is a Read of nothing, which the caller tries again
}

// ensure sees to it that there is a buffer with room.
func (r *reader) ensure(little bool) {
	switch {
	case r.end < len(r.buf):
	case r.end > r.start:
		r.move(max(r.end-r.start+1, min(bufferSize, 2*(r.end-r.start))))
	case little && r.c.raw == nil:
		if r.rest == nil {
			r.rest = make([]byte, restSize)
		}
		r.release()
		r.buf = r.rest
	default:
		r.release()
		r.pooled = readBuffers.Get().(*[bufferSize]byte)
		r.buf = r.pooled[:]
	}
}
