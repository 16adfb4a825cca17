package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
)

const usage = `proxy takes HTTP in and sends it to upstream hosts, configured by a strict subset of Envoy's v3 API.

  proxy -c FILE                      serve
  proxy -c FILE --mode validate      check the configuration, print every fault, serve nothing
  proxy -c FILE --mode lint          the same, and what is risky where strangers are clients
  proxy -c FILE --mode init_only     bind the sockets and open the files too, and end
  proxy healthcheck [-c FILE]        ask the running proxy's admin listener whether it is ready
  proxy route -c FILE --request R    tell which route a request takes, and why; proxy route --help

Flags, by Envoy's names where Envoy has them:
`

// Main is the command proxy. It returns the exit code: 0 after a wanted end, 1
// for what went wrong, 2 for a wrong command line.
func Main(args []string, version string) int {
	run, err := Command(args, daemon.Version(version), os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "proxy: %v\n", err)
		return 2
	}
	return daemon.Main("proxy", run)
}

// Command returns what the arguments ask for. The error is that of a wrong
// command line.
func Command(args []string, version string, stdout, stderr io.Writer) (run func(context.Context) error, err error) {
	o := Options{Version: version, Log: stderr}
	flags := flag.NewFlagSet("proxy", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.declareBootstrap(flags)
	mode := flags.String("mode", "serve", "`serve, validate, lint or init_only`")
	flags.StringVar(&o.LogLevel, "l", "info", "log `LEVEL`: debug, info, warn or error, or another of Envoy's")
	flags.StringVar(&o.LogLevel, "log-level", "info", "the same as -l")
	flags.StringVar(&o.LogFormat, "log-format", "", "`text or json`; without, text on a terminal and JSON elsewhere")
	components := flags.String("component-log-level", "", "refused: there is one logger, whose level is -l")
	flags.StringVar(&o.ServiceNode, "service-node", "", "node `ID`, instead of the bootstrap's")
	flags.StringVar(&o.ServiceCluster, "service-cluster", "", "node `CLUSTER`, instead of the bootstrap's")
	flags.StringVar(&o.ServiceZone, "service-zone", "", "`ZONE` of the node's locality, instead of the bootstrap's")
	concurrency := flags.Int("concurrency", 0, "how many `PROCESSORS` may be used at once; 0 is all that there are, or GOMAXPROCS")
	drain := flags.Int("drain-time-s", 10, "at most so many `SECONDS` for requests in flight after SIGTERM")
	strategy := flags.String("drain-strategy", "immediate", "`immediate or gradual`: whether connections of a listener that goes end with their next answer at once, or one after another within --drain-time-s")
	grace := flags.Int("drain-grace-s", 1, "`SECONDS` in which the proxy still accepts after SIGTERM, while /ready is 503")
	flags.StringVar(&o.ReadyFile, "ready-file", "", "write the bound addresses to `FILE` once requests are served")
	flags.StringVar(&o.AdminAddressPath, "admin-address-path", "", "write the admin listener's bound address to `FILE`")
	noHotRestart := flags.Bool("disable-hot-restart", false, "as it is in any case: there is no hot restart")
	parent := flags.Int("parent-shutdown-time-s", 0, "`SECONDS` that a hot restart leaves its parent: refused without --disable-hot-restart, with which it says nothing")
	address := flags.String("admin-address", defaultAdmin, "of healthcheck: `HOST:PORT` to ask where no bootstrap names one")
	showVersion := flags.Bool("version", false, "print the version")

	if len(args) > 0 && args[0] == "route" {
		return routeCommand(args[1:], stdout)
	}
	health := len(args) > 0 && args[0] == "healthcheck"
	if health {
		args = args[1:]
	}
	err = flags.Parse(args)
	o.DrainTime, o.DrainGrace = time.Duration(*drain)*time.Second, time.Duration(*grace)*time.Second
	o.DrainGradually = *strategy == "gradual"
	if level, ok := levels[strings.ToLower(o.LogLevel)]; ok {
		o.LogLevel = level
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return help(usage, flags, stdout), nil
	case err != nil:
		return nil, fmt.Errorf("%w; --help lists the flags", err)
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; --help lists the flags", flags.Arg(0))
	case *concurrency < 0:
		return nil, fmt.Errorf("--concurrency %d: it cannot be negative", *concurrency)
	case *drain < 0 || *grace < 0:
		return nil, fmt.Errorf("--drain-time-s %d, --drain-grace-s %d: neither can be negative", *drain, *grace)
	case *strategy != "immediate" && *strategy != "gradual":
		return nil, fmt.Errorf("--drain-strategy %s: not one of immediate, gradual", *strategy)
	case strings.Contains(o.LogFormat, "%"):
		return nil, fmt.Errorf("--log-format %s: lines have no pattern here: use text or json", o.LogFormat)
	case *components != "":
		return nil, fmt.Errorf("--component-log-level %s: there is one logger: use -l", *components)
	case given(flags, "parent-shutdown-time-s") && !*noHotRestart:
		return nil, fmt.Errorf("--parent-shutdown-time-s %d: there is no hot restart, and so no parent to shut down", *parent)
	case *showVersion:
		return func(context.Context) error {
			fmt.Fprintln(stdout, "proxy", version)
			return nil
		}, nil
	case health:
		return func(ctx context.Context) error { return healthcheck(ctx, o, *address) }, nil
	case o.ConfigPath == "" && o.ConfigYAML == "":
		return nil, errors.New("no bootstrap: give one with -c FILE; --help lists the flags")
	case *mode == "validate":
		return checking(Validate, o, stdout), nil
	case *mode == "lint":
		return checking(Lint, o, stdout), nil
	case *mode == "init_only":
		return initializeOnly(o, stdout), nil
	case *mode != "serve":
		return nil, fmt.Errorf("--mode %s: not one of serve, validate, lint, init_only", *mode)
	}
	return func(ctx context.Context) error {
		daemon.TuneGC(servingGC)
		if *concurrency > 0 {
			runtime.GOMAXPROCS(*concurrency)
		}
		a, err := untilEnd(ctx, func() (*App, error) { return New(o) })
		if err != nil {
			return err
		}
		return a.Run(ctx)
	}, nil
}

// declareBootstrap declares the flags that say what the bootstrap is.
func (o *Options) declareBootstrap(flags *flag.FlagSet) {
	flags.StringVar(&o.ConfigPath, "c", "", "`FILE` with the bootstrap, YAML or JSON")
	flags.StringVar(&o.ConfigPath, "config-path", "", "the same as -c")
	flags.StringVar(&o.ConfigYAML, "config-yaml", "", "bootstrap `YAML` that is merged over the file's")
}

// help prints how a command is used, and its flags.
func help(usage string, flags *flag.FlagSet, stdout io.Writer) func(context.Context) error {
	return func(context.Context) error {
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return nil
	}
}

// checking looks at the configuration and serves nothing.
func checking(check func(Options) error, o Options, stdout io.Writer) func(context.Context) error {
	return func(ctx context.Context) error {
		if _, err := untilEnd(ctx, func() (any, error) { return nil, check(o) }); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "configuration OK")
		return nil
	}
}

// initializeOnly makes the proxy as far as it can be without serving, and ends it.
func initializeOnly(o Options, stdout io.Writer) func(context.Context) error {
	return func(ctx context.Context) error {
		a, err := untilEnd(ctx, func() (*App, error) { return New(o) })
		if err != nil {
			return err
		}
		a.close()
		fmt.Fprintln(stdout, "initialized")
		return nil
	}
}

// levels are the names that Envoy has for levels of the log, and slog has not.
var levels = map[string]string{"trace": "debug", "warning": "warn", "critical": "error", "off": "error+4"}

// given says whether the command line has a flag.
func given(flags *flag.FlagSet, name string) (set bool) {
	flags.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// untilEnd is what begin returns, or an error as soon as ctx ends: begin reads
// the bootstrap, perhaps from a pipe to which nobody writes.
func untilEnd[T any](ctx context.Context, begin func() (T, error)) (T, error) {
	var result T
	var err error
	done := make(chan struct{})
	// Ends with begin. It is not waited for if ctx ends before, since the process
	// then does too.
	go func() {
		defer close(done)
		result, err = begin()
	}()
	select {
	case <-done:
		return result, err
	case <-ctx.Done():
		var none T
		return none, errors.New("told to end before the bootstrap was read")
	}
}

// servingGC lets the heap grow to five times what is live before a collection: a
// proxy's heap is small.
const servingGC = 400

// defaultAdmin is where healthcheck asks without a bootstrap.
const defaultAdmin = "127.0.0.1:9901"

// healthcheck asks the admin listener that the bootstrap names.
func healthcheck(ctx context.Context, o Options, address string) error {
	if o.ConfigPath != "" || o.ConfigYAML != "" {
		c, err := untilEnd(ctx, func() (*configuration, error) {
			return configure(o, slog.New(slog.DiscardHandler), nil)
		})
		if err != nil {
			return err
		}
		boot := c.boot
		if boot.AdminAddress == "" {
			return errors.New("ask for readiness: the bootstrap has no admin listener")
		}
		address = boot.AdminAddress
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return admin.Check(ctx, address)
}
