package daemon

import (
	"net"
	"slices"
	"sync"
	"time"
)

// arrivals is a listener that can close the connections which came lately.
// ServeGRPC needs it for a *grpc.Server: a connection is unknown to that until it has
// begun HTTP/2, and its stops, the hard one too, wait for those that have not. One of
// package grpchttp2 closes those by itself. It hands out the connections as they
// are, since servers set options on them.
type arrivals struct {
	net.Listener
	within time.Duration

	mu     sync.Mutex
	recent []arrival // those of the last within and perhaps older, the oldest first
	cut    bool      // what comes from now on is closed
}

// arrival is one connection that came, and when.
type arrival struct {
	conn net.Conn
	at   time.Time
}

// newArrivals remembers what l accepts for within, which is at least the time
// that the server gives a connection for its handshake.
func newArrivals(l net.Listener, within time.Duration) *arrivals {
	return &arrivals{Listener: l, within: within}
}

// Accept waits for the next connection and remembers it.
func (a *arrivals) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cut {
		_ = conn.Close() // the server meets it closed
		return conn, nil
	}
	now := time.Now()
	gone := 0
	// Twice, for the server's own clock starts a little later.
	for gone < len(a.recent) && now.Sub(a.recent[gone].at) > 2*a.within {
		gone++
	}
	a.recent = append(slices.Delete(a.recent, 0, gone), arrival{conn, now})
	return conn, nil
}

// cutOff closes the connections that came lately, whatever they have begun,
// and those that come from now on.
func (a *arrivals) cutOff() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut = true
	for _, r := range a.recent {
		_ = r.conn.Close() // it may be closed already
	}
	a.recent = nil
}
