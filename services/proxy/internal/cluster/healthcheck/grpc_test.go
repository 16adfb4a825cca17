package healthcheck

import (
	"context"
	"io"
	"net"
	"net/http"
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
			require.Equal(t, c.want, probe(t, p), "again, over the same connection")
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

// The frame of a HealthCheckResponse of SERVING.
const serving = "\x00\x00\x00\x00\x02\x08\x01"

func TestWhatIsNoAnswerOfGRPCCountsAtOnceAndOneBrokenOffDoesNot(t *testing.T) {
	grpc := func(w http.ResponseWriter, message, status string) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "grpc-status, grpc-message")
		_, _ = io.WriteString(w, message)
		w.Header().Set("grpc-status", status)
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   verdict
		why    string
	}{
		{"SERVING", func(w http.ResponseWriter, _ *http.Request) { grpc(w, serving, "0") }, passed, ""},
		{"UNAVAILABLE is the host's own word", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("grpc-message", "not%20yet")
			grpc(w, "", "14")
		}, failed, "Unavailable: not yet"},
		{"UNAVAILABLE behind a message", func(w http.ResponseWriter, _ *http.Request) { grpc(w, serving, "14") }, failed, "Unavailable: "},
		{"a status of HTTP", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, failed, "status 503 without a grpc-status"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "hello")
		}, failed, `status 200 and content-type "text/html" are no answer of gRPC`},
		{"a page without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, failed, `status 200 and content-type "text/html" are no answer of gRPC`},
		{"no message", func(w http.ResponseWriter, _ *http.Request) { grpc(w, "", "0") }, failed, "OK without one HealthCheckResponse"},
		{"two messages", func(w http.ResponseWriter, _ *http.Request) { grpc(w, serving+serving, "0") }, failed, "OK without one HealthCheckResponse"},
		{"a message that ends early", func(w http.ResponseWriter, _ *http.Request) { grpc(w, serving[:6], "0") }, failed, "OK without one HealthCheckResponse"},
		{"a compressed message", func(w http.ResponseWriter, _ *http.Request) { grpc(w, "\x01"+serving[1:], "0") }, failed, "OK without one HealthCheckResponse"},
		{"a message too long", func(w http.ResponseWriter, _ *http.Request) { grpc(w, strings.Repeat("x", mostReceived+1), "0") }, failed, "a message of more than 65536 bytes"},
		{"a reset before the answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, network, errUnseen.Error()},
		{"a reset within the answer", func(w http.ResponseWriter, _ *http.Request) {
			grpc(w, serving[:6], "0")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, network, "read the answer's message: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, _ := serveHTTP2(t, c.answer)
			p := prepare(t, "grpc_health_check: {}", address)
			for range 2 {
				r := probe(t, p)
				require.Equal(t, c.want, r.verdict, r.why)
				require.Contains(t, r.why, c.why)
			}
		})
	}
}

func TestAGRPCCallTellsItsTimeout(t *testing.T) {
	address, had := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("grpc-status", "2")
		w.Header().Set("grpc-message", strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("Te"), r.Header.Get("User-Agent"), r.Header.Get("Grpc-Timeout")}, " "))
	})
	p := prepare(t, "grpc_health_check: {}", address)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for range 2 {
		require.Regexp(t, `^Unknown: POST /grpc.health.v1.Health/Check application/grpc trailers Envoy/HC 3[56]\d{5}m$`, p.probe(ctx).why)
	}
	require.EqualValues(t, 1, had.Load(), "connections")
	require.NoError(t, (*had.last.Load()).Close())
	require.Equal(t, failed, p.probe(ctx).verdict, "one that was closed is made anew")
}

func TestAGRPCServerThatGoesAndComesBack(t *testing.T) {
	_, address, stop := serveGRPC(t, "127.0.0.1:0", true)
	p := prepare(t, "grpc_health_check: {}", address)
	require.Equal(t, result{}, probe(t, p))
	stop()
	r := probe(t, p)
	require.Equal(t, network, r.verdict)
	require.Contains(t, r.why, "connect: ")
	require.Equal(t, network, probe(t, p).verdict)
	serveGRPC(t, address, true)
	require.Equal(t, result{}, probe(t, p), "tried anew at once")
}

func TestAGRPCConnectionIsNotKeptIfSoConfigured(t *testing.T) {
	_, address, _ := serveGRPC(t, "127.0.0.1:0", true)
	p := prepare(t, "reuse_connection: false, grpc_health_check: {}", address).(*grpcProber)
	require.Equal(t, result{}, probe(t, p))
	require.Nil(t, p.client)
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
