package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// sample is what one load of one scenario showed.
type sample struct {
	cpu    float64 // of the measured process, in microseconds a request
	beside float64 // of the other process, likewise
	rate   float64 // requests a second
}

// measure runs a scenario once.
func measure(t testing.TB, s scenario, d time.Duration) sample {
	t.Helper()
	cpu, beside, began := cpuTime(t, s.process), cpuTime(t, s.beside), time.Now()
	requests := float64(s.load(t, d))
	elapsed := time.Since(began)
	return sample{
		cpu:    (cpuTime(t, s.process) - cpu).Seconds() * 1e6 / requests,
		beside: (cpuTime(t, s.beside) - beside).Seconds() * 1e6 / requests,
		rate:   requests / elapsed.Seconds(),
	}
}

// clockTick is the unit of CPU times in /proc, the same on every Linux.
const clockTick = time.Second / 100

// cpuTime is the user and system time that a process has used; 0 for nil.
func cpuTime(t testing.TB, p *harness.Process) time.Duration {
	t.Helper()
	if p == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
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

// residentMB is the memory of a process, in MB.
func residentMB(t testing.TB, p *harness.Process) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	require.NoError(t, err)
	return find(t, string(text), `VmRSS:\s+(\d+) kB`) / 1024
}

// figure gathers the samples of a scenario.
type figure struct{ samples []sample }

func (f *figure) add(s sample) { f.samples = append(f.samples, s) }

// spread returns the least, the median and the most of one part of the samples.
func (f *figure) spread(part func(sample) float64) (least, median, most float64) {
	var values []float64
	for _, s := range f.samples {
		values = append(values, part(s))
	}
	slices.Sort(values)
	return values[0], values[len(values)/2], values[len(values)-1]
}

// results writes the page.
func results(t testing.TB, m *machine, p plan, scenarios []scenario, figures []figure) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured\n\nWritten by `make bench` on %s, at revision %s.\n\n", time.Now().UTC().Format("2006-01-02"), revision())
	b.WriteString("| load | program | CPU µs a request: min / **median** / max | ratelimit's own | requests/s | memory, MB |\n|---|---|---|---|---|---|\n")
	for i, s := range scenarios {
		least, median, most := figures[i].spread(func(s sample) float64 { return s.cpu })
		_, beside, _ := figures[i].spread(func(s sample) float64 { return s.beside })
		_, rate, _ := figures[i].spread(func(s sample) float64 { return s.rate })
		other := "–"
		if s.beside != nil {
			other = fmt.Sprintf("%.1f", beside)
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f / **%.1f** / %.1f | %s | %.0f | %d |\n",
			s.title, s.program, least, median, most, other, rate, residentMB(t, s.process))
	}
	pinning := "Nothing is pinned."
	if m.taskset != "" {
		pinning = fmt.Sprintf("The program under test is pinned to core %d; load, backend and the rate limiter that proxies ask to core %d.", m.measured, m.other)
	}
	fmt.Fprintf(&b, `
## Method

Figure = user and system time of the process under test, from /proc, divided by
the requests that were answered. %d rounds of %v, the rows interleaved within
each. One worker each: Envoy with --concurrency 1, ours with GOMAXPROCS=1.
%s
Proxies: wrk, %d kept connections, GET; both proxies run testdata/proxy.yaml.
The rate limiter counts in memory; every request of the second load was asked
about and answered. ratelimit alone: h2load, %d connections of %d streams.
Compare ratios of medians within one run; other runs are other weather.

- machine: %s, %d cores, %s; load average before the run %s
- %s
- backend: %s
- load: %s; %s
- built with %s
`,
		p.rounds, p.duration, pinning, wrkConnections, h2loadConnections, h2loadStreams,
		processor(), runtime.NumCPU(), kernel(), m.loadBefore,
		envoyVersion(t), m.backendIs,
		version(t, servicetest.Peer(t, "wrk", "WRK", "make peers"), "-v"),
		version(t, servicetest.Peer(t, "h2load", "H2LOAD", "make peers"), "--version"), runtime.Version())
	return b.String()
}

// envoyVersion is Envoy's number, which its version line has between slashes.
func envoyVersion(t testing.TB) string {
	t.Helper()
	parts := strings.Split(version(t, harness.EnvoyPath(t), "--version"), "/")
	require.GreaterOrEqual(t, len(parts), 4, "Envoy's version line")
	return "Envoy " + parts[len(parts)-4]
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
