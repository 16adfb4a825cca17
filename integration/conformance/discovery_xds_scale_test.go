package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// TestAllClustersThatChangeAtOnceAreActiveAgain changes a thousand clusters of an
// Envoy by one template. Each is warm only when its assignment has come again.
func TestAllClustersThatChangeAtOnceAreActiveAgain(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	const clusters = 1000
	template := writeFile(t, "template.yaml", aggregatedState.template("1s"))
	discovery := harness.Discovery(t, "DISCOVERY_XDS_CLUSTER_TEMPLATE="+template)
	hosts := newRegistrar(t, discovery)
	for i := range clusters {
		hosts.put(fmt.Sprintf("service-%d", i), "one", "127.0.0.1:1", "")
	}
	for i, tr := range []transport{aggregatedState, aggregatedDelta} {
		t.Run(tr.name, func(t *testing.T) {
			e := startEnvoy(t, tr.bootstrap(discovery))
			count := func(what, kind string) float64 {
				return harness.Metric(t, discovery, fmt.Sprintf("discovery_xds_%s_total{type=%q}", what, kind))
			}
			eventually(t, "all are active", func() bool { return len(e.dump("dynamic_active_clusters")) == clusters })
			sent, taken, assignments := count("responses", "clusters"), count("acks", "clusters"), count("responses", "endpoints")

			// Envoy answers when all are warm. To ask it before would hold it up:
			// it has a hundred thousand counters.
			began, timeout := time.Now(), fmt.Sprintf("0.%d00s", i+1)
			replaceFile(t, template, tr.template(timeout))
			eventually(t, "the new clusters are sent", func() bool { return count("responses", "clusters") > sent })
			wentOut := time.Since(began)
			eventually(t, "they are taken", func() bool { return count("acks", "clusters") > taken })
			took := time.Since(began)
			require.Empty(t, e.dump("dynamic_warming_clusters"))
			require.Equal(t, map[string]int{timeout: clusters}, e.connectTimeouts())
			t.Logf("%d changed clusters were sent %v after their template, and active after %v", clusters,
				wentOut.Round(time.Millisecond), took.Round(time.Millisecond))
			require.Len(t, e.hosts("service-999"), 1)
			require.Zero(t, e.rejected())
			require.InDelta(t, 1, count("responses", "clusters")-sent, 0, "all in one response")
			require.InDelta(t, 1, count("responses", "endpoints")-assignments, 0, "once for all")
		})
	}
}
