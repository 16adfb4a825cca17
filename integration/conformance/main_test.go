// Package conformance tests the services against other people's programs: a
// real Envoy in the place of our proxy, and grpc-go's clients. What a client
// sees must be the same. Each test starts what it needs on free ports; where a
// program is missing it is skipped, with a line that says how to get it.
package conformance

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/grpclog"

	"github.com/weirproxy/weir/integration/harness"
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(newFatalPanics()) // before anything of gRPC runs
	harness.Main(m)
}

// bothBefore starts an echo host, and before it a real Envoy and our proxy by
// the same bootstrap, which is made of the port of the host.
func bothBefore(t *testing.T, bootstrap func(port string) string) (envoy, ours *harness.Process) {
	t.Helper()
	harness.EnvoyPath(t) // skips before anything has started
	_, port, err := net.SplitHostPort(harness.Echo(t, "echo-1").Addr("http"))
	require.NoError(t, err)
	return harness.Envoy(t, bootstrap(port)), harness.Proxy(t, bootstrap(port))
}
