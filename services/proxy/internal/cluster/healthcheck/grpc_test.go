package healthcheck

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// grpcServer serves grpc.health.v1 and keeps what it was asked.
type grpcServer struct {
	*health.Server
	mu    sync.Mutex
	asked []string
}

// Check implements healthv1.HealthServer.
func (s *grpcServer) Check(ctx context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	text := r.GetService()
	for _, name := range []string{":authority", "user-agent", "x-a"} {
		if v := md.Get(name); len(v) > 0 {
			value, _, _ := strings.Cut(strings.Join(v, ","), " ")
			text += " " + name + "=" + value
		}
	}
	s.mu.Lock()
	s.asked = append(s.asked, text)
	s.mu.Unlock()
	return s.Server.Check(ctx, r)
}

// serveGRPC serves until the test ends, or stop is called.
func serveGRPC(t testing.TB, address string, register bool) (s *grpcServer, at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	s = &grpcServer{Server: health.NewServer()}
	if register {
		healthv1.RegisterHealthServer(server, s)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	stop = sync.OnceFunc(func() {
		server.Stop()
		running.Wait()
	})
	t.Cleanup(stop)
	return s, l.Addr().String(), stop
}

func TestGRPC(t *testing.T) {
	for _, c := range []struct {
		name   string
		check  string
		status healthv1.HealthCheckResponse_ServingStatus
		want   result
		asked  string
	}{
		{"SERVING passes", "{}", healthv1.HealthCheckResponse_SERVING, result{}, " :authority=cluster user-agent=Envoy/HC"},
		{"NOT_SERVING does not", "{}", healthv1.HealthCheckResponse_NOT_SERVING, result{verdict: failed, why: "NOT_SERVING"}, ""},
		{"UNKNOWN does not", "{}", healthv1.HealthCheckResponse_UNKNOWN, result{verdict: failed, why: "UNKNOWN"}, ""},
		{"a service, an authority and metadata", "{service_name: users, authority: b.example, initial_metadata: [{header: {key: x-a, value: b}}, {header: {key: x-a, value: '%PROTOCOL%-%UPSTREAM_HOST%'}}]}",
			healthv1.HealthCheckResponse_SERVING, result{}, "users :authority=b.example user-agent=Envoy/HC x-a=b,HTTP/2-192.0.2.7:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, address, _ := serveGRPC(t, "127.0.0.1:0", true)
			s.SetServingStatus("", c.status)
			s.SetServingStatus("users", c.status)
			p := prepare(t, "grpc_health_check: "+c.check, address)
			require.Equal(t, c.want, probe(t, p))
			if c.asked != "" {
				require.Equal(t, []string{c.asked}, s.asked)
			}
			require.Equal(t, c.want, probe(t, p), "again, over the same channel")
		})
	}
	t.Run("a service that is not known", func(t *testing.T) {
		_, address, _ := serveGRPC(t, "127.0.0.1:0", true)
		r := probe(t, prepare(t, "grpc_health_check: {service_name: none}", address))
		require.Equal(t, failed, r.verdict)
		require.Contains(t, r.why, codes.NotFound.String())
	})
	t.Run("a server without the health service", func(t *testing.T) {
		_, address, _ := serveGRPC(t, "127.0.0.1:0", false)
		r := probe(t, prepare(t, "grpc_health_check: {}", address))
		require.Equal(t, failed, r.verdict)
		require.Contains(t, r.why, codes.Unimplemented.String())
	})
}

func TestAGRPCServerThatGoesAndComesBack(t *testing.T) {
	_, address, stop := serveGRPC(t, "127.0.0.1:0", true)
	p := prepare(t, "grpc_health_check: {}", address)
	require.Equal(t, result{}, probe(t, p))
	stop()
	r := probe(t, p)
	require.Equal(t, network, r.verdict)
	require.Contains(t, r.why, codes.Unavailable.String())
	require.Equal(t, network, probe(t, p).verdict)
	serveGRPC(t, address, true)
	require.Equal(t, result{}, probe(t, p), "tried anew at once")
}

func TestAGRPCChannelIsNotKeptIfSoConfigured(t *testing.T) {
	_, address, _ := serveGRPC(t, "127.0.0.1:0", true)
	p := prepare(t, "reuse_connection: false, grpc_health_check: {}", address).(*grpcProber)
	require.Equal(t, result{}, probe(t, p))
	require.Nil(t, p.channel)
	require.Equal(t, result{}, probe(t, p))
}

func TestAGRPCServerThatDoesNotAnswer(t *testing.T) {
	block := make(chan struct{})
	address := talk(t, func(int, net.Conn) { <-block })
	defer close(block)
	p := prepare(t, "grpc_health_check: {}", address)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r := p.probe(ctx)
	require.Equal(t, network, r.verdict)
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
}
