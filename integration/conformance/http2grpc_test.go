package conformance

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/http2/http2test"
)

// echoGRPC answers a gRPC call with the messages that it brings, as bytes, and refuses
// one of /test/Refuse.
func echoGRPC(s *http2.Stream) {
	var head http2.Head
	var fields, trailers http2.Fields
	if s.ReadHead(&head) != nil {
		return
	}
	fields.Add("content-type", "application/grpc")
	if string(head.Path) == "/test/Refuse" {
		fields.Add("grpc-status", "7")
		fields.Add("grpc-message", "not you")
		_ = s.WriteHead(200, &fields, true)
		return
	}
	if s.WriteHead(200, &fields, false) != nil {
		return
	}
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || s.WriteData(chunk, false) != nil {
			return
		}
	}
	trailers.Add("grpc-status", "0")
	_ = s.WriteTrailers(&trailers)
}

// TestHTTP2ServesGRPC has grpc-go's client call a server of internal/http2.
func TestHTTP2ServesGRPC(t *testing.T) {
	address := http2test.NewHost(t, http2.Options{}, echoGRPC).Address
	client, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer client.Close()

	for _, size := range []int{0, 10, 100_000, 3 << 20} {
		in, out := wrapperspb.Bytes(make([]byte, size)), &wrapperspb.BytesValue{}
		require.NoError(t, client.Invoke(t.Context(), "/test/Echo", in, out))
		require.Len(t, out.GetValue(), size)
	}
	err = client.Invoke(t.Context(), "/test/Refuse", wrapperspb.Bytes(nil), &wrapperspb.BytesValue{})
	require.Equal(t, status.New(codes.PermissionDenied, "not you").Proto(), status.Convert(err).Proto())

	stream, err := client.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Echo")
	require.NoError(t, err)
	for i := range 100 {
		in, out := wrapperspb.Bytes(make([]byte, i*100)), &wrapperspb.BytesValue{}
		require.NoError(t, stream.SendMsg(in))
		require.NoError(t, stream.RecvMsg(out))
		require.Len(t, out.GetValue(), i*100)
	}
	require.NoError(t, stream.CloseSend())
	require.ErrorIs(t, stream.RecvMsg(&wrapperspb.BytesValue{}), io.EOF)
}

// TestHTTP2CallsGRPC has a client of internal/http2 call grpc-go's server.
func TestHTTP2CallsGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var message wrapperspb.BytesValue
		for {
			err := stream.RecvMsg(&message)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = stream.SendMsg(&message)
			}
			if err != nil {
				return err
			}
		}
	}))
	ended := make(chan error, 1)
	// Ends with the server.
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	client := http2.NewClient(conn, http2.NewClientOptions(http2.Options{}))
	defer client.Close()

	var fields, trailers http2.Fields
	fields.Add("content-type", "application/grpc")
	fields.Add("te", "trailers")
	request := &http2.Request{Method: []byte("POST"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte("/test/Echo")}
	for _, size := range []int{0, 10, 100_000, 3 << 20} {
		message, err := proto.Marshal(wrapperspb.Bytes(make([]byte, size)))
		require.NoError(t, err)
		frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
		s, err := client.Open(request, &fields, false)
		require.NoError(t, err)
		require.NoError(t, s.WriteData(frame, true))
		var head http2.Head
		require.NoError(t, s.ReadHead(&head))
		require.Equal(t, 200, head.Status)
		var got []byte
		for {
			chunk, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			got = append(got, chunk...)
		}
		require.Equal(t, frame, got)
		require.True(t, s.ReadTrailers(&trailers))
		code, _ := trailers.Get("grpc-status")
		require.Equal(t, "0", string(code))
		s.Close()
	}
}
