package grpchttp2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/weirproxy/weir/internal/http2"
)

// connection is one connection of a client. It is the http2.Handler of its
// streams.
type connection struct {
	server *Server
	net    net.Conn
	// ctx has the peer, and is what the contexts of all calls are made of.
	ctx context.Context
	// http2 is nil until the handshake is done. The server's mutex guards it.
	http2 *http2.Conn
}

// serve serves the connection until it ends. Steps: TLS and the preface, within a
// time; then frames.
func (c *connection) serve() {
	s := c.server
	defer func() {
		s.mu.Lock()
		delete(s.connections, c)
		s.mu.Unlock()
	}()
	conn, preface, err := c.handshake()
	if err != nil {
		_ = c.net.Close()
		return // what reached the port and does not speak HTTP/2 is not worth a word
	}
	h := s.http2.Conn(conn, c)
	s.mu.Lock()
	stopping := s.stopping
	c.http2 = h
	s.mu.Unlock()
	if stopping {
		h.Shutdown()
	}
	defer c.age(h)()
	_ = h.Serve(preface) // why a client went is its matter
}

// prefaceLen is the length of what a client of HTTP/2 begins with (RFC 9113 §3.4).
const prefaceLen = 24

// handshake makes the connection ready for HTTP/2. It returns what it read, which
// is as long as a preface is.
func (c *connection) handshake() (conn net.Conn, preface []byte, err error) {
	conn = c.net
	if err := conn.SetDeadline(time.Now().Add(c.server.options.HandshakeTimeout)); err != nil {
		return nil, nil, fmt.Errorf("bound the handshake: %w", err)
	}
	var secured credentials.AuthInfo
	if by := c.server.options.Credentials; by != nil {
		if conn, secured, err = by.ServerHandshake(conn); err != nil {
			c.handshakeFailed(err)
			return nil, nil, fmt.Errorf("secure the connection: %w", err)
		}
	}
	preface = make([]byte, prefaceLen)
	if _, err := io.ReadFull(conn, preface); err != nil {
		return nil, nil, fmt.Errorf("read the preface: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, fmt.Errorf("end the handshake: %w", err)
	}
	c.ctx = peer.NewContext(background, &peer.Peer{Addr: conn.RemoteAddr(), LocalAddr: conn.LocalAddr(), AuthInfo: secured})
	return conn, preface, nil
}

// handshakeFailed tells why the connection could not be made secure, if that is for
// operators.
func (c *connection) handshakeFailed(err error) {
	tell := c.server.options.HandshakeFailed
	if tell == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	tell(c.net.RemoteAddr(), err)
}

// age shuts the connection down when it is too old, and ends it when its calls had
// their time. The function that it returns keeps it from doing so.
func (c *connection) age(h *http2.Conn) (stop func()) {
	o := &c.server.options
	if o.MaxConnectionAge <= 0 {
		return func() {}
	}
	jitter := time.Duration(rand.Int64N(int64(o.MaxConnectionAge)/5 + 1)) //nolint:gosec // no secret
	old := time.AfterFunc(o.MaxConnectionAge*9/10+jitter, h.Shutdown)
	if o.MaxConnectionAgeGrace <= 0 {
		return func() { old.Stop() }
	}
	tooOld := time.AfterFunc(o.MaxConnectionAge*9/10+jitter+o.MaxConnectionAgeGrace, func() { h.Close() })
	return func() { old.Stop(); tooOld.Stop() }
}

// shutdown ends the connection with its last call, or now if it has yet to begin.
func (c *connection) shutdown() {
	if h := c.begun(); h != nil {
		h.Shutdown()
		return
	}
	_ = c.net.Close()
}

// close ends the connection now.
func (c *connection) close() {
	if h := c.begun(); h != nil {
		_ = h.Close()
		return
	}
	_ = c.net.Close()
}

func (c *connection) begun() *http2.Conn {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.http2
}
