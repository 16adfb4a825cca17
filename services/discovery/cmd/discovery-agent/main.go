// Command discovery-agent runs a program and keeps it registered for as long
// as it lives. All of it lies in internal/agent.
package main

import (
	"os"

	"github.com/weirproxy/weir/services/discovery/internal/agent"
)

// version is set by the linker.
var version string

func main() { os.Exit(agent.Main(os.Args[1:], version)) }
