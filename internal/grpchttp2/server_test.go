package grpchttp2_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

type bytesValue = wrapperspb.BytesValue

// handlers are what the methods of the service test.Calls do.
type handlers struct {
	ask  func(context.Context, *bytesValue) (*bytesValue, error)
	talk func(grpc.ServerStream) error
}

// echo is what they do unless a test says otherwise.
func echo(_ context.Context, m *bytesValue) (*bytesValue, error) { return m, nil }

func echoes(wire grpc.ServerStream) error {
	for {
		m := &bytesValue{}
		err := wire.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := wire.SendMsg(m); err != nil {
			return err
		}
	}
}

const (
	askPath  = "/test.Calls/Ask"
	talkPath = "/test.Calls/Talk"
)

var talkDesc = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// described is the service test.Calls.
var described = &grpc.ServiceDesc{
	ServiceName: "test.Calls",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Ask", Handler: func(service any, ctx context.Context, read func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
		m := &bytesValue{}
		if err := read(m); err != nil {
			return nil, err
		}
		ask := func(ctx context.Context, m any) (any, error) { return service.(*handlers).ask(ctx, m.(*bytesValue)) }
		if around == nil {
			return ask(ctx, m)
		}
		return around(ctx, m, &grpc.UnaryServerInfo{Server: service, FullMethod: askPath}, ask)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Talk", ClientStreams: true, ServerStreams: true, Handler: func(service any, wire grpc.ServerStream) error {
		return service.(*handlers).talk(wire)
	}}},
	Metadata: "calls.proto",
}

// served is a server on a socket.
type served struct {
	*grpchttp2.Server
	listener net.Listener
	ended    chan error // what Serve returned
}

// serve starts a server, which the test's end stops.
func serve(t testing.TB, o grpchttp2.Options, h handlers) *served {
	t.Helper()
	if h.ask == nil {
		h.ask = echo
	}
	if h.talk == nil {
		h.talk = echoes
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &served{grpchttp2.New(o), listener, make(chan error, 1)}
	s.RegisterService(described, &h)
	// Ends with the stop, which the cleanup waits for.
	go func() { s.ended <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, <-s.ended)
	})
	return s
}

// dial is grpc-go's client of the server.
func (s *served) dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	c, err := grpc.NewClient(s.listener.Addr().String(), options...)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// ask calls the unary method with so many bytes.
func ask(ctx context.Context, c *grpc.ClientConn, size int, options ...grpc.CallOption) (*bytesValue, error) {
	answer := &bytesValue{}
	err := c.Invoke(ctx, askPath, wrapperspb.Bytes(make([]byte, size)), answer, options...)
	return answer, err
}

// talk opens a stream.
func talk(ctx context.Context, t testing.TB, c *grpc.ClientConn, options ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	stream, err := c.NewStream(ctx, talkDesc, talkPath, options...)
	require.NoError(t, err)
	return stream
}

func TestMessagesOfAllSizesGoBothWays(t *testing.T) {
	for name, options := range map[string]grpchttp2.Options{
		"large windows": {},
		"small windows": {HTTP2: http2.Options{StreamWindow: 1000, ConnectionWindow: 65535}},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, options, handlers{}).dial(t)
			for _, size := range []int{0, 1, 100, 16 << 10, 100_000, 1 << 20} {
				for _, compressed := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
					answer, err := ask(t.Context(), c, size, compressed...)
					require.NoError(t, err)
					require.Len(t, answer.GetValue(), size)
					stream := talk(t.Context(), t, c, compressed...)
					for range 3 {
						m := &bytesValue{}
						require.NoError(t, stream.SendMsg(answer))
						require.NoError(t, stream.RecvMsg(m))
						require.Len(t, m.GetValue(), size)
					}
					require.NoError(t, stream.CloseSend())
					require.ErrorIs(t, stream.RecvMsg(&bytesValue{}), io.EOF)
				}
			}
		})
	}
}

func TestStatuses(t *testing.T) {
	detailed, err := status.New(codes.FailedPrecondition, "why").WithDetails(durationpb.New(time.Second))
	require.NoError(t, err)
	for name, test := range map[string]struct {
		err  error
		want *status.Status
	}{
		"well":               {nil, nil},
		"a status":           {status.Error(codes.NotFound, "no such name"), status.New(codes.NotFound, "no such name")},
		"without a message":  {status.Error(codes.Aborted, ""), status.New(codes.Aborted, "")},
		"special characters": {status.Error(codes.Aborted, " 100% ☺\t\r\n\"é\x7f "), status.New(codes.Aborted, " 100% ☺\t\r\n\"é\x7f ")},
		"details":            {detailed.Err(), detailed},
		"an error":           {errors.New("why"), status.New(codes.Unknown, "why")},
		"of a context":       {context.DeadlineExceeded, status.New(codes.DeadlineExceeded, "context deadline exceeded")},
		"of its own number":  {status.Error(99, "odd"), status.New(99, "odd")},
	} {
		t.Run(name, func(t *testing.T) {
			messages := 0
			c := serve(t, grpchttp2.Options{}, handlers{
				func(context.Context, *bytesValue) (*bytesValue, error) { return &bytesValue{}, test.err },
				func(wire grpc.ServerStream) error {
					for range messages {
						if err := wire.SendMsg(&bytesValue{}); err != nil {
							return err
						}
					}
					return test.err
				},
			}).dial(t)
			_, err := ask(t.Context(), c, 0)
			require.True(t, proto.Equal(test.want.Proto(), status.Convert(err).Proto()), "%v", err)
			for messages = range 3 {
				stream := talk(t.Context(), t, c)
				for range messages {
					require.NoError(t, stream.RecvMsg(&bytesValue{}))
				}
				err := stream.RecvMsg(&bytesValue{})
				if test.want == nil {
					require.ErrorIs(t, err, io.EOF)
					continue
				}
				require.True(t, proto.Equal(test.want.Proto(), status.Convert(err).Proto()), "%v", err)
			}
		})
	}
}

func TestMetadataGoesBothWays(t *testing.T) {
	seen := make(chan metadata.MD, 1)
	answer := func(ctx context.Context) {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
		method, _ := grpc.Method(ctx)
		_ = grpc.SetHeader(ctx, metadata.Pairs("Method", method, "h", "1", "h-bin", "\x00\xff"))
		_ = grpc.SetHeader(ctx, metadata.Pairs("h", "2", "grpc-status", "7", "content-type", "text/html"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("t", "1", "t-bin", "\x01"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("t", "2"))
	}
	s := serve(t, grpchttp2.Options{}, handlers{
		func(ctx context.Context, m *bytesValue) (*bytesValue, error) { answer(ctx); return m, nil },
		func(wire grpc.ServerStream) error {
			answer(wire.Context())
			if err := grpc.SendHeader(wire.Context(), metadata.Pairs("h", "3")); err != nil {
				return err
			}
			if grpc.SetHeader(wire.Context(), metadata.Pairs("h", "4")) == nil || wire.SendHeader(nil) == nil {
				return errors.New("a header was taken that is too late")
			}
			if err := wire.SendMsg(&bytesValue{}); err != nil {
				return err
			}
			return status.Error(codes.Aborted, "")
		},
	})
	c := s.dial(t, grpc.WithUserAgent("tester"))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "a", "1", "b-bin", "\x00\x01", "a", "2", "authorization", "Bearer x")
	look := func() {
		md := <-seen
		require.Equal(t, []string{"1", "2"}, md.Get("a"))
		require.Equal(t, []string{"\x00\x01"}, md.Get("b-bin"))
		require.Equal(t, []string{"Bearer x"}, md.Get("authorization"))
		require.Equal(t, []string{s.listener.Addr().String()}, md.Get(":authority"))
		require.Equal(t, []string{"application/grpc"}, md.Get("content-type"))
		require.Contains(t, md.Get("user-agent")[0], "tester")
		require.NotContains(t, md, "te")
		require.NotContains(t, md, "grpc-timeout")
	}
	var header, trailer metadata.MD
	_, err := ask(ctx, c, 0, grpc.Header(&header), grpc.Trailer(&trailer))
	require.NoError(t, err)
	look()
	require.Equal(t, metadata.MD{"content-type": {"application/grpc"}, "method": {askPath}, "h": {"1", "2"}, "h-bin": {"\x00\xff"}}, header)
	require.Equal(t, metadata.MD{"t": {"1", "2"}, "t-bin": {"\x01"}}, trailer)

	stream := talk(ctx, t, c)
	header, err = stream.Header()
	require.NoError(t, err)
	look()
	require.Equal(t, metadata.MD{"content-type": {"application/grpc"}, "method": {talkPath}, "h": {"1", "2", "3"}, "h-bin": {"\x00\xff"}}, header)
	require.NoError(t, stream.RecvMsg(&bytesValue{}))
	require.Equal(t, codes.Aborted, status.Code(stream.RecvMsg(&bytesValue{})))
	require.Equal(t, metadata.MD{"t": {"1", "2"}, "t-bin": {"\x01"}}, stream.Trailer())
}

func TestAHeaderWithoutMessagesGoesBeforeTheStatus(t *testing.T) {
	c := serve(t, grpchttp2.Options{}, handlers{talk: func(wire grpc.ServerStream) error {
		_ = wire.SetHeader(metadata.Pairs("h", "1"))
		wire.SetTrailer(metadata.Pairs("t", "1"))
		wire.SetTrailer(metadata.Pairs("u", "1", "v", "no\nfield holds it"))
		return status.Error(codes.Aborted, "why")
	}}).dial(t)
	stream := talk(t.Context(), t, c)
	header, err := stream.Header()
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, header.Get("h"))
	require.ErrorContains(t, stream.RecvMsg(&bytesValue{}), "why")
	require.Equal(t, metadata.MD{"t": {"1"}}, stream.Trailer())
}

func TestMetadataThatNoFieldHoldsIsRefused(t *testing.T) {
	for _, md := range []metadata.MD{
		{"": {"x"}}, {"a b": {"x"}}, {":path": {"x"}}, {"é": {"x"}}, {"connection": {"close"}}, {"Host": {"x"}}, {"content-length": {"1"}},
		{"a": {"x\r\ny: z"}}, {"a": {"\x00"}}, {"a": {"é"}}, {"a": {" x"}}, {"a": {"x "}},
	} {
		errs := make(chan error, 3)
		c := serve(t, grpchttp2.Options{}, handlers{ask: func(ctx context.Context, m *bytesValue) (*bytesValue, error) {
			errs <- grpc.SetHeader(ctx, md)
			errs <- grpc.SetTrailer(ctx, md)
			errs <- grpc.SendHeader(ctx, md)
			return m, nil
		}}).dial(t)
		_, err := ask(t.Context(), c, 0)
		require.NoError(t, err)
		for range 3 {
			require.Equal(t, codes.Internal, status.Code(<-errs), "%q", md)
		}
	}
}

func TestMoreMetadataThanIsTakenIsAnswered(t *testing.T) {
	c := serve(t, grpchttp2.Options{}, handlers{}).dial(t)
	md := metadata.MD{"a": make([]string, 120)}
	_, err := ask(metadata.NewOutgoingContext(t.Context(), md), c, 100_000)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "a request of more than 100 fields")
	_, err = ask(t.Context(), c, 0)
	require.NoError(t, err)
}

// TestADeadlineEndsTheCall has clients that leave it to the server.
func TestADeadlineEndsTheCall(t *testing.T) {
	errs := make(chan error, 2)
	waits := map[string]handlers{
		"in a unary handler": {ask: func(ctx context.Context, _ *bytesValue) (*bytesValue, error) {
			<-ctx.Done()
			errs <- ctx.Err()
			return nil, ctx.Err()
		}},
		"of one that does not care": {ask: func(ctx context.Context, m *bytesValue) (*bytesValue, error) {
			<-ctx.Done()
			errs <- ctx.Err()
			return m, nil
		}},
		"receiving": {talk: func(wire grpc.ServerStream) error {
			err := wire.RecvMsg(&bytesValue{})
			errs <- wire.Context().Err()
			return err
		}},
		"sending": {talk: func(wire grpc.ServerStream) error {
			for {
				if err := wire.SendMsg(wrapperspb.Bytes(make([]byte, 100_000))); err != nil {
					errs <- wire.Context().Err()
					return err
				}
			}
		}},
	}
	for name, h := range waits {
		t.Run(name, func(t *testing.T) {
			c := serve(t, grpchttp2.Options{}, h).raw(t)
			path, body := askPath, message(0, "")
			if h.talk != nil {
				path, body = talkPath, ""
			}
			head, _, trailers := c.call(post(path), plain+"grpc-timeout: 50m\n", body, false)
			require.Contains(t, head+trailers, "grpc-status=4 grpc-message=context deadline exceeded")
			require.Equal(t, context.DeadlineExceeded, <-errs)
		})
	}
}

func TestAClientThatCancelsEndsTheCall(t *testing.T) {
	errs := make(chan error, 2)
	began := make(chan bool, 1)
	c := serve(t, grpchttp2.Options{}, handlers{
		func(ctx context.Context, _ *bytesValue) (*bytesValue, error) {
			began <- true
			<-ctx.Done()
			errs <- ctx.Err()
			return nil, ctx.Err()
		},
		func(wire grpc.ServerStream) error {
			began <- true
			errs <- wire.RecvMsg(&bytesValue{})
			errs <- wire.Context().Err()
			return nil
		},
	}).dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	// Ends with the call.
	go func() {
		_, err := ask(ctx, c, 0)
		done <- err
	}()
	<-began
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-done))
	require.ErrorIs(t, <-errs, context.Canceled)

	ctx, cancel = context.WithCancel(t.Context())
	stream := talk(ctx, t, c)
	<-began
	cancel()
	require.Equal(t, codes.Canceled, status.Code(stream.RecvMsg(&bytesValue{})))
	require.Equal(t, codes.Canceled, status.Code(<-errs))
	require.ErrorIs(t, <-errs, context.Canceled)
}

func TestCallsEndWithTheirConnection(t *testing.T) {
	errs := make(chan error, 2)
	began := make(chan bool)
	c := serve(t, grpchttp2.Options{}, handlers{talk: func(wire grpc.ServerStream) error {
		began <- true
		errs <- wire.RecvMsg(&bytesValue{})
		errs <- wire.Context().Err()
		return nil
	}}).dial(t)
	talk(t.Context(), t, c)
	<-began
	c.Close()
	require.Equal(t, codes.Canceled, status.Code(<-errs))
	require.ErrorIs(t, <-errs, context.Canceled)
}

// TestAStreamIsTakenFromWhoStillUsesIt has a handler return while others send and
// receive, neither of which the client lets go on.
func TestAStreamIsTakenFromWhoStillUsesIt(t *testing.T) {
	const others = 2
	errs := make(chan error, others)
	wires := make(chan grpc.ServerStream, 1)
	s := serve(t, grpchttp2.Options{}, handlers{talk: func(wire grpc.ServerStream) error {
		wires <- wire
		var sends atomic.Int32
		// Both end when the handler returns; the test waits for them.
		go func() { errs <- wire.RecvMsg(&bytesValue{}) }()
		go func() {
			var err error
			for err == nil {
				sends.Add(1)
				err = wire.SendMsg(wrapperspb.Bytes(make([]byte, 50_000)))
			}
			errs <- err
		}()
		servicetest.Eventually(t, "the window is used up", func() bool { return sends.Load() == 2 })
		return status.Error(codes.Aborted, "enough")
	}})
	c := s.raw(t)
	stream := c.open(post(talkPath), plain)
	for range others {
		require.Equal(t, codes.Canceled, status.Code(<-errs))
	}
	head, body, trailers := outcome(stream)
	require.Equal(t, "200 content-type=application/grpc", head)
	require.Less(t, len(body), 65536)
	require.Equal(t, "grpc-status=10 grpc-message=enough", trailers)
	stream.Close()
	wire := <-wires
	require.Equal(t, codes.Canceled, status.Code(wire.SendMsg(&bytesValue{})))
	require.Equal(t, codes.Canceled, status.Code(wire.RecvMsg(&bytesValue{})))
	require.Equal(t, codes.Canceled, status.Code(wire.SendHeader(nil)))
	require.Error(t, wire.SetHeader(metadata.Pairs("a", "b")))
	wire.SetTrailer(metadata.Pairs("a", "b"))
	require.ErrorIs(t, wire.Context().Err(), context.Canceled)
}

func TestInterceptorsAreAroundHandlers(t *testing.T) {
	type key struct{}
	s := serve(t, grpchttp2.Options{
		UnaryInterceptor: func(ctx context.Context, m any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			return handle(context.WithValue(ctx, key{}, info.FullMethod), m)
		},
		StreamInterceptor: func(service any, wire grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if !info.IsClientStream || !info.IsServerStream {
				return errors.New("it is another method")
			}
			return errors.Join(handle(service, wire), status.Error(codes.Aborted, info.FullMethod))
		},
	}, handlers{ask: func(ctx context.Context, _ *bytesValue) (*bytesValue, error) {
		return nil, status.Error(codes.Aborted, ctx.Value(key{}).(string))
	}})
	c := s.dial(t)
	_, err := ask(t.Context(), c, 0)
	require.ErrorContains(t, err, askPath)
	stream := talk(t.Context(), t, c)
	require.NoError(t, stream.CloseSend())
	require.ErrorContains(t, stream.RecvMsg(&bytesValue{}), talkPath)
}

func TestAHandlerKnowsItsPeer(t *testing.T) {
	peers := make(chan *peer.Peer, 1)
	h := handlers{ask: func(ctx context.Context, m *bytesValue) (*bytesValue, error) {
		p, _ := peer.FromContext(ctx)
		peers <- p
		return m, nil
	}}
	plain := serve(t, grpchttp2.Options{}, h)
	_, err := ask(t.Context(), plain.dial(t), 0)
	require.NoError(t, err)
	p := <-peers
	require.True(t, p.Addr.(*net.TCPAddr).IP.IsLoopback())
	require.Equal(t, plain.listener.Addr().String(), p.LocalAddr.String())
	require.Nil(t, p.AuthInfo)

	a := servicetest.NewAuthority(t)
	pair := func(names x509.Certificate) tls.Certificate {
		cert, err := tls.X509KeyPair(a.Issue(names))
		require.NoError(t, err)
		return cert
	}
	loopback := pair(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	secure := serve(t, grpchttp2.Options{Credentials: credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{loopback}, ClientCAs: a.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
	})}, h)
	with := func(certificates ...tls.Certificate) grpc.DialOption {
		return grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: a.Pool(), Certificates: certificates}))
	}
	for _, size := range []int{10, 1 << 20} {
		answer, err := ask(t.Context(), secure.dial(t, with(pair(x509.Certificate{DNSNames: []string{"client"}}))), size)
		require.NoError(t, err)
		require.Len(t, answer.GetValue(), size)
		p := <-peers
		info := p.AuthInfo.(credentials.TLSInfo)
		require.Equal(t, []string{"client"}, info.State.PeerCertificates[0].DNSNames)
		require.Equal(t, credentials.PrivacyAndIntegrity, info.SecurityLevel)
	}
	for name, option := range map[string]grpc.DialOption{
		"without a certificate": with(),
		"in the clear":          grpc.WithTransportCredentials(insecure.NewCredentials()),
	} {
		_, err := ask(t.Context(), secure.dial(t, option), 0)
		require.Equal(t, codes.Unavailable, status.Code(err), name)
	}
}

func TestItIsToldWhyAConnectionCouldNotBeMadeSecure(t *testing.T) {
	a := servicetest.NewAuthority(t)
	own, err := tls.X509KeyPair(a.Issue(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}))
	require.NoError(t, err)
	type failure struct{ from, why string }
	failures := make(chan failure, 10)
	s := serve(t, grpchttp2.Options{
		Credentials: credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{own}, ClientCAs: a.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
		}),
		HandshakeFailed: func(from net.Addr, err error) { failures <- failure{from.String(), err.Error()} },
	}, handlers{})
	for name, test := range map[string]struct {
		client func(net.Conn)
		why    string // "" if nothing is told
	}{
		"no certificate": {func(c net.Conn) {
			_ = tls.Client(c, &tls.Config{RootCAs: a.Pool(), ServerName: "127.0.0.1", NextProtos: []string{"h2"}}).Handshake()
		}, "client didn't provide a certificate"},
		"another authority": {func(c net.Conn) {
			_ = tls.Client(c, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1", NextProtos: []string{"h2"}}).Handshake()
		}, "bad certificate"},
		"in the clear": {func(c net.Conn) { _, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) }, "does not look like a TLS handshake"},
		"a probe":      {func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			test.client(conn)
			_, _ = io.Copy(io.Discard, conn) // until the server closed it
			if test.why == "" {
				require.Empty(t, failures)
				return
			}
			got := <-failures
			require.Equal(t, conn.LocalAddr().String(), got.from)
			require.Contains(t, got.why, test.why)
		})
	}
}

func TestAConnectionThatSaysNothingIsClosed(t *testing.T) {
	s := serve(t, grpchttp2.Options{HandshakeTimeout: 20 * time.Millisecond}, handlers{})
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestOfMoreStreamsThanThereMayBeTheClientWaits(t *testing.T) {
	goOn := make(chan bool)
	s := serve(t, grpchttp2.Options{HTTP2: http2.Options{MaxConcurrentStreams: 1}}, handlers{ask: func(_ context.Context, m *bytesValue) (*bytesValue, error) {
		<-goOn
		return m, nil
	}})
	c := s.dial(t)
	errs := make(chan error, 6)
	for range cap(errs) {
		// Ends with the call; the test waits for it.
		go func() {
			_, err := ask(t.Context(), c, 0)
			errs <- err
		}()
	}
	for range cap(errs) {
		goOn <- true
		require.NoError(t, <-errs)
	}
}

func TestAGracefulStopWaitsForCalls(t *testing.T) {
	began, goOn := make(chan bool), make(chan bool)
	s := serve(t, grpchttp2.Options{}, handlers{ask: func(_ context.Context, m *bytesValue) (*bytesValue, error) {
		began <- true
		<-goOn
		return m, nil
	}})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release() // or the end of a test that fails would wait for the call
	silent, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	defer silent.Close()
	c := s.dial(t)
	done := make(chan error, 1)
	// Ends with the call.
	go func() {
		_, err := ask(t.Context(), c, 100)
		done <- err
	}()
	<-began
	stopped := make(chan bool)
	// Ends with the call.
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	require.NoError(t, <-s.ended)
	s.ended <- nil               // for the cleanup
	_, err = s.listener.Accept() // a connect might meet whoever has the port by now
	require.ErrorIs(t, err, net.ErrClosed, "nobody listens")
	_, err = silent.Read(make([]byte, 1))
	require.Error(t, err, "who has not begun is let go")
	select {
	case <-stopped:
		t.Fatal("it did not wait for the call")
	default:
	}
	release()
	require.NoError(t, <-done)
	<-stopped
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, s.Serve(l), grpchttp2.ErrStopped)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAStopEndsCalls(t *testing.T) {
	began := make(chan bool)
	s := serve(t, grpchttp2.Options{}, handlers{talk: func(wire grpc.ServerStream) error {
		began <- true
		<-wire.Context().Done()
		return nil
	}})
	stream := talk(t.Context(), t, s.dial(t))
	<-began
	stopped := make(chan bool)
	// Ends with the stop.
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	require.NoError(t, <-s.ended)
	s.ended <- nil // for the cleanup
	s.Stop()
	<-stopped
	require.Equal(t, codes.Unavailable, status.Code(stream.RecvMsg(&bytesValue{})))
}

func TestConnectionsEndWhenTheyAreTooOld(t *testing.T) {
	peers := make(chan string, 100)
	s := serve(t, grpchttp2.Options{MaxConnectionAge: 20 * time.Millisecond, MaxConnectionAgeGrace: 3 * time.Second}, handlers{
		ask: func(ctx context.Context, m *bytesValue) (*bytesValue, error) {
			p, _ := peer.FromContext(ctx)
			peers <- p.Addr.String()
			return m, nil
		},
		talk: func(wire grpc.ServerStream) error {
			<-wire.Context().Done()
			return nil
		},
	})
	c := s.dial(t)
	stream := talk(t.Context(), t, c)
	seen := map[string]bool{}
	servicetest.Eventually(t, "three connections", func() bool {
		_, err := ask(t.Context(), c, 0)
		require.NoError(t, err, "no call fails for it")
		seen[<-peers] = true
		return len(seen) == 3
	})
	require.Equal(t, codes.Unavailable, status.Code(stream.RecvMsg(&bytesValue{})), "a call that has no end is cut off")
}

func TestServicesOfOthersRegister(t *testing.T) {
	s := grpchttp2.New(grpchttp2.Options{})
	states := health.NewServer()
	healthpb.RegisterHealthServer(s, states)
	reflection.Register(s)
	s.RegisterService(described, &handlers{echo, echoes})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	// Ends with the stop.
	go func() { ended <- s.Serve(listener) }()
	defer func() { s.Stop(); require.NoError(t, <-ended) }()
	c := (&served{s, listener, ended}).dial(t)

	watch, err := healthpb.NewHealthClient(c).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		answer, err := watch.Recv()
		require.NoError(t, err)
		require.Equal(t, want, answer.GetStatus())
		states.Shutdown()
	}
	ask, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, ask.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}))
	answer, err := ask.Recv()
	require.NoError(t, err)
	var names []string
	for _, one := range answer.GetListServicesResponse().GetService() {
		names = append(names, one.GetName())
	}
	require.Subset(t, names, []string{"grpc.health.v1.Health", "test.Calls"})
	require.Equal(t, grpc.ServiceInfo{Metadata: "calls.proto", Methods: []grpc.MethodInfo{
		{Name: "Ask"}, {Name: "Talk", IsClientStream: true, IsServerStream: true},
	}}, s.GetServiceInfo()["test.Calls"])
}

func TestAWrongProgramPanicsWhenItRegisters(t *testing.T) {
	s := grpchttp2.New(grpchttp2.Options{})
	require.PanicsWithValue(t, "register service grpc.health.v1.Health: *grpchttp2_test.handlers is no grpc_health_v1.HealthServer",
		func() { s.RegisterService(&healthpb.Health_ServiceDesc, &handlers{}) })
	s.RegisterService(described, &handlers{})
	require.Panics(t, func() { s.RegisterService(described, &handlers{}) })
	s.Stop()
}

// passing is a listener that fails a few times, each behind a rest, and then for good.
type passing struct {
	net.Listener
	rests []time.Duration
}

type tooMany struct{ error }

func (tooMany) Temporary() bool { return true }

func (l *passing) Accept() (net.Conn, error) {
	if len(l.rests) > 0 {
		time.Sleep(l.rests[0])
		l.rests = l.rests[1:]
		return nil, tooMany{errors.New("too many open files")}
	}
	return nil, errors.New("broken")
}

func TestAListenerMayFailForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		var told []bool
		s := grpchttp2.New(grpchttp2.Options{AcceptFailed: func(err error, first bool) {
			require.EqualError(t, err, "too many open files")
			told = append(told, first)
		}})
		require.ErrorContains(t, s.Serve(&passing{l, []time.Duration{0, 0, 50 * time.Second, time.Hour, 0}}), "broken")
		require.Equal(t, []bool{true, false, false, true, false}, told)
		s.Stop()
	})
}

// TestAHandlerLeavesTheRestForLater has streams that have no goroutine at rest, and
// end in each way that there is.
func TestAHandlerLeavesTheRestForLater(t *testing.T) {
	type begun struct {
		wire grpc.ServerStream
		call grpchttp2.Call
	}
	streams := make(chan begun, 1)
	ends := make(chan error, 1)
	s := serve(t, grpchttp2.Options{}, handlers{talk: func(wire grpc.ServerStream) error {
		call, ok := grpchttp2.CallOf(wire.Context())
		if !ok {
			return errors.New("no call")
		}
		call.Later(func() (bool, error) {
			m := &bytesValue{}
			err := wire.RecvMsg(m)
			if err == nil {
				err = wire.SendMsg(m)
			}
			if err == nil {
				return true, nil
			}
			ends <- err
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return false, err
		})
		streams <- begun{wire, call}
		return nil
	}})
	_, ok := grpchttp2.CallOf(t.Context())
	require.False(t, ok)
	c := s.dial(t)
	for name, test := range map[string]struct {
		end    func(cancel context.CancelFunc, stream grpc.ClientStream, b begun)
		seen   codes.Code // by the handler, OK for the end of the request
		client codes.Code
	}{
		"by the client":        {func(_ context.CancelFunc, stream grpc.ClientStream, _ begun) { _ = stream.CloseSend() }, codes.OK, codes.OK},
		"by the client's loss": {func(cancel context.CancelFunc, _ grpc.ClientStream, _ begun) { cancel() }, codes.Canceled, codes.Canceled},
		"by an interrupt":      {func(_ context.CancelFunc, _ grpc.ClientStream, b begun) { b.call.Interrupt() }, codes.Canceled, codes.Canceled},
		"by what it may not": {func(_ context.CancelFunc, stream grpc.ClientStream, _ begun) {
			_ = stream.SendMsg(wrapperspb.Bytes(make([]byte, 5<<20)))
		}, codes.ResourceExhausted, codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream := talk(ctx, t, c)
			b := <-streams
			for size := range 5 {
				for range 3 {
					require.NoError(t, stream.SendMsg(wrapperspb.Bytes(make([]byte, size))))
				}
				for range 3 {
					m := &bytesValue{}
					require.NoError(t, stream.RecvMsg(m))
					require.Len(t, m.GetValue(), size)
				}
			}
			require.NoError(t, b.wire.SendMsg(&bytesValue{}), "others send")
			require.NoError(t, stream.RecvMsg(&bytesValue{}))
			test.end(cancel, stream, b)
			err := <-ends
			if test.seen == codes.OK {
				require.ErrorIs(t, err, io.EOF)
			} else {
				require.Equal(t, test.seen, status.Code(err))
			}
			err = stream.RecvMsg(&bytesValue{})
			if errors.Is(err, io.EOF) {
				err = nil
			}
			require.Equal(t, test.client, status.Code(err))
			<-b.wire.Context().Done()
			b.call.Interrupt() // which is too late
		})
	}
	stream := talk(t.Context(), t, c)
	<-streams
	s.Stop()
	require.Equal(t, codes.Canceled, status.Code(<-ends))
	require.Equal(t, codes.Unavailable, status.Code(stream.RecvMsg(&bytesValue{})))
	require.NoError(t, <-s.ended)
	s.ended <- nil // for the cleanup
}
