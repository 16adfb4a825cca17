package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestPrometheusFindsTheHostsToScrape(t *testing.T) {
	promtool := servicetest.Peer(t, "promtool", "PROMTOOL", "make peers, or apt-get install prometheus")
	discovery := harness.Discovery(t)
	client := harness.Client(t)
	for service, ip := range map[string]string{"users": "10.0.0.1", "mail": "fd00::1"} {
		response, err := client.PostForm("http://"+discovery.Addr("http")+"/v1/registration/"+service, url.Values{
			"ip": {ip}, "port": {"80"}, "revision": {"1"}, "service_repo_name": {"mill"},
			"tags": {`{"az":"eu-1","region":"eu","instance_id":"i","canary":true,"team-name":"search"}`},
		})
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
		"scrape_configs: [{job_name: hosts, http_sd_configs: [{url: 'http://%s/v2/prometheus/sd'}]}]\n", discovery.Addr("http")), 0o644))

	// It looks for as long as it is told, whatever it finds; on a slow machine that
	// may be too short for it to find anything.
	labels := map[string]map[string]string{}
	eventually(t, "it finds both", func() bool {
		text, err := exec.CommandContext(t.Context(), promtool, "check", "service-discovery", "--timeout=2s", config, "hosts").Output()
		require.NoError(t, err, "%s", text)
		var found []struct {
			Labels map[string]string `json:"discoveredLabels"`
		}
		require.NoError(t, json.Unmarshal(text, &found), "%s", text)
		for _, target := range found {
			labels[target.Labels["__address__"]] = target.Labels
		}
		return len(labels) > 0
	})
	require.Len(t, labels, 2, "%v", labels)
	for address, service := range map[string]string{"10.0.0.1:80": "users", "[fd00::1]:80": "mail"} {
		for name, want := range map[string]string{
			"service": service, "state": "serving", "zone": "eu-1", "region": "eu", "revision": "1", "repo": "mill",
			"canary": "true", "tag_team_name": "search",
		} {
			require.Equal(t, want, labels[address]["__meta_discovery_"+name], "%s of %s", name, address)
		}
	}
}
