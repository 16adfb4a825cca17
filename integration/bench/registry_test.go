package bench

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// floorHTTP is the column of the reference.
const floorHTTP = "floor"

// newRegistryGroup is discovery with many hosts, and net/http with a constant
// answer.
func newRegistryGroup(t testing.TB, m *machine) *group {
	t.Helper()
	wrk := servicetest.Peer(t, "wrk", "WRK", "make peers")
	f := fleet{services: 10_000}
	if testing.Short() {
		f.services = 1000
	}
	const longest = time.Hour // no host is to expire
	ofForms := m.start(t, m.measured, discoveryProgram(t, "HOST_TTL=3600"))
	ofJSON := m.start(t, m.measured, discoveryProgram(t))
	floor := m.start(t, m.measured, harness.HTTPFloorProgram(t, "GOMAXPROCS=1"))
	forms := f.formHeartbeats()
	send(t, ofForms.Addr("http"), forms, 0, want(t, http.StatusOK))
	leases := register(t, ofJSON, f, longest)

	g := &group{references: []string{floorHTTP}, parts: registryParts()}
	add := func(title, program string, p *harness.Process, next load) *scenario {
		s := &scenario{title: title, program: program, process: p, load: next, against: map[string]*scenario{}}
		s.profiled = p != floor
		g.scenarios = append(g.scenarios, s)
		return s
	}
	replay := func(p *harness.Process, connections int, calls [][]byte, status int) load {
		return m.replay(t, wrk, p.Addr("http"), connections, calls, status)
	}
	const ours = "discovery"

	least := add("v1 heartbeats, answered without a look", floorHTTP, floor, replay(floor, wrkConnections, forms, http.StatusOK))
	s := add("v1 heartbeats", ours, ofForms, beating(ofForms, 1, replay(ofForms, wrkConnections, forms, http.StatusOK)))
	s.against[floorHTTP], s.goal, s.reference = least, 25_000, "r-nacos over HTTP, as published: 48,000"
	s = add("v2 heartbeats, one host each", ours, ofJSON, beating(ofJSON, 1, replay(ofJSON, wrkConnections, f.heartbeats(), http.StatusNoContent)))
	s.against[floorHTTP] = least

	const ofV1, ofV2, known = "/v1/registration/%s", "/v2/services/%s/hosts", "If-None-Match: *"
	// asLong is the floor of lists: an answer as long as the first of p, without a look.
	asLong := func(title string, p *harness.Process, lists [][]byte) *scenario {
		length := 0
		send(t, p.Addr("http"), lists[:1], 0, func(_, _ int, body []byte) { length = len(body) })
		return add(title, floorHTTP, floor, replay(floor, wrkConnections, f.lists(fmt.Sprintf("/bytes/%d/", length)+"%s"), http.StatusOK))
	}
	leastOfV1 := asLong("v1 list of 10 hosts, answered without a look", ofForms, f.lists(ofV1))
	s = add("v1 list of 10 hosts", ours, ofForms, replay(ofForms, wrkConnections, f.lists(ofV1), http.StatusOK))
	s.against[floorHTTP], s.goal = leastOfV1, 30_000
	s = add("v1 list that the caller has", ours, ofForms, replay(ofForms, wrkConnections, f.lists(ofV1, known), http.StatusNotModified))
	s.against[floorHTTP] = least
	leastOfV2 := asLong("v2 list of 10 hosts, answered without a look", ofJSON, f.lists(ofV2))
	s = add("v2 list of 10 hosts", ours, ofJSON, replay(ofJSON, wrkConnections, f.lists(ofV2), http.StatusOK))
	s.against[floorHTTP], s.goal = leastOfV2, 30_000

	s = add("v2 heartbeats, 10,000 hosts a call", ours, ofJSON, beating(ofJSON, leasesPerCall, replay(ofJSON, 1, bulks(leases, leasesPerCall), http.StatusOK)))
	s.unit, s.goal = "host", 1_000_000
	s = add("gRPC stream of 10,000 hosts a message", ours, ofJSON, beating(ofJSON, 1, streamed(ofJSON, numbers(t, leases[:leasesPerCall]))))
	s.unit, s.goal = "host", 1_000_000

	g.figures = func(t testing.TB, p plan) []figure { return registryFigures(t, m, f, 4*p.once) }
	g.method = fmt.Sprintf(`%d hosts of %d services. One core each: GOMAXPROCS=1. wrk, %d kept connections,
calls of all hosts or services in turn, one connection for those of 10,000 hosts
each; the stream's client is grpc-go. What one core does is a second by the
median. Before each load some answers are looked at; that every beat was taken,
and none registered a host anew, is read off the metrics. The floor is net/http
with a handler that reads the body and answers {}; for lists, as many bytes as
they have, with the same header. Memory is resident memory
with the hosts, less that before them, both when garbage was collected; the
service's own is in it. The steady load is 1,000 hosts a call, ten calls a
second, for as long as four rounds. Redis has the load's core for company. A
restart is from the start of the process until it says that it is ready.`, f.hosts(), f.services, wrkConnections)
	g.versions = []string{
		"Redis: " + version(t, harness.RedisProgram(t).Path, "--version"),
		"load: " + version(t, wrk, "-v"),
		"built with " + runtime.Version(),
	}
	return g
}

// discoveryProgram is discovery on one core, without a line of log a host, that
// answers readers at once though it restored no host.
func discoveryProgram(t testing.TB, settings ...string) harness.Program {
	t.Helper()
	return harness.DiscoveryProgram(t, append([]string{"GOMAXPROCS=1", "DISCOVERY_LOG_LEVEL=warn", "DISCOVERY_WARM_UP=0s"}, settings...)...)
}

// numbers are leases as gRPC has them.
func numbers(t testing.TB, leases []string) []uint64 {
	t.Helper()
	list := make([]uint64, len(leases))
	for i, text := range leases {
		number, err := strconv.ParseUint(text, 16, 64)
		require.NoError(t, err)
		list[i] = number
	}
	return list
}
