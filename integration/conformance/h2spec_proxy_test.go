package conformance

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// http2Bootstrap has one listener before a backend at the port, to which the proxy
// speaks one version of HTTP.
const http2Bootstrap = `
node: {id: mill, cluster: edge}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {%s: {}}
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          codec_type: HTTP2
          stat_prefix: ingress
          route_config:
            name: all
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: backend}}]}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

// TestOurProxysListenerIsConformant runs all cases of h2spec, the strict ones
// included, against the proxy, before backends of both versions of HTTP. A
// codec_type of AUTO would take the one without a preface for HTTP/1.
func TestOurProxysListenerIsConformant(t *testing.T) {
	program := servicetest.Peer(t, "h2spec", "H2SPEC", "make bin/h2spec")
	for _, version := range []string{"http_protocol_options", "http2_protocol_options"} {
		t.Run(version, func(t *testing.T) {
			backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(w, "conformant")
			}))
			backend.Config.Protocols = &http.Protocols{}
			backend.Config.Protocols.SetHTTP1(true)
			backend.Config.Protocols.SetUnencryptedHTTP2(true)
			backend.Start()
			t.Cleanup(backend.Close)
			_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
			require.NoError(t, err)
			proxy := harness.Proxy(t, fmt.Sprintf(http2Bootstrap, port, version))
			requireH2spec(t, program, proxy.Addr("ingress"))
		})
	}
}
