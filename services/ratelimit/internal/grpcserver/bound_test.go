package grpcserver

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	v3pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/servicetest"
)

// halfSend begins a call of a method, of whose message it sends one byte of a
// hundred, and returns gRPC's status in the answer.
func halfSend(t *testing.T, address, method, timeout string) string {
	t.Helper()
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	message, rest := io.Pipe()
	defer rest.Close()
	// Ends when the byte was read, or the test closes the pipe.
	go func() { _, _ = io.WriteString(rest, "\x00\x00\x00\x00\x64x") }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+method, message)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if timeout != "" {
		req.Header.Set("Grpc-Timeout", timeout)
	}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // it may be cut off behind the trailers
	return resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
}

func TestACallWhoseMessageDoesNotComeWholeEnds(t *testing.T) {
	o, l := options(echo{}), listen(t)
	o.CallTimeout = 20 * time.Millisecond
	states := health.NewServer()
	o.Health = states
	start(t, l, o)

	// One that lasts is not concerned.
	client := healthpb.NewHealthClient(dial(t, l.Addr().String(), insecure.NewCredentials()))
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)

	for _, method := range []string{v3pb.RateLimitService_ShouldRateLimit_FullMethodName, healthpb.Health_Check_FullMethodName} {
		for _, timeout := range []string{"", "1H"} {
			require.Equal(t, "4", halfSend(t, l.Addr().String(), method, timeout), "%s %s", method, timeout)
		}
	}
	states.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	out, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, out.GetStatus())
}

func TestACallEndsWithTheServersTimeoutToo(t *testing.T) {
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	o := options(g)
	o.CallTimeout = 20 * time.Millisecond
	_, err := v3pb.NewRateLimitServiceClient(serve(t, o)).ShouldRateLimit(t.Context(), request("d", "a", "b"))
	require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
}

func TestConnectionsBeyondTheBoundWaitUntilOneCloses(t *testing.T) {
	o, l := options(echo{}), listen(t)
	o.MaxConnections = 1
	start(t, l, o)
	first, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	_, err = io.ReadFull(first, make([]byte, 9)) // the server's settings
	require.NoError(t, err)

	client := healthpb.NewHealthClient(dial(t, l.Addr().String(), insecure.NewCredentials()))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = client.Check(ctx, &healthpb.HealthCheckRequest{})
	require.Error(t, err)
	require.NoError(t, first.Close())
	servicetest.Eventually(t, "the next is served", func() bool {
		_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil
	})
}
