package format

import (
	"bytes"
	"maps"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Snapshot is a copy of facts, for who reads them beside those who write them. The zero
// value has none.
type Snapshot struct {
	facts    Facts
	request  message.Request
	response message.Response
}

// Take copies what can be said now, the heads among it, but no trailers: those may be
// coming. It is for who may write the facts.
func (c *Snapshot) Take(f *Facts) {
	to := &c.facts
	to.Reset(nil, nil, f.Connection)
	if r := f.Request; r != nil {
		c.request = message.Request{
			Method: bytes.Clone(r.Method), Path: bytes.Clone(r.Path), Authority: bytes.Clone(r.Authority), Scheme: bytes.Clone(r.Scheme),
			Headers: c.request.Headers,
		}
		c.request.Headers.Copy(&r.Headers)
		to.Request = &c.request
	}
	if r := f.Response; r != nil {
		c.response.Status = r.Status
		c.response.Headers.Copy(&r.Headers)
		to.Response = &c.response
	}
	to.Downstream, to.Upstream = f.Downstream, f.Upstream
	to.Start, to.Remote = f.Start, f.Remote
	to.Protocol, to.UpstreamProtocol = f.Protocol, f.UpstreamProtocol
	to.ResponseCode, to.Details, to.TerminationDetails, to.Flags = f.ResponseCode, f.Details, f.TerminationDetails, f.Flags
	to.RouteName, to.Cluster, to.Attempts = f.RouteName, f.Cluster, f.Attempts
	to.UpstreamHost, to.UpstreamLocal, to.UpstreamConnection, to.UpstreamFailure = f.UpstreamHost, f.UpstreamLocal, f.UpstreamConnection, f.UpstreamFailure
	to.HealthCheck, to.ForcedTrace, to.LogType, to.LocalReplyBody = f.HealthCheck, f.ForcedTrace, f.LogType, f.LocalReplyBody
	to.DynamicMetadata = maps.Clone(f.DynamicMetadata)
	to.RouteMetadata, to.VirtualHostMetadata, to.ClusterMetadata, to.HostMetadata = f.RouteMetadata, f.VirtualHostMetadata, f.ClusterMetadata, f.HostMetadata
}

// Facts are those that were taken, with the bytes and the moments that were counted in f
// up to now. It may be called beside who writes f, and what it returns is changed by the
// next Take or Facts.
func (c *Snapshot) Facts(f *Facts) *Facts {
	c.facts.received.Store(f.received.Load())
	c.facts.sent.Store(f.sent.Load())
	for i := range f.moments {
		c.facts.moments[i].Store(f.moments[i].Load())
	}
	return &c.facts
}
