package app

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/command"
	"github.com/weirproxy/weir/internal/environ"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

// Main is the command ratelimit. It returns the exit code: 0 after a wanted
// end, 1 for what went wrong, 2 for a wrong command line.
func Main(args []string, version string) int {
	return command.Main(command.Spec[Options]{
		Name:     "ratelimit",
		Summary:  "answers Envoy's rate limit service calls by the rules of a directory.",
		Prefixes: []string{"RATELIMIT_", "REDIS_", "RUNTIME_", "CONFIG_GRPC_XDS_", "XDS_CLIENT_", "TRACING_"},
		Admin:    func(o Options) string { return address(o.DebugHost, o.DebugPort) },
		Log:      Options.log,
		Check:    func(o Options) error { return o.check() },
		New: func(o Options, log *slog.Logger) (command.Service, error) {
			redis.LogDriver(log)
			tuneGC()
			for _, warning := range otherwise(o, os.LookupEnv) {
				log.Warn(warning)
			}
			return New(o, log)
		},
	}, args, version)
}

// longWait is a REDIS_TIMEOUT that hardly anybody means to wait for in a request.
const longWait = time.Second

// otherwise returns a warning for each variable that is set as for
// envoyproxy/ratelimit and does not do here what it does there.
func otherwise(o Options, lookup func(string) (string, bool)) []string {
	var warnings []string
	for _, v := range environ.Variables(o) {
		reason, idle := strings.CutPrefix(v.Meaning, "without effect")
		if value, set := lookup(v.Name); idle && set && value != v.Default {
			warnings = append(warnings, fmt.Sprintf("%s=%s is without effect%s", v.Name, value, reason))
		}
	}
	if o.BackendType == "" && o.RedisURL == "" {
		for _, v := range environ.Variables(o) {
			if _, set := lookup(v.Name); set && strings.HasPrefix(v.Name, "REDIS_") {
				warnings = append(warnings, v.Name+" is set, but neither REDIS_URL nor BACKEND_TYPE: counters lie in memory, each replica's by itself")
				break
			}
		}
	}
	if o.XDSBackoffFactor > 1 {
		warnings = append(warnings, fmt.Sprintf("XDS_CLIENT_BACKOFF_RANDOM_FACTOR=%v counts as 1: it is the share of a wait that is random, waits double", o.XDSBackoffFactor))
	}
	if o.RedisTimeout > longWait {
		warnings = append(warnings, fmt.Sprintf("REDIS_TIMEOUT=%v bounds how long a request waits for Redis, not only dialling", o.RedisTimeout))
	}
	if hosts, set := lookup("MEMCACHE_HOST_PORT"); set {
		warnings = append(warnings, fmt.Sprintf("MEMCACHE_HOST_PORT=%s is without effect: memcached is not supported", hosts))
	}
	return warnings
}

// tuneGC lets the heap grow to five times what is live before a collection,
// unless GOGC says otherwise: a request's memory is short-lived and little is
// live, so that collections cost more than the memory does.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
