// Package agent runs a program and keeps it registered with discovery for as
// long as it lives: it registers when the program's port answers, beats, and
// deregisters before it stops the program or after the program ended. It is
// the command discovery-agent and talks to discovery over the v1 REST face
// alone. It restarts nothing and judges nothing: a program that lives and
// answers wrongly stays registered.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Options is what the agent is told on its command line.
type Options struct {
	// Discovery is the base URLs of discovery's REST listeners; the first that
	// answers is used.
	Discovery []string
	Service   string
	// IP is where others reach the program; an invalid one means the address
	// from which this machine reaches discovery.
	IP   netip.Addr
	Port uint16
	// InstanceID tells apart the programs of one service on one address.
	InstanceID             string
	Revision, Zone, Region string
	Repo                   string
	// Tags are further tags, by name.
	Tags map[string]string
	// TTL is how long the program stays registered without a beat, in whole
	// seconds; Interval is the time between beats.
	TTL, Interval time.Duration
	// Drain is how long the program runs on after it was deregistered, so that
	// others learn of it before it goes.
	Drain time.Duration
	// Command is the program and its arguments.
	Command []string
}

// startFailed is the exit code when the program cannot be started, as shells
// have it, or must not be.
const startFailed = 127

// killedBySignal is added to a signal's number to make an exit code of it, as
// shells have it.
const killedBySignal = 128

// Run starts the program, unless its port is answered already, and returns its
// exit code when it has ended and was deregistered. signals are passed on to
// it; SIGTERM and SIGINT only after it was deregistered and Drain has passed, or
// at once if they come again. The program's output is stdout and stderr. On
// Linux it gets a SIGTERM if this process is killed.
func Run(o Options, signals <-chan os.Signal, stdout, stderr io.Writer, log *slog.Logger) int {
	registrar := newRegistrar(o, log)
	if registrar.portIsTaken() {
		log.Error("the program is not started", "error", fmt.Errorf("port %d is answered before %s was started", o.Port, o.Command[0]))
		return startFailed
	}
	// The program's lifeline hangs on this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.Command(o.Command[0], o.Command[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, stdout, stderr
	command.SysProcAttr = lifeline()
	if err := command.Start(); err != nil {
		log.Error("the program cannot be started", "error", err)
		return startFailed
	}
	ended := make(chan error, 1)
	// Ends with the program; the loop below waits for it.
	go func() { ended <- command.Wait() }()

	registering, stopRegistering := context.WithCancel(context.Background())
	defer stopRegistering()
	var beats sync.WaitGroup
	// Ends within beatTimeout of registering, before the deregistration, which a
	// late beat would undo.
	beats.Go(func() {
		if registrar.awaitPort(registering) {
			registrar.keepRegistered(registering)
		}
	})
	deregistered := make(chan struct{})
	deregister := sync.OnceFunc(func() {
		stopRegistering()
		// Ends within beatTimeout and deregisterTimeout; the loop below waits for
		// it.
		go func() {
			defer close(deregistered)
			beats.Wait()
			registrar.deregister()
		}()
	})

	// A program that was asked to end is told when it is out of discovery, and
	// that has had time to get about: first left fires, then drained.
	var left <-chan struct{}
	var drained <-chan time.Time
	var asked os.Signal // by what it was asked to end
	for {
		select {
		case err := <-ended:
			deregister()
			<-deregistered
			return exitCode(err, log)
		case received := <-signals:
			toEnd := received == syscall.SIGTERM || received == os.Interrupt
			if toEnd && asked == nil {
				asked, left = received, deregistered
				deregister()
				continue
			}
			if toEnd { // it is told now, and not once more later
				left, drained = nil, nil
			}
			pass(command.Process, received, log)
		case <-left:
			left, drained = nil, time.After(o.Drain)
		case <-drained:
			drained = nil
			pass(command.Process, asked, log)
		}
	}
}

// pass sends a signal on to the program.
func pass(program *os.Process, s os.Signal, log *slog.Logger) {
	if err := program.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		log.Error("the program did not get a signal", "signal", s, "error", err)
	}
}

// exitCode is the program's own code, or that of the signal that ended it.
func exitCode(err error, log *slog.Logger) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		log.Error("the program cannot be waited for", "error", err)
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return killedBySignal + int(status.Signal())
	}
	return exit.ExitCode()
}

// sleep waits for d and reports whether it passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// instanceID is how a program is told apart if nobody says how: the same after
// a restart, other for another port.
func instanceID(port uint16) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d", host, port)
}
