// Command ratelimit is the rate-limit service: it answers Envoy's rate limit
// calls by the rules of a directory or a control plane. All of it lies in
// internal/app.
package main

import (
	"os"

	"github.com/weirproxy/weir/services/ratelimit/internal/app"
)

// version is set by the linker.
var version string

func main() { os.Exit(app.Main(os.Args[1:], version)) }
