package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// TestAllClustersThatChangeAtOnceAreSoonActive changes a thousand clusters of an
// Envoy by one template. Each is warm only when its assignment has come again.
func TestAllClustersThatChangeAtOnceAreSoonActive(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	const clusters = 1000
	template := writeFile(t, "template.yaml", "cluster: {connect_timeout: 1s}")
	discovery := harness.Discovery(t, "DISCOVERY_XDS_CLUSTER_TEMPLATE="+template)
	hosts := newRegistrar(t, discovery)
	for i := range clusters {
		hosts.put(fmt.Sprintf("service-%d", i), "one", "127.0.0.1:1", "")
	}
	for i, tr := range []transport{aggregatedState, aggregatedDelta} {
		t.Run(tr.name, func(t *testing.T) {
			e := startEnvoy(t, tr.bootstrap(t, discovery, ""))
			const modified, warming = "cluster_manager.cluster_modified", "cluster_manager.warming_clusters"
			sent := func(kind string) float64 {
				return harness.Metric(t, discovery, fmt.Sprintf("discovery_xds_responses_total{type=%q}", kind))
			}
			eventually(t, "all are active", func() bool { return len(e.dump("dynamic_active_clusters")) == clusters })
			before, changes, assignments := e.stat(modified), sent("clusters"), sent("endpoints")

			began, timeout := time.Now(), fmt.Sprintf("0.%d00s", i+1)
			replaceFile(t, template, "cluster: {connect_timeout: "+timeout+"}")
			eventually(t, "the new clusters are sent", func() bool { return sent("clusters") > changes })
			wentOut := time.Since(began)
			// Envoy says nothing while it reads them.
			eventually(t, "they have come", func() bool { return e.stat(modified) > before })
			came := time.Since(began)
			eventually(t, "all are active again", func() bool {
				return e.stat(modified) >= before+clusters && e.stat(warming) == 0
			})
			took := time.Since(began)
			t.Logf("%d changed clusters were sent %v after their template, read after %v, and active after %v", clusters,
				wentOut.Round(time.Millisecond), came.Round(time.Millisecond), took.Round(time.Millisecond))
			require.Less(t, took-came, warmingInVain*2/3)
			require.Equal(t, map[string]int{timeout: clusters}, e.connectTimeouts())
			require.Empty(t, e.dump("dynamic_warming_clusters"))
			require.Len(t, e.hosts("service-999"), 1)
			require.Zero(t, e.rejected())
			require.InDelta(t, 1, sent("clusters")-changes, 0, "all in one response")
			require.InDelta(t, 1, sent("endpoints")-assignments, 0, "once for all")
		})
	}
}
