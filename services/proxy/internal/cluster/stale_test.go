package cluster_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestAnAssignmentGoesStaleUnlessThereIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, false)
		defer m.stop()
		require.NoError(t, m.ApplyClusters(clusters(t, eds("a"), eds("b"))))
		shortly := func() []xds.Resource {
			a := assignment(t, "a", endpoint("10.0.0.1", 80, ""))
			a[0].Message.(*endpointv3.ClusterLoadAssignment).Policy = &endpointv3.ClusterLoadAssignment_Policy{EndpointStaleAfter: durationpb.New(10 * time.Second)}
			return a
		}
		hosts := func(name string) int { return len(m.Get(name).Hosts().Members) }
		require.NoError(t, m.ApplyAssignments(assignment(t, "b", endpoint("10.0.0.2", 80, ""))))
		require.NoError(t, m.ApplyAssignments(shortly()))
		time.Sleep(9 * time.Second)
		require.NoError(t, m.ApplyAssignments(shortly()), "the same one begins anew")
		time.Sleep(9 * time.Second)
		require.Equal(t, 1, hosts("a"))

		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Zero(t, hosts("a"))
		require.Equal(t, 1, hosts("b"), "another assignment holds for ever")
		require.EqualValues(t, 2, m.stat("cluster.a.assignment_timeout_received"))
		require.EqualValues(t, 1, m.stat("cluster.a.assignment_stale"))
		require.Equal(t, 1, strings.Count(m.log.String(), "assignment is stale"))

		require.NoError(t, m.ApplyAssignments(shortly()))
		require.Equal(t, 1, hosts("a"))
		require.NoError(t, m.ApplyAssignments(assignment(t, "a", endpoint("10.0.0.1", 80, ""))), "one that holds for ever takes its place")
		time.Sleep(time.Minute)
		require.Equal(t, 1, hosts("a"))

		require.NoError(t, m.ApplyAssignments(shortly()))
		require.NoError(t, m.ApplyClusters(clusters(t, eds("b"))))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(m.log.String(), "assignment is stale"), "nobody has the assignment any more")
	})
}

func TestOnlyAssignmentsOfEDSGoStale(t *testing.T) {
	report := &strict.Report{}
	cluster.Parse(clusters(t, `{"name": "a", "type": "STATIC", "load_assignment": {"cluster_name": "a", "policy": {"endpoint_stale_after": "5s"}}}`)[0].Message.(*clusterv3.Cluster), "c", policies, report)
	require.EqualError(t, report.Err(), "c.load_assignment.policy.endpoint_stale_after: only an assignment that EDS sends goes stale")
}
