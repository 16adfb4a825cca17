package grpcserver

import (
	"sync"

	v2pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v2"
	v3pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	lyftpb "github.com/weirproxy/weir/proto/ratelimit/lyft"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
)

// call is the messages of one call as bytes: what the codec takes in place of
// protobuf's messages. It is pooled.
type call struct {
	server  *Server
	message string
	answer  *[]byte // of the server's answers; nil before there is one
}

// register adds the rate limit service of each version. Its one method is
// declared as a stream of one message either way, which is the same on the
// wire, and lets the handler know when the answer has been taken. Neither
// ClientStreams nor ServerStreams may be set: to gRPC it would be no unary call
// then, and endWith would cancel it at a stop.
func (s *Server) register() {
	for v, generated := range map[rls.Version]grpc.ServiceDesc{
		rls.V3:   v3pb.RateLimitService_ServiceDesc,
		rls.V2:   v2pb.RateLimitService_ServiceDesc,
		rls.Lyft: lyftpb.RateLimitService_ServiceDesc,
	} {
		s.grpc.RegisterService(&grpc.ServiceDesc{
			ServiceName: generated.ServiceName,
			HandlerType: (*any)(nil),
			Streams:     []grpc.StreamDesc{{StreamName: generated.Methods[0].MethodName, Handler: s.answerCalls(v)}},
			Metadata:    generated.Metadata,
		}, s)
	}
}

// answerCalls is the handler of a version's calls. Its steps: read the message,
// which may block on the client; have the service answer, which may block on
// the store; hand the answer to the connection's writer.
func (s *Server) answerCalls(v rls.Version) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		c := s.calls.Get().(*call)
		defer c.release()
		if err := stream.RecvMsg(c); err != nil {
			return err
		}
		buffer := s.answers.Get(0)
		answer, fault := s.service.ShouldRateLimit(stream.Context(), v, c.message, *buffer)
		*buffer = answer
		if fault != nil {
			s.answers.Put(buffer)
			return status.Error(codes.Code(fault.Code), fault.Text)
		}
		c.answer = buffer
		return stream.SendMsg(c)
	}
}

// release gives c back to its pool.
func (c *call) release() {
	c.message, c.answer = "", nil
	c.server.calls.Put(c)
}

// codec takes calls as the bytes that they are, and leaves all else to gRPC's
// codec for protobuf.
type codec struct{ encoding.CodecV2 }

// Unmarshal is part of encoding.CodecV2. A call gets the message as one string,
// of which rls cuts out keys and values.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*call)
	switch {
	case !ok:
		return c.CodecV2.Unmarshal(data, v)
	case len(data) == 1:
		in.message = string(data[0].ReadOnlyData())
	default: // came in pieces
		in.message = string(data.Materialize())
	}
	return nil
}

// Marshal is part of encoding.CodecV2. The answer's buffer goes back to its
// pool when the connection has written it.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*call)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return mem.BufferSlice{mem.NewBuffer(out.answer, &out.server.answers)}, nil
}

// buffers is a pool of answers' bytes.
type buffers struct{ pool sync.Pool }

const (
	// answerCapacity holds most answers. Buffers of up to 1024 bytes are not
	// given back by gRPC.
	answerCapacity = 2048
	// keptCapacity is the largest buffer that is kept for another answer.
	keptCapacity = 64 << 10
)

// Get is part of mem.BufferPool. The buffer is empty, whatever the length.
func (b *buffers) Get(int) *[]byte { return b.pool.Get().(*[]byte) }

// Put is part of mem.BufferPool.
func (b *buffers) Put(buffer *[]byte) {
	if cap(*buffer) > keptCapacity {
		return
	}
	*buffer = (*buffer)[:0]
	b.pool.Put(buffer)
}
