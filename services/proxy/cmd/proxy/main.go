// Command proxy is Weir's L4/L7 proxy. It takes Envoy's flags and a strict
// subset of Envoy's v3 bootstrap; see --help.
package main

import (
	"context"
	"os"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

// version is linked in by the build.
var version string

func main() {
	os.Exit(daemon.Main("proxy", func(ctx context.Context) error {
		return app.Command(ctx, os.Args[1:], daemon.Version(version), os.Stdout, os.Stderr)
	}))
}
