package archtest_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/archtest"
)

// The shared packages lean on no service, and on none of each other but for
// command, which puts some of them together, the certificates, which are watched
// files, gRPC over HTTP/2, the tests' helpers for environ and HTTP/2, and those that
// tell what was meant, or what an error is about.
func TestImports(t *testing.T) {
	archtest.Check(t, "github.com/weirproxy/weir/internal", archtest.Edges{
		"admin":           nil,
		"archtest":        nil,
		"certificates":    {"filewatch"},
		"command":         {"admin", "daemon", "environ", "setting"},
		"daemon":          nil,
		"environ":         {"nearest", "setting"},
		"environtest":     {"environ"},
		"filewatch":       nil,
		"grpchttp2":       {"http2"},
		"http2":           nil,
		"http2/http2test": {"http2", "servicetest"},
		"nearest":         nil,
		"protoyaml":       {"nearest"},
		"servicetest":     nil,
		"setting":         nil,
	})
}
