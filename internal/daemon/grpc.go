package daemon

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// GRPCServer is what a part needs of a server of gRPC: a *grpc.Server, or one of
// package grpchttp2.
type GRPCServer interface {
	// Serve accepts connections on l, which it closes, until one of the stops,
	// and then returns nil; after one of them, an error.
	Serve(l net.Listener) error
	// GracefulStop takes no more calls and waits for those in flight.
	GracefulStop()
	// Stop cuts off the calls in flight, and so ends a GracefulStop too.
	Stop()
}

// ServeGRPC makes a part that serves on an open listener, which it then owns.
// Its Stop lets calls in flight end. Handshake is how long the server gives a
// connection until HTTP/2 begins: grpc.ConnectionTimeout, or HandshakeTimeout of
// package grpchttp2. EndStreams is called as the stop begins: it makes those
// streams end that have no end of their own and would keep the stop until its
// deadline.
func ServeGRPC(name string, l net.Listener, server GRPCServer, handshake time.Duration, endStreams func()) Part {
	clients := newArrivals(l, handshake)
	var stopping atomic.Bool
	return Part{
		Name: name,
		Run: func() error {
			if err := server.Serve(clients); !stopping.Load() {
				return err
			}
			return nil // it may have been stopped before it began
		},
		Stop: func(ctx context.Context) error {
			stopping.Store(true)
			endStreams()
			// Cuts off what is left at the deadline, be it in its handshake
			// still; the graceful stop returns then too.
			defer context.AfterFunc(ctx, func() {
				clients.cutOff() // first, since Stop waits for these
				server.Stop()
			})()
			server.GracefulStop()
			return nil
		},
	}
}
