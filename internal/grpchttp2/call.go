package grpchttp2

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/http2"
)

// The contents that are served.
const (
	contentType      = "application/grpc"
	contentTypeProto = "application/grpc+proto"
)

// requests are heads to be read into again.
var requests = sync.Pool{New: func() any { return new(http2.Head) }}

// ServeStream is part of http2.Handler. Steps: the request's head becomes a call;
// its handler runs, and what it left for later, as often as there is something to
// read; the client is told how it ended.
func (c *connection) ServeStream(h *http2.Stream) {
	var more bool
	var err error
	s, parked := h.Parked().(*stream)
	if parked {
		more, err = s.later()
	} else {
		if s = c.newCall(h); s == nil {
			return
		}
		h.OnReset(func(error) { s.cancel() })
		err = s.run()
		more = err == nil && s.later != nil
	}
	for more && len(s.rest) > 0 {
		more, err = s.later()
	}
	if more {
		h.Park(s)
		return
	}
	s.end(statusOf(err))
}

// refusal is the answer to a request that is no call: its status of HTTP, and
// fields.
type refusal struct {
	http int
	http2.Fields
}

// refuse is an answer that is one of gRPC too.
func refuse(httpStatus int, code codes.Code, format string, args ...any) *refusal {
	r := &refusal{http: httpStatus}
	r.Add("content-type", contentType)
	appendStatus(&r.Fields, status.Newf(code, format, args...))
	return r
}

// newCall makes a call of a request, or answers it and returns nil.
func (c *connection) newCall(h *http2.Stream) *stream {
	head := requests.Get().(*http2.Head)
	defer requests.Put(head)
	if h.ReadHead(head) != nil {
		return nil // it was reset already
	}
	s, refused := c.callOf(h, head)
	if refused != nil {
		_ = h.WriteHead(refused.http, refused, true) // the client may have gone
		return nil
	}
	return s
}

// callOf makes a call of a request's head, of which it keeps nothing.
func (c *connection) callOf(h *http2.Stream, head *http2.Head) (*stream, *refusal) {
	s := &stream{call: c, http2: h}
	if head.TooLarge != "" {
		// By 431 (RFC 6585 §5) earlier clients of grpc-go would not read the status.
		return nil, refuse(200, codes.ResourceExhausted, "a request of %s", head.TooLarge)
	}
	if string(head.Method) != "POST" {
		r := refuse(405, codes.Internal, "method %q: only POST is served", head.Method)
		r.Add("allow", "POST")
		return nil, r
	}
	content, _ := head.Fields.Get("content-type")
	subtype, ok := subtypeOf(string(content))
	if !ok {
		return nil, refuse(415, codes.InvalidArgument, "content-type %q: only %s is served", content, contentType)
	}
	s.proto = subtype != ""
	if s.method = c.server.methods[string(head.Path)]; s.method == nil {
		return nil, c.server.unknown(string(head.Path))
	}
	switch encoding, _ := head.Fields.Get("grpc-encoding"); string(encoding) {
	case "", "identity":
	case "gzip":
		s.gzip = true
	default:
		r := refuse(200, codes.Unimplemented, "grpc-encoding %q: only gzip is read", encoding)
		r.Add("grpc-accept-encoding", "gzip")
		return nil, r
	}
	md, err := incoming(head)
	if err != nil {
		return nil, refuse(400, codes.Internal, "%v", err)
	}
	if timeout, there := head.Fields.Get("grpc-timeout"); there {
		d, err := parseTimeout(timeout)
		if err != nil {
			return nil, refuse(400, codes.Internal, "grpc-timeout %q: %v", timeout, err)
		}
		s.timed = true
		at := time.Now().Add(d)
		h.SetDeadline(at)
		s.ctx, s.cancel = context.WithDeadline(c.ctx, at)
	} else {
		s.ctx, s.cancel = context.WithCancel(c.ctx)
	}
	s.ctx = metadata.NewIncomingContext(s.ctx, md)
	s.ctx = grpc.NewContextWithServerTransportStream(s.ctx, transport{s})
	return s, nil
}

// subtypeOf is what a content-type of gRPC names beside, as in application/grpc+proto;
// not ok if it is another, or names what no codec is for.
func subtypeOf(content string) (subtype string, ok bool) {
	content, _, _ = strings.Cut(content, ";")
	content = strings.ToLower(strings.TrimSpace(content))
	rest, ok := strings.CutPrefix(content, contentType)
	return strings.TrimPrefix(rest, "+"), ok && (rest == "" || rest == "+proto")
}

// unknown is the answer to who calls what there is not.
func (s *Server) unknown(path string) *refusal {
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if _, there := s.services[service]; ok && there {
		return refuse(200, codes.Unimplemented, "unknown method %s for service %s", method, service)
	}
	if !ok {
		return refuse(200, codes.Unimplemented, "path %q: not /service/method", path)
	}
	return refuse(200, codes.Unimplemented, "unknown service %s", service)
}

// run runs the handler, and returns what that does.
func (s *stream) run() error {
	if s.method.unary != nil {
		return s.runUnary()
	}
	if around := s.call.server.options.StreamInterceptor; around != nil {
		return around(s.method.service, s, &s.method.info, s.method.stream)
	}
	return s.method.stream(s.method.service, s)
}

// runUnary runs the handler of a call with one message each way.
func (s *stream) runUnary() error {
	defer func() { s.later = nil }() // it is of streams alone
	read := func(m any) error {
		err := s.RecvMsg(m)
		if err == io.EOF { //nolint:errorlint // as RecvMsg says
			return status.Error(codes.Internal, "the request has no message")
		}
		return err
	}
	answer, err := s.method.unary(s.method.service, s.ctx, read, s.call.server.options.UnaryInterceptor)
	if err != nil {
		return err
	}
	return s.SendMsg(answer)
}
