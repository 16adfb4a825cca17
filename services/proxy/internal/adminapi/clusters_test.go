package adminapi_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/adminapi"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// static is a manager of static clusters in JSON, and what ends it.
func static(t *testing.T, texts ...string) (clusters *cluster.Manager, end func()) {
	t.Helper()
	report, policies := &strict.Report{}, []cluster.Policy{lb.RoundRobin()}
	var configs []*cluster.Config
	for _, text := range texts {
		configs = append(configs, cluster.Parse(read(t, &clusterv3.Cluster{}, text), "", policies, report))
	}
	require.NoError(t, report.Err())
	clusters = cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	clusters.AddStatic(configs)
	return clusters, func() {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, clusters.Run(ended))
	}
}

func TestClustersTellTheServiceNameThatIsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clusters, end := static(t, `{"name": "a", "type": "EDS", "edsClusterConfig": {
			"serviceName": "s", "edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}}`)
		defer end()
		h := proxy(t, func(o *adminapi.Options) { o.Clusters = clusters })
		require.Contains(t, get(h, "/clusters").Body.String(), "a::eds_service_name::s\n")
		require.Equal(t, "s", read(t, &adminv3.Clusters{}, get(h, "/clusters?format=json").Body.String()).GetClusterStatuses()[0].GetEdsServiceName())
	})
}

// TestClustersTellWhatOutlierDetectionFound: rates of 50 and 100 have a mean of 75 and a
// standard deviation of 25.
func TestClustersTellWhatOutlierDetectionFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clusters, end := static(t, `{"name": "a", "altStatName": "b",
			"loadAssignment": {"clusterName": "a", "endpoints": [{"lbEndpoints": [
				{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 80}}}},
				{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 80}}}},
				{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.3", "portValue": 80}}}}]}]},
			"outlierDetection": {"interval": "10s", "successRateMinimumHosts": 1, "successRateRequestVolume": 1}}`)
		defer end()
		h := proxy(t, func(o *adminapi.Options) { o.Clusters = clusters })

		time.Sleep(5 * time.Second) // between two rounds
		members := clusters.Get("a").Hosts().Members
		for i, statuses := range [][]int{{200, 500}, {200, 200}, {}} {
			for _, status := range statuses {
				members[i].Host.Outlier.ReportStatus(status)
			}
		}
		time.Sleep(10 * time.Second)
		var told []string
		for line := range strings.Lines(get(h, "/clusters").Body.String()) {
			if strings.Contains(line, "success_rate") || strings.Contains(line, "observability_name") {
				told = append(told, strings.TrimSpace(line))
			}
		}
		require.Equal(t, []string{
			"a::observability_name::b",
			"a::outlier::success_rate_average::75",
			"a::outlier::success_rate_ejection_threshold::27.5",
			"a::outlier::local_origin_success_rate_average::-1",
			"a::outlier::local_origin_success_rate_ejection_threshold::-1",
			"a::10.0.0.1:80::success_rate::50",
			"a::10.0.0.1:80::local_origin_success_rate::-1",
			"a::10.0.0.2:80::success_rate::100",
			"a::10.0.0.2:80::local_origin_success_rate::-1",
			"a::10.0.0.3:80::success_rate::-1",
			"a::10.0.0.3:80::local_origin_success_rate::-1",
		}, told)
		status := read(t, &adminv3.Clusters{}, get(h, "/clusters?format=json").Body.String()).GetClusterStatuses()[0]
		require.Equal(t, "b", status.GetObservabilityName())
		require.InDelta(t, 27.5, status.GetSuccessRateEjectionThreshold().GetValue(), 1e-9)
		require.Nil(t, status.GetLocalOriginSuccessRateEjectionThreshold())
		hosts := status.GetHostStatuses()
		require.InDelta(t, 50, hosts[0].GetSuccessRate().GetValue(), 1e-9)
		require.Nil(t, hosts[0].GetLocalOriginSuccessRate())
		require.Nil(t, hosts[2].GetSuccessRate())
	})
}
