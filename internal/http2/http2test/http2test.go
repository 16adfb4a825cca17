// Package http2test is a host of HTTP/2 whose streams a test serves, for the tests of who
// speaks to it. It has no other rules than http2, and is no part of a service.
package http2test

import (
	"net"
	"testing"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// Host serves until its test ends, which is to end its clients first.
type Host struct {
	// Address is where it is, on loopback.
	Address string
	// Conns are the connections that came, as far as there is room for them.
	Conns chan *http2.Conn

	serve func(*http2.Stream)
}

// NewHost begins a Host with these options whose streams serve serves, as an
// http2.Handler does.
func NewHost(t testing.TB, options http2.Options, serve func(*http2.Stream)) *Host {
	t.Helper()
	h := &Host{Conns: make(chan *http2.Conn, 1000), serve: serve}
	server := http2.NewServer(options)
	t.Cleanup(server.Close) // behind its connections
	h.Address = servicetest.Accept(t, func(conn net.Conn) {
		c := server.Conn(conn, h)
		h.Conns <- c
		_ = c.Serve(nil) // a test asks for what it wants to know of the end
	})
	return h
}

// ServeStream implements http2.Handler.
func (h *Host) ServeStream(s *http2.Stream) { h.serve(s) }
