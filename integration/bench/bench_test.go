// Package bench measures the built binaries under load, beside other people's
// programs in the same run, and writes what it found to RESULTS.md. make bench
// runs it. It wants no figure to be better than another: only broken answers
// fail it.
package bench

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// plan is how much is measured.
type plan struct {
	rounds   int
	warmUp   time.Duration // one load of each scenario that is not counted; may be 0
	duration time.Duration // of one load; like warmUp in whole seconds
	once     time.Duration // of a load that there are no rounds of, likewise
}

// group is the scenarios of one service and one section of the results.
type group struct {
	// references are the programs that the others are held against, as the
	// results' columns name them.
	references []string
	// beside is whose CPU time the processes beside are, as the column says it;
	// empty if there are none.
	beside    string
	scenarios []*scenario // in the order of the rows; those of one load together
	// figures, unless nil, measures what is no load, after all loads.
	figures func(t testing.TB, p plan) []figure
	// tables, unless nil, likewise, where results have columns of their own.
	tables   func(t testing.TB) []table
	parts    []part   // of the programs' profiles
	method   string   // how these loads are made, in Markdown
	versions []string // of the programs, one a line
}

// scenario is one row of the results: a load on one process, whose CPU time is
// counted.
type scenario struct {
	title, program string
	process        *harness.Process
	load           load
	// also are processes whose CPU time is counted with that one's; may be nil.
	also []*harness.Process
	// refused is why the program can't run the load yet; its row says so, and has
	// no figures. Empty if it can.
	refused string
	// beside is another process whose CPU time is of interest, and its commands
	// if it is a Redis; may be nil.
	beside *harness.Process
	// against has, for some of the group's references, the row that this one is
	// held against.
	against map[string]*scenario
	// unit is what the load counts, in the singular; a request if it is empty.
	unit string
	// goal is how many units a second one core is to do; 0 for no goal.
	goal float64
	// reference is what others are known to do; may be empty.
	reference string
	// profiled asks for a CPU profile from the admin listener, if profiles are
	// taken at all.
	profiled bool

	samples []sample // one of each round
}

// load runs for a duration and returns how many requests were answered, or other
// units of the scenario; any that was not answered well fails the test.
type load func(t testing.TB, d time.Duration) (units int)

// figure is a measurement that is made once.
type figure struct {
	title string
	value float64 // NaN if it was not measured
	unit  string  // of value and goal; may be empty
	goal  float64 // what value is at most; 0 for no goal
	// reference is what others are known to do; may be empty.
	reference string
}

// groups are made when they are measured: each starts its programs.
var groups = map[string]func(t testing.TB, m *machine) *group{
	"proxy":     newProxyGroup,
	"ratelimit": newRatelimitGroup,
	"registry":  newRegistryGroup,
	"xds":       newXDSGroup,
}

// BenchmarkScenarios runs once: -benchtime 1x. The variable SCENARIO names the
// one group to run, all without it; PROFILE a directory for CPU profiles. With
// -short it shows that the scenarios work and keeps nothing.
func BenchmarkScenarios(b *testing.B) {
	chosen := slices.Sorted(maps.Keys(groups))
	if name := os.Getenv("SCENARIO"); name != "" {
		require.Contains(b, chosen, name, "SCENARIO")
		chosen = []string{name}
	}
	for _, name := range chosen {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				run(b, name)
			}
		})
	}
}

func run(t testing.TB, name string) {
	t.Helper()
	p := plan{rounds: 15, warmUp: time.Second, duration: time.Second, once: 3 * time.Second}
	if testing.Short() {
		p = plan{rounds: 1, duration: time.Second, once: time.Second}
	}
	m := newMachine(t)
	g := groups[name](t, m)
	if p.warmUp > 0 { // connections, caches and heaps get their size
		for _, s := range g.running() {
			s.load(t, p.warmUp)
		}
	}
	for round := range p.rounds {
		// Interleaved, so that what else the machine does falls on all alike, and to and
		// fro, so that nothing comes always behind the same other load. Many short rounds
		// tell more than few long ones: neighbours change within seconds.
		rows := g.running()
		if round%2 == 1 {
			slices.Reverse(rows)
		}
		for _, s := range rows {
			s.samples = append(s.samples, measure(t, s, p.duration))
		}
	}
	var figures []figure
	if g.figures != nil {
		figures = g.figures(t, p)
	}
	var tables []table
	if g.tables != nil {
		tables = g.tables(t)
	}
	text := section(t, m, p, g, figures, tables)
	fmt.Println(text)
	if directory := os.Getenv("PROFILE"); directory != "" {
		for _, s := range g.scenarios {
			if s.profiled {
				fmt.Println(profile(t, s, g.parts, directory, 2*p.once))
			}
		}
	}
	if testing.Short() {
		return // too little to be kept
	}
	const path = "RESULTS.md"
	page, err := os.ReadFile(path)
	require.NoError(t, err)
	replaced, err := replaceSection(string(page), name, text)
	require.NoError(t, err, path)
	require.NoError(t, os.WriteFile(path, []byte(replaced), 0o644))
}

// running are the scenarios that can run.
func (g *group) running() []*scenario {
	return slices.DeleteFunc(slices.Clone(g.scenarios), func(s *scenario) bool { return s.refused != "" })
}

func port(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return port
}

// machine is where the measurement runs: two cores.
type machine struct {
	taskset string // empty: nothing is pinned
	// measured is the core of the program under test, other that of all else.
	measured, other int
	loadBefore      string // load average when the run began
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{measured: 0, other: 1, loadBefore: loadAverage()}
	if path, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() >= 2 {
		m.taskset = path
	}
	return m
}

// start starts a program on a core.
func (m *machine) start(t testing.TB, core int, program harness.Program) *harness.Process {
	t.Helper()
	if m.taskset != "" {
		program = program.Pinned(m.taskset, core)
	}
	return harness.Start(t, program)
}
