package statsd

import (
	"context"
	"net"
	"time"
)

// maxDatagram is how many bytes are sent at once: so many pass an Ethernet
// without being cut.
const maxDatagram = 1432

// sendTime bounds one flush: the look-up of the server's name, as a rule.
const sendTime = 500 * time.Millisecond

// send sends lines to a statsd server, as many in a datagram as have room. The
// server's address is looked up each time, so that one that moved is found. That
// nobody takes them shows, if at all, at a later datagram than the first.
func send(ctx context.Context, address string, lines []string) error {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	datagram := make([]byte, 0, maxDatagram)
	for i, line := range lines {
		if len(datagram) > 0 {
			datagram = append(datagram, '\n')
		}
		datagram = append(datagram, line...)
		if i+1 < len(lines) && len(datagram)+1+len(lines[i+1]) <= maxDatagram {
			continue
		}
		if _, err := conn.Write(datagram); err != nil {
			return err
		}
		datagram = datagram[:0]
	}
	return nil
}
