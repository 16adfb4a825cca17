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
	harness.Main(m)
}
