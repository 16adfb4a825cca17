// Package grpcserver serves the rate limit service over gRPC, in each of its
// versions, and health and reflection beside it; over TCP or a unix socket,
// with TLS where it is wanted. The app makes one and hands it a listener. It
// carries messages to rls as bytes and back; what is in them it does not know.
package grpcserver

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/weirproxy/weir/internal/certificates"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
)

// Options says how a server works. Service and Health are required.
type Options struct {
	Service *rls.Service
	Health  healthpb.HealthServer
	// Reflection has tools such as grpcurl ask for the services and messages.
	Reflection bool
	// Certificates are shown to clients, and perhaps asked of them; nil serves
	// without TLS. The caller runs them.
	Certificates *certificates.Certificates

	// MaxConnectionAge is the age at which a connection is asked to close, so
	// that clients spread anew, and MaxConnectionAgeGrace the time that its
	// calls have to end then. 0 is for ever.
	MaxConnectionAge, MaxConnectionAgeGrace time.Duration
	// MaxConcurrentStreams bounds the calls in flight on one connection, which
	// each take a goroutine while the store is slow; clients wait with what is
	// above it or open another connection. 0 is no bound.
	MaxConcurrentStreams uint32
	// MaxConnections bounds the connections that are open; what is above it waits
	// to be taken. 0 is no bound.
	MaxConnections int
	// CallTimeout bounds the time of a call from its headers on, that in which its
	// message comes included, whatever its client's deadline. 0 is no bound.
	CallTimeout time.Duration
	// KeepaliveMinTime is the time that must pass between two pings of a
	// client; one that pings more often is cut off. Pings without a call in
	// flight are allowed, since proxies keep connections alive with them. 0 is
	// gRPC's own, five minutes.
	KeepaliveMinTime time.Duration
	// StreamWorkers is how many goroutines serve calls without being started
	// for each: about as many as calls are in flight. Calls beyond get their
	// own. 0 starts one for each.
	StreamWorkers uint32
}

// handshakeWait is how long a new connection may take to say that it is one; a
// client that stays silent is cut off then.
const handshakeWait = 5 * time.Second

// maxHeaders bounds the metadata of one call, in bytes. Proxies hand on a few
// headers of their own; gRPC would take 16 MiB.
const maxHeaders = 64 << 10

// Server serves one listener, once.
type Server struct {
	listener net.Listener
	service  *rls.Service
	grpc     *grpc.Server
	calls    sync.Pool
	answers  buffers
	// stop ends the streams that have no end of their own.
	stop context.CancelFunc
}

// New makes a server of l; its Part owns l.
func New(l net.Listener, o Options) *Server {
	stopping, stop := context.WithCancel(context.Background())
	s := &Server{listener: l, service: o.Service, stop: stop}
	s.calls.New = func() any { return &call{server: s} }
	s.answers.pool.New = func() any { return new(make([]byte, 0, answerCapacity)) }
	if o.MaxConnections > 0 {
		s.listener = netutil.LimitListener(l, o.MaxConnections)
	}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.NumStreamWorkers(o.StreamWorkers),
		grpc.ConnectionTimeout(handshakeWait),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(o.MaxConcurrentStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      o.MaxConnectionAge,
			MaxConnectionAgeGrace: o.MaxConnectionAgeGrace,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             o.KeepaliveMinTime,
			PermitWithoutStream: true,
		}),
		grpc.StreamInterceptor(endWith(stopping)),
	}
	if o.CallTimeout > 0 {
		options = append(options, grpc.InTapHandle(bound(o.CallTimeout)))
	}
	if o.Certificates != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(o.Certificates.Config())))
	}
	s.grpc = grpc.NewServer(options...)
	s.register()
	healthpb.RegisterHealthServer(s.grpc, o.Health)
	if o.Reflection {
		reflection.Register(s.grpc)
	}
	return s
}

// Part serves until it is stopped, and lets calls in flight end then; what is
// left at the deadline is cut off.
func (s *Server) Part(name string) daemon.Part {
	return daemon.ServeGRPC(name, s.listener, s.grpc, handshakeWait, s.stop)
}

// endWith makes streams end when stopping does. A watch of the health service
// has no end of its own, and would keep every stop until its deadline. Calls of
// the rate limit service go on, though they are streams here: gRPC calls a stream
// interceptor only where ClientStreams or ServerStreams of the method is set.
func endWith(stopping context.Context) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(stopping, cancel)()
		return handle(server, streamWithContext{stream, ctx})
	}
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is part of grpc.ServerStream.
func (s streamWithContext) Context() context.Context { return s.ctx }
