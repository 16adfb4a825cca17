package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// programVariable makes the test binary a program that calls Main, since Main
// takes the process' signals and may end it. Its value says what run does.
const programVariable = "WEIR_DAEMON_TEST_PROGRAM"

func runAsProgram() {
	run := map[string]func(context.Context) error{
		"fail": func(context.Context) error { return errors.New("listen on :80: the port is in use") },
		"serve": func(ctx context.Context) error {
			fmt.Println("serving")
			<-ctx.Done()
			fmt.Println("stopping")
			return nil
		},
		"hang": func(ctx context.Context) error {
			fmt.Println("serving")
			<-ctx.Done()
			fmt.Println("stopping")
			select {}
		},
	}[os.Getenv(programVariable)]
	if run != nil {
		os.Exit(Main("mill", run))
	}
}

// program starts the test binary as a program. It ends with the test.
func program(t *testing.T, does string) (*exec.Cmd, *bufio.Reader, *strings.Builder) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), programVariable+"="+does)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c, bufio.NewReader(out), &stderr
}

// says reads the program's next line.
func says(t *testing.T, out *bufio.Reader, want string) {
	t.Helper()
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want+"\n", line)
}

func TestMainEndsWithCode0AtTheFirstSignal(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			c, out, stderr := program(t, "serve")
			says(t, out, "serving")
			require.NoError(t, c.Process.Signal(signal))
			says(t, out, "stopping")
			require.NoError(t, c.Wait())
			require.Empty(t, stderr.String())
		})
	}
}

func TestMainEndsAtOnceAtTheSecondSignal(t *testing.T) {
	c, out, _ := program(t, "hang")
	says(t, out, "serving")
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	says(t, out, "stopping")
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Error(t, c.Wait())
	require.Equal(t, 1, c.ProcessState.ExitCode())
}

func TestMainWritesTheErrorAsOneLineAndEndsWithCode1(t *testing.T) {
	c, out, stderr := program(t, "fail")
	_, err := io.Copy(io.Discard, out)
	require.NoError(t, err)
	require.Error(t, c.Wait())
	require.Equal(t, 1, c.ProcessState.ExitCode())
	require.Equal(t, "mill: listen on :80: the port is in use\n", stderr.String())
}

func TestVersion(t *testing.T) {
	require.Equal(t, "v1.2.3", Version("v1.2.3"), "the linked version stands first")
	require.NotEmpty(t, Version(""))
}

func TestLogger(t *testing.T) {
	for level, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "Warn": slog.LevelWarn, "ERROR": slog.LevelError,
	} {
		t.Run("level_"+level+"_is_taken", func(t *testing.T) {
			var out bytes.Buffer
			log, err := Logger(&out, LogOptions{Level: level})
			require.NoError(t, err)
			require.True(t, log.Enabled(t.Context(), want))
			require.False(t, log.Enabled(t.Context(), want-1))
			log.Error("port moved", "port", 8080, "after", 1500*time.Millisecond)
			require.Contains(t, out.String(), `"msg":"port moved","port":8080,"after":"1.5s"`)
		})
	}
	t.Run("an_unknown_level_is_refused_by_name", func(t *testing.T) {
		_, err := Logger(nil, LogOptions{Level: "loud"})
		require.EqualError(t, err, `log level "loud": not one of debug, info, warn, error`)
	})
	t.Run("an_unknown_format_is_refused_by_name", func(t *testing.T) {
		_, err := Logger(nil, LogOptions{Level: "info", Format: "xml"})
		require.EqualError(t, err, `log format "xml": not one of text, json`)
	})
	t.Run("text_is_written_where_it_is_asked_for", func(t *testing.T) {
		var out bytes.Buffer
		log, err := Logger(&out, LogOptions{Level: "info", Format: "text"})
		require.NoError(t, err)
		log.Info("port moved", "after", 1500*time.Millisecond)
		require.Contains(t, out.String(), `msg="port moved" after=1.5s`)
	})
	t.Run("the_keys_of_each_line_can_be_others", func(t *testing.T) {
		var out bytes.Buffer
		log, err := Logger(&out, LogOptions{Level: "info", Keys: map[string]string{slog.MessageKey: "@message"}})
		require.NoError(t, err)
		log.Info("port moved")
		require.Contains(t, out.String(), `"level":"INFO","@message":"port moved"`)
	})
}
