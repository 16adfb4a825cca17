// Package conformance tests the services against other people's programs: a
// real Envoy in the place of our proxy, and grpc-go's clients. What a client
// sees must be the same. Each test starts what it needs on free ports; where a
// program is missing it is skipped, with a line that says how to get it.
package conformance

import (
	"testing"

	"google.golang.org/grpc/grpclog"

	"github.com/weirproxy/weir/integration/harness"
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(newFatalPanics()) // before anything of gRPC runs
	harness.Main(withBrowser{m})
}

// bothBefore starts an echo host, and before it a real Envoy and our proxy by
// the same bootstrap, which is made of the address of the host.
func bothBefore(t *testing.T, bootstrap func(host string) string) (envoy, ours *harness.Process) {
	t.Helper()
	harness.EnvoyPath(t) // skips before anything has started
	text := bootstrap(harness.Echo(t, "echo-1").Addr("http"))
	return harness.Envoy(t, text), harness.Proxy(t, text)
}
