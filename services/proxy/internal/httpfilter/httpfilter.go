// Package httpfilter is the contract of an HTTP filter, and the chain that
// runs the filters of one http_connection_manager. Each filter lives in a
// package below this one, with its config, code, test and README; which
// filters ship is listed in builtin. The chain decides nothing by itself.
//
// A filter is plain blocking code. It implements only the steps that it needs
// (RequestHead, RequestBody, RequestTrailers, ResponseHead, ResponseBody,
// ResponseTrailers, Done), and the chain calls them so:
//
//   - request steps in the order of the configuration, response steps in the
//     reverse order;
//   - the steps of one stream never at the same time, though not always on the
//     same goroutine: a response can begin while its request is still coming;
//   - a response only if there is somebody to get it: a reply to a client that has left
//     is dropped, so that no response step sees it;
//   - heads before bodies, each chunk once, trailers behind the last chunk of
//     a body, be there any or not, Done last and always, in the reverse order.
//
// A filter that changes the length of a body sets BodyLength to
// message.Unknown in its step for the head.
package httpfilter

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory is one kind of filter.
type Factory interface {
	// ConfigType is the message that configures the filter in typed_config.
	ConfigType() protoreflect.FullName
	// Fields are the supported fields of that message and of those in it that
	// no other package declares.
	Fields() strict.Fields
	// Parse checks a config that lies at the path at and makes a Config of it.
	// Faults go to report; the result is for use only if there are none, and
	// may be nil if there are.
	Parse(config proto.Message, at strict.Path, report *strict.Report) Config
}

// RouteFactory is a Factory of filters that routes can configure, in
// typed_per_filter_config.
type RouteFactory interface {
	Factory
	// RouteConfigType is the message that does so; Fields has its fields too.
	RouteConfigType() protoreflect.FullName
	// ParseRoute is to that message what Parse is to the filter's own. What it
	// makes is handed to NewRouteFilter.
	ParseRoute(config proto.Message, at strict.Path, report *strict.Report) any
}

// RouteConfigured is a Config whose filters routes can configure.
type RouteConfigured interface {
	Config
	// NewRouteFilter makes the filter of a stream whose route has route for it,
	// from ParseRoute of this or, where a route calls a filter of another kind by
	// this one's name, of another factory: that counts for nothing. No filter is
	// made, and nil returned, if the route wants none.
	NewRouteFilter(route any) Filter
}

// Config is a checked configuration of a filter. It lives as long as the
// listener's configuration and is shared by all streams.
type Config interface {
	// NewFilter makes the filter of one stream. A filter that keeps nothing
	// between its steps may return the same value each time.
	NewFilter() Filter
}

// Measured is a Config with metrics, such as some below those of its
// http_connection_manager. It has none before Measure, since Parse is also called for
// what is refused.
type Measured interface {
	// Measure makes the metrics, in scope if they are of the http_connection_manager:
	// "http.<stat_prefix>". It is called once, before the first NewFilter whose filter
	// gets a stream.
	Measure(scope *stats.Scope)
}

// Filter is a filter at work on one stream: a value with some of the steps
// below. The last one of a chain must be Terminal, and no other.
type Filter any

// RequestHead is the step of a filter that looks at, changes or answers the
// head of a request.
type RequestHead interface {
	// RequestHead returns nil to go on, or a reply that ends the request here.
	// It may block, but must then heed s.Context.
	RequestHead(s *stream.Stream) *Reply
}

// RequestBody is the step of a filter that looks at or changes the request's
// body.
type RequestBody interface {
	// RequestBody returns what goes on in place of chunk, which may be nothing
	// and stays valid until the next call. An error breaks the request off.
	RequestBody(s *stream.Stream, chunk []byte) ([]byte, error)
}

// RequestTrailers is the step of a filter that looks at or changes the
// request's trailers. It comes at the end of a body; without a body it does not.
type RequestTrailers interface {
	RequestTrailers(s *stream.Stream)
}

// ResponseHead is the step of a filter that looks at or changes the head of
// the response, be it the upstream's or a reply of this filter or of one
// behind it.
type ResponseHead interface {
	ResponseHead(s *stream.Stream)
}

// ResponseBody is the step of a filter that looks at or changes the response's
// body.
type ResponseBody interface {
	// ResponseBody is to the response what RequestBody is to the request.
	ResponseBody(s *stream.Stream, chunk []byte) ([]byte, error)
}

// ResponseTrailers is to the response what RequestTrailers is to the request.
type ResponseTrailers interface {
	ResponseTrailers(s *stream.Stream)
}

// Done is the step of a filter that has something to finish when the exchange
// is over, however it ended.
type Done interface {
	Done(s *stream.Stream)
}

// Terminal is the filter at the end of a chain, which gets the response.
type Terminal interface {
	// Forward fills in s.Response, with the body still to be pulled, or
	// returns a reply, as it must once the client has left: that goes nowhere. It pulls
	// s.Request.Body. It is not called for a request that a filter answered.
	Forward(s *stream.Stream) *Reply
}

// Reply is a response that the proxy makes itself.
type Reply struct {
	// Status is 200 to 599.
	Status int
	// Headers are added to the response in their order.
	Headers []Header
	// Body is text/plain unless Headers, or the route's changes to them, say otherwise;
	// empty is none.
	Body string
}

// Header is one header field, its name in lower case.
type Header struct{ Name, Value string }
