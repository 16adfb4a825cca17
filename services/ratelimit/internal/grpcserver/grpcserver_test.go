package grpcserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v2commonpb "github.com/envoyproxy/go-control-plane/envoy/api/v2/ratelimit"
	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	v2pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v2"
	v3pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/servicetest"
	lyftpb "github.com/weirproxy/weir/proto/ratelimit/lyft"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// echo is a Limiter that puts the length of a descriptor's texts into its
// limit, its key into the limit's name and its hits into what is left.
type echo struct{}

func (echo) Check(_ context.Context, req *limiter.Request, answer *limiter.Answer) error {
	*answer = limiter.Answer{Tightest: -1, Statuses: answer.Statuses[:0]}
	if req.Domain == "away" {
		return errors.New("no answer")
	}
	for _, d := range req.Descriptors {
		status := limiter.Status{Remaining: uint32(d.Hits), ResetIn: time.Second}
		if len(d.Entries) > 0 {
			e := d.Entries[0]
			status.Limited, status.Rule = true, &limits.Rule{Name: strings.Clone(e.Key)}
			status.Rate = limits.Rate{Requests: uint32(len(e.Key) + len(e.Value)), Unit: limits.Hour, Multiplier: 1}
		}
		answer.Statuses = append(answer.Statuses, status)
	}
	return nil
}

// options are those of a server over l.
func options(l rls.Limiter) Options {
	return Options{
		Service:       rls.New(rls.Options{Limiter: l, Metrics: prometheus.NewRegistry()}),
		Health:        health.NewServer(),
		Reflection:    true,
		StreamWorkers: 4,
	}
}

// start serves l until the test ends.
func start(t testing.TB, l net.Listener, o Options) daemon.Part {
	s := New(l, o).Part("grpc listener")
	served := make(chan error, 1)
	// Ends with Stop; the cleanup waits for it.
	go func() { served <- s.Run() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
		require.NoError(t, <-served)
	})
	return s
}

func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// dial connects to a server until the test ends.
func dial(t testing.TB, target string, by credentials.TransportCredentials) *grpc.ClientConn {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(by))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// serve starts a server over l and connects to it.
func serve(t testing.TB, o Options) *grpc.ClientConn {
	l := listen(t)
	start(t, l, o)
	return dial(t, l.Addr().String(), insecure.NewCredentials())
}

// request is one of version 3 with a descriptor of that key and value.
func request(domain, key, value string) *v3pb.RateLimitRequest {
	return &v3pb.RateLimitRequest{Domain: domain, HitsAddend: 7, Descriptors: []*commonpb.RateLimitDescriptor{
		{Entries: []*commonpb.RateLimitDescriptor_Entry{{Key: key, Value: value}}},
	}}
}

func TestEachVersionIsAnsweredByItsOwnName(t *testing.T) {
	conn := serve(t, options(echo{}))
	t.Run("v3", func(t *testing.T) {
		out, err := v3pb.NewRateLimitServiceClient(conn).ShouldRateLimit(t.Context(), request("d", "user", "alice"))
		require.NoError(t, err)
		require.Equal(t, v3pb.RateLimitResponse_OK, out.GetOverallCode())
		require.Len(t, out.GetStatuses(), 1)
		require.Equal(t, "user", out.GetStatuses()[0].GetCurrentLimit().GetName())
		require.Equal(t, uint32(9), out.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit())
		require.Equal(t, uint32(7), out.GetStatuses()[0].GetLimitRemaining())
		require.Equal(t, time.Second, out.GetStatuses()[0].GetDurationUntilReset().AsDuration())
	})
	t.Run("v2", func(t *testing.T) {
		out, err := v2pb.NewRateLimitServiceClient(conn).ShouldRateLimit(t.Context(), &v2pb.RateLimitRequest{
			Domain: "d", HitsAddend: 7, Descriptors: []*v2commonpb.RateLimitDescriptor{
				{Entries: []*v2commonpb.RateLimitDescriptor_Entry{{Key: "user", Value: "alice"}}},
			},
		})
		require.NoError(t, err)
		require.Equal(t, v2pb.RateLimitResponse_OK, out.GetOverallCode())
		require.Len(t, out.GetStatuses(), 1)
		require.Equal(t, "user", out.GetStatuses()[0].GetCurrentLimit().GetName())
		require.Equal(t, v2pb.RateLimitResponse_RateLimit_HOUR, out.GetStatuses()[0].GetCurrentLimit().GetUnit())
		require.Equal(t, uint32(7), out.GetStatuses()[0].GetLimitRemaining())
		require.Empty(t, out.GetStatuses()[0].ProtoReflect().GetUnknown())
	})
	t.Run("lyft", func(t *testing.T) {
		out, err := lyftpb.NewRateLimitServiceClient(conn).ShouldRateLimit(t.Context(), &lyftpb.RateLimitRequest{
			Domain: "d", HitsAddend: 7, Descriptors: []*lyftpb.RateLimitDescriptor{
				{Entries: []*lyftpb.RateLimitDescriptor_Entry{{Key: "user", Value: "alice"}}},
			},
		})
		require.NoError(t, err)
		require.Equal(t, lyftpb.RateLimitResponse_OK, out.GetOverallCode())
		require.Len(t, out.GetStatuses(), 1)
		require.Equal(t, uint32(9), out.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit())
		require.Equal(t, lyftpb.RateLimit_HOUR, out.GetStatuses()[0].GetCurrentLimit().GetUnit())
		require.Empty(t, out.GetStatuses()[0].GetCurrentLimit().ProtoReflect().GetUnknown())
		require.Empty(t, out.GetStatuses()[0].ProtoReflect().GetUnknown())
	})
}

func TestErrorsHaveTheirCodeAndText(t *testing.T) {
	client := v3pb.NewRateLimitServiceClient(serve(t, options(echo{})))
	_, err := client.ShouldRateLimit(t.Context(), &v3pb.RateLimitRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Equal(t, "domain: empty", status.Convert(err).Message())
	_, err = client.ShouldRateLimit(t.Context(), request("away", "a", "b"))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, "the hits could not be counted, since the store fails", status.Convert(err).Message())
	_, err = client.ShouldRateLimit(t.Context(), request(strings.Repeat("d", 5<<20), "a", "b"))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	long := metadata.AppendToOutgoingContext(t.Context(), "x-long", strings.Repeat("l", maxHeaders))
	_, err = client.ShouldRateLimit(long, request("d", "a", "b"))
	require.ErrorContains(t, err, "header list size")
	_, err = client.ShouldRateLimit(t.Context(), request("d", "a", "b"))
	require.NoError(t, err, "the connection is as good as before")
}

// Calls and answers are pooled, so that each must get what is its own.
func TestManyCallsAtOnceGetTheirOwnAnswers(t *testing.T) {
	conn := serve(t, options(echo{}))
	var all sync.WaitGroup
	for caller := range 16 {
		// Ends after its calls; the test waits for it below.
		all.Go(func() {
			client := v3pb.NewRateLimitServiceClient(conn)
			for i := range 40 {
				// Up to 100 kB: more than a frame, a pooled buffer and a kept one.
				size := []int{1, 100, 5000, 100_000}[i%4] + caller
				var compressed []grpc.CallOption
				if i%8 < 4 {
					compressed = append(compressed, grpc.UseCompressor(gzip.Name))
				}
				key := strings.Repeat(string(rune('a'+caller)), size)
				out, err := client.ShouldRateLimit(t.Context(), request("d", key, "v"), compressed...)
				switch {
				case err != nil:
					t.Errorf("caller %d: %v", caller, err)
				case len(out.GetStatuses()) != 1 || out.GetStatuses()[0].GetCurrentLimit().GetName() != key:
					t.Errorf("caller %d got another's answer to %d bytes", caller, size)
				}
			}
		})
	}
	all.Wait()
}

func TestReflectionIsThereIfItIsWanted(t *testing.T) {
	services := func(t *testing.T, conn *grpc.ClientConn) ([]string, error) {
		stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		require.NoError(t, err)
		// Where there is no such service, the stream may have ended already.
		_ = stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		})
		out, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		var names []string
		for _, s := range out.GetListServicesResponse().GetService() {
			names = append(names, s.GetName())
			require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.GetName()},
			}))
			file, err := stream.Recv()
			require.NoError(t, err)
			require.NotEmpty(t, file.GetFileDescriptorResponse().GetFileDescriptorProto(), s.GetName())
		}
		slices.Sort(names)
		return names, nil
	}
	o := options(echo{})
	names, err := services(t, serve(t, o))
	require.NoError(t, err)
	require.Equal(t, []string{
		"envoy.service.ratelimit.v2.RateLimitService",
		"envoy.service.ratelimit.v3.RateLimitService",
		"grpc.health.v1.Health",
		"grpc.reflection.v1.ServerReflection",
		"grpc.reflection.v1alpha.ServerReflection",
		"pb.lyft.ratelimit.RateLimitService",
	}, names)

	o = options(echo{})
	o.Reflection = false
	_, err = services(t, serve(t, o))
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestHealthIsServedBesideTheService(t *testing.T) {
	out, err := healthpb.NewHealthClient(serve(t, options(echo{}))).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, out.GetStatus())
}

// gate is a Limiter that tells how many are waiting in it.
type gate struct{ entered, open chan struct{} }

func (g *gate) Check(ctx context.Context, _ *limiter.Request, _ *limiter.Answer) error {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestACallEndsWithItsDeadline(t *testing.T) {
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := v3pb.NewRateLimitServiceClient(serve(t, options(g))).ShouldRateLimit(ctx, request("d", "a", "b"))
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

func TestCallsBeyondTheBoundOfAConnectionWait(t *testing.T) {
	g := &gate{make(chan struct{}, 10), make(chan struct{})}
	o := options(g)
	o.MaxConcurrentStreams = 2
	conn := serve(t, o)
	client := v3pb.NewRateLimitServiceClient(conn)
	// The client learns of the bound with the first answer.
	_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	answered := make(chan error, 3)
	for range 3 {
		// Ends with the answer; the test waits for it below.
		go func() {
			_, err := client.ShouldRateLimit(t.Context(), request("d", "a", "b"))
			answered <- err
		}()
	}
	<-g.entered
	<-g.entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = client.ShouldRateLimit(ctx, request("d", "a", "b"))
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Empty(t, g.entered)
	close(g.open)
	for range 3 {
		require.NoError(t, <-answered)
	}
}

func TestAStopLetsCallsInFlightEnd(t *testing.T) {
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	l := listen(t)
	s := start(t, l, options(g))
	answered := make(chan error, 1)
	client := v3pb.NewRateLimitServiceClient(dial(t, l.Addr().String(), insecure.NewCredentials()))
	// Ends with the answer; the test waits for it below.
	go func() {
		_, err := client.ShouldRateLimit(t.Context(), request("d", "a", "b"))
		answered <- err
	}()
	<-g.entered
	stopped := make(chan error, 1)
	// Ends once the call has; the test waits for it below.
	go func() { stopped <- s.Stop(t.Context()) }()
	servicetest.Eventually(t, "no new connection is taken", func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(g.open)
	require.NoError(t, <-answered)
	require.NoError(t, <-stopped)
}

func TestAStopCutsOffAtItsDeadline(t *testing.T) {
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	l := listen(t)
	s := start(t, l, options(g))
	silent, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer silent.Close()
	answered := make(chan error, 1)
	client := v3pb.NewRateLimitServiceClient(dial(t, l.Addr().String(), insecure.NewCredentials()))
	// Ends with the stop; the test waits for it below.
	go func() {
		_, err := client.ShouldRateLimit(t.Context(), request("d", "a", "b"))
		answered <- err
	}()
	<-g.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Stop(ctx))
	require.Equal(t, codes.Unavailable, status.Code(<-answered))
}

func TestAUnixSocketServesToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grpc.sock")
	l, err := ListenUnix(path, 0o660)
	require.NoError(t, err)
	start(t, l, options(echo{}))
	out, err := v3pb.NewRateLimitServiceClient(dial(t, "unix://"+path, insecure.NewCredentials())).
		ShouldRateLimit(t.Context(), request("d", "user", "alice"))
	require.NoError(t, err)
	require.Len(t, out.GetStatuses(), 1)
}

// ping sends ten pings on a connection without calls, and returns how many were
// answered before the server closed it or all were.
func ping(t *testing.T, address string) (answered int) {
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	const settings, pingFrame = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+settings+strings.Repeat(pingFrame, 10))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	head := make([]byte, 9)
	for answered < 10 {
		if _, err := io.ReadFull(conn, head); err != nil {
			return answered // the server has had enough
		}
		if _, err := io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
			return answered
		}
		if kind, flags := head[3], head[4]; kind == 6 && flags == 1 {
			answered++
		}
	}
	return answered
}

func TestClientsMayPingWithoutCallsButNotTooOften(t *testing.T) {
	for name, c := range map[string]struct {
		least time.Duration
		all   bool
	}{"often_enough": {time.Nanosecond, true}, "too_often": {time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			o, l := options(echo{}), listen(t)
			o.KeepaliveMinTime = c.least
			start(t, l, o)
			require.Equal(t, c.all, ping(t, l.Addr().String()) == 10)
		})
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
