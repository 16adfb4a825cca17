// Command echo is the backend of the demo and of the tests: one port that
// answers HTTP/1.1, HTTP/2 without TLS and gRPC with what it is asked, and says
// which instance answered. It is no part of the product.
package main

import (
	"context"
	"os"

	"github.com/weirproxy/weir/integration/echo"
	"github.com/weirproxy/weir/internal/daemon"
)

// version is set by the linker.
var version string

func main() {
	os.Exit(daemon.Main("echo", func(ctx context.Context) error {
		return echo.Command(ctx, os.Args[1:], daemon.Version(version), os.Stdout)
	}))
}
