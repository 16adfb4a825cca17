// Package listenerfilter is the contract of a listener filter: what looks at a
// connection after it was accepted and before its filter chain is chosen. Each
// filter lives in a package below this one; which filters ship is listed in
// builtin. A listener runs its filters in order; the package itself chooses no
// chain, and takes no byte from a connection.
package listenerfilter

import (
	"errors"
	"net"
	"net/netip"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory is one kind of listener filter.
type Factory interface {
	// ConfigType is the message that configures the filter in typed_config.
	ConfigType() protoreflect.FullName
	// Fields are the supported fields of that message and of those in it that
	// no other package declares.
	Fields() strict.Fields
	// Parse checks a config that lies at the path at and makes a Filter of it.
	// Faults go to report; the result is for use only if there are none.
	Parse(config proto.Message, at strict.Path, report *strict.Report) Filter
}

// Filter is a checked configuration that looks at connections. It lives as long as
// the listener has it in its configuration and is shared by all connections.
type Filter interface {
	// Measure makes the filter's metrics. It is called once, before there is a
	// connection.
	Measure(registry *stats.Registry)
	// Inspect looks at one connection, notes what it finds in the Facts of s, and
	// returns nil if the next filter is to look at it. It may wait in Peek, and
	// nowhere else, since the time that a connection has for its filters ends that
	// wait. It returns the errors of Peek as they are, and ErrClose, once it has
	// counted why, of a connection that is to be closed.
	Inspect(s *Socket) error
}

// ErrClose is that of a Filter that wants a connection closed.
var ErrClose = errors.New("a listener filter closes the connection")

// Facts are what the filter chain of a connection is chosen by. They begin as what the
// kernel knows, and filters put what they find in its place.
type Facts struct {
	// Local is where the client wanted to go, Remote the client.
	Local, Remote netip.AddrPort
	// Direct is who has connected: the client or what stands before it.
	Direct netip.AddrPort
	// Transport is the transport protocol, RawBuffer unless a filter found another one.
	Transport string
	// Applications are the application protocols that the client wants to speak, that
	// which it likes best first (ALPN's names); none if no filter has found any.
	Applications []string
}

// RawBuffer is the transport protocol of a connection that is not TLS.
const RawBuffer = "raw_buffer"

// The application protocols of what is not TLS, as http_inspector tells them.
const (
	HTTP10 = "http/1.0"
	HTTP11 = "http/1.1"
	H2C    = "h2c"
)

// Applications are all that a filter can find.
var Applications = []string{HTTP10, HTTP11, H2C}

// FactsOf are what is known of a connection that no filter has looked at.
func FactsOf(conn net.Conn) Facts {
	remote := address(conn.RemoteAddr())
	return Facts{Local: address(conn.LocalAddr()), Remote: remote, Direct: remote, Transport: RawBuffer}
}

func address(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
}
