// Command ratelimit-check checks rule files of the rate limiter, explains which
// rule a request meets, and compares two sets of rules. All of it lies in
// internal/check.
package main

import (
	"os"

	"github.com/weirproxy/weir/services/ratelimit/internal/check"
)

// version is set by the linker.
var version string

func main() { os.Exit(check.Main(os.Args[1:], version, os.Stdout, os.Stderr)) }
