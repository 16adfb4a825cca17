package harness

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a program has to become ready, and to end after
// SIGTERM. It is long because machines that run tests are slow at times.
const patience = time.Minute

// Addresses are the bound addresses of a program, "127.0.0.1:port", by the
// names of its listeners.
type Addresses map[string]string

// of returns the address of a listener, and a free one to be if it was never
// bound.
func (a Addresses) of(listener string) string {
	if address, ok := a[listener]; ok {
		return address
	}
	return "127.0.0.1:0"
}

// port returns the port of a listener as text, "0" if it was never bound.
func (a Addresses) port(listener string) string {
	_, port, _ := net.SplitHostPort(a.of(listener))
	return port
}

// Program is what to run.
type Program struct {
	// Name stands in logs and failures.
	Name string
	// Path is the executable.
	Path string
	// Command returns arguments and environment. bound has the addresses of
	// the run before, so that a restart binds the same ones, and is empty in the
	// first run; readyFile is where the program writes its addresses.
	Command func(bound Addresses, readyFile string) (arguments, environment []string)
	// Ready waits until the program serves, if it writes no ready file, and
	// returns the addresses that it learnt.
	Ready func(p *Process) Addresses
}

// Pinned is the program held to one core by taskset, which the caller has found.
func (p Program) Pinned(taskset string, core int) Program {
	path, command := p.Path, p.Command
	p.Path = taskset
	p.Command = func(bound Addresses, readyFile string) (arguments, environment []string) {
		arguments, environment = command(bound, readyFile)
		return append([]string{"--cpu-list", strconv.Itoa(core), path}, arguments...), environment
	}
	return p
}

// Process is a program that a test runs. It and its children end with the
// test, and its log is shown if the test failed. Its methods are for the
// test's goroutine.
type Process struct {
	Program   Program
	Addresses Addresses

	t         testing.TB
	directory string
	log       output
	command   *exec.Cmd
	ended     chan struct{} // closed when the current run has ended
}

// Start runs a program and waits until it serves.
func Start(t testing.TB, program Program) *Process {
	t.Helper()
	p := Launch(t, program)
	p.awaitReady()
	return p
}

// Launch runs a program and waits for nothing: for one that is to fail.
func Launch(t testing.TB, program Program) *Process {
	t.Helper()
	p := &Process{Program: program, Addresses: Addresses{}, t: t, directory: t.TempDir()}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", program.Name, p.log.tail())
		}
	})
	p.launch()
	return p
}

// Restart runs the program again at the same addresses, after a Kill or Stop,
// and waits until it serves.
func (p *Process) Restart() {
	p.t.Helper()
	require.True(p.t, p.Ended(), "%s runs already", p.Program.Name)
	p.launch()
	p.awaitReady()
}

func (p *Process) readyFile() string { return filepath.Join(p.directory, "ready.json") }

func (p *Process) launch() {
	p.t.Helper()
	_ = os.Remove(p.readyFile())
	arguments, environment := p.Program.Command(p.Addresses, p.readyFile())
	p.command = exec.Command(p.Program.Path, arguments...)
	// What the tester's shell holds, such as PORT, is no part of the test.
	p.command.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.directory}, environment...)
	p.command.Dir = p.directory
	p.command.Stdout, p.command.Stderr = &p.log, &p.log
	p.command.WaitDelay = time.Second // for output, should a child outlive it
	// A group of its own, so that Kill reaches its children.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(p.t, p.command.Start(), "start %s", p.Program.Name)
	command, ended := p.command, make(chan struct{})
	p.ended = ended
	// Ends with the process; Kill, which every test ends with, waits for it.
	go func() {
		_ = command.Wait()
		close(ended)
	}()
}

// awaitReady waits until the program serves and takes its addresses. A ready
// file says that they are bound; an admin listener among them knows more.
func (p *Process) awaitReady() {
	p.t.Helper()
	if p.Program.Ready != nil {
		p.Addresses = p.Program.Ready(p)
		return
	}
	var addresses Addresses
	p.await("is ready", func() bool {
		text, err := os.ReadFile(p.readyFile())
		return err == nil && json.Unmarshal(text, &addresses) == nil
	})
	for listener, address := range addresses {
		addresses[listener] = reachable(address)
	}
	p.Addresses = addresses
	if admin, ok := addresses["admin"]; ok {
		p.await("says so itself", func() bool { return isReady(admin) })
	}
}

// reachable returns an address of loopback for one that is bound on every
// interface.
func reachable(address string) string {
	bound, err := netip.ParseAddrPort(address)
	if err != nil || !bound.Addr().IsUnspecified() {
		return address
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), bound.Port()).String()
}

// await waits for a condition that the program is to bring about, and fails the
// test if the program ends before.
func (p *Process) await(what string, condition func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-p.ended:
			require.FailNow(p.t, "program ended", "%s ended with code %d before it %s:\n%s",
				p.Program.Name, p.ExitCode(), what, p.log.tail())
		case <-deadline.C:
			require.FailNow(p.t, "out of patience", "%s, within %v: not that it %s", p.Program.Name, patience, what)
		case <-tick.C:
		}
	}
}

// Addr is the bound address of a listener.
func (p *Process) Addr(listener string) string {
	p.t.Helper()
	require.Contains(p.t, p.Addresses, listener, "%s has no listener of that name", p.Program.Name)
	return p.Addresses[listener]
}

// PID is the id of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Log is what was read of the program's output so far, in all its runs; while
// it runs, what it just wrote may be missing.
func (p *Process) Log() string { return p.log.String() }

// Signal sends a signal to the process alone.
func (p *Process) Signal(signal os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.command.Process.Signal(signal), "signal %s", p.Program.Name)
}

// Kill ends the process and its children at once, as a crash would. It does
// nothing if they have ended.
func (p *Process) Kill() {
	if p.command == nil || p.command.Process == nil {
		return // it never started
	}
	// Fails if the whole group has ended.
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// Stop asks the process to end, waits until it has, and wants code 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	require.Zero(p.t, p.Wait(), "exit code of %s after SIGTERM", p.Program.Name)
}

// Wait waits until the process has ended and returns its exit code; -1 if a
// signal ended it.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.FailNow(p.t, "out of patience", "%s did not end within %v", p.Program.Name, patience)
	}
	return p.ExitCode()
}

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// ExitCode is that of a process that has ended.
func (p *Process) ExitCode() int { return p.command.ProcessState.ExitCode() }

// output is what a program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(text)
}

// String returns all of it.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// tail returns the last lines.
func (o *output) tail() string {
	const most = 60
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
