package hds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/hello"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	text, err := proto.Marshal(m)
	require.NoError(t, err)
	return text
}

func unmarshal(text []byte, m proto.Message) bool { return proto.Unmarshal(text, m) == nil }

// message is what a checker sends.
type message = healthv3.HealthCheckRequestOrEndpointHealthResponse

func greeting(id string) *message {
	return &message{RequestType: &healthv3.HealthCheckRequestOrEndpointHealthResponse_HealthCheckRequest{
		HealthCheckRequest: &healthv3.HealthCheckRequest{Node: &corev3.Node{Id: id}}}}
}

func report(m *healthv3.EndpointHealthResponse) *message {
	return &message{RequestType: &healthv3.HealthCheckRequestOrEndpointHealthResponse_EndpointHealthResponse{EndpointHealthResponse: m}}
}

// serve serves f over gRPC until the test ends.
func (f *fixture) serve() healthv3.HealthDiscoveryServiceClient {
	f.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f.t, err)
	server := grpchttp2.New(grpchttp2.Options{})
	f.Register(server)
	ended := make(chan error, 1)
	// Ends with the server's Stop; the cleanup waits for it.
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(f.t, err)
	f.t.Cleanup(func() {
		require.NoError(f.t, conn.Close())
		server.Stop()
		require.NoError(f.t, <-ended)
	})
	return healthv3.NewHealthDiscoveryServiceClient(conn)
}

// open opens a stream and sends messages on it, of which one that is refused at
// once may take none: why tells what is received.
func open(t testing.TB, client healthv3.HealthDiscoveryServiceClient, messages ...*message) healthv3.HealthDiscoveryService_StreamHealthCheckClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	t.Cleanup(cancel)
	wire, err := client.StreamHealthCheck(ctx)
	require.NoError(t, err)
	for _, m := range messages {
		if err := wire.Send(m); !errors.Is(err, io.EOF) {
			require.NoError(t, err)
		}
	}
	return wire
}

// ends awaits the end of a stream by the server.
func ends(t testing.TB, wire healthv3.HealthDiscoveryService_StreamHealthCheckClient, code codes.Code, text string) {
	t.Helper()
	for {
		if _, err := wire.Recv(); err != nil {
			require.Equal(t, code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, text)
			return
		}
	}
}

// quickRules want one checker, whose word counts a fifth of a second later.
const quickRules = `{interval: 100ms, services: [{service: users, checkers: 1, health_checks: [` +
	`{timeout: 0.1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}]}`

func TestACheckerIsToldOverItsStreamAndHeard(t *testing.T) {
	f := newFixture(t, quickRules)
	f.run()
	client := f.serve()
	f.register("users", 1)
	f.register("users", 2)
	wire := open(t, client, greeting("envoy-1"))
	m, err := wire.Recv()
	require.NoError(t, err)
	require.Len(t, m.ClusterHealthChecks, 1)
	servicetest.Eventually(t, "the host is marked", func() bool {
		require.NoError(t, wire.Send(report(reportOf(map[int]corev3.HealthStatus{1: sick, 2: healthy}))))
		return len(f.unhealthy()) == 1
	})
	require.NoError(t, wire.CloseSend())
	ends(t, wire, codes.Unknown, "EOF")
	servicetest.Eventually(t, "nobody says so any more", func() bool { return len(f.unhealthy()) == 0 })
	require.Zero(t, testutil.ToFloat64(f.metrics.checkers))
}

func TestAStreamThatIsNotACheckersIsRefused(t *testing.T) {
	f := newFixture(t, quickRules)
	client := f.serve()
	for _, first := range []*message{{}, greeting(""), greeting(strings.Repeat("x", 1025)), report(reportOf(nil))} {
		ends(t, open(t, client, first), codes.InvalidArgument, "health_check_request.node.id")
	}
	require.Empty(t, f.checkers)
}

// mute is the wire of a checker that sends a first message, or none, and then
// nothing more; nor does it read, if it is deaf.
type mute struct {
	wire
	ctx   context.Context
	first *message      // nil for none
	deaf  chan struct{} // has a value once something was sent to it; nil where it reads
}

// newMute makes one whose wire ends with ctx, or is interrupted.
func newMute(ctx context.Context, first *message) *mute {
	ctx, cancel := context.WithCancel(ctx)
	return &mute{ctx: grpc.NewContextWithServerTransportStream(ctx, muteCall{interrupt: cancel}), first: first}
}

// muteCall is what its context has of grpchttp2.
type muteCall struct {
	grpc.ServerTransportStream
	grpchttp2.Call
	interrupt context.CancelFunc
}

func (c muteCall) Interrupt() { c.interrupt() }

func (m *mute) Context() context.Context { return m.ctx }

func (m *mute) Send(*healthv3.HealthCheckSpecifier) error {
	if m.deaf == nil {
		return nil
	}
	m.deaf <- struct{}{}
	<-m.ctx.Done()
	return m.ctx.Err()
}

func (m *mute) Recv() (*message, error) {
	if m.first == nil {
		<-m.ctx.Done()
		return nil, m.ctx.Err()
	}
	first := m.first
	m.first = nil
	return first, nil
}

func TestAStreamEndsThatDoesNotBegin(t *testing.T) {
	for name, first := range map[string]*message{"silent": nil, "begun": greeting("a")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, quickRules)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begin := time.Now()
				err := f.StreamHealthCheck(newMute(ctx, first))
				if first != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, time.Hour, time.Since(begin))
					return
				}
				require.Equal(t, status.Error(codes.DeadlineExceeded, "no request came within 10s").Error(), err.Error())
				require.Equal(t, hello.Within, time.Since(begin))
			})
		})
	}
}

func TestACheckerThatDoesNotReadIsEnded(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(f *fixture)
		code codes.Code
	}{
		"by the server's stop": {func(f *fixture) { f.Stop() }, codes.Unavailable},
		"by another of its node": {func(f *fixture) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.checkers["a"].end(status.Error(codes.Aborted, "another"))
		}, codes.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, quickRules)
			f.run()
			f.register("users", 1)
			m := newMute(t.Context(), greeting("a"))
			m.deaf = make(chan struct{}, 1)
			ended := make(chan error, 1)
			// Ends as the test has it; which waits.
			go func() { ended <- f.StreamHealthCheck(m) }()
			<-m.deaf
			test.end(f)
			require.Equal(t, test.code, status.Code(<-ended))
			require.Empty(t, f.checkers)
		})
	}
}

func TestASecondStreamOfANodeTakesThePlaceOfTheFirst(t *testing.T) {
	f := newFixture(t, quickRules)
	f.run()
	client := f.serve()
	first := open(t, client, greeting("a"))
	_, err := first.Recv()
	require.NoError(t, err)
	second := open(t, client, greeting("a"))
	ends(t, first, codes.Aborted, "another stream came with the same node id")
	_, err = second.Recv()
	require.NoError(t, err)
	require.InDelta(t, 1, testutil.ToFloat64(f.metrics.checkers), 0)
}

func TestTooManyCheckersAreRefusedAndAllEndWithTheServer(t *testing.T) {
	f := newFixture(t, quickRules)
	client := f.serve()
	streams := []healthv3.HealthDiscoveryService_StreamHealthCheckClient{open(t, client)} // which says nothing
	for _, id := range []string{"a", "b", "c"} {
		streams = append(streams, open(t, client, greeting(id)))
	}
	servicetest.Eventually(t, "all are open", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.streams == 4 && len(f.checkers) == 3
	})
	ends(t, open(t, client, greeting("d")), codes.ResourceExhausted, "4 health checkers are connected")
	require.InDelta(t, 1, testutil.ToFloat64(f.metrics.refused), 0)
	f.Stop()
	for _, wire := range streams {
		ends(t, wire, codes.Unavailable, "this server is stopping")
	}
	servicetest.Eventually(t, "none is left", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.streams == 0 && len(f.checkers) == 0
	})
}

func TestACheckerWhoseStreamHasEndedDoesNotJoin(t *testing.T) {
	f := newFixture(t, quickRules)
	c := newChecker(&auth.Caller{})
	f.leave(c) // its first message was read just before
	require.Equal(t, codes.Canceled, status.Code(f.join(c, greeting("a").GetHealthCheckRequest(), time.Now())))
	require.Empty(t, f.checkers)
}

func TestACheckerIsTheNodeThatARuleLetsItBe(t *testing.T) {
	f := newFixture(t, quickRules)
	path := f.file + ".rules"
	write(t, path, "tokens: [{name: edge, token: edge-0123456789abcdef, nodes: [a], clusters: []}]")
	policy, err := auth.New(auth.Options{File: filewatch.File{Setting: "RULES", Path: path}, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	edge := policy.Caller(auth.Call{Authorization: "Bearer edge-0123456789abcdef"})
	_, err = f.FetchHealthCheck(auth.NewContext(t.Context(), &edge), greeting("a"))
	require.NoError(t, err)
	_, err = f.FetchHealthCheck(auth.NewContext(t.Context(), &edge), greeting("b"))
	require.ErrorContains(t, err, `the rule of "edge" does not let it be node "b" of cluster ""`)
	require.Len(t, f.checkers, 1)

	ctx, cancel := context.WithCancel(auth.NewContext(t.Context(), &edge))
	running := make(chan error, 1)
	// Ends with ctx; the test waits for it.
	go func() { running <- policy.Run(ctx, f.RecheckNodes) }()
	write(t, path, "tokens: [{name: edge, token: edge-0123456789abcdef, nodes: [b], clusters: []}]")
	servicetest.Eventually(t, "it is let go", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.checkers) == 0
	})
	_, err = f.FetchHealthCheck(ctx, report(reportOf(nil)))
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	_, err = f.FetchHealthCheck(auth.NewContext(t.Context(), &edge), greeting("a"))
	require.ErrorContains(t, err, `does not let it be node "a"`, "by the rules of now")
	cancel()
	require.NoError(t, <-running)
}

func TestACheckerMayCallInsteadOfHavingAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, quickRules)
		f.run()
		f.register("users", 1)
		f.register("users", 2)
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{Port: 7}})
		elsewhere := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{Port: 8}})
		told, err := f.FetchHealthCheck(ctx, greeting("a"))
		require.NoError(t, err)
		require.Empty(t, told.ClusterHealthChecks)
		time.Sleep(1100 * time.Millisecond)
		found := report(reportOf(map[int]corev3.HealthStatus{1: sick}))
		for range 40 {
			told, err = f.FetchHealthCheck(ctx, found)
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		require.Len(t, told.ClusterHealthChecks, 1)
		require.Equal(t, []string{"1"}, f.unhealthy())

		_, err = f.FetchHealthCheck(elsewhere, found)
		require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
		_, err = f.FetchHealthCheck(elsewhere, greeting("a")) // it connected anew
		require.NoError(t, err)
		_, err = f.FetchHealthCheck(ctx, found)
		require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)

		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Empty(t, f.unhealthy())
		require.Empty(t, f.checkers, "one that ceased to call is forgotten")
		require.Empty(t, f.polled)
	})
}

func TestAReportIsOfWhoSaidWhoItIs(t *testing.T) {
	f := newFixture(t, quickRules)
	path := f.file + ".rules"
	write(t, path, "tokens: [{name: edge, token: edge-0123456789abcdef, services: []}, {name: shop, token: shop-0123456789abcdef, services: []}]")
	policy, err := auth.New(auth.Options{File: filewatch.File{Setting: "RULES", Path: path}, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	by := func(token string) context.Context { // over one connection, that of a proxy in front
		caller := policy.Caller(auth.Call{Authorization: "Bearer " + token})
		return auth.NewContext(peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{Port: 7}}), &caller)
	}
	edge, shop := by("edge-0123456789abcdef"), by("shop-0123456789abcdef")
	_, err = f.FetchHealthCheck(edge, greeting("a"))
	require.NoError(t, err)
	_, err = f.FetchHealthCheck(shop, report(reportOf(nil)))
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	_, err = f.FetchHealthCheck(shop, greeting("b"))
	require.NoError(t, err)
	_, err = f.FetchHealthCheck(edge, report(reportOf(nil)))
	require.NoError(t, err, "another's greeting does not take its place")
	require.Len(t, f.checkers, 2)
}

func TestWhoMayNotChangeHostsMayNotCheckThem(t *testing.T) {
	f := newFixture(t, quickRules)
	f.register("users", 1)
	path := f.file + ".rules"
	write(t, path, "tokens: [{name: carts-team, token: carts-0123456789abcdef, services: [carts]}]")
	counted := prometheus.NewRegistry()
	policy, err := auth.New(auth.Options{File: filewatch.File{Setting: "RULES", Path: path}, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Denials: denial.NewCounters(counted)})
	require.NoError(t, err)

	stranger := policy.Caller(auth.Call{})
	_, err = f.FetchHealthCheck(auth.NewContext(t.Context(), &stranger), greeting("a"))
	require.ErrorContains(t, err, "to change anything takes a token")

	clerk := policy.Caller(auth.Call{Authorization: "Bearer carts-0123456789abcdef"})
	_, err = f.FetchHealthCheck(auth.NewContext(t.Context(), &clerk), greeting("a"))
	require.NoError(t, err)
	f.changed([]string{"users"})
	f.replan(time.Now())
	require.Empty(t, f.checkers["a"].duties)
	require.Empty(t, f.plans["users"].hosts[hostAddress(1)].words)
	require.NoError(t, testutil.GatherAndCompare(counted, strings.NewReader(`
# HELP discovery_refusals_total What callers were refused by a rule or a limit, by reason.
# TYPE discovery_refusals_total counter
discovery_refusals_total{reason="address"} 0
discovery_refusals_total{reason="body"} 0
discovery_refusals_total{reason="hosts"} 0
discovery_refusals_total{reason="identity"} 0
discovery_refusals_total{reason="node"} 0
discovery_refusals_total{reason="rate"} 0
discovery_refusals_total{reason="services"} 0
discovery_refusals_total{reason="settings"} 0
discovery_refusals_total{reason="tags"} 0
discovery_refusals_total{reason="token"} 1
discovery_refusals_total{reason="waiters"} 0
`)), "the stranger's: the clerk asked for nothing")
}
