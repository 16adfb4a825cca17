package cluster_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// checkedHost is a host whose checks wait until it is let answer, and then get
// its status.
type checkedHost struct {
	netip.AddrPort
	status atomic.Int32
	answer chan struct{}
}

func newCheckedHost(t *testing.T, status int) *checkedHost {
	t.Helper()
	h := &checkedHost{answer: make(chan struct{})}
	h.status.Store(int32(status))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-h.answer:
			w.WriteHeader(int(h.status.Load()))
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	h.AddrPort = netip.MustParseAddrPort(server.Listener.Addr().String())
	return h
}

// checkedCluster is a cluster a of EDS that checks its hosts over HTTP, quickly
// once they answer.
const checkedCluster = `{"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
	"common_lb_config": {"healthy_panic_threshold": {"value": 0}}, "health_checks": [{
		"timeout": "20s", "interval": "0.005s", "no_traffic_interval": "0.005s", "healthy_threshold": 1, "unhealthy_threshold": 1,
		"http_health_check": {"path": "/healthz"}}]}`

func (h *checkedHost) endpoint() string { return endpoint(h.Addr().String(), int(h.Port()), "") }

// hostOf is the member of that address, which must be there.
func hostOf(t *testing.T, c *cluster.Cluster, address netip.AddrPort) *cluster.Member {
	t.Helper()
	members := c.Hosts().Members
	for i := range members {
		if members[i].Address == address {
			return &members[i]
		}
	}
	require.Fail(t, "there is no host "+address.String())
	return nil
}

func TestClusterIsWarmOnceEachHostWasChecked(t *testing.T) {
	m := newManager(t, true)
	defer m.stop()
	good, bad := newCheckedHost(t, 200), newCheckedHost(t, 503)
	require.NoError(t, m.ApplyClusters(clusters(t, checkedCluster)))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", good.endpoint(), bad.endpoint())))
	require.Nil(t, m.Get("a"))
	close(good.answer)
	servicetest.Eventually(t, "a check of the good host", func() bool { return m.stat("cluster.a.health_check.success") > 0 })
	require.Nil(t, m.Get("a"), "the other host was not checked yet")
	require.Zero(t, m.stat("cluster.a.membership_healthy"), "nobody would see a snapshot")
	require.False(t, m.started())
	require.EqualValues(t, 1, m.stat("cluster_manager.warming_clusters"))

	close(bad.answer)
	<-m.Started()
	a := m.Get("a")
	require.NotNil(t, a)
	require.Equal(t, "healthy", hostOf(t, a, good.AddrPort).Flags.String())
	require.Equal(t, "/failed_active_hc", hostOf(t, a, bad.AddrPort).Flags.String())
	require.Equal(t, map[string]bool{good.String(): true}, addresses(a))

	good.status.Store(503)
	bad.status.Store(200)
	servicetest.Eventually(t, "the hosts change places", func() bool { return addresses(a)[bad.String()] && !addresses(a)[good.String()] })
}

func TestClusterOfTheBootstrapHoldsTheStartUntilItsHostsWereChecked(t *testing.T) {
	m := newManager(t, false)
	defer m.stop()
	host := newCheckedHost(t, 200)
	text := strings.Replace(checkedCluster, `"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}`,
		fmt.Sprintf(`"type": "STATIC", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}`, host.endpoint()), 1)
	m.AddStatic([]*cluster.Config{m.parse(text)})
	require.False(t, m.started())
	close(host.answer)
	<-m.Started()
	require.Equal(t, "healthy", m.Get("a").Hosts().Members[0].Flags.String())
}

func TestHostThatLeavesOrIsNotCheckedIsNotWaitedFor(t *testing.T) {
	m := newManager(t, true)
	defer m.stop()
	slow, unchecked := newCheckedHost(t, 200), endpoint("127.0.0.1", 9, "")
	unchecked = strings.Replace(unchecked, `{"endpoint": {`, `{"endpoint": {"health_check_config": {"disable_active_health_check": true},`, 1)
	require.NoError(t, m.ApplyClusters(clusters(t, checkedCluster)))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", slow.endpoint(), unchecked)))
	require.Nil(t, m.Get("a"))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", unchecked)))
	require.True(t, m.started())
	require.Equal(t, map[string]bool{"127.0.0.1:9": true}, addresses(m.Get("a")))
}

func TestHostOfWhichChecksAreTurnedOffIsWellAndIsCheckedWhenTheyAreOnAgain(t *testing.T) {
	m := newManager(t, true)
	defer m.stop()
	host := newCheckedHost(t, 503)
	close(host.answer)
	off := strings.Replace(host.endpoint(), `{"endpoint": {`, `{"endpoint": {"health_check_config": {"disable_active_health_check": true},`, 1)
	require.NoError(t, m.ApplyClusters(clusters(t, checkedCluster)))
	for range 2 {
		require.NoError(t, m.ApplyAssignments(assignment(t, "a", host.endpoint())))
		<-m.Started()
		a := m.Get("a")
		servicetest.Eventually(t, "the host is failed", func() bool { return a.Hosts().Members[0].Flags == cluster.FailedActiveHC })
		require.NoError(t, m.ApplyAssignments(assignment(t, "a", off)))
		servicetest.Eventually(t, "the host is well", func() bool { return a.Hosts().Members[0].Flags == 0 })
	}
}

func TestClusterOfNamesIsWarmOnceEachHostWasChecked(t *testing.T) {
	z := newZone()
	host := newCheckedHost(t, 200)
	z.set("ip4 up.example", host.Addr().String())
	m := newResolvingManager(t, true, z)
	defer m.stop()
	require.NoError(t, m.ApplyClusters(clusters(t, strings.Replace(checkedCluster, `"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}`,
		fmt.Sprintf(`"type": "STRICT_DNS", "dns_lookup_family": "V4_ONLY", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}`,
			endpoint("up.example", int(host.Port()), "")), 1))))
	servicetest.Eventually(t, "the host is checked", func() bool { return m.stat("cluster.a.health_check.attempt") > 0 })
	require.Nil(t, m.Get("a"))
	close(host.answer)
	<-m.Started()
	require.Equal(t, "healthy", m.Get("a").Hosts().Members[0].Flags.String())
}

func TestClusterThatIsGoneIsNotChecked(t *testing.T) {
	m := newManager(t, true)
	defer m.stop()
	host := newCheckedHost(t, 200)
	require.NoError(t, m.ApplyClusters(clusters(t, checkedCluster)))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", host.endpoint())))
	require.NoError(t, m.ApplyClusters(nil)) // returns once the check has ended
	require.True(t, m.started())
	close(host.answer)
	require.Nil(t, m.Get("a"))
	require.EqualValues(t, 0, m.stat("cluster_manager.warming_clusters"))
}

func TestHostThatAskedToBeLeftOutComesBackWithItsNextCheck(t *testing.T) {
	m := newManager(t, true)
	defer m.stop()
	host := newCheckedHost(t, 200)
	close(host.answer)
	require.NoError(t, m.ApplyClusters(clusters(t, checkedCluster)))
	require.NoError(t, m.ApplyAssignments(assignment(t, "a", host.endpoint())))
	<-m.Started()
	a := m.Get("a")
	seen := make(chan string, 1000)
	defer a.Watch(func(set *cluster.HostSet) {
		select {
		case seen <- set.Members[0].Flags.String():
		default:
		}
	})()
	require.Equal(t, "healthy", <-seen)
	host.status.Store(503)
	require.Equal(t, "/failed_active_hc", <-seen)
	host.status.Store(200)
	require.Equal(t, "healthy", <-seen)
	a.FailPassively(a.Hosts().Members[0].Host)
	servicetest.Eventually(t, "the failure is counted", func() bool { return m.stat("cluster.a.health_check.passive_failure") == 1 })
	servicetest.Eventually(t, "and passes with the next check", func() bool { return len(addresses(a)) == 1 })
}

func TestOutlierIsEjectedForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, false)
		defer m.stop()
		require.NoError(t, m.ApplyClusters(clusters(t, `{"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
			"outlier_detection": {"consecutive_5xx": 3, "max_ejection_percent": 50, "interval": "10s", "base_ejection_time": "30s"}}`)))
		require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""), endpoint("10.0.0.2", 80, ""))))
		a := m.Get("a")
		time.Sleep(2 * time.Second) // past the merge window
		host := a.Hosts().Members[0].Host
		for range 3 {
			host.Outlier.ReportStatus(503)
		}
		require.Equal(t, "/failed_outlier_check", a.Hosts().Members[0].Flags.String())
		require.Equal(t, map[string]bool{"10.0.0.2:80": true}, addresses(a))
		require.EqualValues(t, 1, m.stat("cluster.a.outlier_detection.ejections_active"))
		time.Sleep(42 * time.Second)
		require.Equal(t, "healthy", a.Hosts().Members[0].Flags.String())
		require.Len(t, addresses(a), 2)
		require.EqualValues(t, 0, m.stat("cluster.a.outlier_detection.ejections_active"))
	})
}

func TestClusterThatChangesHasNoHostsEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, false)
		defer m.stop()
		const config = `{"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
			"connect_timeout": "%ds", "outlier_detection": {"consecutive_5xx": 3, "max_ejection_percent": 100}}`
		require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(config, 1))))
		require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""), endpoint("10.0.0.2", 80, ""))))
		before := m.Get("a").Hosts().Members
		fail := func(host *cluster.Host) {
			for range 3 {
				host.Outlier.ReportStatus(503)
			}
		}
		fail(before[0].Host)
		require.EqualValues(t, 1, m.stat("cluster.a.outlier_detection.ejections_active"))
		require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(config, 2))))
		require.Len(t, addresses(m.Get("a")), 2)
		require.EqualValues(t, 0, m.stat("cluster.a.outlier_detection.ejections_active"))
		fail(before[1].Host) // of requests that went on meanwhile
		require.EqualValues(t, 0, m.stat("cluster.a.outlier_detection.ejections_active"))
		fail(m.Get("a").Hosts().Members[1].Host)
		require.EqualValues(t, 1, m.stat("cluster.a.outlier_detection.ejections_active"))
	})
}
