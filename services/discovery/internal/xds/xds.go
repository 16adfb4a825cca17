// Package xds serves the registry to Envoys, proxies and gRPC clients by the
// xDS protocol, version 3: one cluster per service (CDS) and its hosts as that
// cluster's assignment (EDS), in the state-of-the-world variant, on the
// aggregated stream and on streams of one type. The app starts it beside the
// REST face. It only reads from the registry, answers nothing before that is
// loaded, and never holds a lock while it sends.
package xds

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryservice "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options is what a server is made of. Every field is required.
type Options struct {
	Registry *registry.Registry
	// Identifier names this replica in every response.
	Identifier string
	// Quiet is how long a service must not change before its change is sent;
	// Longest is how long a change waits at most while others follow it.
	Quiet, Longest time.Duration
	// MaxStreams is how many streams are served at once.
	MaxStreams int
	// Keepalive is after how much silence a client is asked whether it is
	// there; it has as long again, at most 20 seconds, to answer.
	Keepalive time.Duration
	Log       *slog.Logger
	Metrics   prometheus.Registerer
}

// helloTimeout is the time that a connection has to begin HTTP/2. Stopping
// waits for those that have not, so it is well below any sensible deadline.
const helloTimeout = 5 * time.Second

// Server is an xDS server on one listener.
type Server struct {
	listener   net.Listener
	grpc       *grpc.Server
	hub        *hub
	identifier string
	maxStreams int
	log        *slog.Logger
	metrics    *metrics
	stopping   chan struct{} // closed when the stop begins; every stream ends by it

	lastStream atomic.Uint64 // the number of the newest stream
}

// New makes a server on an open listener, which its part then owns.
func New(listener net.Listener, o Options) *Server {
	m := newMetrics(o.Metrics)
	s := &Server{
		listener:   listener,
		hub:        newHub(o.Registry, o.Quiet, o.Longest, o.Log, m),
		identifier: o.Identifier,
		maxStreams: o.MaxStreams,
		log:        o.Log,
		metrics:    m,
		stopping:   make(chan struct{}),
	}
	s.grpc = grpc.NewServer(
		grpc.ConnectionTimeout(helloTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: o.Keepalive, Timeout: min(o.Keepalive, 20*time.Second)}),
		// A client may ask oftener than we do.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	discoveryservice.RegisterAggregatedDiscoveryServiceServer(s.grpc, &aggregated{server: s})
	clusterservice.RegisterClusterDiscoveryServiceServer(s.grpc, &clusterDiscovery{server: s})
	endpointservice.RegisterEndpointDiscoveryServiceServer(s.grpc, &endpointDiscovery{server: s})
	return s
}

// Part is the server as a part of the process. Its Stop ends all streams; one
// whose client does not read, and a connection that says nothing, are cut off
// when the stop has no more time.
func (s *Server) Part(name string) daemon.Part {
	part := daemon.ServeGRPC(name, s.listener, s.grpc, helloTimeout, func() { close(s.stopping) })
	serve := part.Run
	part.Run = func() error {
		following, cancel := context.WithCancel(context.Background())
		var hub sync.WaitGroup
		// Ends with following, when serving has ended; waited for below.
		hub.Go(func() { s.hub.run(following) })
		defer hub.Wait()
		defer cancel()
		return serve()
	}
	return part
}

// aggregated is the service of streams of all types (ADS).
type aggregated struct {
	discoveryservice.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
}

func (a *aggregated) StreamAggregatedResources(wire discoveryservice.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return a.server.serve(wire, anyKind)
}

// clusterDiscovery is the service of streams of clusters alone (CDS).
type clusterDiscovery struct {
	clusterservice.UnimplementedClusterDiscoveryServiceServer
	server *Server
}

func (c *clusterDiscovery) StreamClusters(wire clusterservice.ClusterDiscoveryService_StreamClustersServer) error {
	return c.server.serve(wire, clusters)
}

// endpointDiscovery is the service of streams of assignments alone (EDS).
type endpointDiscovery struct {
	endpointservice.UnimplementedEndpointDiscoveryServiceServer
	server *Server
}

func (e *endpointDiscovery) StreamEndpoints(wire endpointservice.EndpointDiscoveryService_StreamEndpointsServer) error {
	return e.server.serve(wire, endpoints)
}
