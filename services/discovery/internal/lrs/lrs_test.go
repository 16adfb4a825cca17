package lrs

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/hello"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func options() Options {
	return Options{
		Interval: 10 * time.Second, Endpoints: true, MaxStreams: 2, MaxRows: 1000,
		Metrics: prometheus.NewRegistry(),
	}
}

// stats are those of a cluster with one host in zone eu-1, over two seconds.
func stats(name, serviceName string, issued uint64) *endpointv3.ClusterStats {
	at := &corev3.Locality{Region: "eu", Zone: "eu-1"}
	return &endpointv3.ClusterStats{
		ClusterName: name, ClusterServiceName: serviceName, LoadReportInterval: durationpb.New(2 * time.Second),
		DroppedRequests: []*endpointv3.ClusterStats_DroppedRequests{{Category: "lb", DroppedCount: 4}},
		UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{
			Locality: at, TotalIssuedRequests: issued, TotalSuccessfulRequests: issued - 2, TotalErrorRequests: 2, TotalRequestsInProgress: 1,
			UpstreamEndpointStats: []*endpointv3.UpstreamEndpointStats{{
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}}},
				TotalIssuedRequests: issued, TotalSuccessfulRequests: issued - 2, TotalErrorRequests: 2, TotalRequestsInProgress: 1,
			}},
		}},
	}
}

func reportOf(stats ...*endpointv3.ClusterStats) *loadstats.LoadStatsRequest {
	return &loadstats.LoadStatsRequest{ClusterStats: stats}
}

func TestLoadsAreTheSumOfWhatClientsLastReported(t *testing.T) {
	s := New(options())
	one, other := newReport(context.Background()), newReport(context.Background())
	require.True(t, s.join(one))
	require.True(t, s.join(other))
	require.Empty(t, s.Loads())
	s.take(one, reportOf(stats("users", "", 100)))
	s.take(one, reportOf(stats("users", "", 20))) // the last one counts
	s.take(other, reportOf(stats("users-blue", "users", 10), stats("users-green", "users", 10), stats("orders", "", 6)))

	loads := s.Loads()
	require.Len(t, loads, 2)
	require.Equal(t, ClusterLoad{
		Cluster: "orders", Clients: 1, Rates: Rates{3, 2, 1, 1}, Dropped: map[string]float64{"lb": 2},
		Localities: []LocalityLoad{{Region: "eu", Zone: "eu-1", Rates: Rates{3, 2, 1, 1},
			Endpoints: []EndpointLoad{{"10.0.0.1:80", Rates{3, 2, 1, 1}}}}},
	}, loads[0])
	require.Equal(t, "users", loads[1].Cluster)
	require.Equal(t, 2, loads[1].Clients)
	require.Equal(t, Rates{20, 17, 3, 3}, loads[1].Rates)
	require.InDelta(t, 6, loads[1].Dropped["lb"], 0)

	s.leave(other)
	require.Len(t, s.Loads(), 1)
	s.leave(one)
	require.Empty(t, s.Loads())
	s.take(one, reportOf(stats("users", "", 20))) // read just before its stream ended
	require.Empty(t, s.Loads())
	require.Zero(t, s.rows)
}

func TestAClientThatSaysNothingForAWhileNoLongerCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(options())
		r := newReport(context.Background())
		require.True(t, s.join(r))
		s.take(r, reportOf(stats("users", "", 20)))
		time.Sleep(30 * time.Second)
		require.Len(t, s.Loads(), 1)
		time.Sleep(time.Second)
		require.Empty(t, s.Loads())
		s.take(r, reportOf(stats("users", "", 20)))
		require.Len(t, s.Loads(), 1)
	})
}

func TestReportsAreRememberedUpToABound(t *testing.T) {
	o := options()
	// A cluster of stats has a row of its own, a category, a locality and a host.
	o.MaxStreams, o.MaxRows = 20, 80
	s := New(o)
	large := reportOf(stats("a", "", 2), stats("b", "", 2))
	var reports []*report
	for range 11 {
		r := newReport(context.Background())
		require.True(t, s.join(r))
		reports = append(reports, r)
		s.take(r, large)
	}
	require.Equal(t, 10, s.Loads()[0].Clients)
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.tooLarge), 0)
	s.take(reports[0], reportOf(stats("a", "", 2)))
	s.take(reports[10], reportOf(stats("c", "", 2)))
	require.Len(t, s.Loads(), 3)
}

func TestOneClientLeavesRoomForOthers(t *testing.T) {
	o := options()
	o.MaxRows = 80
	s := New(o)
	greedy, other := newReport(context.Background()), newReport(context.Background())
	require.True(t, s.join(greedy))
	require.True(t, s.join(other))
	s.take(greedy, reportOf(stats("a", "", 2), stats("b", "", 2)))
	s.take(greedy, reportOf(stats("a", "", 2), stats("b", "", 2), stats("c", "", 2)))
	require.Len(t, s.Loads(), 2, "its share is a tenth; the report before holds")
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.tooLarge), 0)
	s.take(other, reportOf(stats("d", "", 2)))
	require.Len(t, s.Loads(), 3)
}

// serve serves o until the test ends.
func serve(t testing.TB, o Options) (*Server, loadstats.LoadReportingServiceClient) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s, server := New(o), grpchttp2.New(grpchttp2.Options{})
	s.Register(server)
	ended := make(chan error, 1)
	// Ends with the server's Stop; the cleanup waits for it.
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-ended)
	})
	return s, loadstats.NewLoadReportingServiceClient(conn)
}

func open(t testing.TB, client loadstats.LoadReportingServiceClient) loadstats.LoadReportingService_StreamLoadStatsClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	t.Cleanup(cancel)
	wire, err := client.StreamLoadStats(ctx)
	require.NoError(t, err)
	return wire
}

func TestAClientIsToldWhatToReportAndForgottenWhenItGoes(t *testing.T) {
	s, client := serve(t, options())
	wire := open(t, client)
	require.NoError(t, wire.Send(&loadstats.LoadStatsRequest{Node: &corev3.Node{Id: "envoy-1"}}))
	response, err := wire.Recv()
	require.NoError(t, err)
	want := &loadstats.LoadStatsResponse{SendAllClusters: true, LoadReportingInterval: durationpb.New(10 * time.Second), ReportEndpointGranularity: true}
	require.True(t, proto.Equal(want, response), "%v", response)
	require.NoError(t, wire.Send(reportOf(stats("users", "", 20))))
	servicetest.Eventually(t, "the report is taken", func() bool { return len(s.Loads()) == 1 })
	require.NoError(t, wire.CloseSend())
	servicetest.Eventually(t, "the client is forgotten", func() bool { return len(s.Loads()) == 0 })
}

// mute is the wire of a client that sends a first request, or none, and then nothing
// more.
type mute struct {
	wire
	ctx   context.Context
	first *loadstats.LoadStatsRequest // nil for none
}

func (m *mute) Context() context.Context { return m.ctx }

func (m *mute) Send(*loadstats.LoadStatsResponse) error { return nil }

func (m *mute) Recv() (*loadstats.LoadStatsRequest, error) {
	if m.first == nil {
		<-m.ctx.Done()
		return nil, m.ctx.Err()
	}
	message := m.first
	m.first = nil
	return message, nil
}

func TestAStreamEndsThatDoesNotBegin(t *testing.T) {
	for name, first := range map[string]*loadstats.LoadStatsRequest{"silent": nil, "begun": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begin := time.Now()
				err := New(options()).StreamLoadStats(&mute{ctx: ctx, first: first})
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

func TestWhoMayBeItsNodeNoMoreIsLetGo(t *testing.T) {
	o := options()
	var denied atomic.Bool
	o.MayBe = func(_ context.Context, n *corev3.Node) error {
		if denied.Load() && n.GetCluster() == "edge" {
			return status.Errorf(codes.PermissionDenied, "not of %s", n.GetCluster())
		}
		return nil
	}
	s, client := serve(t, o)
	var wires []loadstats.LoadReportingService_StreamLoadStatsClient
	for _, cluster := range []string{"edge", "shop"} {
		wire := open(t, client)
		require.NoError(t, wire.Send(&loadstats.LoadStatsRequest{Node: &corev3.Node{Id: "envoy-1", Cluster: cluster}}))
		_, err := wire.Recv()
		require.NoError(t, err)
		wires = append(wires, wire)
	}
	denied.Store(true)
	s.RecheckNodes()
	_, err := wires[0].Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.ErrorContains(t, err, "not of edge")
	require.NoError(t, wires[1].Send(reportOf(stats("users", "", 20))))
	servicetest.Eventually(t, "the other's report is taken", func() bool { return len(s.Loads()) == 1 })
}

func TestWhoMayNotBeANodeIsRefused(t *testing.T) {
	o := options()
	o.MayBe = func(_ context.Context, n *corev3.Node) error {
		if n.GetId() == "envoy-1" && n.GetCluster() == "edge" {
			return nil
		}
		return status.Errorf(codes.PermissionDenied, "not %q of %q", n.GetId(), n.GetCluster())
	}
	s, client := serve(t, o)
	wire := open(t, client)
	require.NoError(t, wire.Send(&loadstats.LoadStatsRequest{Node: &corev3.Node{Id: "envoy-1", Cluster: "edge"}}))
	_, err := wire.Recv()
	require.NoError(t, err)
	for _, node := range []*corev3.Node{nil, {Id: "envoy-1"}} {
		m := reportOf(stats("users", "", 20))
		m.Node = node
		wire := open(t, client)
		require.NoError(t, wire.Send(m))
		_, err := wire.Recv()
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	}
	require.Empty(t, s.Loads(), "what it said is not taken")
	require.InDelta(t, 2, testutil.ToFloat64(s.metrics.refused), 0)
}

func TestLongNamesCountAsSeveralRows(t *testing.T) {
	for length, want := range map[int]int{0: 1, 1: 1, 256: 1, 257: 2, 1000: 4} {
		_, rows := read([]*endpointv3.ClusterStats{{ClusterName: strings.Repeat("x", length)}}, time.Second)
		require.Equal(t, want, rows, length)
	}
}

func TestAHostWithoutAnAddressIsNotCountedTwice(t *testing.T) {
	s := New(options())
	r := newReport(context.Background())
	require.True(t, s.join(r))
	one := stats("users", "", 20)
	one.UpstreamLocalityStats[0].UpstreamEndpointStats[0].Address = nil
	s.take(r, reportOf(one))
	require.InDelta(t, 10, s.Loads()[0].Issued, 0)
	require.Empty(t, s.Loads()[0].Localities[0].Endpoints)
}

func TestMetricsAreOfTheClustersWithTheMostRequests(t *testing.T) {
	o := options()
	o.MaxRows = 100_000
	s := New(o)
	r := newReport(context.Background())
	require.True(t, s.join(r))
	var many []*endpointv3.ClusterStats
	for i := range maxSeries + 1 {
		many = append(many, &endpointv3.ClusterStats{
			ClusterName: fmt.Sprint(i), LoadReportInterval: durationpb.New(time.Second),
			UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{TotalIssuedRequests: uint64(i)}},
		})
	}
	s.take(r, reportOf(many...))
	families, err := o.Metrics.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	for _, family := range families {
		switch family.GetName() {
		case "discovery_lrs_clusters":
			require.InDelta(t, maxSeries+1, family.GetMetric()[0].GetGauge().GetValue(), 0)
		case "discovery_lrs_requests_in_progress":
			require.Len(t, family.GetMetric(), maxSeries)
			for _, m := range family.GetMetric() {
				require.NotEqual(t, "0", m.GetLabel()[0].GetValue(), "the one without requests")
			}
		}
	}
}

func TestMetricsTellOfLocalitiesAndHosts(t *testing.T) {
	o := options()
	s := New(o)
	r := newReport(context.Background())
	require.True(t, s.join(r))
	s.take(r, reportOf(stats("users", "", 20)))
	require.NoError(t, testutil.GatherAndCompare(o.Metrics.(*prometheus.Registry), strings.NewReader(`
# HELP discovery_lrs_endpoint_requests_per_second Requests a second that clients report of a host of a cluster, by what became of them, if they are asked for hosts; of 2000 hosts at most.
# TYPE discovery_lrs_endpoint_requests_per_second gauge
discovery_lrs_endpoint_requests_per_second{address="10.0.0.1:80",cluster="users",outcome="failed"} 1
discovery_lrs_endpoint_requests_per_second{address="10.0.0.1:80",cluster="users",outcome="issued"} 10
discovery_lrs_endpoint_requests_per_second{address="10.0.0.1:80",cluster="users",outcome="successful"} 9
# HELP discovery_lrs_locality_requests_per_second Requests a second that clients report of a cluster's locality, by what became of them; of 2000 localities at most.
# TYPE discovery_lrs_locality_requests_per_second gauge
discovery_lrs_locality_requests_per_second{cluster="users",outcome="failed",region="eu",sub_zone="",zone="eu-1"} 1
discovery_lrs_locality_requests_per_second{cluster="users",outcome="issued",region="eu",sub_zone="",zone="eu-1"} 10
discovery_lrs_locality_requests_per_second{cluster="users",outcome="successful",region="eu",sub_zone="",zone="eu-1"} 9
`), "discovery_lrs_locality_requests_per_second", "discovery_lrs_endpoint_requests_per_second"))
}

func TestMetricsTellOfSoManyPlacesAndNoMore(t *testing.T) {
	o := options()
	o.MaxRows = 100_000
	s := New(o)
	r := newReport(context.Background())
	require.True(t, s.join(r))
	one := stats("users", "", 20)
	template := one.UpstreamLocalityStats[0]
	one.UpstreamLocalityStats = nil
	for i := range maxPlaces + 1 {
		locality := proto.Clone(template).(*endpointv3.UpstreamLocalityStats)
		locality.Locality.SubZone = fmt.Sprint(i)
		locality.UpstreamEndpointStats[0].Address.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(i + 1)}
		one.UpstreamLocalityStats = append(one.UpstreamLocalityStats, locality)
	}
	// A host that moved is told of in two localities, and counted once.
	moved := proto.Clone(template).(*endpointv3.UpstreamLocalityStats)
	moved.Locality.Zone = "eu-0"
	moved.UpstreamEndpointStats[0].Address.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: 1}
	one.UpstreamLocalityStats = append(one.UpstreamLocalityStats, moved)
	s.take(r, reportOf(one))
	families, err := o.Metrics.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "discovery_lrs_endpoint") || strings.HasPrefix(family.GetName(), "discovery_lrs_locality") {
			require.Len(t, family.GetMetric(), 3*maxPlaces, family.GetName())
		}
	}
}

func TestTooManyClientsAreRefusedAndAllEndWithTheServer(t *testing.T) {
	s, client := serve(t, options())
	var open2 []loadstats.LoadReportingService_StreamLoadStatsClient
	for range 2 {
		wire := open(t, client)
		require.NoError(t, wire.Send(&loadstats.LoadStatsRequest{}))
		_, err := wire.Recv()
		require.NoError(t, err)
		open2 = append(open2, wire)
	}
	_, err := open(t, client).Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	s.Stop()
	for _, wire := range open2 {
		_, err := wire.Recv()
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	}
}

// FuzzReport takes any bytes that are a report: it must count them or not, and
// show what it counts.
func FuzzReport(f *testing.F) {
	for _, m := range []*loadstats.LoadStatsRequest{{}, reportOf(stats("users", "blue", 3)), reportOf(nil, &endpointv3.ClusterStats{LoadReportInterval: durationpb.New(-1)})} {
		text, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := &loadstats.LoadStatsRequest{}
		if proto.Unmarshal(text, m) != nil {
			return
		}
		s := New(options())
		r := newReport(context.Background())
		require.True(t, s.join(r))
		s.take(r, m)
		require.LessOrEqual(t, s.rows, s.options.MaxRows)
		for _, l := range s.Loads() {
			for _, locality := range l.Localities {
				require.GreaterOrEqual(t, l.Issued, locality.Issued)
			}
		}
	})
}
