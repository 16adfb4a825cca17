package http2

import (
	"errors"
	"strconv"
)

// WriteHead gathers the head of the server's answer: an interim one (1xx) or,
// once, the final one, with end if nothing follows. It goes out with the next
// Flush, with the end of the message, or when enough was gathered.
func (s *Stream) WriteHead(status int, fields FieldList, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.maySend(); err != nil {
		return err
	}
	if s.sentHead || c.client {
		return errors.New("http2: the head was sent already")
	}
	s.sentHead = status >= 200
	start := c.beginBlock()
	var digits [8]byte
	c.w.buf = c.encoder.field(c.w.buf, statusField, strconv.AppendInt(digits[:0], int64(status), 10))
	s.endBlock(start, fields, end)
	return nil
}

// WriteTrailers gathers the trailers of the message, which they end, and sends
// what was gathered.
func (s *Stream) WriteTrailers(fields FieldList) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.mayFollow(); err != nil {
		return err
	}
	s.endBlock(c.beginBlock(), fields, true)
	return nil
}

// writeRequest gathers the head of the client's request. With mu held.
func (s *Stream) writeRequest(r *Request, fields FieldList, end bool) {
	c := s.conn
	start := c.beginBlock()
	b := c.encoder.field(c.w.buf, methodField, r.Method)
	if len(r.Protocol) > 0 {
		b = c.encoder.field(b, protocolField, r.Protocol)
	}
	if len(r.Scheme) > 0 {
		b = c.encoder.field(b, schemeField, r.Scheme)
	}
	if len(r.Authority) > 0 {
		b = c.encoder.field(b, authorityField, r.Authority)
	}
	if len(r.Path) > 0 {
		b = c.encoder.field(b, pathField, r.Path)
	}
	c.w.buf = b
	s.endBlock(start, fields, end)
}

// The names of pseudo-header fields.
var (
	methodField    = []byte(":method")
	schemeField    = []byte(":scheme")
	authorityField = []byte(":authority")
	pathField      = []byte(":path")
	protocolField  = []byte(":protocol")
	statusField    = []byte(":status")
)

// beginBlock makes room for a HEADERS frame's header, and returns where that is.
// With mu held, as for all that follows.
func (c *Conn) beginBlock() int {
	b := c.writing()
	start := len(b)
	c.w.buf = c.encoder.begin(appendFrame(b, 0, frameHeaders, 0, 0))
	return start
}

// endBlock adds fields to the block that began at start, and makes frames of it.
func (s *Stream) endBlock(start int, fields FieldList, end bool) {
	c := s.conn
	b := c.w.buf
	if fields != nil {
		for i := range fields.Len() {
			name, value := fields.At(i)
			b = c.encoder.field(b, name, value)
		}
	}
	flags := uint8(0)
	if end {
		flags = flagEndStream
		s.endLocal()
	}
	length := len(b) - start - frameHeaderLen
	if length <= c.peer.maxFrame {
		appendFrame(b[:start], length, frameHeaders, flags|flagEndHeaders, s.id)
	} else {
		b = splitBlock(b, start, flags, s.id, c.peer.maxFrame)
	}
	s.out.addBlock(len(b)-start, c.encoder.fields)
	c.w.buf = b
	c.w.frames++
	c.floods.pingFree = true
	if err := c.countOutbound(); err != nil {
		c.fail(err)
		return
	}
	if end || len(b) >= flushSize {
		c.flush()
	}
}

// splitBlock makes HEADERS and CONTINUATION of a block that is too long for one
// frame.
func splitBlock(b []byte, start int, flags uint8, id uint32, most int) []byte {
	block := append([]byte(nil), b[start+frameHeaderLen:]...)
	b = b[:start]
	for kind := uint8(frameHeaders); len(block) > 0; kind = frameContinuation {
		n := min(len(block), most)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b = append(appendFrame(b, n, kind, flags, id), block[:n]...)
		block, flags = block[n:], 0
	}
	return b
}

// WriteData gathers p as the next part of the body, with end if it is the last;
// p may be empty then. It waits until the peer gave credit for all of it, and is
// done with p when it returns.
func (s *Stream) WriteData(p []byte, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := s.mayFollow(); err != nil {
			c.wakeBlocked()
			return err
		}
		n := min(len(p), max(0, min(int(s.sendWindow), int(c.sendWindow), c.room(), c.peer.maxFrame)))
		if n == 0 && len(p) > 0 {
			s.awaitCredit()
			continue
		}
		last := n == len(p)
		flags := uint8(0)
		if last && end {
			flags = flagEndStream
			s.endLocal()
		}
		if n > 0 || last && end {
			c.w.buf = append(appendFrame(c.writing(), n, frameData, flags, s.id), p[:n]...)
			c.w.frames++
			s.out.add(n)
			c.floods.dataSent++
			c.floods.pingFree = true
			s.sendWindow -= int32(n)
			c.sendWindow -= int32(n)
			p = p[n:]
			c.wakeBlocked()
		}
		if last && end || len(c.w.buf) >= flushSize {
			c.flush()
		}
		if last {
			return nil
		}
	}
}

// awaitCredit waits for something of what WriteData lacks, or looks after what
// was gathered, which may bring it. With mu held.
func (s *Stream) awaitCredit() {
	c := s.conn
	if len(c.w.buf) > 0 && !c.w.flushing {
		c.flush()
		return
	}
	if c.sendWindow <= 0 || c.room() <= 0 {
		c.blocked.add(s)
	} else {
		c.wakeBlocked() // what is there is for others
	}
	s.writable.Wait()
	c.blocked.remove(s)
}

// Flush sends what was gathered. It does not wait for the socket.
func (s *Stream) Flush() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	c.flush()
	return nil
}

// Reset ends the stream in both directions. It does nothing once both sides have
// sent all.
func (s *Stream) Reset(code ErrCode) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(code, "reset here")
	c.flush()
}

// maySend says why nothing can be sent any more. With mu held.
func (s *Stream) maySend() error {
	switch {
	case s.err != nil:
		return s.err
	case s.sendErr != nil:
		return s.sendErr
	case s.localEnded:
		return errors.New("http2: the message was ended already")
	}
	return s.cut
}

// mayFollow says the same of what follows a head.
func (s *Stream) mayFollow() error {
	if !s.sentHead {
		return errors.New("http2: the head was not sent yet")
	}
	return s.maySend()
}

// endLocal ends our side. With mu held.
func (s *Stream) endLocal() {
	s.localEnded = true
	if c := s.conn; !c.client && !s.parked {
		// The client may open another stream before the handler has returned.
		s.answered = true
		c.answered++
	}
	if s.remoteEnded {
		s.conn.forget(s, false)
	}
}
