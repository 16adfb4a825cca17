package router

import (
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// upstreamLog logs each attempt of a request by itself (upstream_log), in Envoy's terms:
// it begins with the choice of its host, what is sent of its body is BYTES_SENT, what
// comes of the answer's BYTES_RECEIVED, and PROTOCOL is what the host speaks. Nil logs
// nothing.
type upstreamLog struct {
	logs []*accesslog.Log
	// early says that an attempt is logged once it has a connection too
	// (flush_upstream_log_on_upstream_stream).
	early bool

	facts    format.Facts
	response message.Response // a copy of its head, and of its trailers
	runtime  *layeredruntime.Snapshot
	open     bool // an attempt is under way
	began    bool // it has a connection
}

// begin begins an attempt at a host.
func (l *upstreamLog) begin(s *stream.Stream, host *cluster.Host) {
	if l == nil {
		return
	}
	l.response.Headers.Reset()
	l.response.Trailers.Reset()
	f := &l.facts
	f.Reset(&s.Request, nil, s.Facts.Connection)
	f.Start = time.Now()
	if f.Connection != nil {
		f.Remote = f.Connection.Peer
	}
	f.RouteName, f.Cluster, f.HealthCheck = s.Facts.RouteName, s.Facts.Cluster, s.Facts.HealthCheck
	f.RouteMetadata, f.VirtualHostMetadata, f.ClusterMetadata = s.Facts.RouteMetadata, s.Facts.VirtualHostMetadata, s.Facts.ClusterMetadata
	f.UpstreamHost, f.HostMetadata = host.Address, host.Metadata()
	f.Attempts = s.Facts.Attempts
	l.runtime, l.open, l.began = s.Runtime, true, false
}

// connected notes the connection on which the request begins to go out.
func (l *upstreamLog) connected(a *attempt, conn *connpool.Conn, now time.Time) {
	if l == nil {
		return
	}
	a.tell(&l.facts, conn, now)
	l.facts.Protocol = l.facts.UpstreamProtocol
	if l.early && !l.began {
		l.write("UpstreamPoolReady")
	}
	l.began = true
}

// answered notes the head of the response.
func (l *upstreamLog) answered(r *message.Response) {
	if l == nil {
		return
	}
	l.facts.Mark(format.ResponseBegin, time.Now())
	l.facts.Response, l.facts.ResponseCode = &l.response, r.Status
	copyHeaders(&l.response.Headers, &r.Headers)
}

// received counts bytes of the response's body.
func (l *upstreamLog) received(n int) {
	if l != nil {
		l.facts.AddReceived(n)
	}
}

// whole notes the end of the response.
func (l *upstreamLog) whole(r *message.Response, now time.Time) {
	if l == nil {
		return
	}
	l.facts.Mark(format.UpstreamResponseEnd, now)
	copyHeaders(&l.response.Trailers, &r.Trailers)
	l.facts.ResponseTrailers = &l.response.Trailers
}

// failed notes why the attempt comes to nothing, as far as Envoy notes it there.
func (l *upstreamLog) failed(res result, err error) {
	if l == nil {
		return
	}
	switch res {
	case unconnected:
		l.facts.UpstreamFailure = connectFailure(err)
	case noHost: // which is no attempt
		l.open = false
	case idleTry:
		l.facts.Flags = format.StreamIdleTimeout
		return
	case late, outlived: // the proxy has ended it
		return
	}
	l.facts.Flags = endings[res].flag
}

// brokeOff notes why the response came to an end before its time.
func (l *upstreamLog) brokeOff(flag format.Flags) {
	if l != nil {
		l.facts.Flags |= flag
	}
}

// end logs the attempt, if one is under way.
func (l *upstreamLog) end(s *stream.Stream, a *attempt) {
	if l == nil || !l.open {
		return
	}
	l.open = false
	l.facts.SentBytes = a.bodySent.Load()
	if since, ok := s.Facts.Since(format.UpstreamRequestEnd); ok {
		if at := s.Facts.Start.Add(since); !at.Before(l.facts.Start) { // else it is that of the attempt before
			l.facts.Mark(format.UpstreamRequestEnd, at)
		}
	}
	l.write("UpstreamEnd")
	l.facts.Reset(nil, nil, nil)
}

func (l *upstreamLog) write(kind string) {
	l.facts.LogType = kind
	for _, log := range l.logs {
		log.Write(&l.facts, l.runtime)
	}
}

func copyHeaders(to, from *message.Headers) {
	to.Reset()
	for i := range from.Len() {
		name, value := from.At(i)
		to.AddBytes(string(name), value)
	}
}
