package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
)

// streamWorkers is how many goroutines serve gRPC calls without being started
// for each: about as many as calls are in flight. Calls beyond get their own.
const streamWorkers = 64

// handshakeWait is how long a new gRPC connection may take to say that it is
// one; a client that stays silent is cut off then.
const handshakeWait = 5 * time.Second

// serveGRPC makes the part that serves the rate limit service, health and
// reflection on l.
func serveGRPC(l net.Listener, service *rls.Service, h *serviceHealth, o Options) daemon.Part {
	stopping, stop := context.WithCancel(context.Background())
	clients := daemon.NewArrivals(l, handshakeWait)
	server := grpc.NewServer(
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ConnectionTimeout(handshakeWait),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      o.MaxConnectionAge,
			MaxConnectionAgeGrace: o.MaxConnectionAgeGrace,
		}),
		grpc.StreamInterceptor(endWith(stopping)),
	)
	pb.RegisterRateLimitServiceServer(server, service)
	healthpb.RegisterHealthServer(server, h.grpc)
	reflection.Register(server)
	return daemon.Part{
		Name: "grpc listener",
		Run: func() error {
			if err := server.Serve(clients); !errors.Is(err, grpc.ErrServerStopped) {
				return err
			}
			return nil // stopped before it began
		},
		Stop: func(ctx context.Context) error {
			stop()
			// Cuts off what is left at the deadline, be it in its handshake
			// still; the graceful stop returns then too.
			defer context.AfterFunc(ctx, func() {
				clients.CutOff()
				server.Stop()
			})()
			server.GracefulStop()
			return nil
		},
	}
}

// endWith makes streams end when stopping does. A watch of the health service
// has no end of its own, and would keep every stop until its deadline.
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

// servePlain makes the part that serves /json and /healthcheck on l.
func servePlain(l net.Listener, service *rls.Service, h *serviceHealth, log *slog.Logger) daemon.Part {
	mux := http.NewServeMux()
	mux.HandleFunc("/json", service.JSON)
	mux.HandleFunc("/healthcheck", func(w http.ResponseWriter, _ *http.Request) {
		if state := h.state(); !state.Ready {
			http.Error(w, state.Text, http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "OK")
	})
	return daemon.ServeHTTP("http listener", l, mux, log)
}
