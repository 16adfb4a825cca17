package app

import (
	"log/slog"

	"github.com/weirproxy/weir/internal/command"
	"github.com/weirproxy/weir/services/discovery/internal/builtin"
	"github.com/weirproxy/weir/services/discovery/internal/check"
)

// Main is the command discovery. It returns the exit code: 0 after a wanted
// end, 1 for what went wrong, 2 for a wrong command line.
func Main(args []string, version string) int {
	return command.Main(command.Spec[Options]{
		Name:    "discovery",
		Summary: "knows the hosts of each service by their heartbeats.",
		Commands: []command.Command{{
			Name: "check", Usage: check.Usage,
			Summary: "say what is wrong with files of xDS resources, and what is served of them",
			Run:     check.Main,
		}},
		Prefixes: []string{"DISCOVERY_"},
		Admin:    func(o Options) string { return o.AdminAddress },
		Log:      Options.log,
		Check:    Options.faults,
		New: func(o Options, log *slog.Logger) (command.Service, error) {
			builtin.LogDrivers(log)
			return New(o, log)
		},
	}, args, version)
}
