package http2

// Flow control (RFC 9113 §5.2). What we may send is counted in sendWindow of the
// connection and of the stream; who has none waits. What the peer may send is
// counted in recvWindow: credit goes back for what was taken and for nothing else,
// so that windows bound memory. It goes back in one frame for a quarter of the window
// and more; on the connection for less where that is as much as the peer has left, so
// that streams which nobody reads, and which hold the better part of its window, leave
// all the rest of it to the others.

const (
	// defaultWindow is the first size of windows (RFC 9113 §6.9.2).
	defaultWindow = 65535
	maxWindow     = 1<<31 - 1
)

// onWindowUpdate adds to what we may send. With mu held.
func (c *Conn) onWindowUpdate(f frame, increment uint32) error {
	if err := c.countWindowUpdate(); err != nil {
		return err
	}
	if f.stream == 0 {
		if increment == 0 {
			return connectionError(ProtocolError, "WINDOW_UPDATE of 0")
		}
		if int64(c.sendWindow)+int64(increment) > maxWindow {
			return connectionError(FlowControlError, "WINDOW_UPDATE of %d on a window of %d", increment, c.sendWindow)
		}
		c.sendWindow += int32(increment)
		c.wakeBlocked()
		return nil
	}
	s := c.streams[f.stream]
	if s == nil {
		return c.checkNotIdle(f)
	}
	s.in.add(f.length)
	if increment == 0 {
		return c.abort(s, ProtocolError, "WINDOW_UPDATE of 0")
	}
	if int64(s.sendWindow)+int64(increment) > maxWindow {
		return c.abort(s, FlowControlError, "WINDOW_UPDATE over the largest window")
	}
	s.sendWindow += int32(increment)
	s.writable.Signal()
	return nil
}

// resizeWindows follows the peer's SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113
// §6.9.2). With mu held.
func (c *Conn) resizeWindows(size int32) error {
	change := int64(size) - int64(c.peer.streamWindow)
	c.peer.streamWindow = size
	if change == 0 {
		return nil
	}
	for _, s := range c.streams {
		window := int64(s.sendWindow) + change
		if window > maxWindow {
			return connectionError(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE lifts stream %d over the largest window", s.id)
		}
		s.sendWindow = int32(window)
		s.writable.Signal()
	}
	return nil
}

// slack is how much a peer that does not know our SETTINGS yet may send on a
// stream beyond its window.
func (c *Conn) slack() int32 {
	if c.settled {
		return 0
	}
	return max(0, defaultWindow-int32(c.options.StreamWindow))
}

// giveBack returns n bytes of the connection's window, 0 if it is only that the peer
// has less left, and says whether a frame was gathered for what there is to return.
// With mu held.
func (c *Conn) giveBack(n int) bool {
	c.credit += int32(n)
	enough := min(int32(c.options.ConnectionWindow/4), c.recvWindow)
	if c.credit < max(1, enough) || c.err != nil {
		return false
	}
	c.w.buf = appendWindowUpdate(c.writing(), 0, uint32(c.credit))
	c.w.frames++
	c.recvWindow += c.credit
	c.credit = 0
	return true
}

// giveBack returns n bytes of the stream's window and of the connection's. With
// mu held.
func (s *Stream) giveBack(n int) bool {
	c := s.conn
	told := c.giveBack(n)
	if n == 0 || s.remoteEnded || s.err != nil {
		return told
	}
	if s.credit += int32(n); s.credit >= max(1, int32(c.options.StreamWindow/4)) {
		c.w.buf = appendWindowUpdate(c.writing(), s.id, uint32(s.credit))
		c.w.frames++
		s.out.add(4)
		s.recvWindow += s.credit
		s.credit = 0
		return true
	}
	return told
}

// blockedStreams is a queue of streams that wait for what they all share: the
// connection's window, and room in its buffer. The first is woken; when it goes,
// or was served, the next is woken.
type blockedStreams struct{ first, last *Stream }

// add puts a stream at the end, unless it is in the queue.
func (q *blockedStreams) add(s *Stream) {
	if s.queued {
		return
	}
	s.queued = true
	s.before, s.behind = q.last, nil
	if q.last != nil {
		q.last.behind = s
	} else {
		q.first = s
	}
	q.last = s
}

func (q *blockedStreams) remove(s *Stream) {
	if !s.queued {
		return
	}
	s.queued = false
	if s.before != nil {
		s.before.behind = s.behind
	} else {
		q.first = s.behind
	}
	if s.behind != nil {
		s.behind.before = s.before
	} else {
		q.last = s.before
	}
	s.before, s.behind = nil, nil
}

// wakeBlocked wakes the first stream of the queue if there is something for it.
// With mu held.
func (c *Conn) wakeBlocked() {
	if s := c.blocked.first; s != nil && c.sendWindow > 0 && c.room() > 0 {
		s.writable.Signal()
	}
}
