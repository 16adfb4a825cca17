package app

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// helloTimeout is the time that a connection has to begin HTTP/2. Stopping
// waits for those that have not, so it is well below any sensible deadline.
const helloTimeout = 5 * time.Second

// newGRPCServer makes the server of all that is served over gRPC. After
// XDSKeepalive of silence a client is asked whether it is there; it has as long
// again, at most 20 seconds, to answer.
func newGRPCServer(o Options, access *access) *grpc.Server {
	return grpc.NewServer(append(access.grpc(),
		grpc.ConnectionTimeout(helloTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: o.XDSKeepalive, Timeout: min(o.XDSKeepalive, 20*time.Second)}),
		// A client may ask oftener than we do.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)...)
}
