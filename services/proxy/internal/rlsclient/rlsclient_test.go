package rlsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
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
	s := New(m, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return s
}

// ask makes a call with a deadline that no test should meet.
func ask(s *Services, list *descriptor.List) (*Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	defer cancel()
	response := &Response{}
	err := s.ShouldRateLimit(ctx, Service{Cluster: "rls"}, &Request{Domain: "edge", Descriptors: list}, response)
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
	s.Close()
	servicetest.Eventually(t, "the connection is closed", func() bool { return c.Stats.ConnectionsActive.Value() == 0 })
	require.EqualValues(t, 0, c.Hosts().Members[0].Host.Stats.ConnectionsActive.Load())
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
		response := &Response{}
		require.NoError(t, s.ShouldRateLimit(t.Context(), c.asked, &Request{Domain: "edge", Descriptors: descriptors(t, "ann")}, response))
		require.Equal(t, c.want, response.Body)
	}
	err := s.ShouldRateLimit(t.Context(), Service{Cluster: "rls", MaxMessage: 4}, &Request{Domain: "edge", Descriptors: descriptors(t, "ann")}, &Response{})
	require.Equal(t, codes.ResourceExhausted, status.Code(errors.Unwrap(err)), err)
}

func TestAskFailsAtOnce(t *testing.T) {
	gone := (&service{}).serve(t)
	gone.server.Stop()
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
		{"with a host that refuses", func(t *testing.T) *Services { return services(t, manager(t, gone.address)) }, "connection refused"},
		{"after the end", func(t *testing.T) *Services {
			s := services(t, manager(t, gone.address))
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

func TestFailuresAreCounted(t *testing.T) {
	service := (&service{answer: func(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		if r.GetDomain() == "slow" {
			<-ctx.Done()
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Error(codes.InvalidArgument, "no")
	}}).serve(t)
	for _, c := range []struct {
		name    string
		call    func(context.Context, *Services, *Request) error
		address string
		want    codes.Code
		counter string // "" if none counts
	}{
		{"a refusal came in a 200", func(ctx context.Context, s *Services, r *Request) error {
			return s.ShouldRateLimit(ctx, Service{Cluster: "rls"}, r, &Response{})
		}, service.address, codes.InvalidArgument, "upstream_rq_200"},
		{"a timeout is a 504", func(ctx context.Context, s *Services, r *Request) error {
			ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			r.Domain = "slow"
			return s.ShouldRateLimit(ctx, Service{Cluster: "rls"}, r, &Response{})
		}, service.address, codes.DeadlineExceeded, "upstream_rq_504"},
		{"an unreachable host is a 503", func(ctx context.Context, s *Services, r *Request) error {
			return s.ShouldRateLimit(ctx, Service{Cluster: "rls"}, r, &Response{})
		}, "127.0.0.1:1", codes.Unavailable, "upstream_rq_503"},
		{"a call that was given up counts nothing", func(ctx context.Context, s *Services, r *Request) error {
			ctx, cancel := context.WithCancel(ctx)
			calls := service.calls.Load()
			r.Domain = "slow"
			done := make(chan error, 1)
			go func() { done <- s.ShouldRateLimit(ctx, Service{Cluster: "rls"}, r, &Response{}) }() // awaited below
			servicetest.Eventually(t, "the call arrived", func() bool { return service.calls.Load() > calls })
			cancel()
			return <-done
		}, service.address, codes.Canceled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := manager(t, c.address)
			err := c.call(t.Context(), services(t, m), &Request{Domain: "edge", Descriptors: descriptors(t, "ann")})
			require.Equal(t, c.want, status.Code(err), "%v", err)
			cluster := m.Get("rls")
			require.EqualValues(t, 1, cluster.Stats.RequestsTotal.Value())
			require.EqualValues(t, 0, cluster.Stats.RequestsActive.Value())
			if c.counter == "" {
				require.EqualValues(t, 0, cluster.Stats.RequestsCompleted.Value())
				return
			}
			require.EqualValues(t, 1, cluster.Stats.Scope.Counter(c.counter).Value())
			require.EqualValues(t, 1, cluster.Stats.RequestsCompleted.Value())
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

func TestCloseEndsCallsInFlightAndRefusesLaterOnes(t *testing.T) {
	arrived := make(chan struct{})
	service := (&service{answer: func(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		close(arrived)
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}}).serve(t)
	s := services(t, manager(t, service.address))
	list := descriptors(t, "ann")
	done := make(chan error, 1)
	go func() { // awaited below
		_, err := ask(s, list)
		done <- err
	}()
	<-arrived
	s.Close()
	require.ErrorContains(t, <-done, "closing")
	_, err := ask(s, list)
	require.EqualError(t, err, `ask the rate-limit service in cluster "rls": the proxy is stopping`)
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
		{"a status", "broken", `level=WARN msg="rate-limit service fails" cluster=rls error="rpc error: code = Internal desc = the store burns"` + "\n"},
		{"no code", "", `level=WARN msg="rate-limit service fails" cluster=rls error="it answered with the code UNKNOWN"` + "\n"},
		{"a code of a later version", "later", `level=WARN msg="rate-limit service fails" cluster=rls error="it answered with the code 5"` + "\n"},
		{"no failure: OK", "1", ""},
		{"no failure: OVER_LIMIT", "22", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			log.Reset()
			s := New(manager(t, service.address), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
				ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key == slog.TimeKey {
						return slog.Attr{}
					}
					return a
				},
			})))
			defer s.Close()
			for range 3 {
				err := s.ShouldRateLimit(t.Context(), Service{Cluster: "rls"}, &Request{Domain: c.domain, Descriptors: descriptors(t, "ann")}, &Response{})
				require.Equal(t, c.want != "", err != nil)
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			require.Error(t, s.ShouldRateLimit(gone, Service{Cluster: "rls"}, &Request{Domain: "broken", Descriptors: descriptors(t, "ann")}, &Response{}))
			require.Equal(t, c.want, log.String())
		})
	}
}

func BenchmarkAsk(b *testing.B) {
	service := (&service{}).serve(b)
	s := services(b, manager(b, service.address))
	list := descriptors(b, "ann")
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		request, response := &Request{Domain: "edge", Descriptors: list}, &Response{}
		for p.Next() {
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			if err := s.ShouldRateLimit(ctx, Service{Cluster: "rls"}, request, response); err != nil {
				b.Error(err)
			}
			cancel()
		}
	})
}
