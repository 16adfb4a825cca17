package bench

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// tables measures all parts. In each program's turn nothing is asked of the
// others.
func (x *xds) tables(t testing.TB, parts []part) []table {
	t.Helper()
	fanout := table{
		title: fmt.Sprintf("A service changes that all of %s streams subscribe to. %d changes: min / **median** / max", thousands(float64(x.streams)), x.waves),
		head: []string{"variant", "streams a connection", "program", "marked, or lock held, ms", "first client has it, ms", "all have it, ms",
			"the same less the debounce", "goal", "server's CPU µs a stream", "bytes a stream"},
	}
	memory := table{
		title: fmt.Sprintf("Memory of a stream with %d names", x.names),
		head:  []string{"streams a connection", "program", "kB a stream", "goal", "of that live heap", "of that stacks", "memory with all, MB"},
	}
	reconnect := table{
		title: fmt.Sprintf("%s streams connect at once, a connection each", thousands(float64(x.streams))),
		head:  []string{"program", "clients hold", "all have their answer, s", "streams begun again", "server's CPU, s", "MB received", "memory before, MB", "peak memory, MB"},
	}
	delays := table{
		title: fmt.Sprintf("From a change at the registry to the client, %s streams", thousands(float64(x.few))),
		head:  []string{"streams a connection", "the service is subscribed to by", "P50 less the debounce, ms", "P99 less the debounce, ms", "goal"},
	}
	restart := table{
		title: fmt.Sprintf("%s hosts of %d services restart within %v; %s streams", thousands(float64(x.restarts)), x.restarts/hostsPerService, x.restarting, thousands(float64(x.streams))),
		head:  []string{"debounce", "server's CPU, s", "responses a stream", "bytes a stream"},
	}
	for _, perConnection := range []int{1, x.dense} {
		ours := x.discovery(t, x.fleet)
		peer := x.linearCache(t, ours)
		programs := []*server{ours, peer}
		shape := crowdShape{streams: x.streams, perConnection: perConnection, names: x.names, delta: true}
		var crowds []*crowd
		for _, s := range programs {
			c, row := x.memory(t, s, shape)
			crowds, memory.rows = append(crowds, c), append(memory.rows, row)
		}
		fanout.rows = append(fanout.rows, x.fanout(t, programs, crowds)...)
		if perConnection == 1 {
			restart.rows = append(restart.rows, x.restart(t, ours, crowds[0], "100 ms; 200 ms for hosts that leave"))
			crowds[1].close()
			for _, one := range []struct {
				which   int
				holding string
			}{{0, nothing}, {0, allButOne}, {1, nothing}} {
				c, row := x.reconnect(t, programs[one.which], crowds[one.which], one.holding)
				crowds[one.which], reconnect.rows = c, append(reconnect.rows, row)
			}
		}
		shape.delta = false
		for i, s := range programs {
			crowds[i].close()
			crowds[i] = x.open(t, s, x.fleet, shape)
		}
		fanout.rows = append(fanout.rows, x.fanout(t, programs, crowds)...)
		for i := range crowds {
			crowds[i].close()
		}
		peer.process.Kill()
		delays.rows = append(delays.rows, x.delays(t, ours, crowdShape{x.few, perConnection, x.names, true, nil})...)
		ours.process.Kill()
	}
	free := x.discovery(t, x.fleet, "DISCOVERY_DEBOUNCE_QUIET=0s", "DISCOVERY_DEBOUNCE_LEAVING=0s", "DISCOVERY_DEBOUNCE_EMPTY=0s", "DISCOVERY_DEBOUNCE_LONGEST=0s", "DISCOVERY_XDS_FIRST_ANSWERS=0")
	free.name = "discovery, without its limit of 2,000 first answers a second"
	c := x.open(t, free, x.fleet, crowdShape{x.streams, 1, x.names, true, nil})
	restart.rows = append(restart.rows, x.restart(t, free, c, "none"))
	_, row := x.reconnect(t, free, c, nothing)
	reconnect.rows = append(reconnect.rows, row)
	free.process.Kill()
	return append([]table{fanout, memory, reconnect, delays, restart, x.growth(t)}, x.highest(t, parts)...)
}

// memory opens a crowd, and is a row about what it takes.
func (x *xds) memory(t testing.TB, s *server, shape crowdShape) (*crowd, []string) {
	t.Helper()
	// One has everything, so that what all share is there before.
	all := x.open(t, s, x.fleet, crowdShape{streams: 1, perConnection: 1, names: x.services, delta: true})
	stack := func() float64 { return fraction(t, s.process, "go_memstats_stack_inuse_bytes") }
	residentBefore, liveBefore := settled(t, s.process)
	stackBefore := stack()
	c := x.open(t, s, x.fleet, shape)
	resident, live := settled(t, s.process)
	all.close()
	perStream := func(bytes float64) float64 { return bytes / float64(shape.streams) / 1000 }
	const goal = 25
	value := perStream(resident - residentBefore)
	row := []string{
		fmt.Sprint(shape.perConnection), s.name, fmt.Sprintf("%.1f", value), "–",
		fmt.Sprintf("%.1f", perStream(live-liveBefore)), fmt.Sprintf("%.1f", perStream(stack()-stackBefore)), fmt.Sprintf("%.0f", resident/(1<<20)),
	}
	if s.changer != nil {
		row[3] = fmt.Sprintf("≤ %d kB: %s", goal, verdict(value, goal, atMost))
	}
	return c, row
}

// fanout changes the service that all streams subscribe to, in the programs in
// turn. It is a row for each.
func (x *xds) fanout(t testing.TB, programs []*server, crowds []*crowd) (rows [][]string) {
	t.Helper()
	type result struct{ marked, first, last, beyond, cpu, bytes []float64 }
	results := make([]result, len(programs))
	for range x.waves {
		for i, s := range programs {
			c, r := crowds[i], &results[i]
			idle(t, s.process)
			c.take()
			cpu, began := cpuTime(t, s.process), time.Now()
			s.change()
			c.await(t, "all streams have the change", func() bool { return c.tally.resources >= c.streams })
			got := c.take()
			idle(t, s.process)
			marked, waited := s.marking()
			milliseconds := func(d time.Duration) float64 { return d.Seconds() * 1000 }
			r.cpu = append(r.cpu, (cpuTime(t, s.process)-cpu).Seconds()*1e6/float64(c.streams))
			r.marked = append(r.marked, milliseconds(marked))
			r.first = append(r.first, milliseconds(got.first.Sub(began)))
			r.last = append(r.last, milliseconds(got.last.Sub(began)))
			r.beyond = append(r.beyond, milliseconds(got.last.Sub(began)-waited))
			r.bytes = append(r.bytes, float64(got.bytes)/float64(c.streams))
		}
	}
	const goal, markedGoal = 1000, 5
	for i, s := range programs {
		variant := "state of the world"
		if crowds[i].delta {
			variant = "delta"
		}
		r, goals := &results[i], "–"
		if s.changer != nil {
			_, marked, _ := spread(r.marked)
			_, beyond, _ := spread(r.beyond)
			goals = fmt.Sprintf("marked < %d ms: %s; all < %d ms: %s", markedGoal, verdict(marked, markedGoal, atMost), goal, verdict(beyond, goal, atMost))
		}
		rows = append(rows, []string{
			variant, fmt.Sprint(crowds[i].perConnection), s.name,
			spreadText(r.marked), spreadText(r.first), spreadText(r.last), spreadText(r.beyond), goals,
			spreadText(r.cpu), fmt.Sprintf("%.0f", r.bytes[0]),
		})
	}
	return rows
}

// spreadText writes the least, the median and the most of some values.
func spreadText(values []float64) string {
	least, median, most := spread(values)
	return fmt.Sprintf("%.3g / **%.3g** / %.3g", least, median, most)
}

// What the clients of a reconnect have from before.
const (
	nothing   = "nothing"
	allButOne = "all, one of which has changed"
)

// reconnect ends a crowd, and has one like it connect at once. It is a row.
func (x *xds) reconnect(t testing.TB, s *server, c *crowd, holding string) (*crowd, []string) {
	t.Helper()
	shape := c.crowdShape
	if holding == allButOne {
		shape.holding = c.versions
		first, _, _ := x.place(0)
		delete(shape.holding, first) // which is as good as a version that is old
	}
	c.close()
	idle(t, s.process)
	before := residentKB(t, s.process)
	resetPeak(t, s.process)
	cpu, began := cpuTime(t, s.process), time.Now()
	c = x.fleet.open(t, s.process.Addr("xds"), shape)
	c.awaitAll(t)
	got := c.take()
	idle(t, s.process)
	return c, []string{
		s.name, holding, fmt.Sprintf("%.2f", got.last.Sub(began).Seconds()), fmt.Sprint(got.again), fmt.Sprintf("%.2f", (cpuTime(t, s.process) - cpu).Seconds()),
		fmt.Sprint(got.bytes >> 20), fmt.Sprint(before / 1024), fmt.Sprint(peakKB(t, s.process) / 1024),
	}
}

// resetPeak makes the kernel forget how much memory a process once had.
func resetPeak(t testing.TB, p *harness.Process) {
	t.Helper()
	require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0o600))
}

// peakKB is the most memory that a process had, in kB.
func peakKB(t testing.TB, p *harness.Process) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	require.NoError(t, err)
	return find(t, string(text), `VmHWM:\s+(\d+) kB`)
}

// restart restarts hosts, of services in turn: each is gone for half a second,
// and comes back with another revision. It is a row.
func (x *xds) restart(t testing.TB, s *server, c *crowd, debounce string) []string {
	t.Helper()
	const away = 500 * time.Millisecond
	services := x.restarts / hostsPerService
	idle(t, s.process)
	c.take()
	cpu := cpuTime(t, s.process)
	perSecond := float64(x.restarts) / x.restarting.Seconds()
	behind := int(perSecond * away.Seconds()) // hosts that are gone at once
	host := func(n int) int { return n%services + n/services*x.services }
	paced(perSecond, x.restarting+away, func(n int, _ time.Time) {
		if n < x.restarts {
			s.changer.send(x.remove(host(n)))
		}
		if back := n - behind; back >= 0 && back < x.restarts {
			s.changer.send(x.put(host(back), longestTTL, x.revision(host(back)+1), 0))
		}
	})
	s.changer.settle()
	time.Sleep(time.Second) // longer than any change is kept for others
	idle(t, s.process)
	got := c.take()
	streams := float64(c.streams)
	return []string{
		debounce, fmt.Sprintf("%.2f", (cpuTime(t, s.process) - cpu).Seconds()),
		fmt.Sprintf("%.1f", float64(got.responses)/streams), fmt.Sprintf("%.0f", float64(got.bytes)/streams),
	}
}

// debounceQuiet is how long discovery keeps a change for others to come, unless
// told otherwise.
const debounceQuiet = 100 * time.Millisecond

// delays are rows about how long changes are under way.
func (x *xds) delays(t testing.TB, s *server, shape crowdShape) (rows [][]string) {
	t.Helper()
	c := x.open(t, s, x.fleet, shape)
	defer c.close()
	const goal = 150.0
	measure := func(who string, perSecond float64, service func(n int) int) {
		c.take()
		expected := 0
		paced(perSecond, x.changing, func(n int, due time.Time) {
			expected += c.change(s.changer, service(n), due)
		})
		c.await(t, "all changes are there", func() bool { return len(c.tally.delays) >= expected })
		s.changer.settle()
		p50, p99 := percentiles(c.take().delays)
		beyond := func(d time.Duration) float64 { return (d - debounceQuiet).Seconds() * 1000 }
		rows = append(rows, []string{
			fmt.Sprint(shape.perConnection), who, fmt.Sprintf("%.1f", beyond(p50)), fmt.Sprintf("%.1f", beyond(p99)),
			fmt.Sprintf("≤ %.0f ms: %s", goal, verdict(beyond(p99), goal, atMost)),
		})
	}
	const often, seldom = 20, 2
	measure(fmt.Sprintf("few; %d changes a second", often), often, func(n int) int { return 1 + n%(x.services-1) })
	measure(fmt.Sprintf("all; %d changes a second", seldom), seldom, func(int) int { return 0 })
	return rows
}

// change gives a service's first host another weight. It returns how many
// streams are to hear of it.
func (c *crowd) change(ch *changer, service int, due time.Time) (streams int) {
	name, _, _ := ch.fleet.place(service)
	c.announce(name, due)
	ch.reweigh(service)
	return c.subscribers[name]
}

// percentiles are the median and the 99th of a hundred; 0 of none.
func percentiles(list []time.Duration) (p50, p99 time.Duration) {
	if len(list) == 0 {
		return 0, 0
	}
	slices.Sort(list)
	return list[len(list)/2], list[min(len(list)-1, len(list)*99/100)]
}

// growth is what one change costs, by how many services there are.
func (x *xds) growth(t testing.TB) table {
	t.Helper()
	list := table{
		title: fmt.Sprintf("A change that %s streams are to hear of, %s streams a connection, among", thousands(float64(x.few)), fmt.Sprint(x.dense)),
		head:  []string{"services", "hosts", "server's CPU ms a change", "of that marking, ms"},
	}
	changes := 4 * x.waves
	for _, services := range []int{100, 1000, 10_000} {
		if services > x.services && services > 100 {
			break // too many for this scale
		}
		f := fleet{services: services}
		s := x.discovery(t, f)
		c := x.open(t, s, f, crowdShape{x.few, x.dense, x.names, true, nil})
		cpu, marked := cpuTime(t, s.process), fraction(t, s.process, "discovery_xds_mark_seconds_sum")
		for range changes {
			c.take()
			s.changer.reweigh(0)
			c.await(t, "all streams have the change", func() bool { return c.tally.resources >= c.streams })
		}
		idle(t, s.process)
		each := func(seconds float64) string { return fmt.Sprintf("%.3g", 1000*seconds/float64(changes)) }
		list.rows = append(list.rows, []string{
			thousands(float64(services)), thousands(float64(f.hosts())),
			each((cpuTime(t, s.process) - cpu).Seconds()), each(fraction(t, s.process, "discovery_xds_mark_seconds_sum") - marked),
		})
		c.close()
		s.process.Kill()
	}
	return list
}

// attempt is how a load of changes went.
type attempt struct {
	perSecond      float64 // changes
	delivered      float64 // a second
	p50, p99       time.Duration
	whole          bool    // all changes came to all
	busy, loadBusy float64 // share of a core, of the server and of the clients
}

// slowest is the P99 that a load may have.
const slowest = time.Second

func (a attempt) holds() bool { return a.whole && a.p99 < slowest }

// highest searches the highest load that holds. Its second table says what the
// time went into.
func (x *xds) highest(t testing.TB, parts []part) []table {
	t.Helper()
	found := table{
		title: fmt.Sprintf("The highest load of changes with a P99 < %v from the registry to the client, for %v", slowest, x.while),
		head:  []string{"streams", "a connection", "changes/s", "deliveries/s", "P50, ms", "P99, ms", "server's core", "clients' core", "memory, MB", "reference"},
	}
	shares := table{title: "What the server's time goes into at that load", head: []string{"part"}}
	for _, p := range parts {
		shares.rows = append(shares.rows, []string{p.name})
	}
	percent := func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
	for _, shape := range []crowdShape{{x.streams, 1, x.names, true, nil}, {x.many, x.dense, x.names, true, nil}} {
		// Clients that have as much to read as they can answer no ping in time.
		s := x.discovery(t, x.fleet, "DISCOVERY_XDS_MAX_STREAMS=1000000", "DISCOVERY_XDS_FIRST_ANSWERS=0", "DISCOVERY_XDS_KEEPALIVE=10m")
		c := x.open(t, s, x.fleet, shape)
		a, times, total := x.hold(t, s, c, x.search(t, s, c), parts)
		reference := "–"
		if shape.streams == x.many {
			reference = "LinkedIn's observer, one process, as published: 40,000 streams, 10,000 updates/s"
		}
		found.rows = append(found.rows, []string{
			thousands(float64(shape.streams)), fmt.Sprint(shape.perConnection), fmt.Sprintf("%.0f", a.perSecond), thousands(a.delivered),
			fmt.Sprint(a.p50.Milliseconds()), fmt.Sprintf("%d: %s", a.p99.Milliseconds(), verdict(a.p99.Seconds(), slowest.Seconds(), atMost)),
			percent(a.busy), percent(a.loadBusy), fmt.Sprint(residentKB(t, s.process) / 1024), reference,
		})
		shares.head = append(shares.head, fmt.Sprintf("%s streams, %d a connection", thousands(float64(shape.streams)), shape.perConnection))
		for i, p := range parts {
			shares.rows[i] = append(shares.rows[i], percent(times[p.name].Seconds()/total.Seconds()))
		}
		c.close()
		s.process.Kill()
	}
	return []table{found, shares}
}

// hold makes a load for longer than the search did, and less of it while it does
// not hold. It returns the last, with how the server's time divides.
func (x *xds) hold(t testing.TB, s *server, c *crowd, perSecond float64, parts []part) (a attempt, times map[string]time.Duration, total time.Duration) {
	t.Helper()
	const tries, less = 5, 0.75
	directory := cmp.Or(os.Getenv("PROFILE"), t.TempDir())
	require.NoError(t, os.MkdirAll(directory, 0o755))
	path := filepath.Join(directory, fmt.Sprintf("xds-%d-streams.prof", c.streams))
	for n := 0; n < tries && !a.holds(); n++ {
		fetched := make(chan error, 1)
		// Ends with the profile; the receive below waits for it.
		go func() { fetched <- fetchProfile(s.process.Addr("admin"), path, max(x.while/2, time.Second)) }()
		a = x.attempt(t, s, c, perSecond, x.while)
		require.NoError(t, <-fetched, "profile of %s", s.name)
		perSecond *= less
	}
	times, total = splitProfile(t, path, parts)
	return a, times, total
}

// search finds about the highest load that holds for a moment: by doubling it
// until one does not, and then by halving the gap.
func (x *xds) search(t testing.TB, s *server, c *crowd) (perSecond float64) {
	t.Helper()
	const enough = 1.25                                             // of the least that does not hold to the most that does
	low, high := 0.0, 0.0                                           // 0: not known
	next := 2000 * float64(x.services) / float64(c.streams*c.names) // about 2,000 deliveries a second
	for low == 0 || high == 0 || high/low > enough {
		if x.attempt(t, s, c, next, x.probe).holds() {
			low = next
		} else {
			high = next
		}
		switch {
		case testing.Short(), next < 1: // too little to search on
			return next
		case high == 0:
			next *= 2
		case low == 0:
			next /= 2
		default:
			next = (low + high) / 2
		}
	}
	return low
}

// attempt changes services in turn, so many a second for d, and waits until the
// clients have it all.
func (x *xds) attempt(t testing.TB, s *server, c *crowd, perSecond float64, d time.Duration) attempt {
	t.Helper()
	idle(t, s.process)
	c.take()
	expected := 0
	cpu, ours, began := cpuTime(t, s.process), servicetest.CPUTime(t), time.Now()
	paced(perSecond, d, func(_ int, due time.Time) {
		c.turn = c.turn%(x.services-1) + 1 // never the first, which is everybody's
		expected += c.change(s.changer, c.turn, due)
	})
	elapsed := time.Since(began).Seconds()
	a := attempt{perSecond: perSecond, busy: (cpuTime(t, s.process) - cpu).Seconds() / elapsed, loadBusy: (servicetest.CPUTime(t) - ours).Seconds() / elapsed}
	const patience = 10 * time.Second
	for waiting := time.Now(); !a.whole && time.Since(waiting) < patience; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		a.whole = len(c.tally.delays) >= expected
		c.mu.Unlock()
	}
	s.changer.settle()
	got := c.take()
	a.delivered = float64(len(got.delays)) / got.last.Sub(began).Seconds()
	a.p50, a.p99 = percentiles(got.delays)
	return a
}

func TestPercentilesAreOfTheSortedList(t *testing.T) {
	var list []time.Duration
	for i := range 200 {
		list = append(list, time.Duration(200-i))
	}
	p50, p99 := percentiles(list)
	require.Equal(t, time.Duration(101), p50)
	require.Equal(t, time.Duration(199), p99)
	p50, p99 = percentiles(list[:1])
	require.Equal(t, list[0], p50)
	require.Equal(t, list[0], p99)
}

func TestAProfileOfStreamsIsDividedByWhoAsked(t *testing.T) {
	const (
		shared = "github.com/weirproxy/weir/internal/"
		own    = "github.com/weirproxy/weir/services/discovery/internal/"
	)
	for want, frames := range map[string][]string{
		"taking changes (net/http, REST, registry)":                  {"runtime.mallocgc", own + "registry.(*Registry).Put", own + "rest/v2.(*face).put", "net/http.(*conn).serve"},
		"making resources, and marking":                              {"runtime.mallocgc", own + "resources.(*Maker).Make", own + "xds.(*hub).run"},
		"streams (the rest of internal/xds)":                         {"runtime.mapassign", own + "xds.(*stream).request", own + "xds.(*Server).receive"},
		"writing (internal/http2, system calls)":                     {"syscall.write", "net.(*conn).Write", shared + "http2.(*Conn).writeSome", shared + "http2.(*Stream).WriteData", shared + "grpchttp2.(*stream).send"},
		"reading, and who has a stream (the rest of internal/http2)": {"syscall.read", "net.(*conn).Read", shared + "http2.(*reader).fill", shared + "http2.(*Conn).Serve", shared + "grpchttp2.(*connection).serve"},
		"calls (internal/grpchttp2, protobuf)":                       {"google.golang.org/protobuf/proto.Marshal", shared + "grpchttp2.(*stream).SendMsg", own + "xds.(*sender).run"},
		"garbage collection":                                         {"runtime.scanobject", "runtime.gcBgMarkWorker"},
		"scheduler":                                                  {"runtime.futex", "runtime.mcall"},
		other:                                                        {"time.now", "main.main"},
	} {
		require.Equal(t, want, partOf(frames, xdsParts()))
	}
}
