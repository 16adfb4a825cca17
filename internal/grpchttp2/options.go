package grpchttp2

import (
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"

	"github.com/weirproxy/weir/internal/http2"
)

// Options say how a server works. A zero field stands for the default that it
// names.
type Options struct {
	// HTTP2 bounds connections: windows, heads, streams, floods, keepalive. PINGs
	// that nothing of ours came before are bounded too: 100 at once and one a second,
	// ten times what gRPC's clients may do. A PingBurst below 0 is no bound.
	HTTP2 http2.Options
	// Credentials make connections secure; nil serves in the clear.
	Credentials credentials.TransportCredentials
	// HandshakeFailed is called, if set, with where a connection came from that could
	// not be made secure, and why. What closes without a word, as probes do, is not
	// told of, nor what a stop cuts off. Any goroutine may call it.
	HandshakeFailed func(from net.Addr, err error)
	// AcceptFailed is called, if set, for each time that a listener could not accept a
	// connection and will try again, as it does while too many files are open; first
	// says that it had not failed for a minute. It delays the next try.
	AcceptFailed func(err error, first bool)
	// Codec is of all messages, whatever subtype of content a client names;
	// grpc-go's of protobuf.
	Codec encoding.CodecV2
	// UnaryInterceptor and StreamInterceptor are called around each handler, if
	// set.
	UnaryInterceptor  grpc.UnaryServerInterceptor
	StreamInterceptor grpc.StreamServerInterceptor

	// MaxMessage bounds a message that is received, in bytes, as it came and
	// decompressed; 4 MiB. A longer one is RESOURCE_EXHAUSTED.
	MaxMessage int
	// HandshakeTimeout is how long a connection may take until HTTP/2 begins; 2
	// minutes.
	HandshakeTimeout time.Duration
	// MaxConnectionAge is the age at which a connection is shut down, give or take
	// a tenth, so that clients spread anew; 0 is none. Calls that are open then
	// have MaxConnectionAgeGrace to end; 0 is as long as they like.
	MaxConnectionAge, MaxConnectionAgeGrace time.Duration
}

func (o Options) withDefaults() Options {
	if o.Codec == nil {
		o.Codec = encoding.GetCodecV2(proto.Name)
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 4 << 20
	}
	if o.HTTP2.PingBurst == 0 {
		o.HTTP2.PingBurst = 100
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 2 * time.Minute
	}
	return o
}
