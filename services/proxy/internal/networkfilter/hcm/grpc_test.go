package hcm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
)

// serveGRPC is a server of grpc-go that has any method: it sends each message back,
// those of "/t/fail" with an error in the end, and never answers "/t/stuck".
func serveGRPC(t *testing.T) string {
	l := listen(t)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		if method == "/t/stuck" {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if method == "/t/refuse" {
			return status.Error(codes.PermissionDenied, "not for you: 50% off")
		}
		for {
			m := &wrapperspb.BytesValue{}
			err := s.RecvMsg(m)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
		s.SetTrailer(metadata.Pairs("x-trailer", "here"))
		if method == "/t/fail" {
			return status.Error(codes.DataLoss, "at the end")
		}
		return nil
	}))
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// TestGRPCThroughTheProxy has grpc-go on both ends.
func TestGRPCThroughTheProxy(t *testing.T) {
	p := start(t, serveGRPC(t), config{version: speaksHTTP2, route: `, "timeout": "0s"`,
		routes: `{"match": {"prefix": "/t/"}, "route": {"cluster": "up", "timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}}}`})
	conn, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	t.Run("unary", func(t *testing.T) {
		for _, n := range []int{0, 10, 5 << 20} {
			sent, got := wrapperspb.Bytes(bytes.Repeat([]byte("x"), n)), &wrapperspb.BytesValue{}
			var trailer metadata.MD
			require.NoError(t, conn.Invoke(ctx, "/t/unary", sent, got, grpc.Trailer(&trailer)))
			require.Len(t, got.Value, n)
			require.Equal(t, []string{"here"}, trailer.Get("x-trailer"))
		}
	})
	t.Run("both directions stream", func(t *testing.T) {
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t/stream")
		require.NoError(t, err)
		for i := range 100 { // each waits for its answer
			require.NoError(t, s.SendMsg(wrapperspb.Bytes([]byte{byte(i)})))
			got := &wrapperspb.BytesValue{}
			require.NoError(t, s.RecvMsg(got))
			require.Equal(t, []byte{byte(i)}, got.Value)
		}
		require.NoError(t, s.CloseSend())
		require.ErrorIs(t, s.RecvMsg(&wrapperspb.BytesValue{}), io.EOF)
	})
	t.Run("an error behind messages", func(t *testing.T) {
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t/fail")
		require.NoError(t, err)
		require.NoError(t, s.SendMsg(wrapperspb.Bytes([]byte("a"))))
		require.NoError(t, s.CloseSend())
		require.NoError(t, s.RecvMsg(&wrapperspb.BytesValue{}))
		err = s.RecvMsg(&wrapperspb.BytesValue{})
		require.Equal(t, codes.DataLoss, status.Code(err))
		require.ErrorContains(t, err, "at the end")
		require.Equal(t, []string{"here"}, s.Trailer().Get("x-trailer"))
	})
	t.Run("an error in headers alone", func(t *testing.T) {
		err := conn.Invoke(ctx, "/t/refuse", wrapperspb.Bytes(nil), &wrapperspb.BytesValue{})
		require.Equal(t, codes.PermissionDenied, status.Code(err))
		require.ErrorContains(t, err, "not for you: 50% off")
	})
	t.Run("a deadline", func(t *testing.T) {
		late, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		err := conn.Invoke(late, "/t/stuck", wrapperspb.Bytes(nil), &wrapperspb.BytesValue{})
		// The server knows the deadline too. If it resets the stream before ours is over
		// and the client's own timer ends the call, that hears of a reset.
		require.Contains(t, []codes.Code{codes.DeadlineExceeded, codes.Unavailable}, status.Code(err))
	})
	t.Run("a client that cancels", func(t *testing.T) {
		given, cancel := context.WithCancel(ctx)
		s, err := conn.NewStream(given, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t/stream")
		require.NoError(t, err)
		require.NoError(t, s.SendMsg(wrapperspb.Bytes([]byte("a"))))
		require.NoError(t, s.RecvMsg(&wrapperspb.BytesValue{}))
		cancel()
		require.Equal(t, codes.Canceled, status.Code(s.RecvMsg(&wrapperspb.BytesValue{})))
	})
	t.Run("no route", func(t *testing.T) {
		err := conn.Invoke(ctx, "/other/unary", wrapperspb.Bytes(nil), &wrapperspb.BytesValue{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
	})
	servicetest.Eventually(t, "nothing is left", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_total"), "all on one connection")
	require.EqualValues(t, 1, p.stat("cluster.up.upstream_cx_http2_total"))
}
