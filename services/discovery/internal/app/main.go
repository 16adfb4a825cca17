package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/environ"
)

const usage = `discovery knows the hosts of each service by their heartbeats.

  discovery [--ready-file PATH]   serve until SIGTERM
  discovery healthcheck           ask a running one for /ready; exit 0 if it is
  discovery --version             print the version
  discovery --help                print this

--ready-file PATH gets the bound addresses, as JSON, once they are bound:
{"admin": …, "http": …, "xds": …}

Settings are environment variables:

`

// Main is the command discovery. It returns the exit code: 0 after a wanted
// end, 1 for what went wrong, 2 for a wrong command line.
func Main(args []string, version string) int {
	flags := flag.NewFlagSet("discovery", flag.ContinueOnError)
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
		fmt.Fprintf(os.Stderr, "discovery: %v; --help shows what there is\n", err)
		return 2
	case *showVersion:
		fmt.Println(daemon.Version(version))
		return 0
	case flags.NArg() > 0 && !check:
		fmt.Fprintf(os.Stderr, "discovery: unknown argument %q; --help shows what there is\n", flags.Arg(0))
		return 2
	}
	return daemon.Main("discovery", func(ctx context.Context) error {
		var o Options
		if err := environ.Load(&o); err != nil {
			return err
		}
		if check {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return admin.Check(ctx, o.AdminAddress)
		}
		return serve(ctx, o, *readyFile)
	})
}

// serve runs the service as this process.
func serve(ctx context.Context, o Options, readyFile string) error {
	log, err := daemon.Logger(os.Stderr, o.logLevel())
	if err != nil {
		return fmt.Errorf("DISCOVERY_LOG_LEVEL or LOG_LEVEL: %w", err)
	}
	for _, warning := range environ.Misspelt(o, []string{"DISCOVERY_"}, os.Environ()) {
		log.Warn(warning)
	}
	app, err := New(o, log)
	if err != nil {
		return err
	}
	if err := daemon.WriteReadyFile(readyFile, app.Addrs()); err != nil {
		return err
	}
	return app.Run(ctx)
}
