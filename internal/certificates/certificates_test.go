package certificates_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/certificates"
	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// loopback is what a server's certificate with that serial number has.
func loopback(serial int64) x509.Certificate {
	return x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func write(t *testing.T, path string, text []byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// options is a server's certificate with that serial number, in dir.
func options(t *testing.T, a *servicetest.Authority, dir string, serial int64) certificates.Options {
	t.Helper()
	cert, key := a.Issue(loopback(serial))
	return certificates.Options{
		Cert: filewatch.File{Setting: "CERT", Path: write(t, filepath.Join(dir, "cert.pem"), cert)},
		Key:  filewatch.File{Setting: "KEY", Path: write(t, filepath.Join(dir, "key.pem"), key)},
		Poll: time.Hour,
		Log:  slog.New(slog.DiscardHandler),
	}
}

// serve answers each connection with "ok", and returns where.
func serve(t *testing.T, c *certificates.Certificates, protocols ...string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.Config(protocols...))
	require.NoError(t, err)
	var connections sync.WaitGroup
	// Ends when the listener is closed; the test's end waits for it.
	connections.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "ok")
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); connections.Wait() })
	return l.Addr().String()
}

// ask returns the state of a connection on which the server said "ok".
func ask(t *testing.T, address string, a *servicetest.Authority, client *tls.Certificate, protocols ...string) (tls.ConnectionState, error) {
	t.Helper()
	config := &tls.Config{RootCAs: a.Pool(), NextProtos: protocols}
	if client != nil {
		config.Certificates = []tls.Certificate{*client}
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	if err == nil && string(answer) != "ok" {
		err = errors.New("no answer")
	}
	return conn.ConnectionState(), err
}

// issue returns a certificate of a client of that name.
func issue(t *testing.T, a *servicetest.Authority, name string) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.Issue(x509.Certificate{DNSNames: []string{name}}))
	require.NoError(t, err)
	return &pair
}

func TestWhoIsLetIn(t *testing.T) {
	a, other := servicetest.NewAuthority(t), servicetest.NewAuthority(t)
	refuseEve := func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) > 0 && state.PeerCertificates[0].DNSNames[0] == "eve" {
			return errors.New("not her")
		}
		return nil
	}
	ofClients := func(o *certificates.Options) { o.ClientCA = filewatch.File{Setting: "CA", Path: a.File()} }
	for name, test := range map[string]struct {
		change func(*certificates.Options)
		client *tls.Certificate
		in     bool
	}{
		"anyone, where no authority is named":        {func(*certificates.Options) {}, nil, true},
		"a client of the authority":                  {ofClients, issue(t, a, "bob"), true},
		"one of another":                             {ofClients, issue(t, other, "bob"), false},
		"one without a certificate":                  {ofClients, nil, false},
		"one without a certificate that is optional": {func(o *certificates.Options) { ofClients(o); o.Optional = true }, nil, true},
		"one of another where it is optional":        {func(o *certificates.Options) { ofClients(o); o.Optional = true }, issue(t, other, "bob"), false},
		"one whose name is verified":                 {func(o *certificates.Options) { ofClients(o); o.Verify = refuseEve }, issue(t, a, "bob"), true},
		"one whose name is refused":                  {func(o *certificates.Options) { ofClients(o); o.Verify = refuseEve }, issue(t, a, "eve"), false},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, a, t.TempDir(), 2)
			test.change(&o)
			c, err := certificates.Load(o)
			require.NoError(t, err)
			_, err = ask(t, serve(t, c), a, test.client)
			require.Equal(t, test.in, err == nil, "%v", err)
		})
	}
}

func TestTheProtocolIsTheFirstOfTheServersThatTheClientHas(t *testing.T) {
	a := servicetest.NewAuthority(t)
	c, err := certificates.Load(options(t, a, t.TempDir(), 2))
	require.NoError(t, err)
	state, err := ask(t, serve(t, c, "h2", "http/1.1"), a, nil, "http/1.1", "h2")
	require.NoError(t, err)
	require.Equal(t, "h2", state.NegotiatedProtocol)
}

func TestWrongCertificatesAreToldBySettingAndFile(t *testing.T) {
	a := servicetest.NewAuthority(t)
	dir := t.TempDir()
	good := options(t, a, dir, 2)
	_, otherKey := a.Issue(loopback(3))
	noPEM := write(t, filepath.Join(dir, "no.pem"), []byte("not PEM"))
	missing := filepath.Join(dir, "missing.pem")
	for name, test := range map[string]struct {
		change func(*certificates.Options)
		want   string
	}{
		"missing certificate":      {func(o *certificates.Options) { o.Cert.Path = missing }, "CERT=" + missing + ": open "},
		"missing authority":        {func(o *certificates.Options) { o.ClientCA = filewatch.File{Setting: "CA", Path: missing} }, "CA=" + missing + ": open "},
		"authority that is none":   {func(o *certificates.Options) { o.ClientCA = filewatch.File{Setting: "CA", Path: noPEM} }, "CA=" + noPEM + ": no certificate in it"},
		"certificate that is none": {func(o *certificates.Options) { o.Cert.Path = noPEM }, "CERT=" + noPEM + ", KEY=" + good.Key.Path + ": tls: failed to find any PEM data"},
		"key of another":           {func(o *certificates.Options) { o.Key.Path = write(t, filepath.Join(dir, "other.pem"), otherKey) }, "private key does not match public key"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			_, err := certificates.Load(o)
			require.ErrorContains(t, err, test.want)
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

func (l *text) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.all.Bytes(), []byte(part))
}

func TestChangedCertificatesAreTakenWithoutARestart(t *testing.T) {
	a := servicetest.NewAuthority(t)
	dir := t.TempDir()
	log := &text{}
	o := options(t, a, dir, 2)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	var taken, refused atomic.Int32
	o.Loaded = func(_ int, err error) {
		if err != nil {
			refused.Add(1)
			return
		}
		taken.Add(1)
	}
	c, err := certificates.Load(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	// Ends with ctx; the test waits for it below.
	go func() { ran <- c.Run(ctx) }()
	address := serve(t, c)
	serial := func() int64 {
		state, err := ask(t, address, a, nil)
		require.NoError(t, err)
		return state.PeerCertificates[0].SerialNumber.Int64()
	}
	require.Equal(t, int64(2), serial())
	options(t, a, dir, 3)
	servicetest.Eventually(t, "the new certificate is shown", func() bool { return serial() == 3 })
	write(t, o.Cert.Path, []byte("broken"))
	servicetest.Eventually(t, "the broken one is logged", func() bool { return log.has("failed to find any PEM data") })
	require.Equal(t, int64(3), serial(), "the last good one stays")
	require.NoError(t, os.Remove(o.Cert.Path))
	servicetest.Eventually(t, "the missing one is logged", func() bool { return log.has("CERT=" + o.Cert.Path + ": open ") })
	options(t, a, dir, 4)
	servicetest.Eventually(t, "the mended certificate is shown", func() bool { return serial() == 4 })
	cancel()
	require.NoError(t, <-ran)
	require.EqualValues(t, 3, taken.Load(), "each is told of")
	require.GreaterOrEqual(t, refused.Load(), int32(2), "and those that are not taken")
}
