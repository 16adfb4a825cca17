// Package daemon is the life of a process: signals, an ordered start, a stop
// in reverse order inside a deadline, and the exit code. Each service's main
// calls Main, and its app gives a Group the parts that it built. What begins
// and ends with the process is made here too: its listeners, their addresses in
// a ready file, and the parts that serve HTTP and gRPC on them or work in the
// background. The package knows nothing of what is served.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Main runs one process and returns its exit code: 0 after a wanted end, 1
// when run failed; the error has then been written to standard error, after
// name. It can have several lines, such as one for each fault of a
// configuration. The context given to run ends at the first SIGINT, SIGTERM or SIGHUP;
// a second one ends the process at once with code 1.
func Main(name string, run func(ctx context.Context) error) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ended := make(chan struct{})
	defer close(ended)
	// Ends with Main, which does not wait for it, or ends the process.
	go func() {
		for _, act := range []func(){stop, func() { os.Exit(1) }} {
			select {
			case <-signals:
				act()
			case <-ended:
				return
			}
		}
	}()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Version is the text that --version prints: the version linked into the
// binary, or, where none was, the revision that Go stamped into it.
func Version(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				return setting.Value
			}
		}
	}
	return "unreleased"
}

// LogOptions says what a log holds and how it is written. Its zero value is
// refused, since it names no level.
type LogOptions struct {
	// Level is debug, info, warn or error, in any letter case.
	Level string
	// Variable, if not nil, is set to Level, and moves the level when it is set later.
	Variable *slog.LevelVar
	// Format is text or json; "" is text on a terminal and JSON elsewhere.
	Format string
	// Keys renames the keys that slog gives each line itself, time, level and
	// msg, in JSON; it may be nil.
	Keys map[string]string
}

// Logger makes the log of a process, written to w. The error names what is not
// one of the choices.
func Logger(w io.Writer, o LogOptions) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(o.Level)); err != nil {
		return nil, fmt.Errorf("log level %q: not one of debug, info, warn, error", o.Level)
	}
	options := &slog.HandlerOptions{Level: l, ReplaceAttr: durationAsText}
	if o.Variable != nil {
		o.Variable.Set(l)
		options.Level = o.Variable
	}
	format := o.Format
	if format == "" {
		format = "json"
		if isTerminal(w) {
			format = "text"
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if key, renamed := o.Keys[a.Key]; renamed && len(groups) == 0 {
				a.Key = key
			}
			return durationAsText(groups, a)
		}
		return slog.New(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log format %q: not one of text, json", o.Format)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// durationAsText keeps JSON from counting in nanoseconds.
func durationAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
