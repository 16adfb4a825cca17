package http2

import (
	"sync"
	"time"
)

// None is 0 in a field of Options that is an int.
const None = -1

// Options are the limits and settings of connections. A zero field stands for
// the default that it names, the same as Envoy's where Envoy has one; None is for
// those that may be 0.
type Options struct {
	// MaxConcurrentStreams is how many streams a client may have open, and how
	// many handlers a connection may have running whose answer is not whole; 1024.
	MaxConcurrentStreams uint32
	// StreamWindow is how many bytes a peer may send on a stream before they are
	// taken; 16 MiB, at most 2³¹−1. It bounds what a stream holds in memory.
	StreamWindow uint32
	// ConnectionWindow is the same for all streams of a connection; 24 MiB, at
	// least 65535, at most 2³¹−1.
	ConnectionWindow uint32
	// MaxFrameSize is the longest payload of a frame that a peer may send;
	// 16384, which is the least, at most 2²⁴−1.
	MaxFrameSize uint32

	// MaxHeaderBytes bounds a head and a trailer section, counted as the RFC
	// does: names, values and 32 bytes a field; 60 KiB. A longer one is a stream
	// error. What comes of a header block in HPACK's form may be as long, but
	// for one frame; more is a connection error.
	MaxHeaderBytes uint32
	// MaxHeaders bounds the number of fields of a head, pseudo-header fields not
	// counted, and of a trailer section; 100.
	MaxHeaders int
	// MaxFieldBytes bounds a name and a value in HPACK's form, each alone; 64 KiB. A
	// longer one is over the limit of a head, as for MaxHeaderBytes.
	MaxFieldBytes uint32
	// NoObsText makes a message with bytes above 0x7f in the value of a field a
	// malformed one (obs-text of RFC 9110 §5.5).
	NoObsText bool
	// ServeTooLarge has a handler answer requests whose heads are over these limits,
	// of which it gets Head.TooLarge and Head.End alone: with 431, say (RFC 9113
	// §10.5.1). Else their streams are reset.
	ServeTooLarge bool
	// MaxInterim bounds the 1xx heads of a response; 10.
	MaxInterim int
	// HeaderTableSize is how much of a header table the peer may use; 4096.
	HeaderTableSize int
	// EncoderTableSize is how much of one we use if the peer allows it; 4096.
	EncoderTableSize int
	// NoHuffman leaves strings as they are: longer, and cheaper for both sides.
	NoHuffman bool

	// ConnectProtocol lets clients use extended CONNECT (RFC 8441).
	ConnectProtocol bool
	// MalformedEndsConnection makes a malformed message (RFC 9113 §8.1.1) an
	// error of the connection rather than of its stream.
	MalformedEndsConnection bool

	// MaxOutboundFrames is how many frames may wait for the socket; 10000.
	MaxOutboundFrames int
	// MaxOutboundControlFrames is how many of them may be SETTINGS, PING or
	// RST_STREAM; 1000.
	MaxOutboundControlFrames int
	// MaxConsecutiveEmptyFrames is how many DATA, HEADERS and CONTINUATION
	// frames in a row may have no payload and end nothing; 1.
	MaxConsecutiveEmptyFrames int
	// MaxPriorityFramesPerStream is how many PRIORITY frames may come for each
	// stream that was opened, and one; 100.
	MaxPriorityFramesPerStream int
	// MaxWindowUpdatesPerData is how many WINDOW_UPDATE frames may come for each
	// DATA frame sent, twice over, beside 5 and two for each stream; 10.
	MaxWindowUpdatesPerData int
	// StreamResetBurst and StreamResetRate are a token bucket, and its refill in
	// a second, that each stream takes from which the peer resets before its
	// time, or makes us reset by breaking a rule; 1000 and 33.
	StreamResetBurst, StreamResetRate int
	// PingBurst and PingRate are the same for PINGs that the peer wants answered.
	// One is free after each head or DATA frame that we send: by such a PING a peer
	// measures what its windows have to hold. 0 is no bound, as Envoy has it, and 1.
	PingBurst, PingRate int
	// OnFlood, if set, is called for each connection that is ended since its
	// peer did something too often. It must not block or call the connection.
	OnFlood func(Flood)
	// OnStreamError, if set, is called for each stream that either side resets, and
	// for each that a server refuses to open. It must not block or call the
	// connection.
	OnStreamError func(*StreamError)
	// OnTooLarge, if set, is called for each head and trailer section over the limits. It
	// must not block or call the connection.
	OnTooLarge func()
	// OnGoAway, if set, is called for the first GOAWAY of the peer, and for each one that
	// is sent in good order, not for an error. It must not block or call the connection.
	OnGoAway func(remote bool)
	// OnStreams, if set, is called with how many more streams are open, or, negative, how
	// many fewer. It must not block or call the connection.
	OnStreams func(more int)

	// KeepaliveInterval is how often a PING is sent; 0 is never.
	KeepaliveInterval time.Duration
	// KeepaliveJitter is up to which part of KeepaliveInterval is added to it each time,
	// by chance; 0 is none.
	KeepaliveJitter float64
	// KeepaliveTimeout is how long the peer may then be silent; 20 s.
	KeepaliveTimeout time.Duration
	// WriteTimeout is how long the socket may take nothing of what waits for it;
	// 0 is for ever.
	WriteTimeout time.Duration
	// HeaderTimeout is how long a header block may take from its first bytes to
	// its last; 0 is for ever. More is a connection error.
	HeaderTimeout time.Duration
	// Linger is how long a connection that we end stays half open, so that the
	// peer can read why; 1 s.
	Linger time.Duration
}

// config is what connections of one server, or of some clients, share.
type config struct {
	Options           // with defaults
	streams sync.Pool // to be used again
}

func (c *config) set(o Options) {
	c.Options = o.withDefaults()
	c.streams.New = func() any { return new(Stream) }
}

// withDefaults fills in what is zero, and brings into its range what is not.
func (o Options) withDefaults() Options {
	set := func(v *uint32, def, least, most uint32) {
		if *v == 0 {
			*v = def
		}
		*v = min(max(*v, least), most)
	}
	count := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
		*v = max(*v, 0)
	}
	set(&o.MaxConcurrentStreams, 1024, 1, maxStreamID)
	set(&o.StreamWindow, 16<<20, 1, maxWindow)
	set(&o.ConnectionWindow, 24<<20, defaultWindow, maxWindow)
	set(&o.MaxFrameSize, defaultFrameSize, defaultFrameSize, maxFrameSize)
	set(&o.MaxHeaderBytes, 60<<10, 1, 8192<<10)
	set(&o.MaxFieldBytes, 64<<10, 1, 8192<<10)
	count(&o.HeaderTableSize, defaultTableSize)
	count(&o.EncoderTableSize, defaultTableSize)
	o.HeaderTableSize, o.EncoderTableSize = min(o.HeaderTableSize, 1<<20), min(o.EncoderTableSize, 1<<16)
	count(&o.MaxHeaders, 100)
	count(&o.MaxInterim, 10)
	count(&o.MaxOutboundFrames, 10000)
	count(&o.MaxOutboundControlFrames, 1000)
	count(&o.MaxConsecutiveEmptyFrames, 1)
	count(&o.MaxPriorityFramesPerStream, 100)
	count(&o.MaxWindowUpdatesPerData, 10)
	count(&o.StreamResetBurst, 1000)
	count(&o.StreamResetRate, 33)
	count(&o.PingRate, 1)
	if o.KeepaliveTimeout == 0 {
		o.KeepaliveTimeout = 20 * time.Second
	}
	if o.Linger == 0 {
		o.Linger = time.Second
	}
	return o
}
