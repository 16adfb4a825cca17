package redis

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// dialer is how the driver opens a connection.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// counting is dial, and counts the connections that it opens and their ends.
func (t *stats) counting(dial dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		t.opened.Inc()
		counted := &countedConn{Conn: c, end: sync.OnceFunc(t.closed.Inc)}
		if socket, ok := c.(syscall.Conn); ok {
			if raw, err := socket.SyscallConn(); err == nil {
				return &countedSocket{counted, raw}, nil
			}
		}
		return counted, nil
	}
}

// countedConn is a connection that counts its end.
type countedConn struct {
	net.Conn
	end func()
}

// Close counts the connection as closed the first time.
func (c *countedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// NetConn is what the driver looks for to see a socket through TLS.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// countedSocket is one without TLS, of which the driver asks the system before
// each use whether the server has hung up. What it asks by is made once.
type countedSocket struct {
	*countedConn
	raw syscall.RawConn
}

// SyscallConn is part of syscall.Conn.
func (c *countedSocket) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }
