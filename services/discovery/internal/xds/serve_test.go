package xds

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// service is a server on a socket with its registry.
type service struct {
	*Server
	listener   net.Listener
	hosts      *registry.Registry
	stopWithin func(deadline time.Duration)
}

// serving starts a server and its registry; change, which may be nil, changes
// its limits.
func serving(t testing.TB, change func(*Limits)) *service {
	return servingAfter(t, 0, change)
}

// servingAfter is serving with a registry that is warm after some time.
func servingAfter(t testing.TB, warmUp time.Duration, change func(*Limits)) *service {
	return servingWithin(t, servicetest.Patience, warmUp, change)
}

// servingWithin is servingAfter where a connection has so much time to begin
// HTTP/2.
func servingWithin(t testing.TB, helloTimeout, warmUp time.Duration, change func(*Limits)) *service {
	o := registrytest.Options()
	o.WarmUp = warmUp
	hosts := registry.New(o)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	maker, err := resources.NewMaker(resources.Options{})
	require.NoError(t, err)
	limits := Limits{Streams: 100, Names: 1000, SlowAfter: 30 * time.Second}
	if change != nil {
		change(&limits)
	}
	server := New(Options{
		Registry: hosts, Maker: maker, Identifier: "replica-1",
		Debounce: Debounce{Quiet: 20 * time.Millisecond, Longest: 200 * time.Millisecond},
		Limits:   limits, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	options := ServerOptions(limits.MaxAge)
	options.HandshakeTimeout = helloTimeout
	grpcServer := grpchttp2.New(options)
	server.Register(grpcServer)
	part := daemon.ServeGRPC("xds listener", listener, grpcServer, helloTimeout, server.Stop)
	running, cancel := context.WithCancel(context.Background())
	ends := make(chan error, 3)
	// All end by stopWithin, which waits for them.
	go func() { ends <- hosts.Run(running) }()
	go func() { ends <- server.Run(running) }()
	go func() { ends <- part.Run() }()
	s := &service{Server: server, listener: listener, hosts: hosts}
	stopped := false
	s.stopWithin = func(deadline time.Duration) {
		if stopped {
			return
		}
		stopped = true
		ctx, done := context.WithTimeout(context.Background(), deadline)
		defer done()
		require.NoError(t, part.Stop(ctx))
		cancel()
		for range cap(ends) {
			require.NoError(t, <-ends)
		}
	}
	t.Cleanup(s.stop)
	return s
}

// stop ends the service, once.
func (s *service) stop() { s.stopWithin(servicetest.Patience) }

// dial opens a connection, which is closed with the test.
func (s *service) dial(t testing.TB) *grpc.ClientConn {
	conn, err := grpc.NewClient(s.listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// register checks in a host, at a port of loopback, of a service.
func (s *service) register(t testing.TB, service string, port uint16) {
	t.Helper()
	_, err := s.hosts.CheckIn(registry.Host{
		Key:     registry.Key{Service: service, ID: fmt.Sprint(port)},
		Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
		TTL:     time.Minute,
	}, "tester")
	require.NoError(t, err)
}

// awaitService waits until the server lists a service.
func (s *service) awaitService(t testing.TB, service string) {
	t.Helper()
	servicetest.Eventually(t, "the server lists "+service, func() bool {
		s.hub.mu.RLock()
		defer s.hub.mu.RUnlock()
		_, known := s.hub.known[service]
		return known
	})
}

// awaitStreams waits until so many streams and polls are open.
func (s *service) awaitStreams(t testing.TB, n int) {
	t.Helper()
	servicetest.Eventually(t, fmt.Sprint(n, " streams are open"), func() bool {
		for _, st := range s.hub.all() {
			st.mu.Lock()
			begun := st.begun
			st.mu.Unlock()
			if !begun {
				return false
			}
		}
		return len(s.hub.all()) == n
	})
}

// awaitNoStreams waits until all streams are gone.
func (s *service) awaitNoStreams(t testing.TB) {
	t.Helper()
	s.awaitStreams(t, 0)
}

// client is a stream of a client that acknowledges what it gets.
type client struct {
	t testing.TB
	grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
}

// aggregated opens a stream of all types, on a connection of its own.
func (s *service) aggregated(t testing.TB) *client {
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.dial(t)).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	return &client{t, stream}
}

func (c *client) ask(typeURL, nonce string, names ...string) {
	c.t.Helper()
	require.NoError(c.t, c.Send(&discoveryv3.DiscoveryRequest{
		TypeUrl: typeURL, ResponseNonce: nonce, ResourceNames: names, Node: &corev3.Node{Id: "client-1", Cluster: "clients"}}))
}

// want reads the next response, which is to be of a type, and acknowledges it
// with names.
func (c *client) want(typeURL string, names ...string) *discoveryv3.DiscoveryResponse {
	c.t.Helper()
	response, err := c.Recv()
	require.NoError(c.t, err)
	require.Equal(c.t, typeURL, response.GetTypeUrl())
	c.ask(typeURL, response.GetNonce(), names...)
	return response
}

// assigned are the addresses of a response's one assignment.
func assigned(t testing.TB, r *discoveryv3.DiscoveryResponse) []string {
	t.Helper()
	require.Len(t, r.GetResources(), 1)
	var m endpointv3.ClusterLoadAssignment
	require.NoError(t, r.GetResources()[0].UnmarshalTo(&m))
	return addresses(&m)
}

func TestAClientHearsOfHostsThatComeAndGo(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	require.Empty(t, c.want(resources.Clusters.URL()).GetResources())

	s.register(t, "users", 1)
	require.Len(t, c.want(resources.Clusters.URL()).GetResources(), 1)
	c.ask(resources.Endpoints.URL(), "", "users")
	require.Equal(t, []string{"127.0.0.1:1"}, assigned(t, c.want(resources.Endpoints.URL(), "users")))
	s.register(t, "users", 2)
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:2"}, assigned(t, c.want(resources.Endpoints.URL(), "users")))
	_, err := s.hosts.Remove(registry.Selection{Service: "users"}, "tester")
	require.NoError(t, err)
	require.Empty(t, assigned(t, c.want(resources.Endpoints.URL(), "users")), "a service without hosts has an assignment without endpoints")
}

func TestAClientThatDoesNotReadHoldsUpNobody(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	// Enough for one response to be more than the client's window takes.
	for port := range uint16(5000) {
		s.register(t, "big", port+1)
	}
	s.awaitService(t, "big")
	slow, quick := s.aggregated(t), s.aggregated(t)
	slow.ask(resources.Endpoints.URL(), "", "big", "users")
	servicetest.Eventually(t, "the slow client's response is on its way", func() bool {
		for _, stream := range s.Status() { // either may have come first
			if stream.Subscriptions["endpoints"].Unanswered {
				return true
			}
		}
		return false
	})
	quick.ask(resources.Endpoints.URL(), "", "users")
	for port := range uint16(5) {
		s.register(t, "users", port+1)
		require.Len(t, assigned(t, quick.want(resources.Endpoints.URL(), "users")), int(port)+1)
	}
	require.Len(t, assigned(t, slow.want(resources.Endpoints.URL(), "big", "users")), 5000)
	require.Len(t, assigned(t, slow.want(resources.Endpoints.URL(), "big", "users")), 5, "what it missed comes as one")
}

func TestMoreStreamsThanServedAreRefused(t *testing.T) {
	s := serving(t, func(l *Limits) { l.Streams = 1 })
	<-s.hosts.Loaded()
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	c.want(resources.Clusters.URL())
	refused := s.aggregated(t)
	_, err := refused.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.NoError(t, c.CloseSend())
	servicetest.Eventually(t, "the stream that ended makes room", func() bool { return len(s.Status()) == 0 })
}

func TestStoppingEndsEveryStream(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	c.want(resources.Clusters.URL())
	s.stop()
	_, err := c.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestAConnectionThatSaysNothingIsCutOffWhenTheStopHasNoMoreTime(t *testing.T) {
	s := serving(t, nil)
	silent := s.silent(t)
	begin := time.Now()
	s.stopWithin(50 * time.Millisecond)
	require.Less(t, time.Since(begin), servicetest.Patience)
	require.NoError(t, silent.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	_, err := io.Copy(io.Discard, silent)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestAConnectionThatSaysNothingHoldsTheStopForItsHelloAtMost(t *testing.T) {
	t.Parallel() // it waits
	s := servingWithin(t, 3*time.Second, 0, nil)
	s.silent(t)
	begin := time.Now()
	s.stopWithin(time.Hour)
	require.Less(t, time.Since(begin), servicetest.Patience)
}

// silent opens a connection that says nothing, and returns once the server has
// taken it.
func (s *service) silent(t testing.TB) net.Conn {
	t.Helper()
	<-s.hosts.Loaded()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	// Connections are taken in their order.
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	c.want(resources.Clusters.URL())
	return conn
}

func TestTheStatusShowsWhatAClientRefused(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.awaitService(t, "users")
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	version := c.want(resources.Clusters.URL()).GetVersionInfo()
	c.ask(resources.Endpoints.URL(), "", "users")
	response, err := c.Recv()
	require.NoError(t, err)
	require.NoError(t, c.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resources.Endpoints.URL(), ResponseNonce: response.GetNonce(),
		ResourceNames: []string{"users"}, ErrorDetail: &rpcstatus.Status{Message: "no such thing"}}))

	servicetest.Eventually(t, "the refusal is seen", func() bool {
		list := s.Status()
		return len(list) == 1 && list[0].Subscriptions["endpoints"].NACKs == 1
	})
	shown := s.Status()
	require.Len(t, shown, 1)
	require.Equal(t, "client-1", shown[0].Node)
	require.Equal(t, "clients", shown[0].Cluster)
	require.Equal(t, "ads", shown[0].Type)
	require.Equal(t, "sotw", shown[0].Variant)
	require.False(t, shown[0].LastPush.IsZero())
	clusters := shown[0].Subscriptions["clusters"]
	require.False(t, clusters.SentAt.IsZero())
	clusters.SentAt = time.Time{}
	require.Equal(t, SubscriptionStatus{Wildcard: true, Held: 1, Version: version, Nonce: "1", ACKs: 1}, clusters)
	refused := shown[0].Subscriptions["endpoints"].LastNACK
	require.Equal(t, "no such thing", refused.Reason)
	require.Equal(t, []string{"users"}, refused.Names)
	require.Equal(t, "2", refused.Nonce)
}
