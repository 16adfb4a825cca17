package bench

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// sample is what one load of one scenario showed.
type sample struct {
	cpu    float64 // of the measured processes, in microseconds a request, or other unit
	beside float64 // of the other process, likewise
	// commands that the other process ran a request, if it is a Redis
	commands float64
	rate     float64 // requests a second
	busy     float64 // share of the time in which the measured processes ran
}

// measure runs a scenario once, and again if the sample says nothing: on a
// guest whose host took the core away, the CPU times of processes can stand
// still for seconds, while they answer, or nothing is answered in a short load.
func measure(t testing.TB, s *scenario, d time.Duration) sample {
	t.Helper()
	const least = 0.05 // every load keeps its process busier
	for range 5 {
		if one := measureOnce(t, s, d); one.rate > 0 && one.busy >= least {
			return one
		}
	}
	require.FailNow(t, "no CPU time is counted, or nothing is answered", "%s, %s", s.title, s.program)
	return sample{}
}

func measureOnce(t testing.TB, s *scenario, d time.Duration) sample {
	t.Helper()
	commands := redisCommands(t, s.beside)
	cpu, beside, began := s.cpuTime(t), cpuTime(t, s.beside), time.Now()
	requests := float64(s.load(t, d))
	elapsed := time.Since(began)
	spent := s.cpuTime(t) - cpu
	return sample{
		cpu:      spent.Seconds() * 1e6 / requests,
		beside:   (cpuTime(t, s.beside) - beside).Seconds() * 1e6 / requests,
		commands: float64(redisCommands(t, s.beside)-commands) / requests,
		rate:     requests / elapsed.Seconds(),
		busy:     spent.Seconds() / elapsed.Seconds(),
	}
}

// redisCommands is how many commands a Redis has run; 0 for nil and for other
// programs.
func redisCommands(t testing.TB, p *harness.Process) int {
	t.Helper()
	if !isRedis(p) {
		return 0
	}
	return find(t, redisInfo(t, p, "stats"), `total_commands_processed:(\d+)`)
}

// redisInfo is what a Redis says of itself in a section of INFO.
func redisInfo(t testing.TB, p *harness.Process, section string) string {
	t.Helper()
	connection, err := net.DialTimeout("tcp", p.Addr("redis"), time.Second)
	require.NoError(t, err)
	defer connection.Close()
	require.NoError(t, connection.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = io.WriteString(connection, "INFO "+section+"\r\nQUIT\r\n")
	require.NoError(t, err)
	text, err := io.ReadAll(connection)
	require.NoError(t, err)
	return string(text)
}

func isRedis(p *harness.Process) bool { return p != nil && p.Addresses["redis"] != "" }

// cpuTime is what the measured processes have used.
func (s *scenario) cpuTime(t testing.TB) time.Duration {
	t.Helper()
	sum := cpuTime(t, s.process)
	for _, p := range s.also {
		sum += cpuTime(t, p)
	}
	return sum
}

// clockTick is the unit of CPU times in /proc, the same on every Linux.
const clockTick = time.Second / 100

// cpuTime is the user and system time that a process has used; 0 for nil.
func cpuTime(t testing.TB, p *harness.Process) time.Duration {
	t.Helper()
	if p == nil {
		return 0
	}
	return cpuTimeOf(t, p.PID())
}

func cpuTimeOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	// The fields after the name, which may hold spaces: utime and stime are the
	// 12th and 13th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// residentKB is the memory of a process, in kB.
func residentKB(t testing.TB, p *harness.Process) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	require.NoError(t, err)
	return find(t, string(text), `VmRSS:\s+(\d+) kB`)
}

func revision() string {
	text, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // unknown if not there
	for line := range strings.Lines(string(text)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown"
}

// loadAverage is that of the last minute: how busy the machine is with other
// things.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	average, _, _ := strings.Cut(string(text), " ")
	return average
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(text))
}
