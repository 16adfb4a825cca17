package xds

import (
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// services are the gRPC services of xDS: the aggregated one and those of one
// type. Each has a method Stream… for the state of the world and one Delta…, those
// of one type also Fetch… for a single call.
var services = []struct {
	name, methods, file string
	only                resources.Type
}{
	{"envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", "envoy/service/discovery/v3/ads.proto", allTypes},
	{"envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", "envoy/service/cluster/v3/cds.proto", resources.Clusters},
	{"envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", "envoy/service/endpoint/v3/eds.proto", resources.Endpoints},
	{"envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", "envoy/service/listener/v3/lds.proto", resources.Listeners},
	{"envoy.service.route.v3.RouteDiscoveryService", "Routes", "envoy/service/route/v3/rds.proto", resources.Routes},
	{"envoy.service.secret.v3.SecretDiscoveryService", "Secrets", "envoy/service/secret/v3/sds.proto", resources.Secrets},
	{"envoy.service.runtime.v3.RuntimeDiscoveryService", "Runtime", "envoy/service/runtime/v3/rtds.proto", resources.Runtimes},
	{"envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", "envoy/service/extension/v3/config_discovery.proto", resources.Extensions},
}

// Register puts the services on a gRPC server that does not serve yet, whose codec
// is that of ServerOptions.
func (s *Server) Register(server grpc.ServiceRegistrar) {
	for _, service := range services {
		desc := &grpc.ServiceDesc{
			ServiceName: service.name,
			Streams: []grpc.StreamDesc{
				s.streamOf("Stream"+service.methods, service.only, false),
				s.streamOf("Delta"+service.methods, service.only, true),
			},
			Metadata: service.file,
		}
		if service.only != allTypes {
			desc.Methods = []grpc.MethodDesc{s.fetchOf(service.name, "Fetch"+service.methods, service.only)}
		}
		server.RegisterService(desc, nil)
	}
	s.registerStatus(server)
}

func (s *Server) streamOf(method string, only resources.Type, delta bool) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName:    method,
		Handler:       func(_ any, wire grpc.ServerStream) error { return s.serve(wire, only, delta) },
		ServerStreams: true,
		ClientStreams: true,
	}
}

// What a connection of a client takes: it is at rest nearly always, and what it
// sends is short, or its own node again. Several streams that are not read, as those
// are that ask too often, leave the others of their connection room.
const (
	streamWindow     = 64 << 10
	connectionWindow = 16 * streamWindow
	maxHeaders       = 16 << 10
)

// ServerOptions are those of a server on which Register puts the services: the
// codec, bounds for many connections at rest, and the age of connections by maxAge,
// which is that of Limits. They suit other services on that server too, whose streams
// outlive that age.
//
// A connection takes no more streams, and says so by GOAWAY, before the first of its
// own are that old: a client whose stream ended would come back to the same replica.
func ServerOptions(maxAge time.Duration) grpchttp2.Options {
	return grpchttp2.Options{
		Codec:            newCodec(),
		MaxConnectionAge: maxAge * 4 / 5, // give or take a tenth of that
		HTTP2:            http2.Options{StreamWindow: streamWindow, ConnectionWindow: connectionWindow, MaxHeaderBytes: maxHeaders},
	}
}
