package cluster_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// assignmentOf is an assignment of the cluster a by what stands in the message
// besides its name.
func assignmentOf(t testing.TB, text string) []xds.Resource {
	t.Helper()
	a := &endpointv3.ClusterLoadAssignment{}
	if text != "" {
		text = ", " + text
	}
	require.NoError(t, protojson.Unmarshal(fmt.Appendf(nil, `{"cluster_name": "a" %s}`, text), a))
	return []xds.Resource{{Name: "a", Message: a}}
}

// group is one LocalityLbEndpoints of n hosts 10.0.<second>.x with further
// fields, of which the first so many are unhealthy and the next degraded.
func group(second, n, unhealthy, degraded int, fields string) string {
	text := ""
	for i := range n {
		status := "HEALTHY"
		if i < unhealthy {
			status = "UNHEALTHY"
		} else if i < unhealthy+degraded {
			status = "DEGRADED"
		}
		if i > 0 {
			text += ","
		}
		text += endpoint(fmt.Sprintf("10.0.%d.%d", second, i), 80, fmt.Sprintf(`, "health_status": %q`, status))
	}
	return fmt.Sprintf(`{%s, "lb_endpoints": [%s]}`, fields, text)
}

// newCluster is a cluster of EDS with that assignment and further fields.
func newCluster(t testing.TB, fields, assigned string) (*manager, *cluster.Cluster) {
	t.Helper()
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(
		`{"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}} %s}`, fields))))
	require.NoError(t, m.ApplyAssignments(assignmentOf(t, assigned)))
	return m, m.Get("a")
}

// picks counts picks by the third byte of the host's address, which tells its
// group, and by the fourth, which tells its health.
func picks(c *cluster.Cluster, n int, each func(second, last byte)) {
	for range n {
		if h := c.Pick(&cluster.PickContext{}); h != nil {
			ip := h.Address.Addr().As4()
			each(ip[2], ip[3])
		}
	}
}

// shares are the percentages of picks that groups get.
func shares(c *cluster.Cluster, n int) map[byte]float64 {
	counts := map[byte]float64{}
	picks(c, n, func(second, _ byte) { counts[second] += 100 / float64(n) })
	return counts
}

func TestPrioritiesGetTheirLoads(t *testing.T) {
	for _, c := range []struct {
		name, assigned string
		want           map[byte]float64
	}{
		{"all healthy", `"endpoints": [` + group(0, 4, 0, 0, `"priority": 0`) + `,` + group(1, 4, 0, 0, `"priority": 1`) + `]`,
			map[byte]float64{0: 100}},
		{"half healthy", `"endpoints": [` + group(1, 4, 0, 0, `"priority": 1`) + `,` + group(0, 4, 2, 0, `"priority": 0`) + `]`,
			map[byte]float64{0: 70, 1: 30}},
		{"a factor of its own", `"policy": {"overprovisioning_factor": 100}, "endpoints": [` + group(0, 4, 2, 0, `"priority": 0`) + `,` + group(1, 4, 0, 0, `"priority": 1`) + `]`,
			map[byte]float64{0: 50, 1: 50}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, a := newCluster(t, "", c.assigned)
			got := shares(a, 10000)
			require.Len(t, got, len(c.want))
			for priority, want := range c.want {
				require.InDelta(t, want, got[priority], 4, "priority %d", priority)
			}
		})
	}
}

func TestDegradedHostsGetWhatHealthyOnesCannotTake(t *testing.T) {
	_, a := newCluster(t, "", `"endpoints": [`+group(0, 4, 0, 2, `"priority": 0`)+`]`)
	degraded := 0
	picks(a, 10000, func(_, last byte) {
		if last < 2 {
			degraded++
		}
	})
	require.InDelta(t, 3000, degraded, 400)
}

func TestPanicIsCountedAndCanBeOff(t *testing.T) {
	sick := `"endpoints": [` + group(0, 4, 3, 0, `"priority": 0`) + `]`
	m, a := newCluster(t, "", sick)
	require.Len(t, addresses(a), 4)
	require.EqualValues(t, 50, m.stat("cluster.a.lb_healthy_panic"))
	m, a = newCluster(t, `, "common_lb_config": {"healthy_panic_threshold": {"value": 25.9}}`, sick)
	require.Equal(t, map[string]bool{"10.0.0.3:80": true}, addresses(a))
	require.Zero(t, m.stat("cluster.a.lb_healthy_panic"))
	_, a = newCluster(t, `, "common_lb_config": {"healthy_panic_threshold": {"value": 0}}`, `"endpoints": [`+group(0, 4, 4, 0, `"priority": 0`)+`]`)
	require.Nil(t, a.Pick(&cluster.PickContext{}))
}

func TestTheRuntimeHasItsOwnPanicThreshold(t *testing.T) {
	m, a := newCluster(t, `, "common_lb_config": {"healthy_panic_threshold": {"value": 20}}`, "")
	for i, step := range []struct {
		value string
		hosts int
	}{{"26", 4}, {"25", 1}, {"1000", 4}, {"0", 1}, {"", 1}} {
		require.NoError(t, m.runtime.Modify(map[string]string{"upstream.healthy_panic_threshold": step.value}))
		require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"endpoints": [`+group(i, 4, 3, 0, `"priority": 0`)+`]`)))
		require.Len(t, addresses(a), step.hosts, "threshold %q", step.value)
	}
}

func TestLocalitiesGetRequestsByTheirWeights(t *testing.T) {
	weighted := `, "common_lb_config": {"locality_weighted_lb_config": {}}`
	east := func(n, unhealthy int, weight string) string {
		return group(0, n, unhealthy, 0, `"locality": {"zone": "east"}`+weight)
	}
	west := func(n, unhealthy int, weight string) string {
		return group(1, n, unhealthy, 0, `"locality": {"zone": "west"}`+weight)
	}
	for _, c := range []struct {
		name, fields, groups string
		want                 map[byte]float64
	}{
		{"by weight, not by number", weighted, east(1, 0, `, "load_balancing_weight": 3`) + `,` + west(9, 0, `, "load_balancing_weight": 1`), map[byte]float64{0: 75, 1: 25}},
		{"off: by number", "", east(1, 0, `, "load_balancing_weight": 3`) + `,` + west(9, 0, `, "load_balancing_weight": 1`), map[byte]float64{0: 10, 1: 90}},
		{"a few may fail", weighted, east(4, 1, `, "load_balancing_weight": 1`) + `,` + west(4, 0, `, "load_balancing_weight": 1`), map[byte]float64{0: 50, 1: 50}},
		{"more cost the locality its share", weighted, east(4, 2, `, "load_balancing_weight": 1`) + `,` + west(4, 0, `, "load_balancing_weight": 1`), map[byte]float64{0: 100 * 0.7 / 1.7, 1: 100 / 1.7}},
		{"without a weight none", weighted, east(4, 0, "") + `,` + west(4, 0, `, "load_balancing_weight": 1`), map[byte]float64{1: 100}},
		{"without any weights all alike", weighted, east(1, 0, "") + `,` + west(3, 0, ""), map[byte]float64{0: 25, 1: 75}},
		{"by a policy's own config", `, "load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "x", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin", "locality_lb_config": {"locality_weighted_lb_config": {}}}}}]}`,
			east(1, 0, `, "load_balancing_weight": 3`) + `,` + west(9, 0, `, "load_balancing_weight": 1`), map[byte]float64{0: 75, 1: 25}},
		{"on a ring", weighted + `, "lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 100000}`,
			east(1, 0, `, "load_balancing_weight": 3`) + `,` + west(9, 0, `, "load_balancing_weight": 1`), map[byte]float64{0: 75, 1: 25}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, a := newCluster(t, c.fields, `"endpoints": [`+c.groups+`]`)
			got := shares(a, 4000)
			for locality, want := range c.want {
				require.InDelta(t, want, got[locality], 4, "locality %d of %v", locality, got)
			}
			require.Len(t, got, len(c.want))
		})
	}
}

func TestRequestsOfOneHashGoToOneHost(t *testing.T) {
	for _, policy := range []string{"RING_HASH", "MAGLEV"} {
		t.Run(policy, func(t *testing.T) {
			_, a := newCluster(t, fmt.Sprintf(`, "lb_policy": %q`, policy), `"endpoints": [`+group(0, 10, 0, 0, `"priority": 0`)+`]`)
			hosts := map[*cluster.Host]bool{}
			for hash := range uint64(100) {
				p := &cluster.PickContext{Hash: hash * 0x9e3779b97f4a7c15, Hashed: true}
				first := a.Pick(p)
				hosts[first] = true
				for range 10 {
					require.Same(t, first, a.Pick(p))
				}
			}
			require.Len(t, hosts, 10)
			hosts = map[*cluster.Host]bool{}
			for range 2000 {
				hosts[a.Pick(&cluster.PickContext{})] = true
			}
			require.Len(t, hosts, 10, "requests without a hash go anywhere")
		})
	}
}

func TestHostToBeAvoidedIsPickedOnlyInTheEnd(t *testing.T) {
	for _, policy := range []string{"ROUND_ROBIN", "RING_HASH", "MAGLEV"} {
		t.Run(policy, func(t *testing.T) {
			_, a := newCluster(t, fmt.Sprintf(`, "lb_policy": %q`, policy), `"endpoints": [`+group(0, 2, 0, 0, `"priority": 0`)+`]`)
			for hash := range uint64(50) {
				p := &cluster.PickContext{Hash: hash << 57, Hashed: true}
				tried := a.Pick(p)
				p.Avoid = func(h *cluster.Host) bool { return h == tried }
				p.Attempts = 50
				require.NotSame(t, tried, a.Pick(p))
				calls := 0
				p.Avoid = func(*cluster.Host) bool { calls++; return true }
				p.Attempts = 3
				require.NotNil(t, a.Pick(p))
				require.Equal(t, 3, calls)
			}
		})
	}
}

func TestDropOverloadDropsItsShare(t *testing.T) {
	m, a := newCluster(t, "", `"policy": {"drop_overloads": [{"category": "all", "drop_percentage": {"numerator": 250000, "denominator": "MILLION"}}]}, "endpoints": []`)
	dropped := 0
	for range 10000 {
		if drop, all := a.DropOverload(); drop {
			require.False(t, all)
			dropped++
		}
	}
	require.InDelta(t, 2500, dropped, 400)
	require.EqualValues(t, dropped, m.stat("cluster.a.upstream_rq_drop_overload"))
	require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"policy": {"drop_overloads": [{"category": "all", "drop_percentage": {"numerator": 100}}]}, "endpoints": []`)))
	drop, all := a.DropOverload()
	require.True(t, drop)
	require.True(t, all)
	require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"endpoints": []`)))
	drop, _ = a.DropOverload()
	require.False(t, drop)
}

func TestChangesOfHealthAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, a := newCluster(t, "", `"endpoints": [`+group(0, 4, 0, 0, `"priority": 0`)+`]`)
		time.Sleep(2 * time.Second) // the window after the first snapshot
		var mu sync.Mutex
		var list []int // of each snapshot, how many are healthy
		seen := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(list)
		}
		cancel := a.Watch(func(s *cluster.HostSet) {
			healthy := 0
			for i := range s.Members {
				if s.Members[i].Healthy() {
					healthy++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			list = append(list, healthy)
		})
		defer cancel()
		members := a.Hosts().Members
		a.SetHealthFlag(members[0].Host, cluster.FailedActiveHC, true)
		require.Equal(t, []int{4, 3}, seen(), "the first takes effect at once")
		a.SetHealthFlag(members[0].Host, cluster.FailedActiveHC, true)
		a.SetHealthFlag(members[1].Host, cluster.FailedOutlierCheck, true)
		a.SetHealthFlag(members[0].Host, cluster.FailedActiveHC, false)
		a.SetHealthFlag(members[2].Host, cluster.FailedActiveHC, true)
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		require.Equal(t, []int{4, 3}, seen())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, []int{4, 3, 2}, seen(), "the others a second later")
		require.EqualValues(t, 2, m.stat("cluster.a.membership_healthy"))
		require.Equal(t, "/failed_outlier_check", members[1].Host.Flags().String())
		time.Sleep(time.Hour)
		require.Len(t, seen(), 3)

		a.SetHealthFlag(members[1].Host, cluster.FailedOutlierCheck, false)
		a.SetHealthFlag(members[2].Host, cluster.FailedOutlierCheck, true)
		require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"endpoints": [`+group(0, 5, 0, 0, `"priority": 0`)+`]`)))
		require.Equal(t, []int{4, 3, 2, 3, 4}, seen(), "an assignment takes what waits with it")
		require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"endpoints": [`+group(0, 5, 1, 0, `"priority": 0`)+`]`)))
		require.Equal(t, []int{4, 3, 2, 3, 4, 3}, seen(), "and waits for nothing, though the hosts are the same")
		time.Sleep(time.Hour)
		require.Len(t, seen(), 6)
		for name, n := range map[string]int{
			"cluster_updated": 4, "cluster_updated_via_merge": 1, "update_out_of_merge_window": 2, "update_merge_cancelled": 1,
		} {
			require.EqualValues(t, n, m.stat("cluster_manager."+name), name)
		}
	})
}

func TestChangesOfHealthAreNotMergedIfNotWanted(t *testing.T) {
	m, a := newCluster(t, `, "common_lb_config": {"update_merge_window": "0s"}`, `"endpoints": [`+group(0, 4, 0, 0, `"priority": 0`)+`]`)
	require.Zero(t, m.stat("cluster_manager.cluster_updated"), "its first hosts are no update")
	for i, member := range a.Hosts().Members[:3] {
		a.SetHealthFlag(member.Host, cluster.DegradedActiveHC, true)
		require.Equal(t, cluster.DegradedActiveHC, a.Hosts().Members[i].Flags)
	}
	require.EqualValues(t, 3, m.stat("cluster_manager.cluster_updated"))
	require.Zero(t, m.stat("cluster_manager.update_out_of_merge_window"))
}

func TestFlagsAreSetFromManyGoroutines(t *testing.T) {
	_, a := newCluster(t, `, "common_lb_config": {"update_merge_window": "0s"}`, `"endpoints": [`+group(0, 4, 0, 0, `"priority": 0`)+`]`)
	var all sync.WaitGroup
	for _, m := range a.Hosts().Members {
		all.Go(func() {
			for i := range 50 {
				a.SetHealthFlag(m.Host, cluster.FailedActiveHC, i%2 == 0)
				a.SetHealthFlag(m.Host, cluster.FailedOutlierCheck, i%2 == 0)
				a.Pick(&cluster.PickContext{})
			}
		})
	}
	all.Wait()
	for _, m := range a.Hosts().Members {
		require.True(t, m.Flags.Healthy())
	}
}

func TestHealthFlagsSpeakAsEnvoyDoes(t *testing.T) {
	require.Equal(t, "healthy", cluster.HealthFlags(0).String())
	require.Equal(t, "/failed_active_hc/failed_eds_health/pending_active_hc", (cluster.PendingActiveHC | cluster.FailedActiveHC | cluster.FailedEDSHealth).String())
	require.Equal(t, "/degraded_active_hc/degraded_eds_health/pending_dynamic_removal/excluded_via_immediate_hc_fail/active_hc_timeout/eds_status_draining",
		(cluster.DegradedActiveHC | cluster.DegradedEDSHealth | cluster.PendingDynamicRemoval | cluster.ExcludedViaImmediateHCFail | cluster.ActiveHCTimeout | cluster.EDSStatusDraining).String())
}

func TestMembershipIsToldByKinds(t *testing.T) {
	m, a := newCluster(t, `, "common_lb_config": {"update_merge_window": "0s"}`, `"endpoints": [`+group(0, 5, 1, 1, `"priority": 0`)+`]`)
	a.SetHealthFlag(a.Hosts().Members[0].Host, cluster.ExcludedViaImmediateHCFail, true)
	for name, want := range map[string]int64{
		"total": 5, "healthy": 3, "degraded": 1, "excluded": 1, "change": 1,
	} {
		require.Equal(t, want, m.stat("cluster.a.membership_"+name), name)
	}
	require.EqualValues(t, 1, m.stat("cluster.a.max_host_weight"))
	require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"endpoints": [`+group(0, 5, 1, 1, `"priority": 0`)+`]`)))
	require.EqualValues(t, 1, m.stat("cluster.a.update_no_rebuild"))
}

func TestEndpointTellsWhatOthersNeed(t *testing.T) {
	_, a := newCluster(t, "", `"endpoints": [{"priority": 0, "locality": {"zone": "z"}, "load_balancing_weight": 7, "lb_endpoints": [
		{"load_balancing_weight": 3, "endpoint": {"hostname": "h", "address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}},
			"health_check_config": {"port_value": 81, "hostname": "c", "disable_active_health_check": true}}},
		{"endpoint": {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 80}},
			"health_check_config": {"address": {"socket_address": {"address": "10.0.0.3", "port_value": 82}}}}},
		{"endpoint": {"address": {"socket_address": {"address": "10.0.0.4", "port_value": 80}}}}]}]`)
	m := a.Hosts().Members
	require.Equal(t, "h", m[0].Hostname)
	require.Equal(t, "c", m[0].HealthCheck.Hostname)
	require.True(t, m[0].HealthCheck.Disabled)
	require.EqualValues(t, 3, m[0].Weight)
	require.EqualValues(t, 7, m[0].LocalityWeight)
	require.Equal(t, "z", m[0].Locality.GetZone())
	require.EqualValues(t, 81, m[0].HealthCheck.Port)
	require.Equal(t, "10.0.0.3:82", m[1].HealthCheck.Address.String())
	require.Zero(t, m[2].HealthCheck)
}

func TestFaultsOfAssignments(t *testing.T) {
	m, _ := newCluster(t, "", `"endpoints": []`)
	one := endpoint("10.0.0.1", 80, "")
	for _, c := range []struct{ name, text, want string }{
		{"a gap", `"endpoints": [{"priority": 2, "lb_endpoints": [` + one + `]}, {"priority": 0}]`, "endpoints[0].priority: 2 is there, but not 1: none may be left out"},
		{"more than 128", `"endpoints": [{"priority": 129}]`, "endpoints[0].priority: value must be less than or equal to 128"},
		{"two drops", `"policy": {"drop_overloads": [{"category": "a"}, {"category": "b"}]}`, "policy.drop_overloads: want one category at most, got 2"},
		{"more than all", `"policy": {"drop_overloads": [{"category": "a", "drop_percentage": {"numerator": 101}}]}`, "policy.drop_overloads[0].drop_percentage: 101 of HUNDRED is more than all"},
		{"a factor of 0", `"policy": {"overprovisioning_factor": 0}`, "policy.overprovisioning_factor: value must be greater than 0"},
		{"a weight of 0", `"endpoints": [{"lb_endpoints": [` + endpoint("10.0.0.1", 80, `, "load_balancing_weight": 0`) + `]}]`,
			"endpoints[0].lb_endpoints[0].load_balancing_weight: value must be greater than or equal to 1"},
		{"weights beyond a number", `"endpoints": [{"lb_endpoints": [` + endpoint("10.0.0.1", 80, `, "load_balancing_weight": 4294967295`) + `,` + endpoint("10.0.0.2", 80, `, "load_balancing_weight": 1`) + `]}]`,
			"endpoints[0].lb_endpoints: their weights make 4294967296 together, which is more than 4294967295"},
		{"localities beyond a number", `"endpoints": [{"load_balancing_weight": 4294967295}, {"locality": {"zone": "b"}, "load_balancing_weight": 1}]`,
			"endpoints: the weights of localities of priority 0 make 4294967296 together, which is more than 4294967295"},
		{"one locality of two weights", `"endpoints": [{"locality": {"zone": "b"}, "load_balancing_weight": 5}, {"locality": {"zone": "b"}, "load_balancing_weight": 1}]`,
			"endpoints[1].load_balancing_weight: the locality has the weight 5 in the same priority before"},
		{"a name to check", `"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}, "health_check_config": {"address": {"socket_address": {"address": "x.example", "port_value": 80}}}}}]}]`,
			`endpoints[0].lb_endpoints[0].endpoint.health_check_config.address.socket_address.address: "x.example" is not an IP address, and names are not resolved`},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.EqualError(t, m.ApplyAssignments(assignmentOf(t, c.text)), `assignment "a": `+c.want)
		})
	}
}

func TestHostThatIsCheckedStaysForItsHealth(t *testing.T) {
	for name, c := range map[string]struct {
		ignore bool
		want   string
	}{
		"unless it fails":    {false, "/pending_dynamic_removal"},
		"unless told not to": {true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, false)
				defer m.stop()
				// The time stands still here, so that no check begins.
				config := m.parse(fmt.Sprintf(`{"name": "a", "type": "EDS", "ignore_health_on_host_removal": %t,
				"health_checks": [{"timeout": "1s", "interval": "1s", "initial_jitter": "3600s", "healthy_threshold": 1, "unhealthy_threshold": 1, "tcp_health_check": {}}],
				"eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}}`, c.ignore))
				m.AddStatic([]*cluster.Config{config})
				a := m.Get("a")
				require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""), endpoint("10.0.0.2", 80, ""))))
				host := a.Hosts().Members[0].Host
				require.Equal(t, "/failed_active_hc/pending_active_hc", host.Flags().String())
				a.SetHealthFlag(host, cluster.FailedActiveHC|cluster.PendingActiveHC, false)
				require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.2", 80, ""), endpoint("10.0.0.3", 80, ""))))
				if c.want == "" {
					require.Len(t, a.Hosts().Members, 2)
					return
				}
				require.Len(t, a.Hosts().Members, 3)
				require.Equal(t, c.want, host.Flags().String())
				require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""), endpoint("10.0.0.3", 80, ""))))
				require.Len(t, a.Hosts().Members, 2, "that one failed its checks")
				require.Equal(t, "healthy", host.Flags().String(), "and this one is back")
				require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.3", 80, ""))))
				require.Len(t, a.Hosts().Members, 2)
				a.SetHealthFlag(host, cluster.FailedActiveHC, true)
				require.Len(t, a.Hosts().Members, 1)
			})
		})
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, policy := range []string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"} {
		t.Run(policy, func(t *testing.T) {
			_, a := newCluster(t, fmt.Sprintf(`, "lb_policy": %q`, policy), `"endpoints": [`+group(0, 10, 5, 0, `"priority": 0`)+`,`+group(1, 10, 0, 0, `"priority": 1`)+`]`)
			servicetest.Allocations(t, 0, func() { a.Pick(&cluster.PickContext{Hash: 7, Hashed: true}) })
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for _, c := range []struct{ name, assigned string }{
		{"one priority", `"endpoints": [` + group(0, 10, 0, 0, `"priority": 0`) + `]`},
		{"two priorities", `"endpoints": [` + group(0, 10, 5, 0, `"priority": 0`) + `,` + group(1, 10, 0, 0, `"priority": 1`) + `]`},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, a := newCluster(b, "", c.assigned)
			b.ReportAllocs()
			for b.Loop() {
				a.Pick(&cluster.PickContext{})
			}
		})
	}
}

func BenchmarkChangeOfHealthOf1000Hosts(b *testing.B) {
	text := ""
	for i := range 4 {
		if i > 0 {
			text += ","
		}
		text += group(i, 250, 0, 0, `"priority": 0`)
	}
	_, a := newCluster(b, `, "common_lb_config": {"update_merge_window": "0s"}`, `"endpoints": [`+text+`]`)
	host := a.Hosts().Members[0].Host
	on := true
	b.ReportAllocs()
	for b.Loop() {
		a.SetHealthFlag(host, cluster.FailedActiveHC, on)
		on = !on
	}
}
