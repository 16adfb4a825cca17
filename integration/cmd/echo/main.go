// Command echo is the backend of the demo and of the tests: one port that
// answers HTTP/1.1, HTTP/2 without TLS and gRPC with what it is asked, and says
// which instance answered. It is no part of the product.
package main

import (
	"os"

	"github.com/weirproxy/weir/integration/echo"
)

// version is set by the linker.
var version string

func main() { os.Exit(echo.Main(os.Args[1:], version, os.Stdout, os.Stderr)) }
