package xds

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionservice "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	runtimeservice "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// delta opens a delta stream of all types, on a connection of its own.
func (s *service) delta(t testing.TB) grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse] {
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.dial(t)).DeltaAggregatedResources(ctx)
	require.NoError(t, err)
	return stream
}

// The methods of the services, as their clients have them.
type (
	sotwMethod  = func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse], error)
	deltaMethod = func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse], error)
	fetchMethod = func(context.Context, *discoveryv3.DiscoveryRequest, ...grpc.CallOption) (*discoveryv3.DiscoveryResponse, error)
)

func TestEveryServiceServesItsTypeInBothVariantsAndOnce(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.awaitService(t, "users")
	s.SetFiles((&player{t: t}).files([]string{
		"clusters/own:1", "endpoints/own:1", "listeners/own:1", "routes/own:1", "secrets/own:1", "runtime/own:1", "extension_configs/own:1",
	}))
	conn := s.dial(t)
	var (
		cds  = clusterservice.NewClusterDiscoveryServiceClient(conn)
		eds  = endpointservice.NewEndpointDiscoveryServiceClient(conn)
		lds  = listenerservice.NewListenerDiscoveryServiceClient(conn)
		rds  = routeservice.NewRouteDiscoveryServiceClient(conn)
		sds  = secretservice.NewSecretDiscoveryServiceClient(conn)
		rtds = runtimeservice.NewRuntimeDiscoveryServiceClient(conn)
		ecds = extensionservice.NewExtensionConfigDiscoveryServiceClient(conn)
	)
	for typ, methods := range map[resources.Type]struct {
		sotw  sotwMethod
		delta deltaMethod
		fetch fetchMethod
	}{
		resources.Clusters:   {cds.StreamClusters, cds.DeltaClusters, cds.FetchClusters},
		resources.Endpoints:  {eds.StreamEndpoints, eds.DeltaEndpoints, eds.FetchEndpoints},
		resources.Listeners:  {lds.StreamListeners, lds.DeltaListeners, lds.FetchListeners},
		resources.Routes:     {rds.StreamRoutes, rds.DeltaRoutes, rds.FetchRoutes},
		resources.Secrets:    {sds.StreamSecrets, sds.DeltaSecrets, sds.FetchSecrets},
		resources.Runtimes:   {rtds.StreamRuntime, rtds.DeltaRuntime, rtds.FetchRuntime},
		resources.Extensions: {ecds.StreamExtensionConfigs, ecds.DeltaExtensionConfigs, ecds.FetchExtensionConfigs},
	} {
		t.Run(typ.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
			defer cancel()
			stream, err := methods.sotw(ctx)
			require.NoError(t, err)
			c := &client{t, stream}
			c.ask("", "", "own")
			require.Len(t, c.want(typ.URL(), "own").GetResources(), 1)
			other := resources.Clusters
			if typ == other {
				other = resources.Endpoints
			}
			c.ask(other.URL(), "")
			_, err = c.Recv()
			require.Equal(t, codes.InvalidArgument, status.Code(err))

			delta, err := methods.delta(ctx)
			require.NoError(t, err)
			require.NoError(t, delta.Send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"own", "unknown"}}))
			r, err := delta.Recv()
			require.NoError(t, err)
			require.Equal(t, typ.URL(), r.GetTypeUrl())
			require.Equal(t, "own", r.GetResources()[0].GetName())
			require.Equal(t, []string{"unknown"}, r.GetRemovedResources())
			require.NoError(t, delta.CloseSend())
			_, err = delta.Recv()
			require.Error(t, err)

			once, err := methods.fetch(ctx, &discoveryv3.DiscoveryRequest{ResourceNames: []string{"own", "unknown"}})
			require.NoError(t, err)
			require.Equal(t, typ.URL(), once.GetTypeUrl())
			require.Len(t, once.GetResources(), 1)
			again, err := methods.fetch(ctx, &discoveryv3.DiscoveryRequest{ResourceNames: []string{"own"}, VersionInfo: once.GetVersionInfo()})
			require.NoError(t, err)
			require.Equal(t, once.GetVersionInfo(), again.GetVersionInfo())
			require.Len(t, again.GetResources(), 1)
			_, err = methods.fetch(ctx, &discoveryv3.DiscoveryRequest{TypeUrl: other.URL()})
			require.Equal(t, codes.InvalidArgument, status.Code(err))
			if !typ.Whole() {
				_, err = methods.fetch(ctx, &discoveryv3.DiscoveryRequest{ResourceNames: []string{"unknown"}})
				require.Equal(t, codes.NotFound, status.Code(err))
			}
		})
	}
}

func TestAFetchIsRefusedAsAStreamIs(t *testing.T) {
	s := serving(t, func(l *Limits) { l.Names = 1 })
	<-s.hosts.Loaded()
	servicetest.Eventually(t, "all that was loaded is known", s.hub.isLoaded)
	c := endpointservice.NewEndpointDiscoveryServiceClient(s.dial(t))
	_, err := c.FetchEndpoints(t.Context(), &discoveryv3.DiscoveryRequest{ResourceNames: []string{"a", "b"}})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	s.awaitNoStreams(t)
	s.hub.mu.Lock()
	s.hub.loaded = false
	s.hub.mu.Unlock()
	_, err = c.FetchEndpoints(t.Context(), &discoveryv3.DiscoveryRequest{ResourceNames: []string{"a"}})
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestAClientOfDeltaHearsOfHosts(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	c := s.delta(t)
	nonce := ""
	next := func() *discoveryv3.DeltaDiscoveryResponse {
		r, err := c.Recv()
		require.NoError(t, err)
		nonce = r.GetNonce()
		require.NoError(t, c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: nonce}))
		return r
	}
	require.NoError(t, c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resources.Clusters.URL()}))
	require.Empty(t, next().GetResources())
	s.register(t, "users", 1)
	require.Equal(t, "users", next().GetResources()[0].GetName())
	require.NoError(t, c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resources.Endpoints.URL(), ResourceNamesSubscribe: []string{"users"}}))
	require.Len(t, next().GetResources(), 1)
	s.register(t, "users", 2)
	require.Len(t, next().GetResources(), 1)
	list := s.Status()
	require.Len(t, list, 1)
	require.Equal(t, "delta", list[0].Variant)
	require.Equal(t, 1, list[0].Subscriptions["endpoints"].Names)
}

func TestStreamsThatBreakLeaveNothingBehind(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	for range 20 {
		conn := s.dial(t)
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		require.NoError(t, err)
		c := &client{t, stream}
		c.ask(resources.Endpoints.URL(), "", "users")
		if _, err := c.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		require.NoError(t, conn.Close())
	}
	s.awaitNoStreams(t)
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	require.Empty(t, s.hub.topics[resources.Endpoints]["users"].editions[""].subscribers)
}

func TestStreamsThatAreNotReadLeaveTheOthersOfTheirConnectionRoom(t *testing.T) {
	const unread = connectionWindow / streamWindow / 2
	server := grpchttp2.New(ServerOptions(0))
	stream := func(name string, handler func(grpc.ServerStream) error) grpc.StreamDesc {
		return grpc.StreamDesc{
			StreamName: name, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, wire grpc.ServerStream) error { return handler(wire) },
		}
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test", Streams: []grpc.StreamDesc{
		stream("Unread", func(wire grpc.ServerStream) error {
			<-wire.Context().Done()
			return nil
		}),
		stream("Echo", func(wire grpc.ServerStream) error {
			for {
				m := &wrapperspb.BytesValue{}
				if err := wire.RecvMsg(m); err != nil {
					return nil //nolint:nilerr // the client's end
				}
				if err := wire.SendMsg(wrapperspb.UInt32(uint32(len(m.GetValue())))); err != nil {
					return err
				}
			}
		}),
	}}, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	// Ends with the server's Stop; the test waits for it.
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-ended)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	for range unread {
		wire, err := conn.NewStream(ctx, desc, "/test/Unread")
		require.NoError(t, err)
		require.NoError(t, wire.SendMsg(wrapperspb.Bytes(make([]byte, 2*streamWindow)))) // which it does not wait for
	}
	wire, err := conn.NewStream(ctx, desc, "/test/Echo")
	require.NoError(t, err)
	for range 2 * connectionWindow / (16 << 10) {
		require.NoError(t, wire.SendMsg(wrapperspb.Bytes(make([]byte, 16<<10))))
		length := &wrapperspb.UInt32Value{}
		require.NoError(t, wire.RecvMsg(length))
		require.EqualValues(t, 16<<10, length.GetValue())
	}
}

func TestAClientWhoseStreamWasTooOldComesBackOnAnotherConnection(t *testing.T) {
	s := serving(t, func(l *Limits) { l.MaxAge = time.Second })
	service := discoveryv3.NewAggregatedDiscoveryServiceClient(s.dial(t))
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	defer cancel()
	seen := map[string]bool{}
	for range 2 {
		stream, err := service.StreamAggregatedResources(ctx)
		require.NoError(t, err)
		(&client{t, stream}).ask(resources.Clusters.URL(), "")
		for err == nil {
			_, err = stream.Recv()
		}
		require.ErrorIs(t, err, io.EOF)
		p, known := peer.FromContext(stream.Context())
		require.True(t, known)
		seen[p.LocalAddr.String()] = true
	}
	require.Len(t, seen, 2)
}
