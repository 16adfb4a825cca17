package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// mostReceived bounds what a host sends before all blocks are found in it.
const mostReceived = 64 << 10

// tcpCheck is a checked TcpHealthCheck. Without blocks to receive it is passed
// by a connection alone.
type tcpCheck struct {
	send    []byte
	receive [][]byte
	// announce makes what a connection begins with of its ends (proxy_protocol_config);
	// nil for nothing.
	announce func(from, to net.Addr) []byte
}

func parseTCP(m *corev3.HealthCheck_TcpHealthCheck, at strict.Path, report *strict.Report) *tcpCheck {
	return &tcpCheck{
		send:    parsePayload(m.GetSend(), at.Field("send"), report),
		receive: parsePayloads(m.GetReceive(), at.Field("receive"), report),

		announce: announcement(m.GetProxyProtocolConfig()),
	}
}

// announcement makes a header of the PROXY protocol of a version: one of version 1
// names the ends of the connection, and one of version 2 says that it is our own
// (LOCAL).
func announcement(m *corev3.ProxyProtocolConfig) func(from, to net.Addr) []byte {
	switch {
	case m == nil:
		return nil
	case m.GetVersion() == corev3.ProxyProtocolConfig_V2:
		return func(net.Addr, net.Addr) []byte {
			return []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
		}
	}
	return func(from, to net.Addr) []byte {
		source, ok := from.(*net.TCPAddr)
		destination, both := to.(*net.TCPAddr)
		if !ok || !both {
			return []byte("PROXY UNKNOWN\r\n")
		}
		family := "TCP4"
		if source.IP.To4() == nil {
			family = "TCP6"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, source.IP, destination.IP, source.Port, destination.Port)
	}
}

func (c *tcpCheck) newProber(h hostConfig) prober { return &tcpProber{check: c, hostConfig: h} }

// tcpProber checks one host over TCP.
type tcpProber struct {
	hostConfig
	check    *tcpCheck
	conn     net.Conn // kept from one check to the next; nil if there is none
	received []byte
}

// probe implements prober. As in http.go, a kept connection may be closed. One
// on which nothing is sent is not kept: a server says hello once.
func (p *tcpProber) probe(ctx context.Context) result {
	kept := p.conn != nil
	err := p.exchange(ctx)
	if kept && errors.Is(err, errUnseen) && ctx.Err() == nil {
		p.close()
		err = p.exchange(ctx)
	}
	if err != nil || !p.reuse || len(p.check.receive) == 0 || len(p.check.send) == 0 {
		p.close()
	}
	if err != nil {
		return result{verdict: network, why: err.Error()}
	}
	return result{verdict: passed}
}

// exchange connects, sends, and reads until all blocks came in their order.
func (p *tcpProber) exchange(ctx context.Context) error {
	fresh := p.conn == nil
	if fresh {
		conn, err := p.dial(ctx, p.address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		p.conn = conn
	}
	_ = p.conn.SetDeadline(time.Time{}) // fails only once closed, as the next write will
	conn := p.conn                      // which is given up by then, maybe
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if fresh && p.check.announce != nil {
		if _, err := p.conn.Write(p.check.announce(p.conn.LocalAddr(), p.conn.RemoteAddr())); err != nil {
			return fmt.Errorf("%w: %w", errUnseen, err)
		}
	}
	if len(p.check.send) > 0 {
		if _, err := p.conn.Write(p.check.send); err != nil {
			return fmt.Errorf("%w: %w", errUnseen, err)
		}
	}
	p.received = p.received[:0]
	for !hasBlocks(p.received, p.check.receive) {
		if len(p.received) >= mostReceived {
			return fmt.Errorf("%d bytes came without what is to be received", len(p.received))
		}
		if cap(p.received)-len(p.received) < 512 {
			p.received = append(make([]byte, 0, 2*cap(p.received)+1024), p.received...)
		}
		n, err := p.conn.Read(p.received[len(p.received):cap(p.received)])
		p.received = p.received[:len(p.received)+n]
		switch {
		case n > 0: // an error comes again
		case errors.Is(err, io.EOF) && len(p.received) == 0:
			return errUnseen
		default:
			return fmt.Errorf("read what is to be received: %w", err)
		}
	}
	if !stop() { // the deadline is, or will be, that of the end
		return ctx.Err()
	}
	return nil
}

// close implements prober.
func (p *tcpProber) close() {
	if p.conn != nil {
		_ = p.conn.Close() // nobody waits for what it says
		p.conn = nil
	}
}
