package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/weirproxy/weir/integration/harness"
)

// fatalPanics is grpc-go's log, in which a fatal line panics instead of ending
// the process: the interoperability cases tell a failure by such a line.
type fatalPanics struct{ grpclog.LoggerV2 }

func newFatalPanics() fatalPanics {
	return fatalPanics{grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr)}
}

// Fatal implements grpclog.LoggerV2.
func (fatalPanics) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Fatalln implements grpclog.LoggerV2.
func (fatalPanics) Fatalln(args ...any) { panic(fmt.Sprintln(args...)) }

// Fatalf implements grpclog.LoggerV2.
func (fatalPanics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// namedTestServer is grpc-go's server of the interoperability cases, which says
// who it is where a call asks for that.
type namedTestServer struct{ grpc_testing.TestServiceServer }

// UnaryCall implements grpc_testing.TestServiceServer.
func (s namedTestServer) UnaryCall(ctx context.Context, request *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	response, err := s.TestServiceServer.UnaryCall(ctx, request)
	if response != nil && request.GetFillServerId() {
		response.ServerId = "one"
	}
	return response, err
}

// TestGRPCInteropThroughOurProxy runs the cases of gRPC's interoperability tests
// that need no credentials, by their names there: grpc-go's client, the proxy,
// grpc-go's server.
func TestGRPCInteropThroughOurProxy(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, namedTestServer{interop.NewTestServer()})
	ended := make(chan error, 1)
	// Ends with the server.
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
	// A stream may last for longer than any answer.
	proxy := harness.Proxy(t, http2Bootstrap(listener.Addr().String(), "http2_protocol_options", "cluster: backend, timeout: 0s"))

	dial := func() *grpc.ClientConn {
		channel, err := grpc.NewClient(proxy.Addr("ingress"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		return channel
	}
	channel := dial()
	defer channel.Close()
	client := grpc_testing.NewTestServiceClient(channel)
	// Few calls, and all the time in the world: what is measured elsewhere is not
	// asked for here.
	soak := interop.SoakTestConfig{
		RequestSize: 271_828, ResponseSize: 314_159, Iterations: 12, NumWorkers: 3,
		PerIterationMaxAcceptableLatency: time.Hour, OverallTimeout: time.Hour,
		ServerAddr: proxy.Addr("ingress"),
	}
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"empty_unary", func() { interop.DoEmptyUnaryCall(t.Context(), client) }},
		{"large_unary", func() { interop.DoLargeUnaryCall(t.Context(), client) }},
		{"client_streaming", func() { interop.DoClientStreaming(t.Context(), client) }},
		{"server_streaming", func() { interop.DoServerStreaming(t.Context(), client) }},
		{"ping_pong", func() { interop.DoPingPong(t.Context(), client) }},
		{"empty_stream", func() { interop.DoEmptyStream(t.Context(), client) }},
		{"timeout_on_sleeping_server", func() { interop.DoTimeoutOnSleepingServer(t.Context(), client) }},
		{"cancel_after_begin", func() { interop.DoCancelAfterBegin(t.Context(), client) }},
		{"cancel_after_first_response", func() { interop.DoCancelAfterFirstResponse(t.Context(), client) }},
		{"status_code_and_message", func() { interop.DoStatusCodeAndMessage(t.Context(), client) }},
		{"special_status_message", func() { interop.DoSpecialStatusMessage(t.Context(), client) }},
		{"custom_metadata", func() { interop.DoCustomMetadata(t.Context(), client) }},
		{"unimplemented_method", func() { interop.DoUnimplementedMethod(t.Context(), channel) }},
		{"unimplemented_service", func() {
			interop.DoUnimplementedService(t.Context(), grpc_testing.NewUnimplementedServiceClient(channel))
		}},
		{"pick_first_unary", func() { interop.DoPickFirstUnary(t.Context(), client) }},
		{"rpc_soak", func() {
			soak.ChannelForTest = func() (*grpc.ClientConn, func()) { return channel, func() {} }
			interop.DoSoakTest(t.Context(), soak)
		}},
		{"channel_soak", func() {
			soak.ChannelForTest = func() (*grpc.ClientConn, func()) {
				channel := dial()
				return channel, func() { channel.Close() }
			}
			interop.DoSoakTest(t.Context(), soak)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NotPanics(t, c.run)
			require.Eventually(t, func() bool {
				return harness.Stat(t, proxy, "http.ingress.downstream_rq_active") == 0 && harness.Stat(t, proxy, "cluster.backend.upstream_rq_active") == 0
			}, patience, 5*time.Millisecond, "the calls have ended on both sides of the proxy")
		})
	}
}
