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
	// PingFlood is of PINGs that are to be answered.
	PingFlood
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
	case PingFlood:
		return "too many PING frames"
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
	resets        bucket
	pings         bucket
	pingFree      bool // a head or DATA was sent since the last PING came
}

// bucket is a token bucket that is full until something is taken.
type bucket struct {
	tokens float64
	at     time.Time // when there were so many
}

// take takes a token, if there is one, of a bucket for burst of them, which rate
// fill again in a second.
func (b *bucket) take(burst, rate int) bool {
	now := time.Now()
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else {
		b.tokens = min(float64(burst), b.tokens+now.Sub(b.at).Seconds()*float64(rate))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// flood is the error of a flood, which is counted.
func (c *Conn) flood(f Flood) error {
	if c.options.OnFlood != nil {
		c.options.OnFlood(f)
	}
	reason := f.String()
	if f == PingFlood {
		reason = tooManyPings
	}
	return &ConnectionError{Code: EnhanceYourCalm, Reason: reason, Flood: f}
}

// tooManyPings is the debug data of a GOAWAY by which a client of gRPC learns to
// ping half as often (gRPC's proposal A8).
const tooManyPings = "too_many_pings"

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
// it or by making us do so.
func (c *Conn) countReset() error {
	if c.client {
		return nil // it opens the streams
	}
	if !c.floods.resets.take(c.options.StreamResetBurst, c.options.StreamResetRate) {
		return c.flood(ResetFlood)
	}
	return nil
}

// countPing counts a PING that the peer wants answered.
func (c *Conn) countPing() error {
	free := c.floods.pingFree
	c.floods.pingFree = false
	if free || c.options.PingBurst <= 0 || c.floods.pings.take(c.options.PingBurst, c.options.PingRate) {
		return nil
	}
	return c.flood(PingFlood)
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
