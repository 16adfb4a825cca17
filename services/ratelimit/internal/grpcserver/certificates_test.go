package grpcserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/servicetest"
)

// loopback is what a server's certificate has.
func loopback() x509.Certificate {
	return x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func write(t *testing.T, path string, text []byte) string {
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// certified is the files of a server's certificate.
func certified(t *testing.T, a *servicetest.Authority, dir string) Files {
	cert, key := a.Issue(loopback())
	return Files{
		Cert: write(t, filepath.Join(dir, "cert.pem"), cert), Key: write(t, filepath.Join(dir, "key.pem"), key),
		Poll: time.Minute,
	}
}

// client trusts a and shows the certificate, if there is one.
func client(t *testing.T, a *servicetest.Authority, cert, key []byte) *tls.Config {
	config := &tls.Config{RootCAs: a.Pool()}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		require.NoError(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// withTLS starts a server with files, and returns its address.
func withTLS(t *testing.T, files Files) string {
	o := options(echo{})
	var err error
	o.Certificates, err = LoadCertificates(files, discard(), prometheus.NewRegistry())
	require.NoError(t, err)
	l := listen(t)
	start(t, l, o)
	return l.Addr().String()
}

// call is one request of such a client.
func callOnce(t *testing.T, address string, config *tls.Config) error {
	client := v3pb.NewRateLimitServiceClient(dial(t, address, credentials.NewTLS(config)))
	_, err := client.ShouldRateLimit(t.Context(), request("d", "user", "alice"))
	return err
}

func TestTLSNeedsNoCertificateOfClientsByDefault(t *testing.T) {
	a := servicetest.NewAuthority(t)
	address := withTLS(t, certified(t, a, t.TempDir()))
	require.NoError(t, callOnce(t, address, client(t, a, nil, nil)))
	err := callOnce(t, address, client(t, servicetest.NewAuthority(t), nil, nil))
	require.Equal(t, codes.Unavailable, status.Code(err), "a client that does not trust the server: %v", err)
}

func TestClientsMustShowACertificateOfTheAuthority(t *testing.T) {
	a, clients := servicetest.NewAuthority(t), servicetest.NewAuthority(t)
	dir := t.TempDir()
	files := certified(t, a, dir)
	files.ClientCA = write(t, filepath.Join(dir, "ca.pem"), clients.PEM)
	address := withTLS(t, files)
	cert, key := clients.Issue(x509.Certificate{DNSNames: []string{"proxy"}})
	require.NoError(t, callOnce(t, address, client(t, a, cert, key)))
	require.Equal(t, codes.Unavailable, status.Code(callOnce(t, address, client(t, a, nil, nil))))
	cert, key = a.Issue(x509.Certificate{DNSNames: []string{"proxy"}})
	require.Equal(t, codes.Unavailable, status.Code(callOnce(t, address, client(t, a, cert, key))), "of another authority")
}

func TestOneNameOfTheClientMustMatch(t *testing.T) {
	a := servicetest.NewAuthority(t)
	spiffe, err := url.Parse("spiffe://weir/proxy")
	require.NoError(t, err)
	cert, key := a.Issue(x509.Certificate{
		DNSNames: []string{"other", "proxy.weir"}, URIs: []*url.URL{spiffe},
		EmailAddresses: []string{"proxy@weir"}, IPAddresses: []net.IP{net.ParseIP("2001:db8::1")},
	})
	for san, matches := range map[string]bool{
		"proxy.weir": true, "PROXY.weir": true, "spiffe://weir/proxy": true, "proxy@weir": true,
		"2001:db8::1": true, "2001:db8:0::1": true, "weir": false, "spiffe://weir": false, "2001:db8::2": false,
	} {
		t.Run(san, func(t *testing.T) {
			dir := t.TempDir()
			files := certified(t, a, dir)
			files.ClientCA, files.ClientSAN = write(t, filepath.Join(dir, "ca.pem"), a.PEM), san
			err := callOnce(t, withTLS(t, files), client(t, a, cert, key))
			if matches {
				require.NoError(t, err)
				return
			}
			require.Equal(t, codes.Unavailable, status.Code(err))
		})
	}
}

func TestWrongCertificatesAreToldByVariableAndFile(t *testing.T) {
	a := servicetest.NewAuthority(t)
	dir := t.TempDir()
	good := certified(t, a, dir)
	noPEM := write(t, filepath.Join(dir, "no.pem"), []byte("not PEM"))
	missing := filepath.Join(dir, "missing.pem")
	for _, c := range []struct {
		name   string
		change func(*Files)
		want   string
	}{
		{"no_certificate", func(f *Files) { f.Cert = "" }, "GRPC_SERVER_TLS_CERT must name a file for GRPC_SERVER_USE_TLS=true"},
		{"no_key", func(f *Files) { f.Key = "" }, "GRPC_SERVER_TLS_KEY must name a file for GRPC_SERVER_USE_TLS=true"},
		{"missing_certificate", func(f *Files) { f.Cert = missing }, "GRPC_SERVER_TLS_CERT=" + missing + ": open "},
		{"certificate_that_is_none", func(f *Files) { f.Cert = noPEM }, "GRPC_SERVER_TLS_CERT=" + noPEM + ", GRPC_SERVER_TLS_KEY=" + good.Key + ": tls: failed to find any PEM data in certificate"},
		{"name_without_authority", func(f *Files) { f.ClientSAN = "proxy" }, "GRPC_CLIENT_TLS_SAN=proxy: GRPC_CLIENT_TLS_CACERT must say who signs for clients"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := good
			c.change(&files)
			_, err := LoadCertificates(files, discard(), prometheus.NewRegistry())
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestLoadsOfCertificatesAreCounted(t *testing.T) {
	a := servicetest.NewAuthority(t)
	reg := prometheus.NewRegistry()
	_, err := LoadCertificates(certified(t, a, t.TempDir()), discard(), reg)
	require.NoError(t, err)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP ratelimit_certificates_files Files of the certificates that are shown and asked for.
# TYPE ratelimit_certificates_files gauge
ratelimit_certificates_files 2
# HELP ratelimit_certificates_load_success Loads of the certificate files that are shown since.
# TYPE ratelimit_certificates_load_success counter
ratelimit_certificates_load_success 1
`), "ratelimit_certificates_files", "ratelimit_certificates_load_success"))

	s := newCertificateStats(prometheus.NewRegistry())
	s.loaded(3, nil)
	s.loaded(2, errors.New("no PEM data"))
	require.Equal(t, 1.0, testutil.ToFloat64(s.loadSuccess))
	require.Equal(t, 1.0, testutil.ToFloat64(s.loadError))
	require.Equal(t, 3.0, testutil.ToFloat64(s.files), "those that are shown")
}
