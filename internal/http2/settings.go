package http2

import "encoding/binary"

// The settings of RFC 9113 §6.5.2 and RFC 8441.
const (
	settingHeaderTableSize      = 0x1
	settingEnablePush           = 0x2
	settingMaxConcurrentStreams = 0x3
	settingInitialWindowSize    = 0x4
	settingMaxFrameSize         = 0x5
	settingMaxHeaderListSize    = 0x6
	settingConnectProtocol      = 0x8
)

const settingLen = 6

// peerSettings is what the peer told, as far as it matters here.
type peerSettings struct {
	maxStreams      uint32
	streamWindow    int32
	maxFrame        int
	connectProtocol bool
}

// defaultPeer is what holds until the peer's SETTINGS came. The number of streams
// is the least that RFC 9113 §6.5.2 wants a peer to allow.
var defaultPeer = peerSettings{
	maxStreams:   100,
	streamWindow: defaultWindow,
	maxFrame:     defaultFrameSize,
}

// appendSettings appends our SETTINGS frame: what differs from the defaults.
func (c *Conn) appendSettings(b []byte) []byte {
	start := len(b)
	b = appendFrame(b, 0, frameSettings, 0, 0)
	set := func(id uint16, v uint32) {
		b = appendUint32(append(b, byte(id>>8), byte(id)), v)
	}
	o := c.options
	if o.HeaderTableSize != defaultTableSize {
		set(settingHeaderTableSize, uint32(o.HeaderTableSize))
	}
	if c.client {
		set(settingEnablePush, 0)
	} else {
		set(settingMaxConcurrentStreams, o.MaxConcurrentStreams)
	}
	if o.StreamWindow != defaultWindow {
		set(settingInitialWindowSize, o.StreamWindow)
	}
	if o.MaxFrameSize != defaultFrameSize {
		set(settingMaxFrameSize, o.MaxFrameSize)
	}
	set(settingMaxHeaderListSize, o.MaxHeaderBytes)
	if !c.client && o.ConnectProtocol {
		set(settingConnectProtocol, 1)
	}
	length := len(b) - start - frameHeaderLen
	b[start+1], b[start+2] = byte(length>>8), byte(length)
	return b
}

// onSettings takes the peer's SETTINGS and acknowledges them. With mu held, on
// the goroutine that reads.
func (c *Conn) onSettings(f frame, payload []byte) error {
	if f.stream != 0 {
		return connectionError(ProtocolError, "SETTINGS on stream %d", f.stream)
	}
	if f.has(flagAck) {
		if len(payload) != 0 {
			return connectionError(FrameSizeError, "an acknowledgement of SETTINGS with %d bytes", len(payload))
		}
		if !c.settled {
			c.settled = true
			c.r.decoder.setLimit(uint32(c.options.HeaderTableSize))
		}
		return nil
	}
	if len(payload)%settingLen != 0 {
		return connectionError(FrameSizeError, "SETTINGS of %d bytes", len(payload))
	}
	if !c.r.gotSettings {
		c.r.gotSettings = true
		c.peer.maxStreams = maxStreamID // unless it says otherwise
		if c.client {
			close(c.known) // who waited for it comes behind us, who hold mu
		}
	}
	for ; len(payload) > 0; payload = payload[settingLen:] {
		id, v := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])
		if err := c.setting(id, v); err != nil {
			return err
		}
	}
	c.w.buf = appendFrame(c.writing(), 0, frameSettings, flagAck, 0)
	return c.wroteControl()
}

// setting takes one of the peer's settings. What is unknown is ignored.
func (c *Conn) setting(id uint16, v uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.encoder.setLimit(v)
	case settingEnablePush:
		if v > 1 || v == 1 && c.client {
			return connectionError(ProtocolError, "SETTINGS_ENABLE_PUSH of %d", v)
		}
	case settingMaxConcurrentStreams:
		c.peer.maxStreams = v
	case settingInitialWindowSize:
		if v > maxWindow {
			return connectionError(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE of %d", v)
		}
		return c.resizeWindows(int32(v))
	case settingMaxFrameSize:
		if v < defaultFrameSize || v > maxFrameSize {
			return connectionError(ProtocolError, "SETTINGS_MAX_FRAME_SIZE of %d", v)
		}
		c.peer.maxFrame = int(v)
	case settingConnectProtocol:
		if v > 1 || v == 0 && c.peer.connectProtocol {
			return connectionError(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL of %d", v)
		}
		c.peer.connectProtocol = v == 1
	}
	return nil
}
