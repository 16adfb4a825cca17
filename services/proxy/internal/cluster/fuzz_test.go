package cluster_test

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// FuzzClusters wants no panic for any bytes that are a cluster, nor of the
// cluster that comes of them.
func FuzzClusters(f *testing.F) {
	for _, text := range []string{
		eds("a"), static(`"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 10, "hash_function": "MURMUR_HASH_2"}`),
		static(policy(`load_balancing_policies.maglev.v3.Maglev", "table_size": 7`)),
		static(`"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 3}, "circuit_breakers": {"thresholds": [{"retry_budget": {}}]}`),
		named(strictDNS, `, "dns_jitter": "1s"`, "one.example"), named(logicalDNS, "", "192.0.2.1"),
	} {
		seed, err := proto.Marshal(clusters(f, text)[0].Message)
		require.NoError(f, err)
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		message := &clusterv3.Cluster{}
		if proto.Unmarshal(raw, message) != nil {
			return
		}
		m := newResolvingManager(t, false, newZone())
		if m.ApplyClusters([]xds.Resource{{Name: message.GetName(), Message: message}}) != nil {
			return
		}
		if c := m.Get(message.GetName()); c != nil {
			c.Pick(&cluster.PickContext{})
		}
		require.NoError(t, m.ApplyClusters(nil)) // ends the lookups
	})
}

// FuzzAssignments wants no panic for any bytes that are an assignment, and a
// host for every request that gets one.
func FuzzAssignments(f *testing.F) {
	for _, text := range []string{
		`"endpoints": [` + group(0, 4, 1, 1, `"priority": 0`) + `,` + group(1, 4, 4, 0, `"priority": 1, "load_balancing_weight": 3`) + `]`,
		`"policy": {"overprovisioning_factor": 100, "drop_overloads": [{"category": "x", "drop_percentage": {"numerator": 1}}]}`,
	} {
		seed, err := proto.Marshal(assignmentOf(f, text)[0].Message)
		require.NoError(f, err)
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		message := &endpointv3.ClusterLoadAssignment{}
		if proto.Unmarshal(raw, message) != nil {
			return
		}
		m, c := newCluster(t, `, "common_lb_config": {"locality_weighted_lb_config": {}, "update_merge_window": "0s"}`, "")
		message.ClusterName = "a"
		if m.ApplyAssignments([]xds.Resource{{Name: "a", Message: message}}) != nil {
			return
		}
		for range 20 {
			require.Equal(t, len(c.Hosts().Members) > 0, c.Pick(&cluster.PickContext{}) != nil)
		}
	})
}
