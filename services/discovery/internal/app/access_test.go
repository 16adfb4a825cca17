package app_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/app"
)

const (
	echoToken  = "echo-0123456789abcdef"
	usersToken = "users-0123456789abcdef"
	opsToken   = "ops-0123456789abcdef"
)

// ruleFile writes a file of rules and returns its path.
func ruleFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
tokens:
- {name: echo-team, token: `+echoToken+`, services: [echo]}
- {name: users-team, token: `+usersToken+`, services: [users]}
- {name: ops, token: `+opsToken+`, operator: true}
identities:
- {spiffe: "spiffe://td/ns/*/sa/echo", services: [echo]}
`), 0o600))
	return path
}

// host is the form of a host of "echo" at ip.
func host(ip string) url.Values {
	return url.Values{"ip": {ip}, "port": {"8001"}, "revision": {"r1"}, "tags": {`{"az":"a","region":"r","instance_id":"i"}`}}
}

// call asks the HTTP listener with a token, if it is not empty.
func (r *running) call(t testing.TB, method, path, token string, form url.Values) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+r.addrs["http"]+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(text)
}

// read opens a stream of clusters, and returns why there is no response.
func read(t testing.TB, address, token string, by credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(by))
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL}) // Recv says why not
	_, err = stream.Recv()
	return err
}

func TestStrangersMayReadAndNoMore(t *testing.T) {
	o := options(t)
	o.AuthFile = ruleFile(t)
	r := start(t, o)
	response, body := r.call(t, "POST", "/v1/registration/echo", "", host("127.0.0.1"))
	require.Equal(t, 401, response.StatusCode)
	require.Equal(t, `Bearer realm="discovery"`, response.Header.Get("WWW-Authenticate"))
	require.Contains(t, body, "takes a token, as Authorization: Bearer, or a client certificate that has a rule")
	response, _ = r.call(t, "GET", "/v1/registration/echo", "", nil)
	require.Equal(t, 200, response.StatusCode)
	_, metrics := r.get(t, "admin", "/metrics")
	require.Contains(t, metrics, "discovery_refusals_total{reason=\"token\"} 1\n")
	require.Contains(t, metrics, "discovery_auth_file_good 1\n")
}

func TestReadsCanBeClosed(t *testing.T) {
	o := options(t)
	o.AuthFile, o.Reads = ruleFile(t), "closed"
	r := start(t, o)
	for path, want := range map[string]int{"/v1/registration/echo": 401, "/healthcheck": 200} {
		response, _ := r.call(t, "GET", path, "", nil)
		require.Equal(t, want, response.StatusCode, path)
	}
	response, _ := r.call(t, "GET", "/v1/registration/echo", usersToken, nil)
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, codes.Unauthenticated, status.Code(read(t, r.addrs["xds"], "", insecure.NewCredentials())))
	require.NoError(t, read(t, r.addrs["xds"], usersToken, insecure.NewCredentials()))
}

func TestAPollOfXDSIsARead(t *testing.T) {
	for reads, want := range map[string]int{"open": http.StatusOK, "closed": http.StatusUnauthorized} {
		o := options(t)
		o.AuthFile, o.Reads, o.WarmUp = ruleFile(t), reads, new(time.Duration(0))
		r := start(t, o)
		// A node of more than other bodies may have.
		node := `{"node":{"id":"envoy-1","user_agent_name":"envoy","extensions":[` + strings.Repeat(`{"name":"a"},`, 10_000) + `{}]}}`
		servicetest.Eventually(t, "the poll is answered", func() bool {
			response, err := http.Post("http://"+r.addrs["http"]+"/v3/discovery:clusters", "application/json", strings.NewReader(node))
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			return response.StatusCode == want
		})
		response, err := http.Get("http://" + r.addrs["http"] + "/v2/xds/clients")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, want, response.StatusCode)
	}
}

func TestASourceIsHeldToItsRate(t *testing.T) {
	o := options(t)
	o.CallsPerSource, o.CallsBurst = 0.001, 2
	r := start(t, o)
	for _, want := range []int{200, 200, 429} {
		response, _ := r.call(t, "POST", "/v1/registration/echo", "", host("127.0.0.1"))
		require.Equal(t, want, response.StatusCode)
	}
}

func TestBothListenersServeTLSAndAskForCertificates(t *testing.T) {
	a := servicetest.NewAuthority(t)
	o := options(t)
	o.TLSCert, o.TLSKey = a.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	o.TLSClientCA, o.AuthFile, o.Reads = a.File(), ruleFile(t), "closed"
	r := start(t, o)
	for name, test := range map[string]struct {
		uri    string // "" for no certificate
		status int    // 0 if there is no connection
		code   codes.Code
	}{
		"with a rule":           {"spiffe://td/ns/prod/sa/echo", 200, codes.OK},
		"without":               {"spiffe://td/ns/prod/sa/eve", 403, codes.PermissionDenied},
		"without a certificate": {"", 0, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{RootCAs: a.Pool()}
			if test.uri != "" {
				u, err := url.Parse(test.uri)
				require.NoError(t, err)
				pair, err := tls.X509KeyPair(a.Issue(x509.Certificate{URIs: []*url.URL{u}}))
				require.NoError(t, err)
				config.Certificates = []tls.Certificate{pair}
			}
			client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
			response, err := client.PostForm("https://"+r.addrs["http"]+"/v1/registration/echo", host("127.0.0.1"))
			if test.status == 0 {
				require.Error(t, err)
			} else {
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				require.Equal(t, test.status, response.StatusCode)
			}
			require.Equal(t, test.code, status.Code(read(t, r.addrs["xds"], "", credentials.NewTLS(config.Clone()))))
		})
	}
	servicetest.Eventually(t, "the connection that was refused is counted", func() bool {
		_, metrics := r.get(t, "admin", "/metrics")
		return strings.Contains(metrics, "discovery_xds_handshake_errors_total ") && !strings.Contains(metrics, "discovery_xds_handshake_errors_total 0\n")
	})
}

func TestThatACertificateIsBadShowsAndTheOneBeforeStays(t *testing.T) {
	a := servicetest.NewAuthority(t)
	o := options(t)
	o.TLSCert, o.TLSKey = a.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	key, err := os.ReadFile(o.TLSKey)
	require.NoError(t, err)
	r := start(t, o)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Pool()}, DisableKeepAlives: true}}
	for _, step := range []struct {
		key  []byte
		good string
	}{{key, "1"}, {[]byte("none"), "0"}, {key, "1"}} {
		require.NoError(t, os.WriteFile(o.TLSKey, step.key, 0o600))
		servicetest.Eventually(t, "the gauge is "+step.good, func() bool {
			_, metrics := r.get(t, "admin", "/metrics")
			return strings.Contains(metrics, "discovery_certificates_good "+step.good+"\n")
		})
		response, err := client.Get("https://" + r.addrs["http"] + "/healthcheck")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, 200, response.StatusCode)
	}
}

func TestAListenerThatStrangersMayUseIsWarnedOf(t *testing.T) {
	a := servicetest.NewAuthority(t)
	withTLS := func(o *app.Options) {
		o.TLSCert, o.TLSKey = a.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
		o.TLSClientCA = a.File()
	}
	for name, test := range map[string]struct {
		change func(*app.Options)
		warned bool
	}{
		"loopback":              {func(o *app.Options) { o.HTTPAddress = "127.0.0.1:0" }, false},
		"loopback, IPv4 in v6":  {func(o *app.Options) { o.HTTPAddress = "[::ffff:127.0.0.1]:0" }, false},
		"everywhere":            {func(*app.Options) {}, true},
		"with rules":            {func(o *app.Options) { o.AuthFile = ruleFile(t) }, false},
		"with certificates":     {withTLS, false},
		"with those if one has": {func(o *app.Options) { withTLS(o); o.TLSClientAuth = "optional" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.HTTPAddress = "0.0.0.0:0"
			test.change(&o)
			var log bytes.Buffer
			service, err := app.New(o, slog.New(slog.NewTextHandler(&log, nil)))
			require.NoError(t, err)
			warned := strings.Contains(log.String(), "level=WARN")
			require.NoError(t, servicetest.Run(t, service)())
			require.Equal(t, test.warned, warned, log.String())
		})
	}
}

func TestAHostIsRegisteredAndWeighedByWhoMayAndAtItsOwnAddress(t *testing.T) {
	o := options(t)
	o.AuthFile, o.OwnAddress = ruleFile(t), true
	r := start(t, o)
	for _, test := range []struct {
		token, ip string
		status    int
		reason    string
	}{
		{usersToken, "127.0.0.1", 403, "does not let it change hosts of service"},
		{echoToken, "10.0.0.1", 403, "address 10.0.0.1 is not that of the caller, 127.0.0.1"},
		{echoToken, "127.0.0.1", 200, "{}"},
		{echoToken, "::ffff:127.0.0.1", 200, "{}"},
	} {
		response, body := r.call(t, "POST", "/v1/registration/echo", test.token, host(test.ip))
		require.Equal(t, test.status, response.StatusCode, body)
		require.Contains(t, body, test.reason)
	}
	for path, status := range map[string]int{"/127.0.0.1": 204, "/10.0.0.1": 403, "": 204} {
		response, body := r.call(t, "POST", "/v1/loadbalancing/echo"+path, echoToken, url.Values{"load_balancing_weight": {"7"}})
		require.Equal(t, status, response.StatusCode, "%s: %s", path, body)
	}
	_, metrics := r.get(t, "admin", "/metrics")
	require.Contains(t, metrics, "discovery_refusals_total{reason=\"address\"} 2\n")
	require.Contains(t, metrics, "discovery_refusals_total{reason=\"token\"} 1\n")
}

func TestAFullServiceIsRefusedAndCounted(t *testing.T) {
	o := options(t)
	o.MaxHostsPerService = 1
	r := start(t, o)
	response, body := r.call(t, "POST", "/v1/registration/echo", "", host("127.0.0.1"))
	require.Equal(t, 200, response.StatusCode, body)
	response, body = r.call(t, "POST", "/v1/registration/echo", "", host("127.0.0.2"))
	require.Equal(t, 429, response.StatusCode, body)
	require.Equal(t, "10", response.Header.Get("Retry-After"))
	_, metrics := r.get(t, "admin", "/metrics")
	require.Contains(t, metrics, "discovery_refusals_total{reason=\"hosts\"} 1\n")
}

func TestTheJSONAPIAsksWhoMay(t *testing.T) {
	o := options(t)
	o.AuthFile = ruleFile(t)
	r := start(t, o)
	for _, test := range []struct {
		method, path, token, body string
		status                    int
	}{
		{"PUT", "/v2/services/echo/hosts/a", "", `{"address":"127.0.0.1","port":1}`, 401},
		{"PUT", "/v2/services/echo/hosts/a", usersToken, `{"address":"127.0.0.1","port":1}`, 403},
		{"PUT", "/v2/services/echo/hosts/a", echoToken, `{"address":"127.0.0.1","port":1}`, 201},
		{"POST", "/v2/heartbeats", "", `{"leases":[]}`, 401},
		{"POST", "/v2/heartbeats", usersToken, `{"leases":[]}`, 200},
		{"PUT", "/v2/settings/drain", echoToken, `{"scope":{"service":"echo"},"reason":"test"}`, 403},
		{"PUT", "/v2/settings/drain", opsToken, `{"scope":{"service":"echo"},"reason":"test"}`, 200},
		{"GET", "/v2/settings", "", "", 200},
	} {
		request, err := http.NewRequest(test.method, "http://"+r.addrs["http"]+test.path, strings.NewReader(test.body))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		if test.token != "" {
			request.Header.Set("Authorization", "Bearer "+test.token)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		require.Equal(t, test.status, response.StatusCode, "%s %s: %s", test.method, test.path, text)
		require.Equal(t, test.status == 401, response.Header.Get("WWW-Authenticate") != "")
	}
	_, settings := r.get(t, "http", "/v2/settings")
	require.Contains(t, settings, `"author":"ops"`)
}
