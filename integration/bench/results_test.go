package bench

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// spread returns the least, the median and the most of some values.
func spread(values []float64) (least, median, most float64) {
	slices.Sort(values)
	return values[0], values[len(values)/2], values[len(values)-1]
}

// spread is that of one part of the scenario's samples.
func (s *scenario) spread(part func(sample) float64) (least, median, most float64) {
	var values []float64
	for _, one := range s.samples {
		values = append(values, part(one))
	}
	return spread(values)
}

// ratio is the median of the rounds' ratios of one part to that of another row;
// a dash without one, and where the other has nothing to speak of.
func (s *scenario) ratio(to *scenario, part func(sample) float64) string {
	if to == nil {
		return "–"
	}
	var values []float64
	for round, one := range s.samples {
		reference := part(to.samples[round])
		if reference < 0.1 {
			return "–"
		}
		values = append(values, part(one)/reference)
	}
	_, median, _ := spread(values)
	return fmt.Sprintf("%.2f", median)
}

// section writes a group's part of the page.
func section(t testing.TB, m *machine, p plan, g *group) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "Written by `make bench` on %s, at revision %s.\n\n", time.Now().UTC().Format("2006-01-02"), revision())
	head := []string{"load", "program", "CPU µs a request: min / **median** / max"}
	for _, name := range g.references {
		head = append(head, "of "+name)
	}
	head = append(head, g.beside+" CPU µs", "of "+g.references[0])
	if g.countsCommands() {
		head = append(head, "Redis' commands a request")
	}
	head = append(head, "requests/s", "memory, MB")
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row(head)
	fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(head)))
	for _, s := range g.scenarios {
		row(cells(t, g, s))
	}
	pinning := "Nothing is pinned."
	if m.taskset != "" {
		pinning = fmt.Sprintf("The program under test is pinned to core %d, all else to core %d.", m.measured, m.other)
	}
	fmt.Fprintf(&b, `
Figure = user and system time of the process under test, from /proc, divided by
the requests that were answered. %d rounds of %v, the rows interleaved within
each. %s
%s
Compare ratios within one run; other runs are other weather.

- machine: %s, %d cores, %s; load average before the run %s
`, p.rounds, p.duration, pinning, g.method, processor(), runtime.NumCPU(), kernel(), m.loadBefore)
	for _, line := range g.versions {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	return b.String()
}

// countsCommands says whether a process beside is a Redis.
func (g *group) countsCommands() bool {
	return slices.ContainsFunc(g.scenarios, func(s *scenario) bool { return isRedis(s.beside) })
}

// cells are those of one row.
func cells(t testing.TB, g *group, s *scenario) []string {
	t.Helper()
	cpu := func(s sample) float64 { return s.cpu }
	beside := func(s sample) float64 { return s.beside }
	least, median, most := s.spread(cpu)
	list := []string{s.title, s.program, fmt.Sprintf("%.1f / **%.1f** / %.1f", least, median, most)}
	for _, name := range g.references {
		list = append(list, s.ratio(s.against[name], cpu))
	}
	_, own, _ := s.spread(beside)
	_, commands, _ := s.spread(func(s sample) float64 { return s.commands })
	others := []string{fmt.Sprintf("%.1f", own), s.ratio(s.against[g.references[0]], beside)}
	if g.countsCommands() {
		others = append(others, fmt.Sprintf("%.2f", commands))
	}
	if s.beside == nil {
		for i := range others {
			others[i] = "–"
		}
	}
	_, rate, _ := s.spread(func(s sample) float64 { return s.rate })
	return append(append(list, others...), fmt.Sprintf("%.0f", rate), fmt.Sprint(residentMB(t, s.process)))
}

// replaceSection puts a group's text between its marks in the page, and leaves
// all else as it is, such as what was written by hand. An error says that the
// page has no such marks.
func replaceSection(page, name, text string) (string, error) {
	begin, end := "<!-- "+name+": written by make bench -->\n", "<!-- end of "+name+" -->\n"
	before, rest, begun := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return "", fmt.Errorf("no place for the results of %s: want the lines %q and %q", name, begin, end)
	}
	return before + begin + "\n" + text + "\n" + end + after, nil
}

func TestAGroupsResultsReplaceItsOwnSectionAlone(t *testing.T) {
	const page = "# Measured\n<!-- a: written by make bench -->\nold\n<!-- end of a -->\nby hand\n<!-- b: written by make bench -->\n<!-- end of b -->\n"
	got, err := replaceSection(page, "a", "new\n")
	require.NoError(t, err)
	require.Equal(t, "# Measured\n<!-- a: written by make bench -->\n\nnew\n\n<!-- end of a -->\nby hand\n<!-- b: written by make bench -->\n<!-- end of b -->\n", got)
	again, err := replaceSection(got, "a", "new\n")
	require.NoError(t, err)
	require.Equal(t, got, again)
	_, err = replaceSection(page, "c", "new\n")
	require.ErrorContains(t, err, "no place for the results of c")
}

func TestARatioIsTheMedianOfTheRounds(t *testing.T) {
	cpu := func(s sample) float64 { return s.cpu }
	of := func(values ...float64) *scenario {
		s := &scenario{}
		for _, v := range values {
			s.samples = append(s.samples, sample{cpu: v})
		}
		return s
	}
	require.Equal(t, "0.50", of(5, 20, 6).ratio(of(10, 20, 12), cpu))
	require.Equal(t, "–", of(5, 20).ratio(of(10, 0), cpu))
	require.Equal(t, "–", of(5).ratio(nil, cpu))
}
