package grpcserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
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

// loopback is what a server's certificate with that serial number has.
func loopback(serial int64) x509.Certificate {
	return x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func write(t *testing.T, path string, text []byte) string {
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// certified is the files of a server's certificate with that serial number.
func certified(t *testing.T, a *servicetest.Authority, dir string, serial int64) Files {
	cert, key := a.Issue(loopback(serial))
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
	address := withTLS(t, certified(t, a, t.TempDir(), 2))
	require.NoError(t, callOnce(t, address, client(t, a, nil, nil)))
	err := callOnce(t, address, client(t, servicetest.NewAuthority(t), nil, nil))
	require.Equal(t, codes.Unavailable, status.Code(err), "a client that does not trust the server: %v", err)
}

func TestClientsMustShowACertificateOfTheAuthority(t *testing.T) {
	a, clients := servicetest.NewAuthority(t), servicetest.NewAuthority(t)
	dir := t.TempDir()
	files := certified(t, a, dir, 2)
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
			files := certified(t, a, dir, 2)
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
	good := certified(t, a, dir, 2)
	_, otherKey := a.Issue(loopback(3))
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
		{"missing_authority", func(f *Files) { f.ClientCA = missing }, "GRPC_CLIENT_TLS_CACERT=" + missing + ": open "},
		{"authority_that_is_none", func(f *Files) { f.ClientCA = noPEM }, "GRPC_CLIENT_TLS_CACERT=" + noPEM + ": no certificate in it"},
		{"certificate_that_is_none", func(f *Files) { f.Cert = noPEM }, "GRPC_SERVER_TLS_CERT=" + noPEM + ", GRPC_SERVER_TLS_KEY=" + good.Key + ": tls: failed to find any PEM data in certificate"},
		{"key_of_another", func(f *Files) { f.Key = write(t, filepath.Join(dir, "other.pem"), otherKey) }, "private key does not match public key"},
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

// text is a log that may be read while it is written.
type text struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *text) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(line)
}

func (l *text) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.all.Bytes(), []byte(part))
}

func TestChangedCertificatesAreTakenWithoutARestart(t *testing.T) {
	for _, c := range []struct {
		name string
		poll time.Duration
		dir  func(t *testing.T, files string) string // where the files are read from
	}{
		{"written_files", time.Hour, func(_ *testing.T, files string) string { return files }},
		{"a_link_that_only_the_poll_sees", 5 * time.Millisecond, func(t *testing.T, files string) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(files, link))
			return link
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := servicetest.NewAuthority(t)
			files := t.TempDir()
			certified(t, a, files, 2)
			dir := c.dir(t, files)
			log := &text{}
			o := options(echo{})
			var err error
			o.Certificates, err = LoadCertificates(Files{
				Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Poll: c.poll,
			}, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			// Ends with ctx; the test waits for it below.
			go func() { ran <- o.Certificates.Run(ctx) }()
			l := listen(t)
			start(t, l, o)
			// put writes a good pair, where the link is changed in one step.
			put := func(serial int64) {
				if dir == files {
					certified(t, a, files, serial)
					return
				}
				next := t.TempDir()
				certified(t, a, next, serial)
				require.NoError(t, os.Symlink(next, dir+".new"))
				require.NoError(t, os.Rename(dir+".new", dir))
				files = next
			}
			serial := func() int64 {
				conn, err := tls.Dial("tcp", l.Addr().String(), client(t, a, nil, nil))
				require.NoError(t, err)
				defer conn.Close()
				return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
			}
			require.Equal(t, int64(2), serial())
			put(3)
			servicetest.Eventually(t, "the new certificate is shown", func() bool { return serial() == 3 })

			write(t, filepath.Join(files, "cert.pem"), []byte("broken"))
			servicetest.Eventually(t, "the broken one is logged", func() bool { return log.count("failed to find any PEM data") > 0 })
			require.Equal(t, int64(3), serial(), "the last good one stays")

			put(4)
			servicetest.Eventually(t, "the mended certificate is shown", func() bool { return serial() == 4 })
			cancel()
			require.NoError(t, <-ran)
			if dir != files { // else the file may have been seen half written, too
				require.Equal(t, 1, log.count("failed to find any PEM data"), "the same fault is logged once")
				require.Equal(t, 1.0, testutil.ToFloat64(o.Certificates.stats.loadError))
				require.Equal(t, 3.0, testutil.ToFloat64(o.Certificates.stats.loadSuccess))
				require.Equal(t, 2.0, testutil.ToFloat64(o.Certificates.stats.files))
			}
		})
	}
}
