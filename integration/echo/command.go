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

// Command runs the echo program with the arguments after its name, until ctx
// ends. What --help and --version print goes to out.
func Command(ctx context.Context, args []string, version string, out io.Writer) error {
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are the caller's to print
	listen := flags.String("listen", "127.0.0.1:9001", "`address` to serve on; port 0 takes a free one")
	name := flags.String("name", "", "`name` of this instance in its answers (default: the bound address)")
	readyFile := flags.String("ready-file", "", "`path` of a JSON file of the bound addresses, written when the port answers")
	showVersion := flags.Bool("version", false, "print the version and exit")
	check := len(args) > 0 && args[0] == "healthcheck"
	if check {
		args = args[1:]
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(out)
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unknown argument %q; see --help", flags.Arg(0))
	case *showVersion:
		_, err := fmt.Fprintln(out, version)
		return err
	case check:
		return healthcheck(ctx, *listen)
	}
	return run(ctx, *listen, *name, *readyFile)
}

func run(ctx context.Context, address, name, readyFile string) error {
	log, err := daemon.Logger(os.Stderr, "info")
	if err != nil {
		return err
	}
	listener, err := daemon.Listen(address, "--listen")
	if err != nil {
		return err
	}
	bound := listener.Addr().String()
	if name == "" {
		name = bound
	}
	if err := daemon.WriteReadyFile(readyFile, map[string]string{"http": bound}); err != nil {
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
