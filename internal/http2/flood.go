package http2

import "time"

// Flood is what a peer did too often.
type Flood uint8

// The floods.
const (
	// OutboundFlood is more frames that wait for the socket than MaxOutboundFrames.
	OutboundFlood Flood = iota + 1
	// OutboundControlFlood is the same of MaxOutboundControlFrames: the peer
	// asks for answers that it does not read.
	OutboundControlFlood
	// EmptyFrameFlood is of frames that carry nothing.
	EmptyFrameFlood
	// PriorityFlood is of PRIORITY frames.
	PriorityFlood
	// WindowUpdateFlood is of WINDOW_UPDATE frames.
	WindowUpdateFlood
	// HeaderFlood is a header block of more bytes than any head may have.
	HeaderFlood
	// ResetFlood is of streams that end before their time.
	ResetFlood
)

// String says what was done, in the words of the limit.
func (f Flood) String() string {
	switch f {
	case OutboundFlood:
		return "too many frames wait to be read"
	case OutboundControlFlood:
		return "too many control frames wait to be read"
	case EmptyFrameFlood:
		return "too many empty frames in a row"
	case PriorityFlood:
		return "too many PRIORITY frames"
	case WindowUpdateFlood:
		return "too many WINDOW_UPDATE frames"
	case HeaderFlood:
		return "a header block over the limit"
	case ResetFlood:
		return "too many streams that end before their time"
	}
	return "no flood"
}

// floods counts what a peer does.
type floods struct {
	empty         int // frames without payload in a row
	priorities    int
	windowUpdates int
	opened        int // streams
	dataSent      int // frames
	resets        float64
	resetsAt      time.Time // when resets was right
}

// flood is the error of a flood, which is counted.
func (c *Conn) flood(f Flood) error {
	if c.options.OnFlood != nil {
		c.options.OnFlood(f)
	}
	return &ConnectionError{Code: EnhanceYourCalm, Reason: f.String(), Flood: f}
}

// countEmpty counts frames that have no payload and end nothing, in a row.
func (c *Conn) countEmpty(payload int, ends bool) error {
	if payload > 0 || ends {
		c.floods.empty = 0
		return nil
	}
	if c.floods.empty++; c.floods.empty > c.options.MaxConsecutiveEmptyFrames {
		return c.flood(EmptyFrameFlood)
	}
	return nil
}

func (c *Conn) countPriority() error {
	c.floods.priorities++
	if c.floods.priorities > c.options.MaxPriorityFramesPerStream*(1+c.floods.opened) {
		return c.flood(PriorityFlood)
	}
	return nil
}

func (c *Conn) countWindowUpdate() error {
	c.floods.windowUpdates++
	if c.floods.windowUpdates > 5+2*(c.floods.opened+c.options.MaxWindowUpdatesPerData*c.floods.dataSent) {
		return c.flood(WindowUpdateFlood)
	}
	return nil
}

// countReset counts a stream that the peer ended before its time, by resetting
// it or by making us do so. The bucket is full until the first one.
func (c *Conn) countReset() error {
	if c.client {
		return nil // it opens the streams
	}
	now := time.Now()
	burst := float64(c.options.StreamResetBurst)
	if c.floods.resetsAt.IsZero() {
		c.floods.resets = burst
	} else {
		refill := now.Sub(c.floods.resetsAt).Seconds() * float64(c.options.StreamResetRate)
		c.floods.resets = min(burst, c.floods.resets+refill)
	}
	c.floods.resetsAt = now
	if c.floods.resets < 1 {
		return c.flood(ResetFlood)
	}
	c.floods.resets--
	return nil
}

// countOutbound checks what waits for the socket after a frame was added.
func (c *Conn) countOutbound() error {
	switch {
	case c.w.frames > c.options.MaxOutboundFrames:
		return c.flood(OutboundFlood)
	case c.w.control > c.options.MaxOutboundControlFrames:
		return c.flood(OutboundControlFlood)
	}
	return nil
}
