package hds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// rulesText has hosts of services that begin with users checked by three, two of
// which must find one unhealthy. Their patience is three seconds.
const rulesText = `
interval: 2s
services:
- {service: "users*", health_checks: [{timeout: 1s, interval: 2s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}
`

// recorder keeps the messages of what is logged.
type recorder struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *recorder) Handle(_ context.Context, one slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, one.Message)
	return nil
}

func (r *recorder) count(line string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.lines {
		if one == line {
			n++
		}
	}
	return n
}

// fixture is a server beside a registry.
type fixture struct {
	*Server
	t     testing.TB
	hosts *registry.Registry
	file  string
	log   *recorder
}

// newFixture makes one that does not run.
func newFixture(t testing.TB, rules string) *fixture {
	t.Helper()
	f := &fixture{t: t, hosts: registrytest.Loaded(t), file: filepath.Join(t.TempDir(), "hds.yaml"), log: &recorder{Handler: slog.DiscardHandler}}
	write(t, f.file, rules)
	var err error
	f.Server, err = New(Options{
		Registry: f.hosts, File: filewatch.File{Setting: "HDS_FILE", Path: f.file}, Poll: 10 * time.Second, MaxCheckers: 4, MaxShare: 0.5,
		Refusal: func(err error) error { return err }, Log: slog.New(f.log), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	return f
}

// run runs the server until the test ends, but for its file: in a bubble nothing
// may wait for the file system.
func (f *fixture) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	// Ends with ctx; the cleanup waits for it.
	running.Go(func() { f.planAndJudge(ctx) })
	f.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// register registers host n of a service, at 10.0.0.n:80.
func (f *fixture) register(service string, n int, changes ...func(*registry.Host)) {
	f.t.Helper()
	h := registry.Host{
		Key: registry.Key{Service: service, ID: fmt.Sprint(n)}, Address: hostAddress(n), TTL: time.Hour,
		Tags: registry.Tags{Region: "eu", Zone: fmt.Sprint("eu-", n%2)},
	}
	for _, change := range changes {
		change(&h)
	}
	_, err := f.hosts.Put(h, "tester")
	require.NoError(f.t, err)
}

func hostAddress(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80)
}

// unhealthy is the ids of the hosts of users that are marked, in order.
func (f *fixture) unhealthy() []string {
	list, err := f.hosts.List("users")
	require.NoError(f.t, err)
	ids := []string{}
	for _, v := range list.Hosts {
		if v.Unhealthy {
			ids = append(ids, v.Host.ID)
		}
	}
	return ids
}

// connect has a checker join whose messages nobody but the test reads.
func (f *fixture) connect(id string) *checker {
	f.t.Helper()
	c := newChecker(&auth.Caller{})
	require.NoError(f.t, f.join(c, &healthv3.HealthCheckRequest{Node: &corev3.Node{Id: id}}, time.Now()))
	return c
}

// reportOf is a report of hosts of users by their numbers.
func reportOf(found map[int]corev3.HealthStatus) *healthv3.EndpointHealthResponse {
	var list []*healthv3.EndpointHealth
	for _, n := range slices.Sorted(maps.Keys(found)) {
		list = append(list, &healthv3.EndpointHealth{HealthStatus: found[n], Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: hostAddress(n).Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}}},
		}})
	}
	return &healthv3.EndpointHealthResponse{ClusterEndpointsHealth: []*healthv3.ClusterEndpointsHealth{{
		ClusterName: "users", LocalityEndpointsHealth: []*healthv3.LocalityEndpointsHealth{{EndpointsHealth: list}},
	}}}
}

const (
	healthy  = corev3.HealthStatus_HEALTHY
	sick     = corev3.HealthStatus_UNHEALTHY
	timedOut = corev3.HealthStatus_TIMEOUT
)

// say has checkers report all of their hosts every two seconds for a while: found,
// and the others as healthy.
func (f *fixture) say(d time.Duration, found map[int]corev3.HealthStatus, by ...*checker) {
	all := map[int]corev3.HealthStatus{}
	for n := 1; n <= 10; n++ {
		all[n] = healthy
	}
	maps.Copy(all, found)
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, c := range by {
			f.toSend(c, time.Now())
			f.take(c, reportOf(all), time.Now())
		}
		time.Sleep(2 * time.Second)
	}
	synctest.Wait()
}

// inBubble runs a test with four hosts of users and three checkers that have
// found all of them healthy.
func inBubble(t *testing.T, test func(f *fixture, a, b, c *checker)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, rulesText)
		f.run()
		for n := 1; n <= 4; n++ {
			f.register("users", n)
		}
		a, b, c := f.connect("a"), f.connect("b"), f.connect("c")
		f.say(8*time.Second, nil, a, b, c)
		require.Empty(t, f.unhealthy())
		test(f, a, b, c)
	})
}

func TestAHostIsUnhealthyWhenEnoughOfItsCheckersSaySo(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, c *checker) {
		found := func(status corev3.HealthStatus, by ...*checker) []string {
			for _, one := range by {
				f.take(one, reportOf(map[int]corev3.HealthStatus{1: status}), time.Now())
			}
			synctest.Wait()
			return f.unhealthy()
		}
		require.Empty(f.t, found(sick, a))
		require.Equal(f.t, []string{"1"}, found(timedOut, b))
		require.Equal(f.t, []string{"1"}, found(sick, c))
		require.Equal(f.t, []string{"1"}, found(healthy, a))
		require.Empty(f.t, found(healthy, b))
		require.InDelta(f.t, 2, testutil.ToFloat64(f.metrics.verdicts), 0)

		history, err := f.hosts.History("users")
		require.NoError(f.t, err)
		require.Equal(f.t, registry.Healed, history[len(history)-1].Kind)
		require.Equal(f.t, "health checkers", history[len(history)-1].Actor)
	})
}

func TestTheOlderFormOfReportsIsTakenToo(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, _ *checker) {
		flat := &healthv3.EndpointHealthResponse{
			//nolint:staticcheck // deprecated, but it is what older checkers say
			EndpointsHealth: reportOf(map[int]corev3.HealthStatus{2: sick}).ClusterEndpointsHealth[0].LocalityEndpointsHealth[0].EndpointsHealth,
		}
		f.take(a, flat, time.Now())
		f.take(b, flat, time.Now())
		synctest.Wait()
		require.Equal(f.t, []string{"2"}, f.unhealthy())
	})
}

func TestACheckerThatIsGoneOrSilentNoLongerCounts(t *testing.T) {
	oneSick := map[int]corev3.HealthStatus{1: sick}
	inBubble(t, func(f *fixture, a, b, c *checker) {
		f.say(2*time.Second, oneSick, a, b)
		require.Equal(f.t, []string{"1"}, f.unhealthy())
		f.say(2*time.Second, oneSick, a, b)
		f.leave(b)
		f.say(2*time.Second, nil, c)
		require.Empty(f.t, f.unhealthy(), "one of two that are left")
		f.say(4*time.Second, oneSick, a)
		require.Empty(f.t, f.unhealthy(), "the other says that it is well, and was heard lately")
		f.say(6*time.Second, oneSick, a)
		require.Equal(f.t, []string{"1"}, f.unhealthy(), "one of the one that is left")
		require.Equal(f.t, 1, f.log.count("health checker silent, what it found no longer counts"))
		f.say(8*time.Second, nil)
		require.Empty(f.t, f.unhealthy(), "nobody is left")
		require.Zero(f.t, testutil.ToFloat64(f.metrics.hosts))
		f.say(2*time.Second, nil, a, c)
		f.say(8*time.Second, oneSick, a, c)
		require.Equal(f.t, []string{"1"}, f.unhealthy(), "both are heard again")
		require.Equal(f.t, 2, f.log.count("health checker heard again"))
	})
}

func TestNoneIsMarkedWhereMoreAreUnhealthyThanCanBeBelieved(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, c *checker) {
		f.say(4*time.Second, map[int]corev3.HealthStatus{1: sick, 2: sick}, a, b, c)
		require.Equal(f.t, []string{"1", "2"}, f.unhealthy())
		require.InDelta(f.t, 2, testutil.ToFloat64(f.metrics.unhealthy), 0)
		f.say(10*time.Second, map[int]corev3.HealthStatus{1: sick, 2: sick, 3: sick}, a, b, c)
		require.Empty(f.t, f.unhealthy())
		require.InDelta(f.t, 1, testutil.ToFloat64(f.metrics.suspended), 0)
		f.say(4*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Equal(f.t, []string{"1"}, f.unhealthy())
		require.Zero(f.t, testutil.ToFloat64(f.metrics.suspended))
		require.Equal(f.t, 1, f.log.count("more hosts are found unhealthy than can be believed, none is marked"))
		require.Equal(f.t, 1, f.log.count("unhealthy hosts are marked again"))
	})
}

func TestACheckerHasTheTimeForItsFirstCheck(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, c *checker) {
		f.register("users", 5)
		found := map[int]corev3.HealthStatus{5: sick}
		f.say(4*time.Second, found, a, b, c) // one second until it is told, three of patience
		require.Empty(f.t, f.unhealthy())
		f.say(2*time.Second, found, a, b, c)
		require.Equal(f.t, []string{"5"}, f.unhealthy())
	})
}

func TestHostsThatDoNotServeAreNotCheckedAndTheirVerdictEnds(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, c *checker) {
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Equal(f.t, []string{"1"}, f.unhealthy())
		f.register("users", 1, func(h *registry.Host) { h.Draining = true })
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Empty(f.t, f.unhealthy())
		require.Len(f.t, a.specifier.ClusterHealthChecks[0].LocalityEndpoints, 2)
		require.InDelta(f.t, 3, testutil.ToFloat64(f.metrics.hosts), 0)

		for n := 1; n <= 4; n++ {
			_, err := f.hosts.Remove(registry.Selection{Service: "users", ID: fmt.Sprint(n)}, "tester")
			require.NoError(f.t, err)
		}
		f.say(2*time.Second, nil, a, b, c)
		require.Empty(f.t, a.specifier.ClusterHealthChecks)
		require.Empty(f.t, f.plans)
		require.Empty(f.t, a.may)
	})
}

func TestAHostThatCameAnewIsNotWhatItWas(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, c *checker) {
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Equal(f.t, []string{"1"}, f.unhealthy())
		_, err := f.hosts.Remove(registry.Selection{Service: "users", ID: "1"}, "tester")
		require.NoError(f.t, err)
		f.register("users", 1)
		require.Empty(f.t, f.unhealthy())
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Equal(f.t, []string{"1"}, f.unhealthy(), "those who check it say the same of what is there now")
	})
}

func TestCheckersAreToldOnlyWhatIsNew(t *testing.T) {
	inBubble(t, func(f *fixture, a, _, _ *checker) {
		told := testutil.ToFloat64(f.metrics.specifiers)
		f.register("users", 1, func(h *registry.Host) { h.Revision = "r2" })
		f.register("orders", 1)
		time.Sleep(2 * time.Second)
		require.Nil(t, f.toSend(a, time.Now()))
		f.register("users", 9)
		time.Sleep(500 * time.Millisecond)
		require.Nil(t, f.toSend(a, time.Now()), "it waits for more")
		f.register("users-eu", 7, func(h *registry.Host) { h.Ports = []registry.Port{{Name: "health", Number: 81}} })
		time.Sleep(600 * time.Millisecond)
		m := f.toSend(a, time.Now())
		require.Len(t, m.ClusterHealthChecks, 2)
		require.Equal(t, 2*time.Second, m.Interval.AsDuration())
		require.Equal(t, "users", m.ClusterHealthChecks[0].ClusterName)
		require.Len(t, m.ClusterHealthChecks[0].HealthChecks, 1)
		require.Equal(t, "eu-1", m.ClusterHealthChecks[0].LocalityEndpoints[0].Locality.Zone)
		require.Len(t, m.ClusterHealthChecks[0].LocalityEndpoints[0].Endpoints, 3)
		require.EqualValues(t, 81, m.ClusterHealthChecks[1].LocalityEndpoints[0].Endpoints[0].HealthCheckConfig.PortValue)
		require.InDelta(t, told+1, testutil.ToFloat64(f.metrics.specifiers), 0)
	})
}

func TestChangedRulesAreTakenAndBadOnesAreNot(t *testing.T) {
	inBubble(t, func(f *fixture, a, b, c *checker) {
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Equal(t, []string{"1"}, f.unhealthy())
		f.reload([][]byte{[]byte("services: 1")}, nil)
		f.reload(nil, errors.New("no such file"))
		require.Zero(t, testutil.ToFloat64(f.metrics.rulesGood))
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Equal(t, []string{"1"}, f.unhealthy())

		f.register("orders", 1)
		f.reload([][]byte{[]byte("{interval: 1s, services: [{service: orders, health_checks: [" + tcpCheck + "]}]}")}, nil)
		require.InDelta(t, 1, testutil.ToFloat64(f.metrics.rulesGood), 0)
		f.say(2*time.Second, map[int]corev3.HealthStatus{1: sick}, a, b, c)
		require.Empty(t, f.unhealthy(), "users are not checked any more")
		require.Len(t, a.specifier.ClusterHealthChecks, 1)
		require.Equal(t, "orders", a.specifier.ClusterHealthChecks[0].ClusterName)
		require.Equal(t, time.Second, a.specifier.Interval.AsDuration())
	})
}

// FuzzReport takes any bytes that are a report.
func FuzzReport(f *testing.F) {
	for _, m := range []*healthv3.EndpointHealthResponse{
		{}, reportOf(map[int]corev3.HealthStatus{1: sick}),
		{EndpointsHealth: []*healthv3.EndpointHealth{nil, {HealthStatus: 77}}},
	} {
		f.Add(marshal(f, m))
	}
	fixture := newFixture(f, rulesText)
	for n := 1; n <= 4; n++ {
		fixture.register("users", n)
	}
	c := fixture.connect("c")
	fixture.changed([]string{"users"})
	fixture.replan(time.Now())
	f.Fuzz(func(t *testing.T, text []byte) {
		m := &healthv3.EndpointHealthResponse{}
		if !unmarshal(text, m) {
			return
		}
		later := time.Now().Add(time.Hour)
		fixture.take(c, m, later)
		fixture.judgeTouched(later)
		list, err := fixture.hosts.Services()
		require.NoError(t, err)
		require.LessOrEqual(t, list[0].Unhealthy, 2, "the share that can be believed")
	})
}

func write(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}
