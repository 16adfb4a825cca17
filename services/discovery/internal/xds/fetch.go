package xds

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// fetchOf is the method Fetch… of a type, of which the calls of REST-JSON are the
// other form: it takes a DiscoveryRequest and answers with all that it asks for.
// gRPC has no word for what is as the client has it, so its version means nothing
// here.
func (s *Server) fetchOf(service, method string, t resources.Type) grpc.MethodDesc {
	info := grpc.UnaryServerInfo{Server: s, FullMethod: "/" + service + "/" + method}
	return grpc.MethodDesc{MethodName: method, Handler: func(_ any, ctx context.Context, read func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		asked := &request{}
		if err := read(asked); err != nil {
			return nil, err
		}
		defer asked.free()
		fetch := func(ctx context.Context, _ any) (any, error) { return s.fetch(ctx, t, asked) }
		if intercept == nil {
			return fetch(ctx, asked)
		}
		return intercept(ctx, asked, &info, fetch)
	}}
}

// fetch answers one call in the form of the wire. The error is a gRPC status.
func (s *Server) fetch(ctx context.Context, t resources.Type, asked *request) (any, error) {
	if !s.hub.isLoaded() {
		return nil, status.Error(codes.Unavailable, registry.ErrNotLoaded.Error())
	}
	asked.version, asked.nonce, asked.refused = "", "", false
	p, err := s.openPoll(ctx, peerOf(ctx), t, asked)
	if err != nil {
		return nil, err
	}
	defer p.close()
	r, settled, err := p.response(s)
	switch {
	case err != nil:
		return nil, err
	case r != nil:
		return s.form.encode(r), nil
	case !settled:
		return nil, status.Errorf(codes.Unavailable, "%s are not made yet", t)
	}
	if err := p.withheld(); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return nil, status.Errorf(codes.NotFound, "no %s of the names that are asked for", t)
}
