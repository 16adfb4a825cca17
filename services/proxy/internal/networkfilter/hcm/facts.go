package hcm

import (
	"net"
	"net/netip"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// address is a socket's, as far as it has one of IP.
func address(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	pair := tcp.AddrPort()
	return netip.AddrPortFrom(pair.Addr().Unmap(), pair.Port())
}

// beginFacts notes what is known as the head of a peer's request has been read, or has
// failed to be; downstream tells of the request's traffic.
func beginFacts(s *stream.Stream, protocol string, peer netip.AddrPort, downstream format.Meter, read time.Time) {
	f := &s.Facts
	f.Start, f.Protocol, f.Remote = s.Start, protocol, peer
	f.ResponseTrailers, f.Downstream = &s.Response.Trailers, downstream
	if len(s.Request.Method) > 0 && s.Request.Body == nil { // it is whole
		f.Mark(format.RequestEnd, read)
	}
}

// Traffic implements format.Meter, of the present request.
func (c *connection) Traffic() (received, sent message.Traffic) {
	return c.reader.Traffic().Minus(c.before.received), c.writer.Traffic().Minus(c.before.sent)
}

// tellClient notes who the client is, where that is not the peer.
func tellClient(s *stream.Stream, peer netip.Addr) {
	if s.ClientAddress != peer {
		s.Facts.Remote = netip.AddrPortFrom(s.ClientAddress, 0)
	}
}

// tellRoute notes which way the request goes.
func tellRoute(s *stream.Stream) {
	if s.Route != nil {
		s.Facts.RouteName = s.Route.Name
		s.Facts.RouteMetadata, s.Facts.VirtualHostMetadata = s.Route.Metadata, s.Route.VirtualHostMetadata
	}
	if s.Cluster != nil {
		s.Facts.Cluster = s.Cluster.Config.Name
		s.Facts.ClusterMetadata = s.Cluster.Config.Message.GetMetadata()
	}
}

// tellMalformed notes a client that broke the protocol.
func tellMalformed(f *format.Facts, why *message.ProtocolError) {
	f.Details, f.Flags = why.ResponseCodeDetails, f.Flags|format.DownstreamProtocolError
}

// tellLost notes a client that left, or takes nothing any more.
func tellLost(f *format.Facts, err error) {
	if timedOut(err) {
		f.Details, f.Flags = "stream_idle_timeout", f.Flags|format.StreamIdleTimeout
		return
	}
	leaving(err).Tell(f)
}

// tellExpired notes why a stream is out of time, if it is.
func tellExpired(f *format.Facts, why *stream.Expiry) {
	if why != nil {
		why.Tell(f)
	}
}

// ending is why a stream was out of time in the end, nil if it was not: why it is now, or,
// if its client was answered in whole, why it was before the response. What becomes of a
// stream behind its answer, such as a reset since the rest of the request is not wanted,
// is no concern of those who count and log that.
func ending(s *stream.Stream, expired *stream.Expiry, answered bool) *stream.Expiry {
	if answered {
		return expired
	}
	return s.Expired()
}

// record notes, counts and logs the end of a request, which is now. Expired and answered
// are those of ending.
func (m *manager) record(s *stream.Stream, expired *stream.Expiry, answered bool, now time.Time) {
	why := ending(s, expired, answered)
	if why != expired || why.ClientLeft() {
		tellExpired(&s.Facts, why)
	}
	if !why.ClientLeft() {
		m.stats.countAnswer(s, now)
	}
	m.log(&s.Facts)
}

// begun writes the access logs of a request that has its route, if it is to.
func (m *manager) begun(f *format.Facts) {
	if m.logStart {
		m.logAs("DownstreamStart", f)
	}
}

// periodic makes what writes the access logs of requests that go on, one after another;
// nil if nothing is to.
func (m *manager) periodic() *accesslog.Periodic {
	return accesslog.NewPeriodic(m.logs, "DownstreamPeriodic", m.logInterval, m.runtime.Snapshot, nil)
}

// follow begins the lines of a request that goes on, if there are to be any.
func follow(p *accesslog.Periodic, s *stream.Stream) {
	if p != nil {
		s.Progress = p.Update
		p.Begin(&s.Facts)
	}
}

// answering notes that the response begins to go out, with which the client gets its
// upgrade or not, and writes the access logs of that, if it is to.
func (m *manager) answering(s *stream.Stream, upgraded bool, lines *accesslog.Periodic, now time.Time) {
	f := &s.Facts
	f.ResponseCode = s.Response.Status
	f.Mark(format.SendBegin, now)
	if upgraded && m.logTunnel {
		m.logAs("DownstreamTunnelSuccessfullyEstablished", f)
	}
	lines.Update()
}

// answeredWhole notes that the whole response has gone out, where anybody asks when.
func (m *manager) answeredWhole(f *format.Facts) {
	if len(m.logs) > 0 {
		f.Mark(format.SendEnd, time.Now())
	}
}

// logAs writes the access logs before the end of a request.
func (m *manager) logAs(kind string, f *format.Facts) {
	f.LogType = kind
	m.log(f)
	f.LogType = ""
}

// log writes the access logs, at the end of a request.
func (m *manager) log(f *format.Facts) {
	values := m.runtime.Snapshot()
	for _, l := range m.logs {
		l.Write(f, values)
	}
}
