package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// TestEnvoyShowsWhoItIs has Envoys read from a discovery that speaks TLS alone,
// and to nobody whom it does not know. One of them may have a secret, with which
// it serves.
func TestEnvoyShowsWhoItIs(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	const token = "edge-0123456789abcdef"
	authority := servicetest.NewAuthority(t)
	cert, key := authority.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	spiffe := &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/ns/edge/sa/proxy"}
	edgeCert, edgeKey := authority.IssueFiles(x509.Certificate{URIs: []*url.URL{spiffe}})
	discovery := harness.Discovery(t, "DISCOVERY_READS=closed",
		"DISCOVERY_XDS_RESOURCES="+filepath.Dir(writeFile(t, "ingress.yaml", servedByTLS(t, cert, key))),
		"DISCOVERY_XDS_SECRET_RULES="+writeFile(t, "rules.yaml", fmt.Sprintf("secrets: [{names: [site], identities: [%q]}]", spiffe)),
		"DISCOVERY_TLS_CERT="+cert, "DISCOVERY_TLS_KEY="+key,
		"DISCOVERY_TLS_CLIENT_CA="+authority.File(), "DISCOVERY_TLS_CLIENT_AUTH=optional",
		"DISCOVERY_AUTH_FILE="+writeFile(t, "access.yaml", fmt.Sprintf(`
tokens:
- {name: edge, token: %s, services: [echo], addresses: [127.0.0.0/8]}
identities:
- {spiffe: %q, services: [edge]}
`, token, spiffe)))
	hosts := &registrar{t: t, base: "https://" + discovery.Addr("http"), token: token, client: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}, DisableKeepAlives: true},
	}}
	hosts.put("echo", "one", "127.0.0.1:1", "")

	withToken := fmt.Sprintf("{initial_metadata: [{key: authorization, value: Bearer %s}], %s", token, discoveryService[1:])
	withCertificate := fmt.Sprintf("tls_certificates: [{certificate_chain: {filename: %s}, private_key: {filename: %s}}]", edgeCert, edgeKey)
	for name, test := range map[string]struct {
		service, certificates string
		refused               string // the reason, if it is
		secret                bool   // whether it may have the secret
	}{
		"a token":             {service: withToken},
		"a certificate":       {service: discoveryService, certificates: withCertificate, secret: true},
		"neither":             {service: discoveryService, refused: "token"},
		"a token of nobody's": {service: fmt.Sprintf("{initial_metadata: [{key: authorization, value: Bearer x%s}], %s", token, discoveryService[1:]), refused: "token"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := aggregated(name, "DELTA_GRPC", test.service)
			if test.refused != "" { // and need not be waited for
				tr.source = "{ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}"
			}
			tr.socket = fmt.Sprintf(`transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,
      common_tls_context: {validation_context: {trusted_ca: {filename: %s}}, %s}}}`, authority.File(), test.certificates)
			counter := fmt.Sprintf("discovery_refusals_total{reason=%q}", test.refused)
			refusals := harness.Metric(t, discovery, counter)
			e := startEnvoy(t, tr.bootstrap(discovery))
			if test.refused != "" {
				eventually(t, "it is refused", func() bool { return harness.Metric(t, discovery, counter) > refusals })
				require.Nil(t, e.hosts("echo"))
				return
			}
			eventually(t, "it has the hosts", func() bool { return len(e.hosts("echo")) == 1 })
			require.Positive(t, e.stat("cluster.discovery.ssl.handshake"))
			if test.secret {
				eventually(t, "it has the secret", func() bool { return len(e.dump("dynamic_active_secrets")) == 1 })
			}
			response, err := hosts.client.Get("https://" + e.Addr("ingress") + "/")
			if !test.secret {
				require.Error(t, err, "it has no certificate to serve with")
				require.Empty(t, e.dump("dynamic_active_secrets"))
				return
			}
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusNoContent, response.StatusCode)
			require.NotContains(t, string(e.tell("/config_dump")), "PRIVATE KEY")
		})
	}
}

// servedByTLS is a listener "ingress" that answers 204 to whom trusts its
// certificate, which is the secret "site" of a certificate and its key.
func servedByTLS(t *testing.T, cert, key string) string {
	t.Helper()
	inline := func(file string) string {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return strconv.Quote(string(text))
	}
	return "resources:" + list([]string{
		fmt.Sprintf(`
"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
name: site
tls_certificate: {certificate_chain: {inline_string: %s}, private_key: {inline_string: %s}}
`, inline(cert), inline(key)),
		listenerType + listener{
			chain: `
transport_socket:
  name: tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
    common_tls_context: {tls_certificate_sds_secret_configs: [{name: site, sds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}}]}
`,
			manager: `route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 204}}]}]}`,
		}.String(),
	})
}
