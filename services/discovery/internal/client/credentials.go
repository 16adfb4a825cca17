package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// token is a bearer token in a file that may be replaced at any time.
type token struct {
	path string

	mu   sync.Mutex
	last string
}

// openToken reads a token for the first time; an empty path is of no token.
func openToken(path string) (*token, error) {
	t := &token{path: path}
	if path == "" {
		return t, nil
	}
	text, err := t.read()
	t.last = text
	return t, err
}

// now is the token as it is in the file, or was when the file could last be
// read; empty for none.
func (t *token) now() string {
	if t.path == "" {
		return ""
	}
	text, err := t.read()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.last = text
	}
	return t.last
}

func (t *token) read() (string, error) {
	text, err := os.ReadFile(t.path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	trimmed := strings.TrimSpace(string(text))
	if trimmed == "" || strings.ContainsFunc(trimmed, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("read the token: %s does not hold one word of ASCII", t.path)
	}
	return trimmed, nil
}

// tlsConfig is how registries at https are called.
func (o *Options) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		config.RootCAs = x509.NewCertPool()
		if err != nil {
			errs = append(errs, fmt.Errorf("read the authority's certificates: %w", err))
		} else if !config.RootCAs.AppendCertsFromPEM(text) {
			errs = append(errs, fmt.Errorf("read the authority's certificates: %s holds none in PEM", o.CA))
		}
	}
	switch {
	case (o.Cert == "") != (o.Key == ""):
		errs = append(errs, errors.New("a certificate and its key: only one of them is given"))
	case o.Cert != "":
		pair := &keyPair{cert: o.Cert, key: o.Key}
		if err := pair.load(); err != nil {
			errs = append(errs, err)
		}
		config.GetClientCertificate = pair.show
	}
	return config, errors.Join(errs...)
}

// keyPair is a certificate and its key in files that may be replaced at any
// time.
type keyPair struct {
	cert, key string

	mu   sync.Mutex
	last *tls.Certificate
}

// load reads both files; after an error the last pair stays.
func (p *keyPair) load() error {
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("read the own certificate: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = &pair
	return nil
}

// show is what a connection shows to a registry that asks: the files as they
// are, or as they were when they last fitted each other.
func (p *keyPair) show(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	_ = p.load() // one file may be replaced already, the other not yet
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, nil
}
