package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// discoveredListener is a listener of a resource file; the header server says
// which version of it answers.
const discoveredListener = `resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: edge
  address: {socket_address: {address: 127.0.0.1, port_value: %s}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: edge
        server_name: %s
        rds: {route_config_name: edge, config_source: {ads: {}, resource_api_version: V3}}
        http_filters:
        - name: router
          typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

const discoveredRoutes = `resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: edge
  virtual_hosts:
  - name: all
    domains: ["*"]
    routes: [{match: {prefix: %s}, route: {cluster: echo}}]
`

// TestListenersAndRoutesOfDiscoveryChangeUnderLoad has all of the proxy's
// configuration come from discovery, in both dialects of ADS.
func TestListenersAndRoutesOfDiscoveryChangeUnderLoad(t *testing.T) {
	for _, dialect := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(dialect, func(t *testing.T) {
			directory := t.TempDir()
			put := func(name, format string, values ...any) {
				path := filepath.Join(directory, name)
				require.NoError(t, os.WriteFile(path+".next", fmt.Appendf(nil, format, values...), 0o600))
				require.NoError(t, os.Rename(path+".next", path))
			}
			address := servicetest.FreeAddress(t)
			_, port, err := net.SplitHostPort(address)
			require.NoError(t, err)
			put("listeners.yaml", discoveredListener, port, "v0")
			put("routes.yaml", discoveredRoutes, "/")
			discovery := harness.Discovery(t, "DISCOVERY_XDS_RESOURCES="+directory)
			harness.Host(t, "one", discovery.Addr("http"), harness.HostTTL)
			_, xds, err := net.SplitHostPort(discovery.Addr("xds"))
			require.NoError(t, err)
			harness.Proxy(t, fmt.Sprintf(`
node: {id: discovered, cluster: e2e}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: discovery}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: discovery
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: discovery
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]
`, dialect, xds))
			client := harness.Client(t)
			get := func(path string) (status int, server string) {
				response, err := client.Get("http://" + address + path)
				if err != nil {
					return 0, ""
				}
				defer response.Body.Close()
				return response.StatusCode, response.Header.Get("Server")
			}
			servicetest.Eventually(t, "the listener serves by its routes", func() bool {
				status, server := get("/")
				return status == http.StatusOK && server == "v0"
			})
			failed, stop := failures(client, "http://"+address+"/")
			for i := 1; i <= 5; i++ {
				put("listeners.yaml", discoveredListener, port, fmt.Sprint("v", i))
				servicetest.Eventually(t, "the changed listener serves", func() bool {
					_, server := get("/")
					return server == fmt.Sprint("v", i)
				})
			}
			stop()
			require.Empty(t, failed())

			put("routes.yaml", discoveredRoutes, "/only")
			servicetest.Eventually(t, "the changed routes hold", func() bool {
				status, _ := get("/")
				only, _ := get("/only")
				return status == http.StatusNotFound && only == http.StatusOK
			})
			put("listeners.yaml", "resources: []\n")
			servicetest.Eventually(t, "the listener is gone", func() bool {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
		})
	}
}

// failures asks for a URL until stop is called, and says what went wrong.
func failures(client *http.Client, url string) (failed func() []string, stop func()) {
	var wrong []string
	ending, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop, which waits for it
		defer close(done)
		for {
			select {
			case <-ending:
				return
			default:
			}
			response, err := client.Get(url)
			if err != nil {
				wrong = append(wrong, err.Error())
				continue
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				wrong = append(wrong, response.Status)
			}
		}
	}()
	return func() []string { return wrong }, func() { close(ending); <-done }
}
