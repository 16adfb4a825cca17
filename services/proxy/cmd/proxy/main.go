// Command proxy is Weir's HTTP proxy. It takes Envoy's flags and a strict
// subset of Envoy's v3 bootstrap; see --help.
package main

import (
	"os"

	"github.com/weirproxy/weir/services/proxy/internal/app"
)

// version is linked in by the build.
var version string

func main() {
	os.Exit(app.Main(os.Args[1:], version))
}
