package app_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

// inspected is a proxy whose listener has an http_inspector, and chains that answer by
// their names.
func inspected(filter string) string {
	chain := func(name, codec, match string) string {
		return `
    - filter_chain_match: {` + match + `}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ` + name + `
          codec_type: ` + codec + `
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: ` + name + `}}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]`
	}
	return `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters:
    - name: look
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.` + filter + `}
    filter_chains:` + chain("one", "HTTP1", "application_protocols: [http/1.1]") + chain("two", "HTTP2", "application_protocols: [h2c]")
}

const httpInspector = "http_inspector.v3.HttpInspector"

func TestAConnectionGoesToTheChainOfItsVersionOfHTTP(t *testing.T) {
	proxy := run(t, inspected(httpInspector))
	for _, c := range []struct {
		http2 bool
		want  string
	}{{false, "one"}, {true, "two"}} {
		var protocols http.Protocols
		protocols.SetHTTP1(!c.http2)
		protocols.SetUnencryptedHTTP2(c.http2)
		transport := &http.Transport{Protocols: &protocols}
		client := http.Client{Transport: transport}
		for range 2 { // on one connection
			request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+proxy.Addr("ingress")+"/", strings.NewReader("a body"))
			require.NoError(t, err)
			response, err := client.Do(request)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, c.want, string(body))
		}
		transport.CloseIdleConnections()
	}
	conn, err := net.Dial("tcp", proxy.Addr("ingress"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "hello world\r\n")
	require.NoError(t, err)
	_, _ = conn.Read(make([]byte, 1)) // until its end, by EOF or by a reset

	admin := proxy.Addr("admin")
	for _, line := range []string{
		"http_inspector.http11_found: 1", "http_inspector.http2_found: 1", "http_inspector.http_not_found: 1", "listener.127.0.0.1_0.no_filter_chain_match: 1",
	} {
		servicetest.Eventually(t, line, func() bool {
			_, stats := get(t, admin, "/stats")
			return strings.Contains(stats, line+"\n")
		})
	}
	_, dump := get(t, admin, "/config_dump")
	require.Contains(t, dump, `"listener_filters"`)
	require.Contains(t, dump, httpInspector)
}

func TestListenerFiltersThatAreNotThereAreRefusedByTheirPlace(t *testing.T) {
	for _, filter := range []string{"tls_inspector.v3.TlsInspector", "proxy_protocol.v3.ProxyProtocol", "original_dst.v3.OriginalDst", "original_src.v3.OriginalSrc"} {
		err := app.Validate(app.Options{ConfigYAML: inspected(filter), LogLevel: "info"})
		require.ErrorContains(t, err, `static_resources.listeners[0].listener_filters[0].typed_config`)
		require.ErrorContains(t, err, filter)
		require.ErrorContains(t, err, "supported are: envoy.extensions.filters.listener.http_inspector.v3.HttpInspector, envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit")
	}
}
