package statsd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// How many bytes are written at once. A datagram of that length passes an
// Ethernet without being cut.
const (
	maxDatagram = 1432
	maxSegment  = 16 << 10
)

// connection is the way to the server.
type connection struct {
	network, address string

	conn net.Conn // nil if there is none
	// pending are the lines that are still to be sent, each with its end.
	pending []byte
}

// open connects, unless there is a connection that lives. It gives up when ctx
// ends.
func (c *connection) open(ctx context.Context) error {
	if c.conn != nil && c.network == "tcp" && !c.lives() {
		c.close()
	}
	if c.conn != nil {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, c.network, c.address)
	if err != nil {
		return err
	}
	c.conn = conn
	return nil
}

// lives says whether the server has not closed the connection: what is written
// to one that it has is lost without an error. What it says is passed over.
func (c *connection) lives() bool {
	// In the past the deadline would keep it from looking at all.
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // a closed one shows in Read
	_, err := c.conn.Read(make([]byte, 1024))
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

func (c *connection) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// send writes what is pending. After an error the lines that did not go out
// whole are pending still, unless they were datagrams that nobody takes.
func (c *connection) send(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetWriteDeadline(deadline) // a closed connection shows in Write
	if c.network == "udp" {
		return c.sendDatagrams()
	}
	for len(c.pending) > 0 {
		n, err := c.conn.Write(packet(c.pending, maxSegment))
		if err != nil {
			c.pending = c.pending[bytes.LastIndexByte(c.pending[:n], '\n')+1:]
			c.close()
			return err
		}
		c.pending = c.pending[n:]
	}
	return nil
}

// sendDatagrams is send by UDP. That nobody listens shows at a later datagram
// than the one it befell; that later one is tried once more and then taken for
// lost too. The connection stays open, so that each flush shows it again.
func (c *connection) sendDatagrams() error {
	var refused error
	for len(c.pending) > 0 {
		lines := packet(c.pending, maxDatagram)
		datagram := bytes.TrimSuffix(lines, []byte("\n"))
		_, err := c.conn.Write(datagram)
		if errors.Is(err, syscall.ECONNREFUSED) {
			refused = err
			_, err = c.conn.Write(datagram)
		}
		if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			c.close()
			return err
		}
		c.pending = c.pending[len(lines):]
	}
	return refused
}

// packet is as many whole lines from the start of lines as have room in size
// bytes, and one if that is longer.
func packet(lines []byte, size int) []byte {
	if len(lines) <= size {
		return lines
	}
	end := bytes.LastIndexByte(lines[:size], '\n')
	if end < 0 {
		end = size + bytes.IndexByte(lines[size:], '\n')
	}
	return lines[:end+1]
}
