package http2

import "encoding/binary"

// receive deals with a frame that is no DATA. It runs on the goroutine that
// reads, as all here does.
func (c *Conn) receive(f frame, payload []byte) error {
	switch f.kind {
	case frameHeaders:
		return c.onHeaders(f, payload)
	case frameContinuation:
		return c.onContinuation(f, payload)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	switch f.kind {
	case framePriority:
		return c.onPriority(f, payload)
	case frameReset:
		if err := exactly(f, 4); err != nil {
			return err
		}
		return c.onReset(f, ErrCode(binary.BigEndian.Uint32(payload)))
	case frameSettings:
		return c.onSettings(f, payload)
	case framePushPromise:
		return connectionError(ProtocolError, "PUSH_PROMISE")
	case framePing:
		return c.onPing(f, payload)
	case frameGoAway:
		return c.onGoAway(f, payload)
	case frameWindowUpdate:
		if err := exactly(f, 4); err != nil {
			return err
		}
		return c.onWindowUpdate(f, binary.BigEndian.Uint32(payload)&maxStreamID)
	}
	return nil // RFC 9113 §5.5: what is unknown is ignored
}

func exactly(f frame, length int) error {
	if f.length != length {
		return connectionError(FrameSizeError, "frame of type %d with %d bytes", f.kind, f.length)
	}
	return nil
}

// onHeaders takes the first frame of a header block.
func (c *Conn) onHeaders(f frame, payload []byte) error {
	if f.stream == 0 {
		return connectionError(ProtocolError, "HEADERS on stream 0")
	}
	c.r.blockWire = frameHeaderLen + f.length
	payload, ok := unpad(f, payload)
	if !ok {
		return connectionError(ProtocolError, "HEADERS with more padding than payload")
	}
	if f.has(flagPriority) {
		if len(payload) < 5 {
			return connectionError(FrameSizeError, "HEADERS without the priority that it announces")
		}
		if binary.BigEndian.Uint32(payload)&maxStreamID == f.stream {
			return connectionError(ProtocolError, "stream %d depends on itself", f.stream)
		}
		payload = payload[5:]
	}
	if err := c.countEmpty(len(payload), f.has(flagEndHeaders)); err != nil {
		return err
	}
	if f.has(flagEndHeaders) {
		return c.headerBlock(f, payload)
	}
	c.r.blockFrame = f
	c.r.block = append(c.r.block[:0], payload...)
	return nil
}

// onContinuation takes a further one. It is counted before it is kept.
func (c *Conn) onContinuation(f frame, payload []byte) error {
	if err := c.countEmpty(len(payload), f.has(flagEndHeaders)); err != nil {
		return err
	}
	if len(c.r.block)+len(payload) > int(c.options.MaxHeaderBytes)+defaultFrameSize {
		return c.flood(HeaderFlood)
	}
	c.r.block = append(c.r.block, payload...)
	c.r.blockWire += frameHeaderLen + f.length
	if !f.has(flagEndHeaders) {
		return nil
	}
	first, block := c.r.blockFrame, c.r.block
	c.r.blockFrame, c.r.block = frame{}, nil
	return c.headerBlock(first, block)
}

// headerBlock takes a whole header block, whose first frame was f. Steps: find
// out what it should be; decode it, without the mutex; hand it to its stream.
func (c *Conn) headerBlock(f frame, block []byte) error {
	a := assemblies.Get().(*assembly)
	defer a.end()
	c.mu.Lock()
	a.begin(c.blockKind(f), c.r.began, &c.options.Options, c.options.ConnectProtocol)
	c.mu.Unlock()
	var err error
	if a.scratch, err = c.r.decoder.decode(block, a.scratch, a); err != nil {
		return err
	}
	a.finish()
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	s := c.streams[f.stream]
	switch {
	case s != nil && a.kind != ignoredBlock:
		s.in.addBlock(c.r.blockWire, a.fields)
		err = c.headOf(s, f, a)
	case s == nil && a.kind == requestBlock:
		s, err = c.accept(f, a)
		c.mu.Unlock()
		if s != nil {
			c.server.workers.run(s)
		}
		return err
	default:
		err = c.checkClosed(f)
	}
	c.mu.Unlock()
	return err
}

// blockKind is what a header block should be, by the state of its stream. With
// mu held.
func (c *Conn) blockKind(f frame) blockKind {
	s := c.streams[f.stream]
	switch {
	case s != nil && s.gotHead:
		return trailerBlock
	case s != nil:
		return responseBlock
	case !c.client && f.stream%2 == 1 && f.stream > c.lastPeer:
		return requestBlock
	}
	return ignoredBlock
}

// accept opens the stream of a request. With mu held.
func (c *Conn) accept(f frame, a *assembly) (*Stream, error) {
	c.lastPeer = f.stream
	if f.stream > c.lastTaken {
		c.closed.add(f.stream, true) // RFC 9113 §6.8: it will be sent elsewhere
		return nil, nil
	}
	c.floods.opened++
	h := &a.received.head
	if a.tooLarge != "" {
		c.countTooLarge()
		h.Fields.Reset()
		*h = Head{Fields: h.Fields, ContentLength: -1, TooLarge: a.tooLarge}
	}
	h.End = f.has(flagEndStream)
	most := int(c.options.MaxConcurrentStreams)
	switch {
	case a.tooLarge != "" && !c.options.ServeTooLarge:
		return nil, c.refuse(f.stream, InternalError)
	case a.fault == "" && h.End && h.ContentLength > 0:
		a.fault = "content-length without a body"
	}
	switch {
	case a.fault != "" && c.options.MalformedEndsConnection:
		return nil, connectionError(ProtocolError, "stream %d: %s", f.stream, a.fault)
	case a.fault != "":
		return nil, c.refuse(f.stream, ProtocolError)
	case len(c.streams) >= most || c.running-c.answered >= most:
		return nil, c.refuse(f.stream, RefusedStream)
	}
	s := c.open(f.stream)
	s.gotHead = true
	s.expected = h.ContentLength
	s.remoteEnded = h.End
	s.in.addBlock(c.r.blockWire, a.fields)
	s.push(a)
	c.running++
	return s, nil
}

// refuse resets a stream that was not opened. With mu held.
func (c *Conn) refuse(id uint32, code ErrCode) error {
	c.closed.add(id, true)
	c.countStreamError(&StreamError{ID: id, Code: code, Reason: "not opened"})
	c.w.buf = appendReset(c.writing(), id, code)
	if err := c.wroteControl(); err != nil {
		return err
	}
	return c.countReset()
}

// headOf hands a stream its response head, interim or final, or its trailers.
// With mu held.
func (c *Conn) headOf(s *Stream, f frame, a *assembly) error {
	end := f.has(flagEndStream)
	switch {
	case s.remoteEnded:
		return c.abort(s, StreamClosed, "HEADERS behind the end of the message")
	case a.tooLarge != "":
		c.countTooLarge()
		return c.abort(s, InternalError, "a head or trailers over the limit")
	case a.fault != "":
		return c.malformed(s, a.fault)
	case a.kind == trailerBlock:
		if !end {
			return c.malformed(s, "trailers that do not end the stream")
		}
		s.trailers, a.received = a.received, nil
		return c.endRemote(s)
	}
	h := &a.received.head
	h.End = end
	if h.Status < 200 {
		if end {
			return c.malformed(s, "an interim response that ends the stream")
		}
		if s.interims++; s.interims > c.options.MaxInterim {
			return c.abort(s, EnhanceYourCalm, "too many interim responses")
		}
		s.push(a)
		return nil
	}
	s.gotHead = true
	s.expected = h.ContentLength
	if s.toHead || h.Status == 204 || h.Status == 304 {
		s.expected = 0 // whatever content-length says (RFC 9113 §8.1.1)
	}
	if s.toConnect && h.Status < 300 {
		s.expected = -1
	}
	s.push(a)
	if end {
		return c.endRemote(s)
	}
	return nil
}

// beginData checks a DATA frame with n bytes of data in its payload. The stream
// is nil if the data is to be thrown away.
func (c *Conn) beginData(f frame, n int) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case f.stream == 0:
		return nil, connectionError(ProtocolError, "DATA on stream 0")
	case int64(f.length) > int64(c.recvWindow):
		return nil, connectionError(FlowControlError, "DATA of %d bytes on a window of %d", f.length, c.recvWindow)
	}
	if err := c.countEmpty(n, f.has(flagEndStream)); err != nil {
		return nil, err
	}
	c.recvWindow -= int32(f.length)
	s := c.streams[f.stream]
	if s == nil {
		c.giveBack(f.length - n)
		return nil, c.checkClosed(f)
	}
	s.in.add(f.length)
	var err error
	switch {
	case s.remoteEnded:
		err = c.abort(s, StreamClosed, "DATA behind the end of the message")
	case int64(f.length) > int64(s.recvWindow)+int64(c.slack()):
		err = c.abort(s, FlowControlError, "DATA over the stream's window")
	case !s.gotHead:
		err = c.malformed(s, "DATA before the head")
	case s.expected >= 0 && s.got+int64(n) > s.expected:
		err = c.malformed(s, "more DATA than content-length says")
	default:
		s.recvWindow -= int32(f.length)
		s.got += int64(n)
		s.giveBack(f.length - n)
		return s, nil
	}
	c.giveBack(f.length - n)
	return nil, err
}

// data hands a part of a DATA frame to its stream, if that is still there.
func (c *Conn) data(s *Stream, id uint32, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == nil || c.streams[id] != s {
		c.giveBack(len(p))
		return
	}
	s.body.put(p)
	s.wakeReader()
}

// endData deals with the end of a DATA frame.
func (c *Conn) endData(f frame) error {
	if !f.has(flagEndStream) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[f.stream]; s != nil {
		return c.endRemote(s)
	}
	return nil
}

// endRemote ends the peer's side of a stream. With mu held.
func (c *Conn) endRemote(s *Stream) error {
	if s.expected >= 0 && s.got != s.expected {
		return c.malformed(s, "less DATA than content-length says")
	}
	s.remoteEnded = true
	s.wakeReader()
	if s.localEnded {
		c.forget(s, false)
	}
	return nil
}

// onReset ends a stream that the peer resets. With mu held.
func (c *Conn) onReset(f frame, code ErrCode) error {
	if f.stream == 0 {
		return connectionError(ProtocolError, "RST_STREAM on stream 0")
	}
	s := c.streams[f.stream]
	if s == nil {
		return c.checkNotIdle(f)
	}
	s.in.add(f.length)
	err := &StreamError{ID: s.id, Code: code, Remote: true}
	c.countStreamError(err)
	c.forget(s, false)
	s.breakOff(err)
	return c.countReset()
}

// countTooLarge tells who counts. With mu held.
func (c *Conn) countTooLarge() {
	if c.options.OnTooLarge != nil {
		c.options.OnTooLarge()
	}
}

// countStreamError tells who counts. With mu held.
func (c *Conn) countStreamError(err *StreamError) {
	if c.options.OnStreamError != nil {
		c.options.OnStreamError(err)
	}
}

// abort resets a stream since the peer broke a rule. With mu held.
func (c *Conn) abort(s *Stream, code ErrCode, reason string) error {
	s.reset(code, reason)
	return c.countReset()
}

// malformed is for messages that are (RFC 9113 §8.1.1). With mu held.
func (c *Conn) malformed(s *Stream, reason string) error {
	if c.options.MalformedEndsConnection {
		return connectionError(ProtocolError, "stream %d: %s", s.id, reason)
	}
	return c.abort(s, ProtocolError, reason)
}

// checkNotIdle is for frames on streams that are not open: no harm, unless they
// never were. With mu held.
func (c *Conn) checkNotIdle(f frame) error {
	switch {
	case f.stream%2 == 0, c.client && f.stream >= c.nextID, !c.client && f.stream > c.lastPeer:
		return connectionError(ProtocolError, "frame of type %d on the idle stream %d", f.kind, f.stream)
	}
	return nil
}

// checkClosed is for DATA and HEADERS on streams that are not open: no harm if we
// reset them, since the peer may not have known. With mu held.
func (c *Conn) checkClosed(f frame) error {
	if err := c.checkNotIdle(f); err != nil {
		return err
	}
	known, reset := c.closed.find(f.stream)
	switch {
	case reset:
		return nil
	case known || f.kind == frameData:
		return connectionError(StreamClosed, "frame of type %d on the closed stream %d", f.kind, f.stream)
	}
	return connectionError(ProtocolError, "stream %d is opened behind stream %d", f.stream, c.lastPeer)
}

// onPriority counts what RFC 9113 §5.3.2 deprecates. With mu held.
func (c *Conn) onPriority(f frame, payload []byte) error {
	if f.stream == 0 {
		return connectionError(ProtocolError, "PRIORITY on stream 0")
	}
	code, reason := NoError, ""
	switch {
	case len(payload) != 5:
		code, reason = FrameSizeError, "PRIORITY that is not 5 bytes"
	case binary.BigEndian.Uint32(payload)&maxStreamID == f.stream:
		code, reason = ProtocolError, "a stream that depends on itself"
	}
	if code != NoError {
		if s := c.streams[f.stream]; s != nil {
			return c.abort(s, code, reason)
		}
		return connectionError(code, "%s", reason)
	}
	if s := c.streams[f.stream]; s != nil {
		s.in.add(f.length)
	}
	return c.countPriority()
}

// onPing answers a PING, or takes an answer. With mu held.
func (c *Conn) onPing(f frame, payload []byte) error {
	if f.stream != 0 {
		return connectionError(ProtocolError, "PING on stream %d", f.stream)
	}
	if err := exactly(f, 8); err != nil {
		return err
	}
	if f.has(flagAck) {
		// That it came is all that keepalive wants to know.
		if c.asked && [8]byte(payload) == drainPing {
			c.finish()
		}
		return nil
	}
	if err := c.countPing(); err != nil {
		return err
	}
	c.w.buf = appendPing(c.writing(), flagAck, [8]byte(payload))
	return c.wroteControl()
}
