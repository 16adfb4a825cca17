package command_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/command"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/internal/setting"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// settings are those of a mill.
type settings struct {
	Grain  string `envconfig:"MILL_GRAIN" default:"rye" desc:"what is ground"`
	Admin  string `envconfig:"MILL_ADMIN" default:"127.0.0.1:1" desc:"where operators ask"`
	Level  string `envconfig:"MILL_LOG_LEVEL" default:"info" desc:"what is logged"`
	Stones int    `envconfig:"MILL_STONES" default:"2" desc:"how many"`
}

// mill is a service that stops itself by the signal that it would get.
type mill struct{ served *settings }

func (m mill) Addrs() map[string]string { return map[string]string{"admin": "127.0.0.1:1"} }
func (m mill) Run(ctx context.Context) error {
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// run runs the mill's command; served is nil if it was not built. Its output
// is what it wrote to standard output and standard error.
func run(t *testing.T, args ...string) (code int, output string, served *settings) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	code = command.Main(command.Spec[settings]{
		Name: "mill", Summary: "grinds.", Prefixes: []string{"MILL_"},
		Commands: []command.Command{{
			Name: "weigh", Usage: "weigh SACK", Summary: "say what a sack weighs",
			Run: func(args []string, stdout, stderr io.Writer) int {
				fmt.Fprintf(stdout, "weighed %q\n", args)
				fmt.Fprintln(stderr, "roughly")
				return 7
			},
		}},
		Admin: func(s settings) string { return s.Admin },
		Log: func(s settings) (daemon.LogOptions, string) {
			return daemon.LogOptions{Level: s.Level}, "MILL_LOG_LEVEL"
		},
		Check: func(s settings) error {
			var errs []error
			if s.Grain == "gravel" {
				errs = append(errs, errors.New("MILL_GRAIN: gravel is no grain"))
			}
			if s.Stones < 3 {
				stones := setting.Variable("MILL_STONES", s.Stones)
				errs = append(errs, setting.Faultf("%v: below 3", stones),
					setting.Faultf("%v: below %v", setting.Variable("MILL_WHEELS", 1), stones),
					setting.Faultf("%v: below 3", setting.Variable("OTHER_MILL_STONES", 1)))
			}
			return errors.Join(errs...)
		},
		New: func(s settings, log *slog.Logger) (command.Service, error) {
			if s.Grain == "sand" {
				return nil, errors.New("MILL_GRAIN: sand is no grain")
			}
			log.Info("grinding")
			served = &s
			return mill{served}, nil
		},
	}, args, "v1.2.3")
	os.Stdout, os.Stderr = stdout, stderr
	require.NoError(t, w.Close())
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return code, string(text), served
}

func TestCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		code   int
		output string
	}{
		"help":                {[]string{"--help"}, 0, "MILL_GRAIN"},
		"help of commands":    {[]string{"--help"}, 0, "\n  mill weigh SACK\n      say what a sack weighs\n\n--ready-file"},
		"a command":           {[]string{"weigh", "a", "--b"}, 7, "weighed [\"a\" \"--b\"]\nroughly\n"},
		"version":             {[]string{"--version"}, 0, "mill v1.2.3"},
		"an unknown flag":     {[]string{"--grind"}, 2, "flag provided but not defined: -grind; --help shows what there is"},
		"an unknown argument": {[]string{"grind"}, 2, `unknown argument "grind"`},
		"more arguments":      {[]string{"healthcheck", "wheat"}, 2, `unknown argument "wheat"`},
		"healthcheck of none": {[]string{"healthcheck"}, 1, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			code, output, served := run(t, c.args...)
			require.Equal(t, c.code, code)
			require.Contains(t, output, c.output)
			require.Nil(t, served)
		})
	}
}

func TestServiceRunsWithItsEnvironmentUntilASignal(t *testing.T) {
	t.Setenv("MILL_GRAIN", "oats")
	t.Setenv("MILL_GRIAN", "barley")
	ready := filepath.Join(t.TempDir(), "ready")
	code, output, served := run(t, "--ready-file", ready)
	require.Zero(t, code, output)
	require.Equal(t, "oats", served.Grain)
	require.Contains(t, output, "MILL_GRIAN is not a setting; the nearest is MILL_GRAIN")
	require.Contains(t, output, "grinding")
	text, err := os.ReadFile(ready)
	require.NoError(t, err)
	require.JSONEq(t, `{"admin": "127.0.0.1:1"}`, string(text))
}

func TestFaultsOfTheEnvironmentEndItBeforeItServes(t *testing.T) {
	for _, c := range []struct{ variable, value, output string }{
		{"MILL_STONES", "many", `MILL_STONES="many"`},
		{"MILL_LOG_LEVEL", "loud", `MILL_LOG_LEVEL: log level "loud"`},
		{"MILL_GRAIN", "sand", "mill: MILL_GRAIN: sand is no grain"},
	} {
		t.Run(c.variable, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			code, output, served := run(t)
			require.Equal(t, 1, code)
			require.Contains(t, output, c.output)
			require.Nil(t, served)
		})
	}
}

func TestAllThatIsWrongWithTheEnvironmentIsToldAtOnce(t *testing.T) {
	t.Setenv("MILL_STONES", "many")
	t.Setenv("MILL_LOG_LEVEL", "loud")
	t.Setenv("MILL_GRAIN", "gravel")
	t.Setenv("MILL_STONE", "3")
	code, output, _ := run(t)
	require.Equal(t, 1, code)
	require.Equal(t, "mill: environment variable MILL_STONES=\"many\": want integer\n"+
		"MILL_LOG_LEVEL: log level \"loud\": not one of debug, info, warn, error\n"+
		"environment variable MILL_STONE is not a setting; the nearest is MILL_STONES\n"+
		"MILL_GRAIN: gravel is no grain\nOTHER_MILL_STONES=1: below 3\n", output)
}

func TestHealthcheckAsksTheAdminListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ready := http.NewServeMux()
	ready.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {}) // else 404
	server := &http.Server{Handler: ready}
	go func() { _ = server.Serve(l) }() // ends with Close
	defer server.Close()
	t.Setenv("MILL_ADMIN", l.Addr().String())
	code, output, _ := run(t, "healthcheck")
	require.Zero(t, code, output)
}
