// Package echo is a backend that answers what it is asked and says which
// instance answered. cmd/echo runs it for the demo and for the tests, which
// drive its answers by query parameters. It keeps nothing of what it is sent.
package echo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/daemon"
)

const usage = `Usage: echo [flags]              serve until SIGTERM
       echo healthcheck [flags]  exit 0 if the instance at --listen answers

One port answers HTTP/1.1, HTTP/2 without TLS and gRPC (weir.echo.v1). Each
answer names the instance in x-echo-instance. A request with a body gets it
back as it comes, trailers too; any other gets one line. The query changes the
answer: ?status=503, ?delay=100ms, ?bytes=1024, ?headers (the request's head).

`

// options is what the command line says.
type options struct {
	listen, name, readyFile string
	version, check          bool
}

// Main runs the echo program with the arguments after its name. What is asked
// for goes to stdout, what is wrong with the command line to stderr. It returns
// the exit code: 0 after a wanted end, 1 for what went wrong, 2 for a wrong
// command line.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	var o options
	flags := o.flags()
	o.check = len(args) > 0 && args[0] == "healthcheck"
	if o.check {
		args = args[1:]
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		fmt.Fprint(stdout, usage)
		flags.PrintDefaults()
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "echo: %v; --help shows what there is\n", err)
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "echo: unknown argument %q; --help shows what there is\n", flags.Arg(0))
		return 2
	case o.version:
		fmt.Fprintln(stdout, "echo", daemon.Version(version))
		return 0
	}
	return daemon.Main("echo", o.run)
}

// flags declares the flags.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("echo", flag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are Main's to print
	f.StringVar(&o.listen, "listen", "127.0.0.1:9001", "`address` to serve on; port 0 takes a free one")
	f.StringVar(&o.name, "name", "", "`name` of this instance in its answers (default: the bound address)")
	f.StringVar(&o.readyFile, "ready-file", "", "`path` of a JSON file of the bound addresses, written when the port answers")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	return f
}

// run serves until ctx ends, or asks another instance whether it does.
func (o *options) run(ctx context.Context) error {
	if o.check {
		return healthcheck(ctx, o.listen)
	}
	log, err := daemon.Logger(os.Stderr, daemon.LogOptions{Level: "info"})
	if err != nil {
		return err
	}
	listener, err := daemon.Listen(o.listen, "--listen")
	if err != nil {
		return err
	}
	bound := listener.Addr().String()
	name := o.name
	if name == "" {
		name = bound
	}
	if err := daemon.WriteReadyFile(o.readyFile, map[string]string{"http": bound}); err != nil {
		_ = listener.Close()
		return err
	}
	log.Info("serving", "name", name, "address", bound)
	server := NewServer(name)
	life := daemon.Group{Log: log, Deadline: 10 * time.Second}
	life.Add(daemon.Part{
		Name: "http server",
		Run: func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		Stop: func(ctx context.Context) error { return errors.Join(server.Shutdown(ctx), server.Close()) },
	})
	return life.Run(ctx)
}

// healthcheck asks the instance at address for one answer.
func healthcheck(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", address, resp.Status)
	}
	return nil
}
