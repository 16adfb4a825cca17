package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/dns"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// manager is a Manager under test, with what it told xDS last.
type manager struct {
	*cluster.Manager
	t        testing.TB
	services []string
	registry *stats.Registry
	schema   *strict.Schema
	runtime  *layeredruntime.Runtime
	log      bytes.Buffer
}

var policies = []cluster.Policy{lb.RoundRobin(), lb.LeastRequest(), lb.Random(), lb.RingHash(), lb.Maglev()}

func newManager(t testing.TB, waitForCDS bool) *manager {
	t.Helper()
	return newResolvingManager(t, waitForCDS, nil)
}

func newResolvingManager(t testing.TB, waitForCDS bool, resolver dns.Resolver) *manager {
	t.Helper()
	parts := []strict.Fields{cluster.Fields(), coreconfig.Fields(), headermutation.Fields(), matcher.Fields()}
	for _, p := range policies {
		parts = append(parts, p.Fields)
	}
	schema, err := strict.NewSchema(parts...)
	require.NoError(t, err)
	schema = schema.FirstKnown(cluster.FirstKnown()...)
	m := &manager{t: t, registry: stats.NewRegistry(), schema: schema, runtime: runtimetest.New(t, "{}")}
	m.Manager = cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Schema: schema, Runtime: m.runtime, Zone: "z1", Stats: m.registry, Log: slog.New(slog.NewTextHandler(&m.log, nil)),
		SetServices: func(_ coreconfig.Source, names []string) { m.services = names }, Resolver: resolver,
	}, waitForCDS)
	return m
}

// parse makes a configuration of JSON without faults.
func (m *manager) parse(text string) *cluster.Config {
	m.t.Helper()
	report := &strict.Report{}
	message := clusters(m.t, text)[0].Message
	strict.Check(message, "", m.schema, report)
	config := cluster.Parse(message.(*clusterv3.Cluster), "", policies, report)
	require.NoError(m.t, report.Err())
	return config
}

// stat is the value of the metric of that name, which must be there.
func (m *manager) stat(name string) (value int64) {
	m.t.Helper()
	value, known := m.find(name)
	require.True(m.t, known, "there is no metric %s", name)
	return value
}

func (m *manager) find(name string) (value int64, known bool) {
	m.registry.Each(func(metric stats.Metric) {
		if metric.Name == name {
			value, known = metric.Value, true
		}
	})
	return value, known
}

// has says whether there is a metric of that name.
func (m *manager) has(name string) bool {
	_, known := m.find(name)
	return known
}

// stop ends all that the manager has running.
func (m *manager) stop() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(m.t, m.Run(ctx))
}

func (m *manager) started() bool {
	select {
	case <-m.Started():
		return true
	default:
		return false
	}
}

func eds(name string) string {
	return fmt.Sprintf(`{"name": %q, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}}`, name)
}

func clusters(t testing.TB, texts ...string) []xds.Resource {
	t.Helper()
	var list []xds.Resource
	for _, text := range texts {
		c := &clusterv3.Cluster{}
		require.NoError(t, protojson.Unmarshal([]byte(text), c))
		list = append(list, xds.Resource{Name: c.GetName(), Message: c})
	}
	return list
}

// endpoint is one lb_endpoint in JSON, with further fields after a comma.
func endpoint(address string, port int, more string) string {
	return fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %d}}} %s}`, address, port, more)
}

func assignment(t testing.TB, name string, endpoints ...string) []xds.Resource {
	t.Helper()
	text := fmt.Sprintf(`{"cluster_name": %q, "endpoints": [{"locality": {"zone": "z"}, "load_balancing_weight": 1, "lb_endpoints": [`, name)
	for i, e := range endpoints {
		if i > 0 {
			text += ","
		}
		text += e
	}
	a := &endpointv3.ClusterLoadAssignment{}
	require.NoError(t, protojson.Unmarshal([]byte(text+"]}]}"), a))
	return []xds.Resource{{Name: name, Message: a}}
}

// addresses are the hosts that a cluster picks, each once, after enough picks.
func addresses(c *cluster.Cluster) map[string]bool {
	set := map[string]bool{}
	for range 50 {
		if h := c.Pick(&cluster.PickContext{}); h != nil {
			set[h.Address.String()] = true
		}
	}
	return set
}

func TestClusterOfCDSIsUsedOnceItHasItsAssignment(t *testing.T) {
	m := newManager(t, true)
	m.AddStatic(nil)
	require.False(t, m.started(), "CDS has not answered")
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.Equal(t, []string{"a", "b"}, m.services)
	require.Nil(t, m.Get("a"))
	require.False(t, m.started())
	require.EqualValues(t, 1, m.stat("cluster.a.warming_state"))

	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	require.Equal(t, map[string]bool{"10.0.0.1:80": true}, addresses(m.Get("a")))
	require.Zero(t, m.stat("cluster.a.warming_state"))
	require.EqualValues(t, 1, m.stat("cluster.b.warming_state"))
	require.Nil(t, m.Get("b"))
	require.False(t, m.started(), "b is still warming")

	require.NoError(t, m.ApplyAssignments(assignment(t, "b")))
	require.Nil(t, m.Get("b").Pick(&cluster.PickContext{}), "an empty assignment is one")
	require.True(t, m.started())

	require.NoError(t, m.ApplyClusters(clusters(t, eds("b"))))
	require.Nil(t, m.Get("a"))
	require.Equal(t, []string{"b"}, m.services)
}

func TestStartWaitsForTheAssignmentNoLongerThanItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, false)
		m.AddStatic([]*cluster.Config{m.parse(eds("a"))})
		require.NotNil(t, m.Get("a"), "a cluster of the bootstrap is there from the start")
		time.Sleep(15*time.Second - time.Nanosecond)
		synctest.Wait()
		require.False(t, m.started())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.True(t, m.started())
		require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
		require.NotNil(t, m.Get("a").Pick(&cluster.PickContext{}))
	})
}

func TestAClusterOfCDSWithTheNameOfAStaticOneIsIgnoredWithAWarning(t *testing.T) {
	m := newManager(t, false)
	m.AddStatic([]*cluster.Config{m.parse(`{"name": "a", "load_assignment": {"cluster_name": "a"}}`)})
	static := m.Get("a")
	warnings := func() int { return strings.Count(m.log.String(), "level=WARN") }
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.Contains(t, m.log.String(), `level=WARN msg="ignored a cluster of the control plane: one of the bootstrap has its name" cluster=a`)
	require.Equal(t, 1, warnings(), "it is told once")
	require.NoError(t, m.ChangeClusters(clusters(t, `{"name": "a", "connect_timeout": "2s"}`)))
	require.Equal(t, 2, warnings(), "and at each change")
	require.NoError(t, m.ApplyClusters(clusters(t, eds("b"))))
	require.Equal(t, 2, warnings())
	require.NoError(t, m.ApplyClusters(clusters(t, `{"name": "a", "connect_timeout": "2s"}`)))
	require.Equal(t, 3, warnings(), "and when it is back")
	require.NoError(t, m.ChangeClusters([]xds.Resource{{Name: "a"}}))
	require.Same(t, static, m.Get("a"))
	require.Equal(t, 3, warnings())
}

func TestChangedClusterKeepsServingUntilTheNewOneIsWarm(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	old := m.Get("a")
	changed := `{"name": "a", "type": "EDS", "connect_timeout": "2s", "eds_cluster_config": {"service_name": "%s", "eds_config": {"ads": {}, "resource_api_version": "V3"}}}`

	require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(changed, "other"))))
	require.Same(t, old, m.Get("a"))
	require.Equal(t, []string{"a", "other"}, m.services)
	require.NoError(t, m.ApplyAssignments(assignment(t, "other", endpoint("10.0.0.2", 80, ""))))
	require.NotSame(t, old, m.Get("a"))
	require.Equal(t, map[string]bool{"10.0.0.2:80": true}, addresses(m.Get("a")))

	// With an assignment that is known the new one is warm at once.
	require.Zero(t, m.stat("cluster.a.assignment_use_cached"))
	require.NoError(t, m.ApplyClusters(clusters(t, `{"name": "a", "type": "EDS", "connect_timeout": "3s", "eds_cluster_config": {"service_name": "other", "eds_config": {"ads": {}, "resource_api_version": "V3"}}}`)))
	require.EqualValues(t, 1, m.stat("cluster.a.assignment_use_cached"))
	require.Equal(t, 3*time.Second, m.Get("a").Config.ConnectTimeout)
	require.NotNil(t, m.Get("a").Pick(&cluster.PickContext{}))
	require.Equal(t, []string{"other"}, m.services)
}

func TestClusterThatChangesWhileItWarmsIsCounted(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyClusters(clusters(t, `{"name": "a", "type": "EDS", "connect_timeout": "2s", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}}`)))
	require.Equal(t, []string{"a"}, m.services)
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	require.Equal(t, 2*time.Second, m.Get("a").Config.ConnectTimeout)
	var names []string
	m.registry.Each(func(metric stats.Metric) { names = append(names, metric.Name) })
	require.Contains(t, names, "cluster.a.membership_total")
}

func TestUnchangedClusterStaysAsItIs(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	before := m.Get("a")
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.Same(t, before, m.Get("a"))
}

func TestBadResourceIsRefusedByNameAndTheLastGoodStays(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	before := m.Get("a")

	err := m.ApplyClusters(clusters(t, `{"name": "a", "type": "ORIGINAL_DST"}`, `{"name": "b", "type": "EDS", "lb_policy": "CLUSTER_PROVIDED", "respect_dns_ttl": true}`, eds("c")))
	require.EqualError(t, err, `cluster "a": type: ORIGINAL_DST is not supported: use STATIC, EDS, STRICT_DNS or LOGICAL_DNS
cluster "b": eds_cluster_config.eds_config: cluster "b" is of type EDS and needs eds_config: {ads: {}, resource_api_version: V3}
lb_policy: CLUSTER_PROVIDED is not supported
respect_dns_ttl: not supported`)
	require.Same(t, before, m.Get("a"))
	require.NoError(t, m.ApplyAssignments(assignment(t, "c")))
	require.NotNil(t, m.Get("c"), "the good one took effect")

	err = m.ApplyAssignments(assignment(t, "a", endpoint("name.example", 80, ""), endpoint("10.0.0.3", 0, "")))
	require.EqualError(t, err, `assignment "a": endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "name.example" is not an IP address, and names are not resolved
endpoints[0].lb_endpoints[1].endpoint.address.socket_address.port_value: 0 is no port of an endpoint`)
	require.Equal(t, map[string]bool{"10.0.0.1:80": true}, addresses(m.Get("a")))
	require.EqualValues(t, 1, m.stat("cluster_manager.cds.config_reload"), "an update with a bad one is none")
}

func TestBadAssignmentIsNotWaitedForUnlessAnotherClusterServes(t *testing.T) {
	bad := func(name string) []xds.Resource { return assignment(t, name, endpoint("10.0.0.1", 0, "")) }
	m := newManager(t, true)
	m.AddStatic([]*cluster.Config{m.parse(eds("s"))})
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.False(t, m.started())
	require.Error(t, m.ApplyAssignments(bad("s")))
	require.Error(t, m.ApplyAssignments(bad("a")))
	m.AssignmentsFailed(coreconfig.Source{}, []string{"b"}, xds.Away)
	require.False(t, m.started(), "what is away may come yet")
	m.AssignmentsFailed(coreconfig.Source{}, []string{"b"}, xds.Refused)
	require.True(t, m.started())
	require.NotNil(t, m.Get("b"))
	require.Empty(t, addresses(m.Get("a")))
	require.EqualValues(t, 0, m.stat("cluster_manager.warming_clusters"))

	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	moved := strings.Replace(eds("a"), `"eds_config"`, `"service_name": "other", "eds_config"`, 1)
	require.NoError(t, m.ApplyClusters(clusters(t, moved, eds("b"))))
	require.Error(t, m.ApplyAssignments(bad("other")))
	require.Equal(t, map[string]bool{"10.0.0.1:80": true}, addresses(m.Get("a")), "the one before serves on")
	require.NoError(t, m.ApplyAssignments(assignment(t, "other", endpoint("10.0.0.2", 80, ""))))
	require.Equal(t, map[string]bool{"10.0.0.2:80": true}, addresses(m.Get("a")))
}

func TestUpdatesOfAssignmentsAreCountedByTheirClusters(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	good := assignment(t, "a", endpoint("10.0.0.1", 80, ""))
	good[0].Version = "v1"
	require.NoError(t, m.ApplyAssignments(good))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a")), "without hosts it is no empty update")
	require.NoError(t, m.ApplyAssignments([]xds.Resource{{Name: "a", Version: "v3"}}), "but without an assignment")
	require.Error(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 0, ""))))
	m.AssignmentsFailed(coreconfig.Source{}, []string{"a", "unknown"}, xds.Refused)
	m.AssignmentsFailed(coreconfig.Source{}, []string{"a"}, xds.Away)
	for name, want := range map[string]int64{
		"attempt": 7, "success": 3, "rejected": 2, "failure": 1, "empty": 1,
	} {
		require.Equal(t, want, m.stat("cluster.a.update_"+name), name)
	}
	require.EqualValues(t, 1, m.stat("cluster.b.update_attempt"))
	m.registry.Each(func(metric stats.Metric) {
		if metric.Name == "cluster.a.version_text" {
			require.Equal(t, "v3", metric.Text)
		}
	})
}

func TestRemarksOnHostsAreTakenThoughNoPolicyReadsThem(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80,
		`, "metadata": {"filter_metadata": {"envoy.lb": {"canary": true, "revision": "r1", "stale": false}, "tags": {"rack": [1, null, {"a": "b"}]}}}`))))
	require.Equal(t, map[string]bool{"10.0.0.1:80": true}, addresses(m.Get("a")))
	err := m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.2", 80, `, "metadata": {"typed_filter_metadata": {"x": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}}`)))
	require.ErrorContains(t, err, "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata: not supported")
}

func TestHostThatStaysKeepsItsConnectionsAndNumbers(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""), endpoint("10.0.0.2", 80, ""))))
	host := m.Get("a").Hosts().Members[0].Host
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.3", 80, ""), endpoint("10.0.0.1", 80, `, "load_balancing_weight": 5`), endpoint("10.0.0.1", 80, ""))))
	members := m.Get("a").Hosts().Members
	require.Len(t, members, 2, "an address that is there twice counts once")
	require.Same(t, host, members[1].Host)
	require.EqualValues(t, 5, members[1].Weight)
}

func TestHealthDecidesWhoGetsRequests(t *testing.T) {
	healthy, draining := `, "health_status": "HEALTHY"`, `, "health_status": "DRAINING"`
	degraded := `, "health_status": "DEGRADED"`
	cases := []struct {
		name      string
		endpoints []string
		want      map[string]bool
	}{
		{"a draining host gets none", []string{endpoint("10.0.0.1", 80, healthy), endpoint("10.0.0.2", 80, ""), endpoint("10.0.0.3", 80, draining)},
			map[string]bool{"10.0.0.1:80": true, "10.0.0.2:80": true}},
		{"degraded hosts come last", []string{endpoint("10.0.0.1", 80, healthy), endpoint("10.0.0.2", 80, healthy), endpoint("10.0.0.3", 80, healthy), endpoint("10.0.0.4", 80, degraded)},
			map[string]bool{"10.0.0.1:80": true, "10.0.0.2:80": true, "10.0.0.3:80": true}},
		{"degraded hosts are better than none", []string{endpoint("10.0.0.1", 80, draining), endpoint("10.0.0.2", 80, degraded)},
			map[string]bool{"10.0.0.2:80": true}},
		{"below half all get them", []string{endpoint("10.0.0.1", 80, healthy), endpoint("10.0.0.2", 80, draining), endpoint("10.0.0.3", 80, draining)},
			map[string]bool{"10.0.0.1:80": true, "10.0.0.2:80": true, "10.0.0.3:80": true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, false)
			require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
			require.NoError(t, m.ApplyAssignments(assignment(t, "a", c.endpoints...)))
			require.Equal(t, c.want, addresses(m.Get("a")))
		})
	}
}

func TestWatcherSeesEachNewSnapshot(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a")))
	var seen []int
	cancel := m.Get("a").Watch(func(s *cluster.HostSet) { seen = append(seen, len(s.Members)) })
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	cancel()
	require.NoError(t, m.ApplyAssignments(assignment(t, "a")))
	require.Equal(t, []int{0, 1}, seen)
}

func TestClusterThatGoesBeforeItIsWarmLeavesNothingBehind(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(nil))
	count := func() (n int) {
		m.registry.Each(func(stats.Metric) { n++ })
		return n
	}
	before := count()
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.NoError(t, m.ApplyClusters(nil))
	require.Equal(t, before, count())
	require.Empty(t, m.services)
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	require.Nil(t, m.Get("a"))
}

func TestDeltaChangesOnlyTheClustersThatItNames(t *testing.T) {
	m := newManager(t, true)
	m.AddStatic(nil)
	require.NoError(t, m.ChangeClusters(clusters(t, eds("a"), eds("b"))))
	require.NoError(t, m.ApplyAssignments(append(assignment(t, "a", endpoint("10.0.0.1", 80, "")), assignment(t, "b")...)))
	require.True(t, m.started())
	require.NoError(t, m.ChangeClusters(append(clusters(t, eds("c")), xds.Resource{Name: "a"}, xds.Resource{Name: "never"})))
	require.Nil(t, m.Get("a"))
	require.NotNil(t, m.Get("b"))
	require.Equal(t, []string{"b", "c"}, m.services)
	require.Nil(t, m.Get("c"), "it warms")
	require.NoError(t, m.ChangeClusters([]xds.Resource{{Name: "c"}}))
	require.Equal(t, []string{"b"}, m.services)
}

func TestAnAssignmentThatIsGoneIsNotWaitedForAndLeavesTheHosts(t *testing.T) {
	m := newManager(t, true)
	m.AddStatic(nil)
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
	require.NoError(t, m.ApplyAssignments(append(assignment(t, "a", endpoint("10.0.0.1", 80, "")), xds.Resource{Name: "b"})))
	require.True(t, m.started())
	require.Nil(t, m.Get("b").Pick(&cluster.PickContext{}))
	require.NoError(t, m.ApplyAssignments([]xds.Resource{{Name: "a"}}))
	require.NotNil(t, m.Get("a").Pick(&cluster.PickContext{}))
}

func TestAnAssignmentThatNobodyWantsIsNotKept(t *testing.T) {
	m := newManager(t, true)
	defer m.stop()
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))))
	require.NoError(t, m.ApplyClusters(clusters(t, eds("a"))))
	require.Nil(t, m.Get("a"), "it waits for an assignment that was asked for")
}

func TestAssignmentsOfOneNameFromTwoSourcesAreTwo(t *testing.T) {
	m := newManager(t, false)
	const fromFile = `{"name": "file", "type": "EDS", "eds_cluster_config": {"service_name": "s", "eds_config": {"path_config_source": {"path": "/e"}, "resource_api_version": "V3"}}}`
	const fromParent = `{"name": "self", "type": "EDS", "eds_cluster_config": {"service_name": "s", "eds_config": {"self": {}, "resource_api_version": "V3"}}}`
	resources := clusters(t, fromFile, fromParent, eds("s"))
	file := coreconfig.Source{Path: "/e"}
	resources[1].Source = file
	require.NoError(t, m.ApplyClusters(resources))
	sent := assignment(t, "s", endpoint("10.0.0.1", 80, ""))
	sent[0].Source = file
	require.NoError(t, m.ApplyAssignments(sent))
	require.NotNil(t, m.Get("file"))
	require.NotNil(t, m.Get("self"))
	require.Nil(t, m.Get("s"), "it is ADS's")
	require.NoError(t, m.ApplyClusters(nil))
}

func TestClustersThatShareAServiceShareItsAssignment(t *testing.T) {
	m := newManager(t, false)
	both := []string{
		`{"name": "x", "type": "EDS", "eds_cluster_config": {"service_name": "s", "eds_config": {"ads": {}, "resource_api_version": "V3"}}}`,
		`{"name": "y", "type": "EDS", "eds_cluster_config": {"service_name": "s", "eds_config": {"ads": {}, "resource_api_version": "V3"}}}`,
	}
	require.NoError(t, m.ApplyClusters(clusters(t, both...)))
	require.Equal(t, []string{"s"}, m.services)
	require.NoError(t, m.ApplyAssignments(assignment(t, "s", endpoint("10.0.0.1", 80, ""))))
	require.NotNil(t, m.Get("x").Pick(&cluster.PickContext{}))
	require.NotNil(t, m.Get("y").Pick(&cluster.PickContext{}))
	require.NoError(t, m.ApplyClusters(clusters(t, both[1])))
	require.Equal(t, []string{"s"}, m.services)
	require.NoError(t, m.ApplyAssignments(assignment(t, "s", endpoint("10.0.0.2", 80, ""))))
	require.Equal(t, map[string]bool{"10.0.0.2:80": true}, addresses(m.Get("y")))
}

func BenchmarkFirstAssignmentsOf1000Clusters(b *testing.B) {
	var names []string
	for i := range 1000 {
		names = append(names, eds(fmt.Sprint("cluster-", i)))
	}
	resources := clusters(b, names...)
	var assignments []xds.Resource
	for i := range 1000 {
		assignments = append(assignments, assignment(b, fmt.Sprint("cluster-", i), endpoint("10.0.0.1", 80, ""))...)
	}
	for b.Loop() {
		m := newManager(b, false)
		require.NoError(b, m.ApplyClusters(resources))
		require.NoError(b, m.ApplyAssignments(assignments))
	}
}

// BenchmarkAClusterComesAndGoesBeside5000 is what one change costs where there are many
// clusters of EDS already.
func BenchmarkAClusterComesAndGoesBeside5000(b *testing.B) {
	var others []string
	for i := range 5000 {
		others = append(others, eds(fmt.Sprint("cluster-", i)))
	}
	m := newManager(b, false)
	defer m.stop()
	require.NoError(b, m.ApplyClusters(clusters(b, others...)))
	one := clusters(b, eds("one"))
	for b.Loop() {
		require.NoError(b, m.ChangeClusters(one))
		require.NoError(b, m.ChangeClusters([]xds.Resource{{Name: "one"}}))
	}
}
