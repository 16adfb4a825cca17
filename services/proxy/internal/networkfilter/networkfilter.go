// Package networkfilter is the contract of a network filter: what serves a
// connection that a listener accepted, from its first byte to its last. Each
// filter lives in a package below this one; which filters ship is listed in
// builtin. The package itself serves nothing.
package networkfilter

import (
	"context"
	"net"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory is one kind of network filter.
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

// Filter is a checked configuration that serves connections. It lives as long
// as the listener's configuration and is shared by all connections.
type Filter interface {
	// NewConnection takes over an accepted connection.
	NewConnection(conn net.Conn) Connection
}

// Connection is a filter at work on one connection.
type Connection interface {
	// Serve works until the connection ends, and closes it. When ctx ends it
	// returns at once, whatever is in flight.
	Serve(ctx context.Context)
	// Drain makes what is answered from now on tell the client to use another
	// connection. Drain and Finish do not block, and are called from other
	// goroutines, perhaps before Serve.
	Drain()
	// Finish makes Serve return as soon as nothing is in flight. New clients
	// are not accepted any more by then.
	Finish()
}
