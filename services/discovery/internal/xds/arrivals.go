package xds

import (
	"net"
	"sync"
	"time"
)

// helloTimeout is the time that a connection has to begin HTTP/2. Stopping
// waits for those that have not, so it is well below any sensible deadline.
const helloTimeout = 5 * time.Second

// arrivals is a listener that can close the connections which may not have
// begun HTTP/2 yet: gRPC closes none of them itself, not even by a hard stop.
// It hands out the connections as they are, since gRPC sets options on them.
type arrivals struct {
	net.Listener

	mu     sync.Mutex
	recent []arrival // those of the last helloTimeout and perhaps older, the oldest first
	cut    bool      // what comes from now on is closed
}

// arrival is one connection that came, and when.
type arrival struct {
	conn net.Conn
	at   time.Time
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
		_ = conn.Close() // gRPC meets it closed
		return conn, nil
	}
	now := time.Now()
	gone := 0
	// Twice, for gRPC's own clock starts a little later.
	for gone < len(a.recent) && now.Sub(a.recent[gone].at) > 2*helloTimeout {
		gone++
	}
	a.recent = append(a.recent[gone:], arrival{conn, now})
	return conn, nil
}

// cutOff closes the connections that came lately, whatever they have begun.
func (a *arrivals) cutOff() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut = true
	for _, r := range a.recent {
		_ = r.conn.Close() // it may be closed already
	}
	a.recent = nil
}
