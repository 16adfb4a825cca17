package gate

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

// Unary is the gate before a gRPC server's calls of one message each way.
func (g *Gate) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

// Stream is the gate before its streams. One passes it when it is opened.
func (g *Gate) Stream(server any, wire grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, err := g.admit(wire.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handle(server, &stream{wire, ctx})
}

// admit is the context of a call that passes the gate, with its caller. The
// error is a gRPC status.
func (g *Gate) admit(ctx context.Context, method string) (context.Context, error) {
	caller := g.Policy.Caller(callOf(ctx))
	var err error
	if g.OnlyReads(method) {
		err = caller.MayRead()
	} else {
		err = g.write(&caller)
	}
	if err != nil {
		return nil, g.Status(err)
	}
	return auth.NewContext(ctx, &caller), nil
}

// callOf is what a gRPC call shows of its caller.
func callOf(ctx context.Context) auth.Call {
	var c auth.Call
	if p, ok := peer.FromContext(ctx); ok {
		if remote, ok := p.Addr.(*net.TCPAddr); ok {
			c.Remote = remote.AddrPort().Addr()
		}
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.TLS = &info.State
		}
	}
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
		c.Authorization = values[0]
	}
	c.ForwardedFor = metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")
	return c
}

// Status is err as gRPC tells it: what a refusal of HTTP's status is there, with
// the refusal within, for a face over HTTP. An error that is no refusal stays as
// it is.
func (g *Gate) Status(err error) error {
	refused := g.Denials.Of(err)
	if refused == nil {
		return err
	}
	code := codes.InvalidArgument
	switch refused.Status {
	case http.StatusUnauthorized:
		code = codes.Unauthenticated
	case http.StatusForbidden:
		code = codes.PermissionDenied
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		code = codes.ResourceExhausted
	}
	return &refusal{refused, status.New(code, refused.Text)}
}

// refusal is a refusal that is a gRPC status, too.
type refusal struct {
	cause  *denial.Error
	status *status.Status
}

func (r *refusal) Error() string { return r.status.String() }

// GRPCStatus is what package status asks for.
func (r *refusal) GRPCStatus() *status.Status { return r.status }

// Unwrap returns the refusal.
func (r *refusal) Unwrap() error { return r.cause }

// stream is a stream with another context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is part of grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }
