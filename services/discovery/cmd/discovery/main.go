// Command discovery is the registry: hosts check in over REST, and proxies and
// clients learn of them over REST and xDS. All of it lies in internal/app.
package main

import (
	"os"

	"github.com/weirproxy/weir/services/discovery/internal/app"
)

// version is set by the linker.
var version string

func main() { os.Exit(app.Main(os.Args[1:], version)) }
