package app

import (
	"log/slog"
	"os"

	"github.com/weirproxy/weir/internal/command"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

// Main is the command ratelimit. It returns the exit code: 0 after a wanted
// end, 1 for what went wrong, 2 for a wrong command line.
func Main(args []string, version string) int {
	return command.Main(command.Spec[Options]{
		Name:     "ratelimit",
		Summary:  "answers Envoy's rate limit service calls by the rules of a directory or a control plane.",
		Prefixes: []string{"RATELIMIT_", "REDIS_", "RUNTIME_", "CONFIG_GRPC_XDS_", "XDS_CLIENT_", "TRACING_"},
		Admin:    func(o Options) string { return address(o.DebugHost, o.DebugPort) },
		Log:      Options.log,
		Check:    func(o Options) error { return o.check() },
		New: func(o Options, log *slog.Logger) (command.Service, error) {
			redis.LogDriver(log)
			daemon.TuneGC(servingGC)
			for _, warning := range warnings(o, os.LookupEnv) {
				log.Warn(warning)
			}
			return New(o, log)
		},
	}, args, version)
}
