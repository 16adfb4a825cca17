package bench

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
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
	if to == nil || len(to.samples) == 0 {
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

// request is the unit of most loads.
const request = "request"

// column is one column of the results.
type column struct {
	head string
	cell func(t testing.TB, s *scenario) string
}

// columns are those of a group's results.
func (g *group) columns() []column {
	cpu := func(s sample) float64 { return s.cpu }
	unit := request
	list := []column{
		{"load", func(_ testing.TB, s *scenario) string { return s.title }},
		{"program", func(_ testing.TB, s *scenario) string { return s.program }},
	}
	if slices.ContainsFunc(g.scenarios, func(s *scenario) bool { return s.unit != "" }) {
		unit = "unit"
		list = append(list, column{unit, func(_ testing.TB, s *scenario) string { return cmp.Or(s.unit, request) }})
	}
	list = append(list, column{"CPU µs a " + unit + ": min / **median** / max", func(_ testing.TB, s *scenario) string {
		least, median, most := s.spread(cpu)
		return fmt.Sprintf("%s / **%s** / %s", microseconds(least), microseconds(median), microseconds(most))
	}})
	for _, name := range g.references {
		list = append(list, column{"of " + name, func(_ testing.TB, s *scenario) string { return s.ratio(s.against[name], cpu) }})
	}
	if g.beside != "" {
		list = append(list, g.besideColumns()...)
	}
	if slices.ContainsFunc(g.scenarios, func(s *scenario) bool { return s.goal > 0 }) {
		list = append(list, goalColumns(unit)...)
	}
	return append(list,
		column{unit + "s/s", func(_ testing.TB, s *scenario) string {
			_, rate, _ := s.spread(func(s sample) float64 { return s.rate })
			return fmt.Sprintf("%.0f", rate)
		}},
		column{"memory, MB", func(t testing.TB, s *scenario) string { return fmt.Sprint(residentKB(t, s.process) / 1024) }},
	)
}

// besideColumns are about the processes beside.
func (g *group) besideColumns() []column {
	cpu := func(s sample) float64 { return s.beside }
	orDash := func(cell func(s *scenario) string) func(testing.TB, *scenario) string {
		return func(_ testing.TB, s *scenario) string {
			if s.beside == nil {
				return "–"
			}
			return cell(s)
		}
	}
	list := []column{
		{g.beside + " CPU µs", orDash(func(s *scenario) string {
			_, own, _ := s.spread(cpu)
			return fmt.Sprintf("%.1f", own)
		})},
		{"of " + g.references[0], orDash(func(s *scenario) string { return s.ratio(s.against[g.references[0]], cpu) })},
	}
	if slices.ContainsFunc(g.scenarios, func(s *scenario) bool { return isRedis(s.beside) }) {
		list = append(list, column{"Redis' commands a request", orDash(func(s *scenario) string {
			_, commands, _ := s.spread(func(s sample) float64 { return s.commands })
			return fmt.Sprintf("%.2f", commands)
		})})
	}
	return list
}

// goalColumns are how many units one core does, and what it is to do.
func goalColumns(unit string) []column {
	perCore := func(s *scenario) float64 {
		_, median, _ := s.spread(func(s sample) float64 { return s.cpu })
		return 1e6 / median
	}
	return []column{
		{unit + "s/s of one core", func(_ testing.TB, s *scenario) string { return thousands(perCore(s)) }},
		{"goal", func(_ testing.TB, s *scenario) string {
			if s.goal == 0 {
				return "–"
			}
			return "≥ " + thousands(s.goal) + ": " + verdict(perCore(s), s.goal, atLeast)
		}},
		{"reference", func(_ testing.TB, s *scenario) string { return cmp.Or(s.reference, "–") }},
	}
}

// atLeast and atMost are two kinds of goal.
const atLeast, atMost = true, false

// verdict says whether a value reaches a goal.
func verdict(value, goal float64, least bool) string {
	short := 1 - value/goal
	if !least {
		short = value/goal - 1
	}
	if short <= 0 {
		return "holds"
	}
	return fmt.Sprintf("misses by %.0f %%", math.Ceil(100*short))
}

// microseconds writes a time with as many digits as say something.
func microseconds(value float64) string {
	if value < 1 {
		return fmt.Sprintf("%.3f", value)
	}
	return fmt.Sprintf("%.1f", value)
}

// thousands writes a rate, which is rounded to a tenth of a percent or so, with
// commas.
func thousands(value float64) string {
	whole := strconv.Itoa(int(value))
	if len(whole) > 4 {
		whole = whole[:4] + strings.Repeat("0", len(whole)-4)
	}
	for at := len(whole) - 3; at > 0; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	return whole
}

// section writes a group's part of the page.
func section(t testing.TB, m *machine, p plan, g *group, figures []figure, tables []table) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "Written by `make bench` on %s, at revision %s.\n", time.Now().UTC().Format("2006-01-02"), revision())
	how := ""
	if len(g.scenarios) > 0 {
		g.loads(t).write(&b)
		how = fmt.Sprintf(`Figure = user and system time of the process under test, from /proc, divided by
the requests that were answered. %d rounds of %v, the rows interleaved within
each. `, p.rounds, p.duration)
	}
	writeFigures(&b, figures)
	for _, one := range tables {
		one.write(&b)
	}
	pinning := "Nothing is pinned."
	if m.taskset != "" {
		pinning = fmt.Sprintf("The program under test is pinned to core %d, all else to core %d.", m.measured, m.other)
	}
	fmt.Fprintf(&b, `
%s%s
%s
Compare ratios within one run; other runs are other weather.

- machine: %s, %d cores, %s; load average before the run %s
`, how, pinning, g.method, processor(), runtime.NumCPU(), kernel(), m.loadBefore)
	for _, line := range g.versions {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	return b.String()
}

// table is rows of results that have columns of their own.
type table struct {
	title string // may be empty
	head  []string
	rows  [][]string
}

// write writes a table in Markdown.
func (l table) write(b *strings.Builder) {
	b.WriteString("\n")
	if l.title != "" {
		fmt.Fprintf(b, "%s:\n\n", l.title)
	}
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(l.head, " | "), strings.Repeat("---|", len(l.head)))
	for _, row := range l.rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
}

// loads is the table of a group's scenarios.
func (g *group) loads(t testing.TB) (list table) {
	t.Helper()
	columns := g.columns()
	for _, c := range columns {
		list.head = append(list.head, c.head)
	}
	for _, s := range g.scenarios {
		var row []string
		for i, c := range columns {
			switch {
			case s.refused == "" || c.head == "load" || c.head == "program":
				row = append(row, c.cell(t, s))
			case i == 2:
				row = append(row, "not yet: "+s.refused)
			default:
				row = append(row, "–")
			}
		}
		list.rows = append(list.rows, row)
	}
	return list
}

// writeFigures writes a table of measurements that are made once; nothing
// without any.
func writeFigures(b *strings.Builder, figures []figure) {
	if len(figures) == 0 {
		return
	}
	b.WriteString("\n| measured once | | goal | reference |\n|---|---|---|---|\n")
	for _, f := range figures {
		value, goal := withUnit(fmt.Sprintf("%.3g", f.value), f.unit), "–"
		if f.goal > 0 {
			goal = "≤ " + withUnit(fmt.Sprint(f.goal), f.unit)
		}
		switch {
		case math.IsNaN(f.value):
			value = "not measured"
		case f.goal > 0:
			goal += ": " + verdict(f.value, f.goal, atMost)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", f.title, value, goal, cmp.Or(f.reference, "–"))
	}
}

// withUnit is a value and its unit, which may be empty.
func withUnit(value, unit string) string { return strings.TrimSpace(value + " " + unit) }

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

func TestAVerdictSaysByHowMuchAGoalIsMissed(t *testing.T) {
	require.Equal(t, "holds", verdict(25_000, 25_000, atLeast))
	require.Equal(t, "misses by 20 %", verdict(20_000, 25_000, atLeast))
	require.Equal(t, "holds", verdict(1.9, 2, atMost))
	require.Equal(t, "misses by 1 %", verdict(2.001, 2, atMost))
}

func TestNumbersAreWrittenWithTheDigitsThatSaySomething(t *testing.T) {
	require.Equal(t, "999", thousands(999.9))
	require.Equal(t, "25,120", thousands(25_123))
	require.Equal(t, "1,234,000", thousands(1_234_567))
	require.Equal(t, "0.312", microseconds(0.3123))
	require.Equal(t, "12.3", microseconds(12.34))
}
