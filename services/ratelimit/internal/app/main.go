package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/environ"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

const usage = `ratelimit answers Envoy's rate limit service calls by the rules of a directory.

  ratelimit [--ready-file PATH]   serve until SIGTERM
  ratelimit healthcheck           ask a running one for /ready; exit 0 if it is
  ratelimit --version             print the version
  ratelimit --help                print this

--ready-file PATH gets the bound addresses, as JSON, once they are bound:
{"admin": …, "grpc": …, "http": …}

Settings are environment variables:

`

// prefixes of variables that are taken to be meant for this service.
var prefixes = []string{"RATELIMIT_", "REDIS_", "RUNTIME_"}

// Main is the command ratelimit. It returns the exit code: 0 after a wanted
// end, 1 for what went wrong, 2 for a wrong command line.
func Main(args []string, version string) int {
	flags := flag.NewFlagSet("ratelimit", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	readyFile := flags.String("ready-file", "", "")
	showVersion := flags.Bool("version", false, "")
	err := flags.Parse(args)
	check := flags.NArg() == 1 && flags.Arg(0) == "healthcheck"
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		environ.Help(os.Stdout, Options{})
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "ratelimit: %v; --help shows what there is\n", err)
		return 2
	case *showVersion:
		fmt.Println(daemon.Version(version))
		return 0
	case flags.NArg() > 0 && !check:
		fmt.Fprintf(os.Stderr, "ratelimit: unknown argument %q; --help shows what there is\n", flags.Arg(0))
		return 2
	}
	return daemon.Main("ratelimit", func(ctx context.Context) error {
		var o Options
		if err := environ.Load(&o); err != nil {
			return err
		}
		if check {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return admin.Check(ctx, address(o.DebugHost, o.DebugPort))
		}
		return serve(ctx, o, *readyFile)
	})
}

// serve runs the service as this process.
func serve(ctx context.Context, o Options, readyFile string) error {
	log, err := daemon.Logger(os.Stderr, o.LogLevel)
	if err != nil {
		return fmt.Errorf("LOG_LEVEL: %w", err)
	}
	for _, warning := range environ.Misspelt(o, prefixes, os.Environ()) {
		log.Warn(warning)
	}
	redis.LogDriver(log)
	tuneGC()
	app, err := New(o, log)
	if err != nil {
		return err
	}
	if err := daemon.WriteReadyFile(readyFile, app.Addrs()); err != nil {
		return err
	}
	return app.Run(ctx)
}

// tuneGC lets the heap grow to five times what is live before a collection,
// unless GOGC says otherwise: a request's memory is short-lived and little is
// live, so that collections cost more than the memory does.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
