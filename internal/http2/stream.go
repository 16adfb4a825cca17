package http2

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// Stream is one request and its response. Of each direction there may be one
// goroutine at a time that reads, and one that writes. It belongs to whoever
// serves or opened it until the handler returns or Close is called: then it is
// used again for others.
type Stream struct {
	conn *Conn
	id   uint32

	// All that follows is guarded by the connection's mutex, which the
	// conditions use too.
	readable sync.Cond // something to read, or the end
	writable sync.Cond // credit, room, or the end

	// What the peer sends.
	first, last *received // heads that wait for ReadHead
	trailers    *received
	body        chunks
	recvWindow  int32 // bytes that may still come
	credit      int32 // bytes that were taken and not told to the peer yet
	interims    int
	expected    int64 // bytes of the body by content-length; −1 if it says nothing
	got         int64 // bytes of the body so far
	gotHead     bool  // the final one
	remoteEnded bool
	toHead      bool // the request is a HEAD: the response has no body
	toConnect   bool // it is a CONNECT

	// What we send.
	sendWindow     int32
	sentHead       bool
	localEnded     bool
	queued         bool // in the connection's queue of blocked streams
	before, behind *Stream

	err     error // why both directions ended before their time
	sendErr error // why ours did, while the other one goes on
	cut     error // what waits and whatever is tried now returns this

	timer    *time.Timer // made when first needed
	ticks    int         // calls of expire that are to come
	deadline time.Time   // zero is none

	onReset func(error)
	telling bool // onReset runs

	in, out Traffic

	state  any  // of Park
	ended  bool // Next has told the end of the body
	parks  bool // the handler that runs has called Park
	parked bool // no handler runs
	// answered says that it is counted among the handlers whose answer is whole.
	answered bool
}

// open makes a stream and counts it. With mu held.
func (c *Conn) open(id uint32) *Stream {
	s := c.options.streams.Get().(*Stream)
	s.conn, s.id = c, id
	s.readable.L, s.writable.L = &c.mu, &c.mu
	s.recvWindow = int32(c.options.StreamWindow)
	s.sendWindow = c.peer.streamWindow
	s.expected = -1
	c.streams[id] = s
	c.countStreams(1)
	return s
}

// ID is the stream's identifier.
func (s *Stream) ID() uint32 { return s.id }

// Err is why the stream ended before its time, nil while it did not: a *StreamError, or
// why the connection ended.
func (s *Stream) Err() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.err
}

// Traffic is how many bytes of frames of the stream have come from the peer, and how many
// were gathered for it. It may be called by anyone, up to the end of the stream's use.
func (s *Stream) Traffic() (received, sent Traffic) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.in, s.out
}

// Conn is the connection of the stream.
func (s *Stream) Conn() *Conn { return s.conn }

// ReadHead waits for the next head: of a server's stream there is one, which is
// there from the start; of a client's any interim ones (1xx), then the final one.
// What h held before is overwritten; its memory is used again.
//
// Errors, as of Next, WriteHead, WriteData and WriteTrailers: a *StreamError if
// the stream was reset, by either side, or will not be served; why the
// connection ended; os.ErrDeadlineExceeded, or what Interrupt was given. Before the
// error of a server's reset, or of the connection's end, comes what there is of the
// response; the head of a request is there whatever became of its stream meanwhile.
func (s *Stream) ReadHead(h *Head) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.first == nil {
		switch {
		case s.err != nil:
			return s.err
		case s.gotHead:
			return io.EOF
		}
		if err := s.awaitRead(); err != nil {
			return err
		}
	}
	r := s.first
	s.first = r.next
	*h, r.head = r.head, *h
	r.release()
	return nil
}

// Next waits for the next chunk of the body, which is never empty and valid
// until the next call: then its bytes are given back to the peer as credit.
// Behind the last one it returns io.EOF. Before it waits it sends what was
// gathered.
func (s *Stream) Next() ([]byte, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.giveBack(s.body.done()) {
		c.flush()
	}
	for {
		if p := s.body.take(); p != nil {
			return p, nil
		}
		switch {
		case s.err != nil:
			return nil, s.err
		case s.remoteEnded:
			s.ended = true
			return nil, io.EOF
		}
		if err := s.awaitRead(); err != nil {
			return nil, err
		}
	}
}

// awaitRead waits until something may have come to be read, or looks after what
// was gathered. With mu held.
func (s *Stream) awaitRead() error {
	if s.cut != nil {
		return s.cut
	}
	if c := s.conn; len(c.w.buf) > 0 && !c.w.flushing {
		c.flush()
		return nil
	}
	s.readable.Wait()
	return nil
}

// Park lets a server's handler return while the stream goes on: once Next would
// not wait any more, the handler is called again, and finds state by Parked. Once
// Next has told the end of the body, that is when the stream breaks. So a stream
// in rest has no goroutine. A chunk that Next returned is given back. Others may
// write to the stream meanwhile, as long as the handler does not end its use.
func (s *Stream) Park(state any) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.parks, s.state = true, state
}

// Parked is the state that Park was given; nil when a handler is called first.
func (s *Stream) Parked() any { return s.state }

// park follows Park when the handler returned, and says what it may do next: be
// called again, or go without finish. With neither the stream's use has ended.
func (s *Stream) park() (again, parked bool) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.parks {
		return false, false
	}
	s.parks = false
	if s.giveBack(s.body.done()) || len(c.w.buf) > 0 {
		c.flush()
	}
	if s.ready() && (!s.ended || s.err != nil || s.cut != nil) {
		return true, false
	}
	s.parked = true
	c.running--
	s.unanswer()
	return false, true
}

// Ready says whether Next will return without waiting for the peer.
func (s *Stream) Ready() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.ready()
}

func (s *Stream) ready() bool {
	return s.body.first != nil || s.remoteEnded || s.err != nil || s.cut != nil
}

// Received says whether the peer has sent all that it has to, be it that not all of it
// was read.
func (s *Stream) Received() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.remoteEnded
}

// ReadTrailers hands over the trailers, once Next returned io.EOF, and says
// whether there are any. What f held before is overwritten; its memory is used
// again.
func (s *Stream) ReadTrailers(f *Fields) bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	r := s.trailers
	if r == nil || s.body.first != nil {
		return false
	}
	s.trailers = nil
	*f, r.head.Fields = r.head.Fields, *f
	r.release()
	return true
}

// SetDeadline sets when what waits, and whatever is tried later, returns
// os.ErrDeadlineExceeded; the zero time is never. The stream is not reset by it:
// a new deadline lets it go on.
func (s *Stream) SetDeadline(at time.Time) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.deadline = at
	if errors.Is(s.cut, os.ErrDeadlineExceeded) {
		s.cut = nil
	}
	switch {
	case at.IsZero():
		s.stopTimer()
	case s.timer == nil:
		s.timer = time.AfterFunc(time.Until(at), s.expire)
		s.ticks++
	case !s.timer.Reset(time.Until(at)):
		s.ticks++
	}
}

func (s *Stream) stopTimer() {
	if s.timer != nil && s.timer.Stop() {
		s.ticks--
	}
}

// expire runs when the deadline may have come.
func (s *Stream) expire() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.ticks--
	if s.deadline.IsZero() || time.Until(s.deadline) > 0 { // it was moved
		return
	}
	s.interrupt(os.ErrDeadlineExceeded)
}

// Interrupt has what waits, and whatever is tried later, return err. The stream
// is not reset by it.
func (s *Stream) Interrupt(err error) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.interrupt(err)
}

func (s *Stream) interrupt(err error) {
	if s.cut == nil || errors.Is(s.cut, os.ErrDeadlineExceeded) {
		s.cut = err
	}
	s.wakeReader()
	s.writable.Signal()
}

// OnReset has f called, on a goroutine of its own, once the stream ends before
// its time by the peer's reset, a broken rule, or the end of the connection; at
// once if it has. The handler's return, or Close, waits for f. Nil takes it back,
// and waits for f if that runs.
func (s *Stream) OnReset(f func(error)) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.onReset = f
	for f == nil && s.telling {
		s.readable.Wait()
	}
	if s.err != nil {
		s.tell()
	}
}

// tell calls onReset. With mu held.
func (s *Stream) tell() {
	f, err := s.onReset, s.err
	if f == nil {
		return
	}
	s.onReset, s.telling = nil, true
	// Ends with f; finish waits for it.
	go func() {
		f(err)
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		s.telling = false
		s.readable.Broadcast()
	}()
}

// Close ends the use of a client's stream, which is reset unless both sides have
// sent all. Nothing of it may be used afterwards, a body's last chunk included,
// and nobody may be within a call of it: who writes while another reads has to
// end first, by Interrupt if need be.
func (s *Stream) Close() { s.finish(Cancel, Cancel) }

// finish takes the stream out of use: it resets it with one code if our message
// is not complete, or with the other if the peer's is not.
func (s *Stream) finish(ours, peers ErrCode) {
	c := s.conn
	c.mu.Lock()
	switch {
	case s.localEnded && s.remoteEnded:
	case s.localEnded:
		s.reset(peers, "the rest is not wanted")
	default:
		s.reset(ours, "given up")
	}
	for s.onReset = nil; s.telling; {
		s.readable.Wait()
	}
	unread := s.drop()
	c.giveBack(s.body.done() + unread)
	c.forget(s, true)
	s.unanswer()
	if !c.client {
		if c.running--; c.running == 0 && c.err != nil {
			c.w.idle.Broadcast()
		}
	}
	c.flush()
	s.stopTimer()
	late := s.ticks > 0
	c.mu.Unlock()
	if late {
		return // expire may run yet: it gets this one to itself
	}
	*s = Stream{timer: s.timer}
	c.options.streams.Put(s)
}

// unanswer follows endLocal when the handler returned. With mu held.
func (s *Stream) unanswer() {
	if s.answered {
		s.answered = false
		s.conn.answered--
	}
}

// reset ends the stream by our RST_STREAM. With mu held.
func (s *Stream) reset(code ErrCode, reason string) {
	c := s.conn
	if s.err != nil || c.streams[s.id] != s {
		return
	}
	c.w.buf = appendReset(c.writing(), s.id, code)
	s.out.add(4)
	c.forget(s, true)
	err := &StreamError{ID: s.id, Code: code, Reason: reason}
	c.countStreamError(err)
	s.fail(err)
	if err := c.wroteControl(); err != nil {
		c.fail(err)
	}
}

// breakOff ends both directions since the peer, or the connection, did. What came of
// a response is for the client to read, and the error behind it; one that is whole
// has none, and only the request is not wanted any more (RFC 9113 §8.1). A request
// that broke off is not worth serving. With mu held.
func (s *Stream) breakOff(err error) {
	switch {
	case !s.conn.client:
		s.fail(err)
	case s.remoteEnded:
		s.failSend(err)
	default:
		s.end(err)
	}
}

// responded says whether the response is whole, on its way to us or from us. With mu
// held.
func (s *Stream) responded() bool {
	if s.conn.client {
		return s.remoteEnded
	}
	return s.localEnded
}

// failSend ends our direction before its time. With mu held.
func (s *Stream) failSend(err error) {
	s.sendErr = err
	s.writable.Signal()
}

// fail ends both directions, and forgets what nobody has read, but for the head of a
// request. With mu held.
func (s *Stream) fail(err error) {
	s.end(err)
	if s.conn.client {
		s.conn.giveBack(s.drop())
	} else {
		s.conn.giveBack(s.body.drop())
	}
}

// end ends both directions: who reads meets err behind what came. With mu held.
func (s *Stream) end(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.wakeReader()
	s.writable.Signal()
	s.tell()
}

// drop forgets what nobody has read, and returns how much of the body that was.
func (s *Stream) drop() int {
	for s.first != nil {
		r := s.first
		s.first = r.next
		r.release()
	}
	if s.trailers != nil {
		s.trailers.release()
		s.trailers = nil
	}
	return s.body.drop()
}

// push adds a head to those that wait. With mu held.
func (s *Stream) push(a *assembly) {
	r := a.received
	a.received = nil
	if s.first == nil {
		s.first = r
	} else {
		s.last.next = r
	}
	s.last = r
	s.wakeReader()
}

// wakeReader says that there is something to read, or no more. With mu held.
func (s *Stream) wakeReader() {
	if s.parked {
		s.parked = false
		s.conn.running++
		s.conn.server.workers.run(s)
		return
	}
	s.readable.Signal()
}
