package conformance

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// http2Bootstrap has one listener of HTTP/2 before a backend, to which the proxy speaks
// the version of HTTP of these options. Route is fields of the only route's action.
func http2Bootstrap(backend, options, route string) string {
	return bootstrap{
		listeners: []listener{{manager: `
codec_type: HTTP2
route_config: {name: all, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {` + route + `}}]}]}
`}},
		clusters: []string{cluster("backend", backend, upstreamProtocol(options))},
	}.String()
}

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
			proxy := harness.Proxy(t, http2Bootstrap(backend.Listener.Addr().String(), version, "cluster: backend"))
			requireH2spec(t, program, proxy.Addr("ingress"))
		})
	}
}
