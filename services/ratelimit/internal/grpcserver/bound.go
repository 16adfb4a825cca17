package grpcserver

import (
	"context"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/tap"
)

// endless are the methods whose calls last for as long as their client wants.
var endless = map[string]bool{
	healthpb.Health_Watch_FullMethodName:                                   true,
	reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName:      true,
	reflectionalphapb.ServerReflection_ServerReflectionInfo_FullMethodName: true,
}

// bound has every call end most after its headers came, unless it is endless.
// Otherwise one of which the message never comes whole, and whose client set no
// deadline, would be held for ever. It is gRPC's hook for a call whose headers
// have come, before anything is started for it. A call whose own deadline is
// sooner, as those of proxies are, costs nothing more.
func bound(most time.Duration) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= most || endless[info.FullMethodName] {
			return ctx, nil
		}
		bounded, cancel := context.WithTimeout(ctx, most)
		_ = cancel // gRPC ends ctx with the call, and with it this
		return bounded, nil
	}
}
