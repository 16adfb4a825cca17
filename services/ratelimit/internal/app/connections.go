package app

import (
	"net"
	"sync"
)

// connections is a listener that can close what it accepted. The gRPC server
// cannot: a connection is unknown to it until its handshake has ended, and its
// stop waits for that.
type connections struct {
	net.Listener

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

func newConnections(l net.Listener) *connections {
	return &connections{Listener: l, open: map[net.Conn]struct{}{}}
}

// Accept waits for the next connection. One that comes after closeAll is
// closed already.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close() // nothing was sent that could be lost
	}
	c.open[conn] = struct{}{}
	return &connection{conn, c}, nil
}

// closeAll cuts off every connection, now and from now on.
func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		_ = conn.Close() // its owner learns of it and closes it too
	}
}

// connection is one that is forgotten with its end.
type connection struct {
	net.Conn
	of *connections
}

// Close is part of net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
