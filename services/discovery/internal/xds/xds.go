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
	"sync/atomic"
	"time"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryservice "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

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
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Server serves the services of xDS on a gRPC server that others make.
type Server struct {
	hub        *hub
	identifier string
	maxStreams int
	log        *slog.Logger
	metrics    *metrics
	stopping   chan struct{} // closed when the stop begins; every stream ends by it

	lastStream atomic.Uint64 // the number of the newest stream
}

// New makes a server; Register puts it on a gRPC server, and Run must be running
// for anything to be sent.
func New(o Options) *Server {
	m := newMetrics(o.Metrics)
	return &Server{
		hub:        newHub(o.Registry, o.Quiet, o.Longest, o.Log, m),
		identifier: o.Identifier,
		maxStreams: o.MaxStreams,
		log:        o.Log,
		metrics:    m,
		stopping:   make(chan struct{}),
	}
}

// Register puts the services on a gRPC server that does not serve yet.
func (s *Server) Register(server grpc.ServiceRegistrar) {
	discoveryservice.RegisterAggregatedDiscoveryServiceServer(server, &aggregated{server: s})
	clusterservice.RegisterClusterDiscoveryServiceServer(server, &clusterDiscovery{server: s})
	endpointservice.RegisterEndpointDiscoveryServiceServer(server, &endpointDiscovery{server: s})
}

// Run follows the registry until ctx ends, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	s.hub.run(ctx)
	return nil
}

// Stop makes all streams end. It must be called once.
func (s *Server) Stop() { close(s.stopping) }

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
