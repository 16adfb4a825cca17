// Package certificates is what the TLS listeners of a service show to clients
// and ask of them: a certificate with its key, and perhaps the authorities of
// clients. They are read from files, and anew when the files change. Who a
// client is, and what it may do, is for those who look at the connection.
package certificates

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/filewatch"
)

// Options says where certificates lie, as PEM, and what is asked of clients.
type Options struct {
	// Cert and Key are the server's chain and its key.
	Cert, Key filewatch.File
	// ClientCA are the authorities of which clients must show a certificate.
	// With an empty path clients are asked for none.
	ClientCA filewatch.File
	// Optional lets clients in that show no certificate; one that is shown is
	// of ClientCA all the same.
	Optional bool
	// Verify, if not nil, looks at each connection on which clients are asked
	// for a certificate, after that was verified. Its error refuses the client.
	Verify func(tls.ConnectionState) error
	// Poll is the time between looks at the files, for changes of which the
	// file system does not tell.
	Poll time.Duration
	// Loaded, if not nil, is told of each load that ended: how many files it
	// read, and what was wrong with them, if they were not taken.
	Loaded func(files int, err error)
	Log    *slog.Logger
}

// Certificates are what is shown and asked for now. Connections that are open
// keep what they began with.
type Certificates struct {
	options Options
	watch   *filewatch.Watch
	now     atomic.Pointer[tls.Config]
}

// Load reads the files. The error names the setting and the file that is wrong.
func Load(o Options) (*Certificates, error) {
	c := &Certificates{options: o}
	files := []filewatch.File{o.Cert, o.Key}
	if o.ClientCA.Path != "" {
		files = append(files, o.ClientCA)
	}
	watch, contents, err := filewatch.Open(filewatch.Options{Files: files, Poll: o.Poll, What: "certificates", Log: o.Log})
	if err != nil {
		return nil, err
	}
	config, err := c.parse(contents)
	if err != nil {
		return nil, err
	}
	c.watch = watch
	c.now.Store(config)
	c.loaded(len(contents), nil)
	return c, nil
}

// loaded tells of a load.
func (c *Certificates) loaded(files int, err error) {
	if c.options.Loaded != nil {
		c.options.Loaded(files, err)
	}
}

// Config gives each new connection the certificates of its time. Protocols are
// those that the server speaks over TLS (ALPN), in the order of its preference.
func (c *Certificates) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			config := c.now.Load().Clone()
			config.NextProtos = protocols
			return config, nil
		},
	}
}

// Run reads the files anew whenever they change, until ctx ends. What is bad is
// logged, and the certificates before it stay. The error is always nil.
func (c *Certificates) Run(ctx context.Context) error {
	c.watch.Run(ctx, func(contents [][]byte, err error) {
		var config *tls.Config
		if err == nil {
			config, err = c.parse(contents)
		}
		c.loaded(len(contents), err)
		if err != nil {
			c.options.Log.Error("certificates are not changed", "error", err)
			return
		}
		c.now.Store(config)
		c.options.Log.Info("certificates changed", "expire", config.Certificates[0].Leaf.NotAfter)
	})
	return nil
}

// parse makes a configuration of the contents of certificate, key and, if
// clients are asked for certificates, their authorities.
func (c *Certificates) parse(contents [][]byte) (*tls.Config, error) {
	o := &c.options
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, fmt.Errorf("%s=%s, %s=%s: %w", o.Cert.Setting, o.Cert.Path, o.Key.Setting, o.Key.Path, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		// A resumed session would rest on what was asked of the first.
		SessionTicketsDisabled: true,
	}
	if len(contents) < 3 {
		return config, nil
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	if o.Optional {
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(contents[2]) {
		return nil, fmt.Errorf("%s=%s: no certificate in it", o.ClientCA.Setting, o.ClientCA.Path)
	}
	config.VerifyConnection = o.Verify
	return config, nil
}
