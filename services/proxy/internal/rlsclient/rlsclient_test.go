package rlsclient

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/hold"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// service is a rate-limit service of generated code.
type service struct {
	rlsv3.UnimplementedRateLimitServiceServer
	address string
	server  *grpc.Server
	calls   atomic.Int64
	// answer decides; nil is OK.
	answer func(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error)
}

func (s *service) ShouldRateLimit(ctx context.Context, request *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	s.calls.Add(1)
	if s.answer == nil {
		return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
	}
	return s.answer(ctx, request)
}

// serve starts the service on a free port.
func (s *service) serve(t testing.TB) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = l.Addr().String()
	s.server = grpc.NewServer(grpc.WaitForHandlers(true))
	rlsv3.RegisterRateLimitServiceServer(s.server, s)
	server := s.server
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return s
}

// manager has the cluster "rls", as the bootstrap would give it, with these
// hosts from EDS.
func manager(t testing.TB, addresses ...string) *cluster.Manager {
	t.Helper()
	m := managerOf(t, `{"name": "rls", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
		"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			"explicit_http_config": {"http2_protocol_options": {}}}}}`)
	setHosts(t, m, addresses...)
	return m
}

// managerOf has the clusters of a bootstrap.
func managerOf(t testing.TB, clusters ...string) *cluster.Manager {
	t.Helper()
	schema, err := strict.NewSchema(cluster.Fields(), coreconfig.Fields())
	require.NoError(t, err)
	policies := []cluster.Policy{lb.RoundRobin()}
	m := cluster.NewManager(cluster.ManagerOptions{
		Policies:    policies,
		Schema:      schema,
		Stats:       stats.NewRegistry(),
		Log:         slog.New(slog.DiscardHandler),
		SetServices: func(coreconfig.Source, []string) {},
	}, false)
	report := &strict.Report{}
	var configs []*cluster.Config
	for _, text := range clusters {
		message := &clusterv3.Cluster{}
		require.NoError(t, protojson.Unmarshal([]byte(text), message))
		configs = append(configs, cluster.Parse(message, "", policies, report))
	}
	require.NoError(t, report.Err())
	m.AddStatic(configs)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, m.Run(ctx))
	})
	return m
}

// setHosts sends the cluster's assignment by EDS.
func setHosts(t testing.TB, m *cluster.Manager, addresses ...string) {
	t.Helper()
	var hosts []string
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		require.NoError(t, err)
		hosts = append(hosts, fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}`, host, port))
	}
	message := &endpointv3.ClusterLoadAssignment{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"cluster_name": "rls", "endpoints": [{"lb_endpoints": [`+strings.Join(hosts, ",")+`]}]}`), message))
	require.NoError(t, m.ApplyAssignments([]xds.Resource{{Name: "rls", Message: message}}))
}

func services(t testing.TB, m *cluster.Manager) *Services {
	s := New(m, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return s
}

// rls is the service behind the cluster of that name, with a timeout that no test
// should meet.
var rls = Service{Cluster: "rls", Timeout: servicetest.Patience}

// ask makes a call that is waited for.
func ask(s *Services, list *descriptor.List) (*Response, error) {
	return askFor(s, rls, "edge", list)
}

func askFor(s *Services, service Service, domain string, list *descriptor.List) (*Response, error) {
	response := &Response{}
	err := s.ShouldRateLimit(context.Background(), &hold.Holder{}, service, &Request{Domain: domain, Descriptors: list}, response)
	return response, err
}

func TestAsk(t *testing.T) {
	var deadline time.Duration
	service := (&service{answer: func(ctx context.Context, request *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		at, _ := ctx.Deadline()
		deadline = time.Until(at)
		return &rlsv3.RateLimitResponse{
			OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT,
			RawBody:     []byte(request.GetDomain() + " " + request.GetDescriptors()[1].GetEntries()[0].GetValue()),
		}, nil
	}}).serve(t)
	m := manager(t, service.address)
	s := services(t, m)
	list := descriptors(t, "ann")
	for range 3 {
		response, err := ask(s, list)
		require.NoError(t, err)
		require.Equal(t, &Response{Code: rlsv3.RateLimitResponse_OVER_LIMIT, Body: "edge ann"}, response)
	}
	require.InDelta(t, servicetest.Patience.Seconds(), deadline.Seconds(), servicetest.Patience.Seconds()/2, "the deadline goes with the call")

	c := m.Get("rls")
	require.EqualValues(t, 3, c.Stats.RequestsTotal.Value())
	require.EqualValues(t, 0, c.Stats.RequestsActive.Value())
	require.EqualValues(t, 3, c.Stats.Scope.Counter("upstream_rq_200").Value())
	require.EqualValues(t, 1, c.Stats.ConnectionsTotal.Value())
	require.EqualValues(t, 1, c.Stats.ConnectionsActive.Value())
	require.EqualValues(t, 1, c.Hosts().Members[0].Host.Stats.ConnectionsActive.Load())
}

func TestCallsBeginWithTheInitialMetadata(t *testing.T) {
	service := (&service{answer: func(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT, RawBody: []byte(strings.Join(md.Get("x-token"), " "))}, nil
	}}).serve(t)
	s := services(t, manager(t, service.address))
	for _, sent := range []string{"", "a", "b"} {
		asked := Service{Cluster: "rls"}
		if sent != "" {
			asked.Metadata = coreconfig.Metadata("x-token\n" + sent + "\n")
		}
		response, err := askFor(s, asked, "edge", descriptors(t, "ann"))
		require.NoError(t, err)
		require.Equal(t, sent, response.Body)
	}
}

func TestAServiceHasAnAuthorityAndABoundOfItsOwn(t *testing.T) {
	service := (&service{answer: func(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT, RawBody: []byte(strings.Join(md.Get(":authority"), " "))}, nil
	}}).serve(t)
	s := services(t, manager(t, service.address))
	for _, c := range []struct {
		asked Service
		want  string
	}{
		{Service{Cluster: "rls"}, "rls"},
		{Service{Cluster: "rls", Authority: "limits.example"}, "limits.example"},
		{Service{Cluster: "rls", Authority: "limits.example", MaxMessage: 1000}, "limits.example"},
	} {
		response, err := askFor(s, c.asked, "edge", descriptors(t, "ann"))
		require.NoError(t, err)
		require.Equal(t, c.want, response.Body)
	}
	_, err := askFor(s, Service{Cluster: "rls", MaxMessage: 4}, "edge", descriptors(t, "ann"))
	require.EqualError(t, err, `ask the rate-limit service in cluster "rls": its answer has a message of 7 bytes, more than the 4 of max_receive_message_length`)
}

func TestAskFailsAtOnce(t *testing.T) {
	gone := servicetest.FreeAddress(t)
	for _, c := range []struct {
		name string
		make func(t *testing.T) *Services
		want string
	}{
		{"without the cluster", func(t *testing.T) *Services { return services(t, managerOf(t)) },
			`ask the rate-limit service in cluster "rls": there is no such cluster`},
		{"without HTTP/2", func(t *testing.T) *Services {
			return services(t, managerOf(t, `{"name": "rls", "type": "STATIC", "load_assignment": {"cluster_name": "rls"}}`))
		}, `ask the rate-limit service in cluster "rls": the cluster has no http2_protocol_options, which gRPC needs`},
		{"without hosts", func(t *testing.T) *Services { return services(t, manager(t)) }, `ask the rate-limit service in cluster "rls": the cluster has no hosts`},
		{"with a host that refuses", func(t *testing.T) *Services { return services(t, manager(t, gone)) }, "connection refused"},
		{"after the end", func(t *testing.T) *Services {
			s := services(t, manager(t, gone))
			s.Close()
			return s
		}, `ask the rate-limit service in cluster "rls": the proxy is stopping`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ask(c.make(t), descriptors(t, "ann"))
			require.ErrorContains(t, err, c.want)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
		})
	}
}

func TestManyFirstCallsShareOneConnection(t *testing.T) {
	service := (&service{}).serve(t)
	m := manager(t, service.address)
	s := services(t, m)
	list := descriptors(t, "ann")
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() { // awaited below
			_, err := ask(s, list)
			assert.NoError(t, err)
		})
	}
	callers.Wait()
	require.EqualValues(t, 20, service.calls.Load())
	require.EqualValues(t, 1, m.Get("rls").Stats.ConnectionsTotal.Value())
}

func TestHostsOfTheClusterComeAndGo(t *testing.T) {
	first, second := (&service{}).serve(t), (&service{}).serve(t)
	m := manager(t, first.address)
	s, list := services(t, m), descriptors(t, "ann")
	for _, c := range []struct {
		hosts         []string
		first, second int64 // calls of four
	}{
		{[]string{first.address}, 4, 0},
		{[]string{first.address, second.address}, 2, 2},
		{[]string{second.address}, 0, 4},
	} {
		setHosts(t, m, c.hosts...)
		first.calls.Store(0)
		second.calls.Store(0)
		for range 4 {
			_, err := ask(s, list)
			require.NoError(t, err)
		}
		require.Equal(t, [2]int64{c.first, c.second}, [2]int64{first.calls.Load(), second.calls.Load()})
	}
}

func TestTheClusterComesChangesAndGoes(t *testing.T) {
	first, second := (&service{}).serve(t), (&service{}).serve(t)
	m := managerOf(t)
	s, list := services(t, m), descriptors(t, "ann")
	const none = `ask the rate-limit service in cluster "rls": there is no such cluster`
	const noHTTP2 = `ask the rate-limit service in cluster "rls": the cluster has no http2_protocol_options, which gRPC needs`
	at := func(address, more string) string {
		host, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		return fmt.Sprintf(`{"name": "rls", "type": "STATIC", %s "load_assignment": {"cluster_name": "rls", "endpoints": [{"lb_endpoints": [
			{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}]}]}}`, more, host, port)
	}
	const http2 = `"http2_protocol_options": {},`
	for _, c := range []struct {
		name, cluster string // by CDS, which may have none
		want          string // the error
		first, second int64  // calls
	}{
		{"it is not there", "", none, 0, 0},
		{"it comes", at(first.address, http2), "", 1, 0},
		{"it changes", at(second.address, http2), "", 0, 1},
		{"it speaks no HTTP/2", at(second.address, ""), noHTTP2, 0, 0},
		{"it speaks it again", at(first.address, http2), "", 1, 0},
		{"it goes", "", none, 0, 0},
		{"it is back", at(second.address, http2), "", 0, 1},
	} {
		var resources []xds.Resource
		if c.cluster != "" {
			message := &clusterv3.Cluster{}
			require.NoError(t, protojson.Unmarshal([]byte(c.cluster), message))
			resources = []xds.Resource{{Name: "rls", Message: message}}
		}
		require.NoError(t, m.ApplyClusters(resources), c.name)
		first.calls.Store(0)
		second.calls.Store(0)
		_, err := ask(s, list)
		if c.want == "" {
			require.NoError(t, err, c.name)
		} else {
			require.EqualError(t, err, c.want, c.name)
		}
		require.Equal(t, [2]int64{c.first, c.second}, [2]int64{first.calls.Load(), second.calls.Load()}, c.name)
	}
}

// only is a cluster that has every name.
type only struct{ cluster *cluster.Cluster }

func (o only) Get(string) *cluster.Cluster { return o.cluster }

func TestServicesThatNobodyAsksAreForgotten(t *testing.T) {
	m := manager(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(only{m.Get("rls")}, nil, slog.New(slog.DiscardHandler))
		defer s.Close()
		find := func(timeout time.Duration) *known {
			k, err := s.find(Service{Cluster: "rls", Timeout: timeout})
			require.NoError(t, err)
			return k
		}
		used := find(time.Millisecond)
		for timeout := 2 * time.Millisecond; timeout <= 200*time.Millisecond; timeout += time.Millisecond { // as configurations change
			find(timeout)
			time.Sleep(time.Minute)
			require.Same(t, used, find(time.Millisecond), "what is in use stays")
		}
		require.Len(t, *s.known.Load(), 62, "those of the last hour, and the one in use")
	})
}

func TestCloseEndsReportsAndRefusesLaterCalls(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	service := (&service{answer: func(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		close(arrived)
		<-ctx.Done()
		close(ended)
		return nil, status.FromContextError(ctx.Err()).Err()
	}}).serve(t)
	s := services(t, manager(t, service.address))
	list := descriptors(t, "ann")
	s.Report(Service{Cluster: "rls"}, &Request{Domain: "edge", Descriptors: list})
	<-arrived
	s.Close()
	<-ended
	_, err := ask(s, list)
	require.EqualError(t, err, `ask the rate-limit service in cluster "rls": the proxy is stopping`)
	s.Report(rls, &Request{Domain: "edge", Descriptors: list})
	s.Close()
	require.EqualValues(t, 1, service.calls.Load())
}

func TestWhyAServiceFailsIsLogged(t *testing.T) {
	var log bytes.Buffer
	service := (&service{answer: func(_ context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		if r.GetDomain() == "broken" {
			return nil, status.Error(codes.Internal, "the store burns")
		}
		return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_Code(len(r.GetDomain()))}, nil
	}}).serve(t)
	for _, c := range []struct{ name, domain, want string }{
		{"a status", "broken", `level=WARN msg="rate-limit service fails" cluster=rls error="it answered with the status Internal: the store burns"` + "\n"},
		{"no code", "", `level=WARN msg="rate-limit service fails" cluster=rls error="it answered with the code UNKNOWN"` + "\n"},
		{"a code of a later version", "later", `level=WARN msg="rate-limit service fails" cluster=rls error="it answered with the code 5"` + "\n"},
		{"no failure: OK", "1", ""},
		{"no failure: OVER_LIMIT", "22", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			log.Reset()
			s := New(manager(t, service.address), nil, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
				ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key == slog.TimeKey {
						return slog.Attr{}
					}
					return a
				},
			})))
			defer s.Close()
			for range 3 {
				_, err := askFor(s, rls, c.domain, descriptors(t, "ann"))
				require.Equal(t, c.want != "", err != nil)
			}
			gone := &hold.Holder{}
			gone.Cut()
			err := s.ShouldRateLimit(t.Context(), gone, rls, &Request{Domain: "broken", Descriptors: descriptors(t, "ann")}, &Response{})
			require.ErrorIs(t, err, ErrGivenUp)
			require.Equal(t, c.want, log.String())
		})
	}
}

func BenchmarkAsk(b *testing.B) {
	service := (&service{}).serve(b)
	s := services(b, manager(b, service.address))
	list := descriptors(b, "ann")
	asked := Service{Cluster: "rls", Timeout: time.Second}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		caller, request, response := &hold.Holder{}, &Request{Domain: "edge", Descriptors: list}, &Response{}
		for p.Next() {
			if err := s.ShouldRateLimit(b.Context(), caller, asked, request, response); err != nil {
				b.Error(err)
			}
		}
	})
}
