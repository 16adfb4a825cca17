package conformance

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// reportingEnvoy is the bootstrap of an Envoy that sends what comes in to a
// static cluster "echo" of one host in zone eu-1, and what it does to discovery's
// gRPC listener; more are further fields of the bootstrap.
func reportingEnvoy(id, discovery, host, more string) string {
	return bootstrap{
		node: "id: " + id + "\ncluster: tests",
		more: more,
		listeners: []listener{{manager: `
route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: echo}}]}]}
`}},
		clusters: []string{
			clusterOf("echo", "{locality: {region: eu, zone: eu-1}, lb_endpoints: ["+endpoint(host)+"]}"),
			cluster("discovery", discovery, overHTTP2),
		},
	}.String()
}

// getJSON reads what discovery answers.
func getJSON(t *testing.T, discovery *harness.Process, target string, into any) {
	t.Helper()
	response, err := harness.Client(t).Get("http://" + discovery.Addr("http") + target)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode, target)
	require.NoError(t, json.NewDecoder(response.Body).Decode(into))
}

// load is a cluster, a locality or a host in the answer of /v2/loads.
type load struct {
	Cluster, Zone, Address string
	Issued, Successful     float64
	Localities, Endpoints  []load
}

func TestEnvoysLoadReportsAreShown(t *testing.T) {
	echo := harness.Echo(t, "one").Addr("http")
	discovery := harness.Discovery(t, "DISCOVERY_LRS_INTERVAL=1s", "DISCOVERY_LRS_ENDPOINTS=true")
	envoy := harness.Envoy(t, reportingEnvoy("reporter", discovery.Addr("xds"), echo,
		"cluster_manager: {load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: discovery}}]}}"))
	client := harness.Client(t)
	eventually(t, "the load of the host is shown", func() bool {
		answer, err := harness.Send(client, harness.Request{URL: "http://" + envoy.Addr("ingress") + "/"})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.Status)
		var got struct{ Clusters []load }
		getJSON(t, discovery, "/v2/loads?cluster=echo", &got)
		if len(got.Clusters) == 0 || got.Clusters[0].Successful == 0 {
			return false
		}
		require.Len(t, got.Clusters[0].Localities, 1)
		zone := got.Clusters[0].Localities[0]
		require.Equal(t, "eu-1", zone.Zone)
		require.Len(t, zone.Endpoints, 1)
		require.Equal(t, echo, zone.Endpoints[0].Address)
		require.Positive(t, zone.Endpoints[0].Issued)
		return true
	})
	require.Positive(t, harness.Metric(t, discovery, `discovery_lrs_requests_per_second{cluster="echo",outcome="successful"}`))
}

func TestEnvoysThatCheckHostsFindTheOneThatDoesNotAnswer(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "hds.yaml")
	require.NoError(t, os.WriteFile(rules, []byte(`
interval: 1s
services:
- service: users
  health_checks:
  - {timeout: 5s, interval: 0.5s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /}}
  checkers: 2
  unhealthy: 2
`), 0o600))
	discovery := harness.Discovery(t, "DISCOVERY_HDS_FILE="+rules)
	backends := []*harness.Process{harness.Echo(t, "one"), harness.Echo(t, "two")}
	for i, backend := range backends {
		ip, port, err := net.SplitHostPort(backend.Addr("http"))
		require.NoError(t, err)
		request, err := http.NewRequest(http.MethodPut, fmt.Sprintf("http://%s/v2/services/users/hosts/%d", discovery.Addr("http"), i),
			strings.NewReader(fmt.Sprintf(`{"address": %q, "port": %s, "ttl": "10m"}`, ip, port)))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		response, err := harness.Client(t).Do(request)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, http.StatusCreated, response.StatusCode)
	}
	const checks = "hds_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: discovery}}]}"
	harness.Envoy(t, reportingEnvoy("checker-1", discovery.Addr("xds"), backends[0].Addr("http"), checks))
	// The other one takes its hosts from discovery too.
	reader := startEnvoy(t, reportingEnvoy("checker-2", discovery.Addr("xds"), backends[0].Addr("http"), checks+`
dynamic_resources:
  `+aggregatedDelta.ads+`
  cds_config: `+aggregatedDelta.source))
	told := func(what string) func() bool {
		return func() bool {
			state, ok := reader.hosts("users")[backends[1].Addr("http")]
			return ok && strings.HasPrefix(state, what+" ")
		}
	}
	unhealthy := func() (ids []string) {
		var got struct {
			Hosts []struct {
				ID        string
				Unhealthy bool
			}
		}
		getJSON(t, discovery, "/v2/services/users/hosts", &got)
		for _, h := range got.Hosts {
			if h.Unhealthy {
				ids = append(ids, h.ID)
			}
		}
		return ids
	}
	eventually(t, "both check both", func() bool {
		return harness.Metric(t, discovery, "discovery_hds_checkers") == 2 && harness.Metric(t, discovery, "discovery_hds_checked_hosts") == 2 &&
			harness.Metric(t, discovery, "discovery_hds_reports_total") >= 10
	})
	require.Zero(t, harness.Metric(t, discovery, "discovery_hds_verdicts_total"), "a first check that has not ended is no verdict")

	backends[1].Kill()
	eventually(t, "the one that is dead is unhealthy", func() bool { return fmt.Sprint(unhealthy()) == "[1]" })
	var list struct{ Hosts []json.RawMessage }
	getJSON(t, discovery, "/v1/registration/users", &list)
	require.Len(t, list.Hosts, 1, "it is not given work")
	eventually(t, "Envoy is told", told("UNHEALTHY"))

	backends[1].Restart()
	eventually(t, "it is well again", func() bool { return len(unhealthy()) == 0 })
	eventually(t, "Envoy is told that too", told("HEALTHY"))
}
