package http2

import (
	"context"
	"errors"
	"net"
)

// ErrNoConnectProtocol is what Open returns for an extended CONNECT (RFC 8441)
// that the peer has not said that it takes. Nothing was sent.
var ErrNoConnectProtocol = errors.New("http2: the peer takes no extended CONNECT")

// Client is the client's side of a connection.
type Client struct{ Conn }

// NewClient begins a connection as its client.
func NewClient(conn net.Conn, options *ClientOptions) *Client {
	c := &Client{}
	c.init(conn, &options.config, true)
	c.done, c.known = make(chan struct{}), make(chan struct{})
	c.begin()
	// Ends with the connection; Close waits for it.
	go func() {
		defer close(c.done)
		_ = c.serve(nil) // Err tells
	}()
	return c
}

// ClientOptions are Options with their defaults, for any number of clients.
type ClientOptions struct{ config config }

// NewClientOptions prepares options for clients.
func NewClientOptions(options Options) *ClientOptions {
	o := &ClientOptions{}
	o.config.set(options)
	return o
}

// Done is closed once the connection has ended, and is closed.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection and its streams at once, and waits for that.
func (c *Client) Close() error {
	err := c.Conn.Close()
	<-c.done
	return err
}

// Open opens a stream with a request, whose head it gathers, with end if nothing
// follows it. The head goes out with the end of the message, with Flush, before
// ReadHead or Next wait, or when enough was gathered. The stream must be closed.
//
// Errors, where nothing was sent: ErrBusy, ErrUnavailable, ErrNoConnectProtocol,
// or why the connection ended.
func (c *Client) Open(r *Request, fields FieldList, end bool) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case c.draining || c.nextID > maxStreamID:
		return nil, ErrUnavailable
	case len(c.streams) >= int(c.peer.maxStreams):
		return nil, ErrBusy
	case len(r.Protocol) > 0 && !c.peer.connectProtocol:
		return nil, ErrNoConnectProtocol
	}
	s := c.open(c.nextID)
	c.nextID += 2
	c.floods.opened++
	s.toHead = string(r.Method) == "HEAD"
	s.toConnect = string(r.Method) == "CONNECT"
	s.sentHead = true
	s.writeRequest(r, fields, end)
	return s, nil
}

// AwaitSettings waits for the server's first SETTINGS, which say whether it takes
// extended CONNECT: until they came, Open takes it that it does not. The error is
// that of ctx, or why the connection ended.
func (c *Client) AwaitSettings(ctx context.Context) error {
	select {
	case <-c.known:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Capacity is how many streams the server allows at once; 0 once Open would open no
// more.
func (c *Client) Capacity() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.err != nil || c.nextID > maxStreamID {
		return 0
	}
	return int(c.peer.maxStreams)
}

// Room is how many streams Open would open now; 0 once it would open no more.
func (c *Client) Room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.err != nil {
		return 0
	}
	return max(0, int(c.peer.maxStreams)-len(c.streams))
}
