package grpcserver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

// Files says where certificates lie, as PEM.
type Files struct {
	// Cert and Key are the server's chain and its key: GRPC_SERVER_TLS_CERT
	// and GRPC_SERVER_TLS_KEY.
	Cert, Key string
	// ClientCA are the authorities of which clients must show a certificate:
	// GRPC_CLIENT_TLS_CACERT. If empty, clients need none.
	ClientCA string
	// ClientSAN, if set, must be among the names in the client's certificate:
	// GRPC_CLIENT_TLS_SAN. A host name, a URI, an IP or an e-mail address.
	ClientSAN string
	// Poll is the time between looks at the files, for changes of which the
	// file system does not tell.
	Poll time.Duration
}

// Certificates are what a server shows and asks for. They are read anew when
// the files change; connections that are open keep what they began with.
type Certificates struct {
	files Files
	log   *slog.Logger
	stats *certificateStats
	now   atomic.Pointer[tls.Config]
	last  [sha256.Size]byte // of the contents that were read last, good or bad
}

// LoadCertificates reads the files, and registers metrics of what is read. The
// error names the variable and the file that is wrong.
func LoadCertificates(files Files, log *slog.Logger, metrics prometheus.Registerer) (*Certificates, error) {
	c := &Certificates{files: files, log: log, stats: newCertificateStats(metrics)}
	contents, err := c.read()
	if err != nil {
		return nil, err
	}
	config, err := c.parse(contents)
	if err != nil {
		return nil, err
	}
	c.last = contents.sum()
	c.use(config, contents)
	return c, nil
}

// use puts config, which is made of contents, in force.
func (c *Certificates) use(config *tls.Config, contents *contents) {
	c.now.Store(config)
	c.stats.loadSuccess.Inc()
	files := 0
	for _, text := range [][]byte{contents.cert, contents.key, contents.clientCA} {
		if text != nil {
			files++
		}
	}
	c.stats.files.Set(float64(files))
}

// credentials gives each new connection the certificates of its time.
func (c *Certificates) credentials() credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil },
	})
}

// contents is what the files hold.
type contents struct{ cert, key, clientCA []byte }

func (c *contents) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{c.cert, c.key, c.clientCA} {
		fmt.Fprintf(h, "%d:", len(part))
		_, _ = h.Write(part) // never fails
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (c *Certificates) read() (*contents, error) {
	out := &contents{}
	for _, f := range []struct {
		variable, path string
		into           *[]byte
		optional       bool
	}{
		{"GRPC_SERVER_TLS_CERT", c.files.Cert, &out.cert, false},
		{"GRPC_SERVER_TLS_KEY", c.files.Key, &out.key, false},
		{"GRPC_CLIENT_TLS_CACERT", c.files.ClientCA, &out.clientCA, true},
	} {
		switch {
		case f.path == "" && f.optional:
			continue
		case f.path == "":
			return nil, fmt.Errorf("%s must name a file for GRPC_SERVER_USE_TLS=true", f.variable)
		}
		text, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("%s=%s: %w", f.variable, f.path, err)
		}
		*f.into = text
	}
	if c.files.ClientSAN != "" && c.files.ClientCA == "" {
		return nil, fmt.Errorf("GRPC_CLIENT_TLS_SAN=%s: GRPC_CLIENT_TLS_CACERT must say who signs for clients", c.files.ClientSAN)
	}
	return out, nil
}

func (c *Certificates) parse(contents *contents) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(contents.cert, contents.key)
	if err != nil {
		return nil, fmt.Errorf("GRPC_SERVER_TLS_CERT=%s, GRPC_SERVER_TLS_KEY=%s: %w", c.files.Cert, c.files.Key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		// A resumed session would rest on what was asked of the first.
		SessionTicketsDisabled: true,
	}
	if contents.clientCA == nil {
		return config, nil
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(contents.clientCA) {
		return nil, fmt.Errorf("GRPC_CLIENT_TLS_CACERT=%s: no certificate in it", c.files.ClientCA)
	}
	if c.files.ClientSAN != "" {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			return verifyName(state.PeerCertificates[0], c.files.ClientSAN)
		}
	}
	return config, nil
}

// verifyName returns nil if the certificate is for want.
func verifyName(certificate *x509.Certificate, want string) error {
	names := slices.Concat(certificate.DNSNames, certificate.EmailAddresses)
	for _, uri := range certificate.URIs {
		names = append(names, uri.String())
	}
	for _, ip := range certificate.IPAddresses {
		names = append(names, ip.String())
	}
	for _, name := range names {
		if strings.EqualFold(name, want) {
			return nil
		}
	}
	if ip := net.ParseIP(want); ip != nil && slices.ContainsFunc(certificate.IPAddresses, ip.Equal) {
		return nil
	}
	return fmt.Errorf("the client's certificate is for %q, not for %q", names, want)
}

// Run reads the files anew whenever they change, until ctx ends: it hears of
// changes from the file system, and looks for itself at each poll. The error
// is always nil.
func (c *Certificates) Run(ctx context.Context) error {
	poll := time.NewTicker(c.files.Poll)
	defer poll.Stop()
	var events <-chan fsnotify.Event // never any, if there is no watcher
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, err = watcher.Events, c.watch(watcher)
	}
	if err != nil {
		c.log.Warn("certificates are polled only", "error", err)
	}
	for {
		// At first too: what changed before the watch began is told by nobody.
		c.reload(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-events:
		}
	}
}

// watch watches the directories of the files, since files are often replaced
// and not written.
func (c *Certificates) watch(watcher *fsnotify.Watcher) error {
	var errs []error
	for _, file := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if file != "" {
			errs = append(errs, watcher.Add(filepath.Dir(file)))
		}
	}
	return errors.Join(errs...)
}

// settle is how long files must have been the same before they are taken, since
// a pair is seldom written in one step.
const settle = 50 * time.Millisecond

// reload puts the files' certificates in force if they changed and are good,
// once they have settled or ctx ends. It logs what it did, once for the same
// contents.
func (c *Certificates) reload(ctx context.Context) {
	_, before, _ := c.look()
	for before != c.last {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		contents, sum, err := c.look()
		if sum == before {
			c.last = sum
			c.take(contents, err)
		}
		before = sum
	}
}

// look reads the files; sum tells what it came to, an error included.
func (c *Certificates) look() (contents *contents, sum [sha256.Size]byte, err error) {
	contents, err = c.read()
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	return contents, contents.sum(), nil
}

// take puts what was read in force, if it is good.
func (c *Certificates) take(contents *contents, err error) {
	var config *tls.Config
	if err == nil {
		config, err = c.parse(contents)
	}
	if err != nil {
		c.log.Error("certificates are not changed", "error", err)
		c.stats.loadError.Inc()
		return
	}
	c.use(config, contents)
	c.log.Info("certificates changed", "expire", config.Certificates[0].Leaf.NotAfter)
}
