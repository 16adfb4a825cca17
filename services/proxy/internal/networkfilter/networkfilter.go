// Package networkfilter is the contract of a network filter: what serves a
// connection that a listener accepted, from its first byte to its last. Each
// filter lives in a package below this one; which filters ship is listed in
// builtin. The package itself serves nothing.
package networkfilter

import (
	"context"
	"net"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
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

// Starter is a Filter that needs something before it serves, such as routes that
// come by RDS. Who makes connections of it starts it first, once.
type Starter interface {
	Filter
	// Start begins to fetch what is needed; source is where the filter's own
	// configuration came from. It calls ready once, not from within Start, when
	// the filter can serve as well as it will: what it needs is there, or did not
	// come in time. Stop, which the caller may call at any time later, lets go of
	// it: connections keep what there is by then, also those that are made later, as
	// listener filters held them up to then. It is nil, and ready is not called, if
	// the filter needs nothing.
	Start(source coreconfig.Source, ready func()) (stop func())
}

// Placed is a Filter that tells of the place in which it stands.
type Placed interface {
	Filter
	// Place says which place that is, when the filter is to be used and before there is
	// a connection, and again while there are if the listener changes around the filter.
	// A filter has no metrics before, since Parse is also called for what is refused.
	Place(place Place)
}

// Place is where a filter stands.
type Place struct {
	Chain *listenerv3.FilterChain
	// StatPrefix is the listener's name in its metrics.
	StatPrefix string
	// BufferLimit is how many bytes of a body may be held for a client's request, or for
	// its response (Listener.per_connection_buffer_limit_bytes); 0 is any number.
	BufferLimit uint32
}

// Connection is a filter at work on one connection.
type Connection interface {
	// Serve works until the connection ends, and closes it. ctx is for what it waits
	// for; it ends with the connection.
	Serve(ctx context.Context)
	// Drain makes what is answered from now on tell the client to use another
	// connection. Drain and Finish do not block, and are called from other
	// goroutines, perhaps before Serve.
	Drain()
	// Finish makes Serve return as soon as nothing is in flight. New clients
	// are not accepted any more by then.
	Finish()
	// Cut makes Serve return at once, whatever is in flight. The end of ctx comes
	// before it. It does not block, and is called from other goroutines, perhaps
	// after Serve. It is a call, and ctx alone does not do, since to have a context
	// tell of its end takes half a kB for each connection.
	Cut()
}
