// Package buffer is the HTTP filter that holds a request back until its body is
// there as a whole (envoy.extensions.filters.http.buffer.v3.Buffer), for
// upstreams that must not wait for slow clients. A body that is too long is
// refused. It changes nothing of a request but the way it is framed.
package buffer

import (
	"errors"
	"io"
	"strconv"

	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes buffer filters, which routes can configure by a BufferPerRoute.
// It implements httpfilter.RouteFactory.
type Factory struct{}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&bufferv3.Buffer{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType():      {"max_request_bytes"},
		f.RouteConfigType(): {"disabled", "buffer"},
	}
}

// Parse implements httpfilter.Factory. That the limit is there, and above 0, is
// held by the message's own rules.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	m, ok := message.(*bufferv3.Buffer)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	return &filter{most: int64(m.GetMaxRequestBytes().GetValue())}
}

// RouteConfigType implements httpfilter.RouteFactory.
func (Factory) RouteConfigType() protoreflect.FullName {
	return (&bufferv3.BufferPerRoute{}).ProtoReflect().Descriptor().FullName()
}

// ParseRoute implements httpfilter.RouteFactory. That it is one of the two, and
// disabled true, is held by the message's own rules.
func (f Factory) ParseRoute(message proto.Message, at strict.Path, report *strict.Report) any {
	m, ok := message.(*bufferv3.BufferPerRoute)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.RouteConfigType())
		return nil
	}
	return &filter{most: int64(m.GetBuffer().GetMaxRequestBytes().GetValue()), disabled: m.GetDisabled()}
}

// filter is the configuration of one chain, or of a route, and the filter of all
// its streams: it keeps nothing between its steps.
type filter struct {
	most     int64 // bytes
	disabled bool  // by a route
}

// NewFilter implements httpfilter.Config.
func (f *filter) NewFilter() httpfilter.Filter { return f }

// NewRouteFilter implements httpfilter.RouteConfigured.
func (f *filter) NewRouteFilter(route any) httpfilter.Filter {
	switch own, ok := route.(*filter); {
	case !ok:
		return f
	case own.disabled:
		return nil
	default:
		return own
	}
}

// mostAnnounced is how much memory a body gets before it comes.
const mostAnnounced = 64 << 10

// RequestHead implements httpfilter.RequestHead. It blocks until the body is
// there. One that announces its length is refused without being read, and what a
// client sends in another protocol than HTTP is no body.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	r := &s.Request
	if r.Body == nil || len(r.Upgrade) > 0 {
		return nil
	}
	if r.BodyLength > f.most {
		return httpfilter.BodyTooLarge(s)
	}
	// No more than a little is taken for what is only announced.
	text := make([]byte, 0, min(max(r.BodyLength, 0), mostAnnounced))
	for {
		chunk, err := r.Body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return httpfilter.BodyFailed(s, err)
		}
		if int64(len(text)+len(chunk)) > f.most {
			return httpfilter.BodyTooLarge(s)
		}
		text = append(text, chunk...)
	}
	switch {
	case r.Trailers.Len() > 0: // which only a body of unknown length can have
		r.BodyLength, r.Body = message.Unknown, message.NewBytes(text)
	case len(text) > 0:
		r.BodyLength, r.Body = int64(len(text)), message.NewBytes(text)
		if !r.Headers.Has("content-length") {
			r.Headers.Add("content-length", strconv.Itoa(len(text)))
		}
	default:
		r.BodyLength, r.Body = 0, nil
	}
	return nil
}
