// Package command is the command line of a service that is configured by
// environment variables: --help with the table of them, --version,
// --ready-file, healthcheck, commands of the service's own, and warnings of
// misspelt names. A service's app describes itself in a Spec and its main calls
// Main. It knows no setting by name and serves nothing.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/environ"
	"github.com/weirproxy/weir/internal/setting"
)

// Service is one built instance: its listeners are open.
type Service interface {
	// Addrs is the bound addresses by listener.
	Addrs() map[string]string
	// Run serves until ctx ends, then drains.
	Run(ctx context.Context) error
}

// Spec describes a service whose settings are a struct tagged for environ.
// Every field but Commands and Check is required.
type Spec[Settings any] struct {
	// Name is the binary's.
	Name string
	// Summary says what it does, in a sentence.
	Summary string
	// Commands are what the binary does beside serving; none is a healthcheck.
	Commands []Command
	// Prefixes begin the names of variables that are taken to be meant for it.
	Prefixes []string
	// Admin is the address of the admin listener, "host:port".
	Admin func(Settings) string
	// Log is how to log, and the variables that say so, for errors.
	Log func(Settings) (options daemon.LogOptions, variables string)
	// Check says all that is wrong with settings whose types are right, so that
	// it is told together with those whose types are not. It is asked only where
	// there are such: New checks for itself. What is wrong with settings that have a
	// type are to be setting.Faults, joined. It may be nil.
	Check func(Settings) error
	// New builds the service.
	New func(Settings, *slog.Logger) (Service, error)
}

// Command is something that a binary does and that ends by itself.
type Command struct {
	// Name is the word behind the binary's name that asks for it.
	Name string
	// Usage is Name with what follows it, and Summary says what it does.
	Usage, Summary string
	// Run is given the arguments behind Name, takes no settings, and returns the
	// exit code.
	Run func(args []string, stdout, stderr io.Writer) int
}

const usage = `%[1]s %[2]s

  %[1]s [--ready-file PATH]   serve until SIGTERM
  %[1]s healthcheck           ask a running one for /ready; exit 0 if it is
  %[1]s --version             print the version
  %[1]s --help                print this
%[3]s
--ready-file PATH gets the bound addresses by listener, as JSON, once they are
bound: {"admin": "127.0.0.1:40001", …}

Settings are environment variables:

`

// Main runs the command with its arguments and returns the exit code: 0 after
// a wanted end, 1 for what went wrong, 2 for a wrong command line.
func Main[Settings any](spec Spec[Settings], args []string, version string) int {
	for _, c := range spec.Commands {
		if len(args) > 0 && args[0] == c.Name {
			return c.Run(args[1:], os.Stdout, os.Stderr)
		}
	}
	flags := flag.NewFlagSet(spec.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	readyFile := flags.String("ready-file", "", "")
	showVersion := flags.Bool("version", false, "")
	err := flags.Parse(args)
	check, rest := flags.Arg(0) == "healthcheck", flags.Args()
	if check {
		rest = rest[1:]
	}
	var settings Settings
	switch {
	case errors.Is(err, flag.ErrHelp):
		commands := ""
		for _, c := range spec.Commands {
			commands += fmt.Sprintf("\n  %s %s\n      %s\n", spec.Name, c.Usage, c.Summary)
		}
		fmt.Printf(usage, spec.Name, spec.Summary, commands)
		environ.Help(os.Stdout, settings)
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v; --help shows what there is\n", spec.Name, err)
		return 2
	case *showVersion:
		fmt.Println(spec.Name, daemon.Version(version))
		return 0
	case len(rest) > 0:
		fmt.Fprintf(os.Stderr, "%s: unknown argument %q; --help shows what there is\n", spec.Name, rest[0])
		return 2
	}
	return daemon.Main(spec.Name, func(ctx context.Context) error {
		unread := environ.Load(&settings)
		if check && unread != nil {
			return unread
		}
		if check {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return admin.Check(ctx, spec.Admin(settings))
		}
		return serve(ctx, spec, settings, unread, *readyFile)
	})
}

// serve runs the service as this process. Unread is what could not be read of
// the settings, which have their defaults there.
func serve[Settings any](ctx context.Context, spec Spec[Settings], settings Settings, unread error, readyFile string) error {
	options, variables := spec.Log(settings)
	log, err := daemon.Logger(os.Stderr, options)
	if err != nil {
		err = fmt.Errorf("%s: %w", variables, err)
	}
	misspelt := environ.Misspelt(settings, spec.Prefixes, os.Environ())
	if err := errors.Join(unread, err); err != nil {
		for _, warning := range misspelt { // which may be why
			err = errors.Join(err, errors.New(warning))
		}
		if spec.Check != nil {
			err = errors.Join(err, setting.Without(spec.Check(settings), setting.Names(unread)))
		}
		return err
	}
	for _, warning := range misspelt {
		log.Warn(warning)
	}
	service, err := spec.New(settings, log)
	if err != nil {
		return err
	}
	if err := daemon.WriteReadyFile(readyFile, service.Addrs()); err != nil {
		return err
	}
	return service.Run(ctx)
}
