package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// Options is what Run is told on its command line.
type Options struct {
	// Discovery is how the registry is called.
	Discovery client.Options
	Service   string
	// ID names the program among the hosts of the service; empty means its
	// address and port.
	ID string
	// Host is what the registry is told of the program, but for Draining and
	// TTL. An invalid Address means that from which this machine reaches the
	// registry.
	Host client.Registration
	// TTL is how long the program stays registered without a beat, in whole
	// seconds; Interval is the time between beats.
	TTL, Interval time.Duration
	Check         Check
	// Drain is for how long the program is draining, so that others learn that
	// it is about to go, before it is deregistered and hears of it itself.
	Drain time.Duration
	// HostsFile is where the hosts of HostsOf, services by name, are kept for
	// local readers; empty for nowhere.
	HostsFile string
	HostsOf   []string
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
// it; SIGTERM and SIGINT only after it was drained for Drain and deregistered, or
// at once if they come again. The program's output is stdout and stderr. On
// Linux it gets a SIGTERM if this process is killed.
func Run(o Options, signals <-chan os.Signal, stdout, stderr io.Writer, log *slog.Logger) int {
	discovery, err := client.New(o.Discovery)
	if err != nil {
		log.Error("the program is not started", "error", err)
		return startFailed
	}
	defer discovery.Close()
	registrar := newRegistrar(o, discovery, log)
	health := newHealth(o.Check, registrar.target, log)
	if health.isTaken() {
		log.Error("the program is not started", "error", fmt.Errorf("port %d is answered before %s was started", o.Host.Port, o.Command[0]))
		return startFailed
	}
	stopWatching, err := watchHosts(o, log)
	if err != nil {
		log.Error("the program is not started", "error", err)
		return startFailed
	}
	defer stopWatching()
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

	serving, stopServing := context.WithCancel(context.Background())
	defer stopServing()
	var served sync.WaitGroup
	// Ends within callTimeout of serving; leave waits for it.
	served.Go(func() { keepServing(serving, health, registrar) })

	// hurry ends the draining.
	draining, hurry := context.WithCancel(context.Background())
	defer hurry()
	left := make(chan struct{})
	leave := sync.OnceFunc(func() {
		stopServing()
		// Ends within two callTimeouts, a deregisterTimeout and, unless hurried,
		// Drain; the loop below waits for it.
		go func() {
			defer close(left)
			served.Wait()
			registrar.leave(draining, o.Drain)
		}()
	})

	// A program that was asked to end is told once it is out of discovery: told
	// is left from when it was asked until it hears of it.
	var told <-chan struct{}
	var asked os.Signal // by what it was asked to end
	for {
		select {
		case err := <-ended:
			hurry()
			leave()
			<-left
			return exitCode(err, log)
		case received := <-signals:
			toEnd := received == syscall.SIGTERM || received == os.Interrupt
			if toEnd && asked == nil {
				asked, told = received, left
				leave()
				continue
			}
			if toEnd { // it is told now, and not once more later
				told = nil
				hurry()
			}
			pass(command.Process, received, log)
		case <-told:
			told = nil
			pass(command.Process, asked, log)
		}
	}
}

// keepServing registers the program once its check passes, and beats and checks
// until ctx ends.
func keepServing(ctx context.Context, h *health, r *registrar) {
	if !h.await(ctx) {
		return
	}
	var checking sync.WaitGroup
	// Ends with ctx; waited for below.
	checking.Go(func() { h.watch(ctx, r.setUnwell) })
	r.keepRegistered(ctx)
	checking.Wait()
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
