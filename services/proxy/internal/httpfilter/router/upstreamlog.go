package router

import (
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
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

	// lines are written while an attempt goes on.
	lines   *accesslog.Periodic
	attempt *attempt // whose lines they are

	facts    format.Facts
	response message.Response // a copy of its head, and of its trailers
	runtime  *layeredruntime.Snapshot
	open     bool // an attempt is under way
	began    bool // it has a connection
}

func newUpstreamLog(c *config) *upstreamLog {
	l := &upstreamLog{logs: c.logs, early: c.logsEarly}
	l.lines = accesslog.NewPeriodic(c.logs, "UpstreamPeriodic", c.logInterval, func() *layeredruntime.Snapshot { return l.runtime }, l.count)
	return l
}

// count puts the bytes that an attempt has sent of its body into the facts.
func (l *upstreamLog) count() { l.facts.SetSent(l.attempt.bodySent.Load()) }

// begin begins an attempt, which has its host.
func (l *upstreamLog) begin(s *stream.Stream, a *attempt) {
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
	f.UpstreamHost, f.HostMetadata = a.Host.Address, a.Host.Metadata()
	f.Attempts = s.Facts.Attempts
	f.Downstream, f.Upstream = s.Facts.Downstream, s.Facts.Upstream
	l.attempt, l.runtime, l.open, l.began = a, s.Runtime, true, false
	l.lines.Begin(f)
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
	l.lines.Update()
}

// answered notes the head of the response.
func (l *upstreamLog) answered(r *message.Response) {
	if l == nil {
		return
	}
	l.facts.Mark(format.ResponseBegin, time.Now())
	l.facts.Response, l.facts.ResponseCode = &l.response, r.Status
	l.response.Headers.Copy(&r.Headers)
	l.lines.Update()
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
	l.response.Trailers.Copy(&r.Trailers)
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
func (l *upstreamLog) end(s *stream.Stream) {
	if l == nil {
		return
	}
	l.lines.End()
	if !l.open {
		return
	}
	l.open = false
	l.count()
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
