package grpchttp2

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/http2"
)

// stream is what a handler has of a call: a grpc.ServerStream. One goroutine may
// receive and another send; metadata may be set by any. It may be called after the
// handler returned, and returns an error then.
type stream struct {
	call   *connection
	method *method
	ctx    context.Context
	cancel context.CancelFunc
	proto  bool // the client's content-type has the subtype
	gzip   bool // messages may be compressed
	timed  bool // there is a deadline
	later  func() (more bool, err error)

	// use is held, to read, by who is within a call of http2, and to write by who
	// takes that away.
	use   sync.RWMutex
	http2 *http2.Stream // nil once the handler returned
	rest  []byte        // of the body's chunk that was read last

	mu              sync.Mutex
	header, trailer metadata.MD
	sentHead        bool
	ended           bool // metadata is of no use any more
}

var errEnded = status.Error(codes.Canceled, "the call has ended")

// Context is part of grpc.ServerStream. It ends with the call: when the handler
// returned, the client or the connection is gone, or the deadline has come.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg is part of grpc.ServerStream: it reads a message into m, by the codec.
// Behind the last it returns io.EOF. Other errors are a status.
func (s *stream) RecvMsg(m any) error {
	data, err := s.receive()
	if err != nil {
		return err
	}
	defer data.Free()
	if err := s.call.server.options.Codec.Unmarshal(mem.BufferSlice{data}, m); err != nil {
		return status.Errorf(codes.Internal, "a message that can't be read: %v", err)
	}
	return nil
}

func (s *stream) receive() (mem.Buffer, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.http2 == nil {
		return nil, errEnded
	}
	data, err := s.message()
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.broken(err)
	}
	return data, err
}

// SendMsg is part of grpc.ServerStream: it sends m, by the codec, and waits while
// the client takes nothing. Errors are a status. It keeps nothing of m.
func (s *stream) SendMsg(m any) error {
	data, err := s.call.server.options.Codec.Marshal(m)
	if err != nil {
		return status.Errorf(codes.Internal, "write the message: %v", err)
	}
	defer data.Free()
	s.use.RLock()
	defer s.use.RUnlock()
	if s.http2 == nil {
		return errEnded
	}
	if err := s.send(data); err != nil {
		return s.broken(err)
	}
	return nil
}

func (s *stream) send(data mem.BufferSlice) error {
	if s.timed && s.ctx.Err() != nil {
		return os.ErrDeadlineExceeded // which http2 may hear of a moment later
	}
	if err := s.sendHead(s.http2); err != nil {
		return err
	}
	if err := s.writeMessage(data); err != nil {
		return err
	}
	if s.method.unary != nil {
		return nil // its status goes with it
	}
	return s.http2.Flush()
}

// broken is the status of an error of the stream, whose context has ended then.
func (s *stream) broken(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-s.ctx.Done() // of the same time, or interrupted
		return status.FromContextError(s.ctx.Err()).Err()
	}
	s.cancel()
	if errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		return status.FromContextError(s.ctx.Err()).Err()
	}
	return status.Error(codes.Canceled, err.Error())
}

// SetHeader is part of grpc.ServerStream: it adds to the metadata that goes before
// the first message. The error, a status, says that it is too late or of no use.
func (s *stream) SetHeader(md metadata.MD) error {
	if err := checkMetadata(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sentHead || s.ended {
		return status.Error(codes.Internal, "the header was sent already")
	}
	if len(md) > 0 {
		s.header = metadata.Join(s.header, md)
	}
	return nil
}

// SendHeader is part of grpc.ServerStream: it sends the metadata that was set, and
// md, now. Errors are a status.
func (s *stream) SendHeader(md metadata.MD) error {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.http2 == nil {
		return errEnded
	}
	if err := s.SetHeader(md); err != nil {
		return err
	}
	err := s.sendHead(s.http2)
	if err == nil {
		err = s.http2.Flush()
	}
	if err != nil {
		return s.broken(err)
	}
	return nil
}

// SetTrailer is part of grpc.ServerStream: it adds to the metadata that goes with
// the status. If any of md is what no field may hold, all of md is left out.
func (s *stream) SetTrailer(md metadata.MD) { _ = s.addTrailer(md) }

func (s *stream) addTrailer(md metadata.MD) error {
	if err := checkMetadata(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errEnded
	}
	if len(md) > 0 {
		s.trailer = metadata.Join(s.trailer, md)
	}
	return nil
}

// Call is what a handler of a stream can do with its call beside what gRPC knows.
type Call interface {
	// Later lets the handler return while its call goes on, so that a stream at
	// rest has no goroutine. When it returned nil, f is called, on a goroutine of the
	// server's, each time that there is something for RecvMsg to read: a message, as
	// a rule, the end of the request, or why the call ends. It may read one message,
	// and says whether there is more to wait for; if not, the call ends with err.
	// Others may send meanwhile. Interceptors' handlers have returned by then.
	Later(f func() (more bool, err error))
	// Interrupt cancels the call's context, and has what sends, now and later, and
	// what receives, once nothing is left to be read, return a status of CANCELED. It
	// does not wait for that. How the call ends is the handler's to say.
	Interrupt()
}

// CallOf is the call of a handler's context, if that is of a Server of this package.
func CallOf(ctx context.Context) (c Call, ok bool) {
	c, ok = grpc.ServerTransportStreamFromContext(ctx).(Call)
	return c, ok
}

// transport is the stream as a grpc.ServerTransportStream, by which functions of
// package grpc find it in a context, and as a Call.
type transport struct{ *stream }

// Later is part of Call.
func (t transport) Later(f func() (more bool, err error)) { t.later = f }

// Interrupt is part of Call.
func (t transport) Interrupt() {
	t.cancel()
	t.use.RLock()
	defer t.use.RUnlock()
	if t.http2 != nil {
		t.http2.Interrupt(os.ErrDeadlineExceeded) // which take lifts
	}
}

// Method is the path of the call.
func (t transport) Method() string { return t.method.path }

// SetTrailer is stream.SetTrailer, and says what is wrong.
func (t transport) SetTrailer(md metadata.MD) error { return t.addTrailer(md) }

// The heads of an answer without metadata, by the client's content-type.
var (
	plainHead = fields("content-type", contentType)
	protoHead = fields("content-type", contentTypeProto)
)

// well is the status of what went well, without metadata.
var well = fields("grpc-status", "0")

func fields(name, value string) *http2.Fields {
	f := &http2.Fields{}
	f.Add(name, value)
	return f
}

// lists are fields to be used again.
var lists = sync.Pool{New: func() any { return new(http2.Fields) }}

// sendHead sends the head of the answer, unless it was sent.
func (s *stream) sendHead(h *http2.Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sentHead {
		return nil
	}
	s.sentHead = true
	head := plainHead
	if s.proto {
		head = protoHead
	}
	if len(s.header) > 0 {
		list := lists.Get().(*http2.Fields)
		defer lists.Put(list)
		list.Reset()
		list.Add("content-type", s.contentType())
		appendMetadata(list, s.header)
		head = list
	}
	return h.WriteHead(200, head, false)
}

func (s *stream) contentType() string {
	if s.proto {
		return contentTypeProto
	}
	return contentType
}

// end takes the stream away from the handler and from all that it left behind, and
// tells the client how the call ended: by trailers, or by a head alone if there was
// nothing else.
func (s *stream) end(with *status.Status) {
	s.cancel()
	h := s.take()
	if len(s.header) > 0 {
		_ = s.sendHead(h) // if it can't be sent, nor can what follows
	}
	list := lists.Get().(*http2.Fields)
	defer lists.Put(list)
	list.Reset()
	switch {
	case !s.sentHead:
		list.Add("content-type", s.contentType())
		appendStatus(list, with)
		appendMetadata(list, s.trailer)
		_ = h.WriteHead(200, list, true) // the client may have gone; so below
	case len(s.trailer) == 0 && with.Code() == codes.OK:
		_ = h.WriteTrailers(well)
	default:
		appendStatus(list, with)
		appendMetadata(list, s.trailer)
		_ = h.WriteTrailers(list)
	}
}

// take waits until nobody is within a call of the stream of http2, whom it
// interrupts, and lets nobody in from then on. What the metadata was set to stays.
func (s *stream) take() *http2.Stream {
	if !s.use.TryLock() {
		s.http2.Interrupt(os.ErrDeadlineExceeded)
		s.use.Lock()
	}
	defer s.use.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.http2
	s.http2, s.rest, s.ended = nil, nil, true
	h.SetDeadline(time.Time{}) // which lifts interrupts, too
	return h
}
