package cluster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// responses are the metrics of the responses of the cluster a that are not 0, by what
// their names have behind it; of a histogram it is how many there were.
func (m *manager) responses() map[string]int64 {
	all := map[string]int64{}
	m.registry.Each(func(metric stats.Metric) {
		name, ok := strings.CutPrefix(metric.Name, "cluster.a.")
		value := metric.Value
		if metric.Kind == stats.KindHistogram {
			value = int64(metric.Distribution.Count)
		}
		if ok && strings.Contains(name, "upstream_rq_") && value != 0 {
			all[name] = value
		}
	})
	return all
}

func TestResponsesAreCountedUnderTheirPrefixes(t *testing.T) {
	const member = `{"endpoint": {"address": {"socket_address": {"address": "10.0.0.%", "port_value": 80}}}`
	at := func(last, more string) string { return strings.Replace(member, "%", last, 1) + more + "}" }
	m, a := newCluster(t, "", `"endpoints": [
		{"locality": {"zone": "z2"}, "lb_endpoints": [`+at("1", "")+`, `+at("2", `, "metadata": {"filter_metadata": {"envoy.lb": {"canary": true}}}`)+`]},
		{"lb_endpoints": [`+at("3", "")+`]}]`)
	zoned, canary, plain := a.Hosts().Members[0].Host, a.Hosts().Members[1].Host, a.Hosts().Members[2].Host
	require.False(t, zoned.Canary())
	require.True(t, canary.Canary())
	require.Empty(t, m.responses(), "none before the first")
	for _, r := range []struct {
		status int
		cluster.Response
	}{
		{200, cluster.Response{Host: zoned, Internal: true}},
		{503, cluster.Response{Host: canary}},
		{204, cluster.Response{Host: plain, Canary: true}},
		{503, cluster.Response{}},
	} {
		a.Stats.CountResponse(r.status, r.Response)
		a.Stats.RecordTime(time.Millisecond, r.Response)
	}
	require.Equal(t, map[string]int64{
		"upstream_rq_200": 1, "upstream_rq_204": 1, "upstream_rq_503": 2, "upstream_rq_2xx": 2, "upstream_rq_5xx": 2, "upstream_rq_completed": 4, "upstream_rq_time": 4,
		"internal.upstream_rq_200": 1, "internal.upstream_rq_2xx": 1, "internal.upstream_rq_completed": 1, "internal.upstream_rq_time": 1,
		"external.upstream_rq_204": 1, "external.upstream_rq_2xx": 1, "external.upstream_rq_503": 2, "external.upstream_rq_5xx": 2,
		"external.upstream_rq_completed": 3, "external.upstream_rq_time": 3,
		"canary.upstream_rq_204": 1, "canary.upstream_rq_2xx": 1, "canary.upstream_rq_503": 1, "canary.upstream_rq_5xx": 1,
		"canary.upstream_rq_completed": 2, "canary.upstream_rq_time": 2,
		"zone.z1.z2.upstream_rq_200": 1, "zone.z1.z2.upstream_rq_2xx": 1, "zone.z1.z2.upstream_rq_503": 1, "zone.z1.z2.upstream_rq_5xx": 1,
		"zone.z1.z2.upstream_rq_completed": 2, "zone.z1.z2.upstream_rq_time": 2,
	}, m.responses())

	// A host that moves counts for where it is.
	require.NoError(t, m.ApplyAssignments(assignmentOf(t, `"endpoints": [{"locality": {"zone": "z3"}, "lb_endpoints": [`+at("1", "")+`]}]`)))
	moved := a.Hosts().Members[0].Host
	require.Same(t, zoned, moved)
	a.Stats.CountResponse(200, cluster.Response{Host: moved})
	require.EqualValues(t, 1, m.responses()["zone.z1.z3.upstream_rq_200"])

	again := cluster.Response{Host: moved, Canary: true}
	servicetest.Allocations(t, 0, func() {
		a.Stats.CountResponse(200, again)
		a.Stats.RecordTime(time.Millisecond, again)
	})
}

func TestResponsesAreCountedUnderFurtherNames(t *testing.T) {
	m, a := newCluster(t, "", `"endpoints": [{"locality": {"zone": "z2"}, "lb_endpoints": [
		{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}}]}]`)
	count := func(name string) {
		r := cluster.Response{Host: a.Hosts().Members[0].Host, Internal: true, Canary: true, AltName: name}
		a.Stats.CountResponse(503, r)
		a.Stats.RecordTime(time.Millisecond, r)
	}
	count("blue.green")
	for _, prefix := range []string{"", "internal.", "canary.", "zone.z1.z2."} {
		for _, name := range []string{"503", "5xx", "completed", "time"} {
			require.EqualValues(t, 1, m.responses()[prefix+"upstream_rq_"+name], prefix+name)
			require.EqualValues(t, 1, m.responses()["blue.green."+prefix+"upstream_rq_"+name], prefix+name)
		}
	}
	require.Zero(t, m.responses()["blue.green.external.upstream_rq_503"])

	// Names come from requests, so that there are only so many of them.
	count(strings.Repeat("x", 300))
	for i := range 200 {
		count(fmt.Sprint("n", i))
	}
	require.EqualValues(t, 202, m.responses()["upstream_rq_503"])
	require.EqualValues(t, 1, m.responses()["n98.upstream_rq_503"])
	require.Zero(t, m.responses()["n99.upstream_rq_503"])
	require.Zero(t, m.responses()[strings.Repeat("x", 300)+".upstream_rq_503"])
}

func TestCodelessResponsesAreCompletedAloneWithoutAPrefix(t *testing.T) {
	m, a := newCluster(t, "", `"endpoints": []`)
	a.Stats.CountResponse(503, cluster.Response{Codeless: true, AltName: "blue"})
	a.Stats.CountRetried(503, true)
	require.Equal(t, map[string]int64{
		"upstream_rq_completed": 1, "blue.upstream_rq_completed": 1, "retry.upstream_rq_completed": 1,
		"external.upstream_rq_completed": 1, "external.upstream_rq_503": 1, "external.upstream_rq_5xx": 1,
		"blue.external.upstream_rq_completed": 1, "blue.external.upstream_rq_503": 1, "blue.external.upstream_rq_5xx": 1,
	}, m.responses())
}
