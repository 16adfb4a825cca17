package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/integration/harness"
)

// xdsScale is how much is measured of xDS.
type xdsScale struct {
	fleet
	names int // that each stream subscribes to
	dense int // streams of a connection, where many share one

	streams int // of most parts
	waves   int // changes of a service that all streams subscribe to

	few      int           // streams of which delays and growth are measured
	changing time.Duration // of each load of which delays are measured

	restarts   int // hosts that restart, in so long
	restarting time.Duration

	many         int           // streams at the highest load, where many share a connection
	probe, while time.Duration // of each step of the search, and that it has to be held
}

func newXDSScale() xdsScale {
	if testing.Short() {
		return xdsScale{
			fleet: fleet{services: 300}, names: 20, dense: 50,
			streams: 100, waves: 1, few: 50, changing: time.Second / 2,
			restarts: 20, restarting: time.Second,
			many: 200, probe: 300 * time.Millisecond, while: time.Second,
		}
	}
	return xdsScale{
		fleet: fleet{services: 10_000}, names: 50, dense: 100,
		streams: 5000, waves: 5, few: 1000, changing: 10 * time.Second,
		restarts: 1000, restarting: time.Minute,
		many: 40_000, probe: 8 * time.Second, while: time.Minute,
	}
}

// newXDSGroup is discovery with many clients of its xDS, and go-control-plane's
// server with its LinearCache.
func newXDSGroup(t testing.TB, m *machine) *group {
	t.Helper()
	x := &xds{xdsScale: newXDSScale(), machine: m}
	m.keep(t)
	raiseFiles(t, x.streams+1000)
	g := &group{parts: xdsParts()}
	g.tables = func(t testing.TB) []table { return x.tables(t, g.parts) }
	g.method = fmt.Sprintf(`%d hosts of %d services. One core each: GOMAXPROCS=1, and the clients with
another; they are grpc-go's streams in the process of the benchmark, answer each
response with an ACK and read no more of it than that wants. A stream subscribes
to endpoints by the aggregated service: to a service that all of them subscribe
to and %d others, at random but the same in each run. LinearCache is
go-control-plane's server with its cache of that name, a program of its own with
the same endpoints, to the byte; the changes of both take turns. Times end when
a client's goroutine has the response, which is later than the byte is there. A
change is another weight of a host. Marked is how long discovery takes to tell
which streams are shown the service, by its own metric; LinearCache does that and
all of the answering under a lock, and for so long it was held. Memory of a
stream is resident memory with them, less that before, both when garbage was
collected, and when one client already had all resources.`, x.hosts(), x.services, x.names-1)
	g.versions = []string{
		"LinearCache: go-control-plane " + moduleVersion(t, "github.com/envoyproxy/go-control-plane"),
		"clients: grpc-go " + grpc.Version,
		"built with " + runtime.Version(),
	}
	return g
}

// moduleVersion is the version of a module that the benchmark's module requires.
func moduleVersion(t testing.TB, path string) string {
	t.Helper()
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path).Output()
	require.NoError(t, err, path)
	return strings.TrimSpace(string(text))
}

// keep makes this process, in which the clients are, do with the core that is
// not measured until the test ends, and collect garbage less often.
func (m *machine) keep(t testing.TB) {
	t.Helper()
	percent := debug.SetGCPercent(200)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	if m.taskset == "" {
		return
	}
	pid := strconv.Itoa(os.Getpid())
	taskset := func(arguments ...string) string {
		text, err := exec.Command(m.taskset, arguments...).CombinedOutput()
		require.NoError(t, err, "taskset: %s", text)
		return string(text)
	}
	_, cores, _ := strings.Cut(taskset("--pid", "--cpu-list", pid), "list: ")
	taskset("--all-tasks", "--pid", "--cpu-list", strconv.Itoa(m.other), pid)
	processors := runtime.GOMAXPROCS(1)
	t.Cleanup(func() {
		taskset("--all-tasks", "--pid", "--cpu-list", strings.TrimSpace(cores), pid)
		runtime.GOMAXPROCS(processors)
	})
}

// raiseFiles lets this process, and those that it starts, have so many files
// open.
func raiseFiles(t testing.TB, n int) {
	t.Helper()
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur >= uint64(n) {
		return
	}
	limit.Cur, limit.Max = uint64(n), max(limit.Max, uint64(n))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit), "%d open files: ulimit -n says fewer", n)
}

// xds measures discovery's xDS.
type xds struct {
	xdsScale
	machine *machine
}

// server is an xDS server with the endpoints of all services.
type server struct {
	name    string
	process *harness.Process
	// change makes the first service other than it was.
	change func()
	// marking is how long that took to mark streams, or held a lock; waited is
	// how long it was kept for others to come.
	marking func() (marked, waited time.Duration)
	changer *changer // discovery's alone
}

// longestTTL is that of the hosts: none is to expire.
const longestTTL = time.Hour

// discovery starts discovery with settings and a fleet.
func (x *xds) discovery(t testing.TB, f fleet, settings ...string) *server {
	t.Helper()
	p := x.machine.start(t, x.machine.measured, discoveryProgram(t, settings...))
	register(t, p, f, longestTTL)
	s := &server{name: "discovery", process: p, changer: newChanger(t, p, f)}
	var marked, waited float64
	total := func(of string) float64 { return fraction(t, p, "discovery_xds_"+of+"_seconds_sum") }
	s.change = func() {
		marked, waited = total("mark"), total("debounce")
		s.changer.reweigh(0)
	}
	s.marking = func() (time.Duration, time.Duration) {
		return toDuration(total("mark") - marked), toDuration(total("debounce") - waited)
	}
	return s
}

func toDuration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// linearCache starts go-control-plane's server with the endpoints that a
// discovery shows.
func (x *xds) linearCache(t testing.TB, of *server) *server {
	t.Helper()
	p := x.machine.start(t, x.machine.measured, harness.LinearCacheProgram(t, "GOMAXPROCS=1"))
	one := assignments(t, of.process.Addr("xds"), x.subscribedBy(0, 1))
	of.change()
	var other []byte
	for other = one; string(other) == string(one); { // until the change is there
		other = assignments(t, of.process.Addr("xds"), x.subscribedBy(0, 1))
	}
	post := func(message []byte) time.Duration {
		answer, err := http.Post("http://"+p.Addr("admin")+"/assignments", "application/x-protobuf", strings.NewReader(string(message)))
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.StatusCode, "%s", text)
		took, err := strconv.Atoi(strings.TrimSpace(string(text)))
		require.NoError(t, err)
		return time.Duration(took)
	}
	post(assignments(t, of.process.Addr("xds"), x.subscribedBy(0, x.services)))
	s := &server{name: "LinearCache", process: p}
	var locked time.Duration
	s.change = func() {
		locked = post(one)
		one, other = other, one
	}
	s.marking = func() (marked, waited time.Duration) { return locked, 0 }
	return s
}

// assignments are those of names, as an xDS server has them: a DiscoveryResponse.
func assignments(t testing.TB, address string, names []string) []byte {
	t.Helper()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	require.NoError(t, err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(connection).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoverypb.DiscoveryRequest{TypeUrl: endpointsURL, ResourceNames: names}))
	var all []*anypb.Any
	for len(all) < len(names) {
		answer, err := stream.Recv()
		require.NoError(t, err, "%d of %d assignments came", len(all), len(names))
		all = append(all, answer.GetResources()...)
		require.NoError(t, stream.Send(&discoverypb.DiscoveryRequest{
			TypeUrl: endpointsURL, ResourceNames: names, VersionInfo: answer.GetVersionInfo(), ResponseNonce: answer.GetNonce(),
		}))
	}
	message, err := proto.Marshal(&discoverypb.DiscoveryResponse{Resources: all})
	require.NoError(t, err)
	return message
}

// idle waits until a program does nothing any more, such as read ACKs.
func idle(t testing.TB, p *harness.Process) {
	t.Helper()
	const patience = time.Minute
	look := 100 * time.Millisecond
	if testing.Short() {
		look = 2 * clockTick
	}
	last := cpuTime(t, p)
	for range int(patience / look) {
		time.Sleep(look)
		now := cpuTime(t, p)
		if now-last <= clockTick {
			return
		}
		last = now
	}
	require.FailNow(t, "not idle", "%s after %v", p.Program.Name, patience)
}

// open makes a crowd of a server, whose clients have all that they subscribe to.
func (x *xds) open(t testing.TB, s *server, f fleet, shape crowdShape) *crowd {
	t.Helper()
	c := f.open(t, s.process.Addr("xds"), shape)
	c.awaitAll(t)
	idle(t, s.process)
	return c
}
