package xds

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
)

// TLS is how the control plane is known, and how it knows us. All fields may
// be empty. Files hold PEM, and are read for each connection.
type TLS struct {
	// CertFile and KeyFile are the certificate shown to the control plane.
	CertFile, KeyFile string
	// CAFile are the authorities of its certificate; the system's if unset.
	CAFile string
	// SAN is a name that its certificate must have, in place of the host that
	// is dialled: a DNS name, an IP address, or a URI.
	SAN string
}

// config reads the files. The error names the one that is at fault.
func (t *TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate %q with key %q: %w", t.CertFile, t.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authorities of the control plane: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("authorities of the control plane: %s: no certificate in it", t.CAFile)
		}
	}
	switch {
	case strings.Contains(t.SAN, "://"):
		// crypto/tls compares no URIs, so that verifyURI does all of its work.
		config.InsecureSkipVerify = true
		config.VerifyConnection = verifyURI(config.RootCAs, t.SAN)
	case t.SAN != "":
		config.ServerName = t.SAN
	}
	return config, nil
}

// verifyURI wants a certificate that roots vouch for and that has the URI.
func verifyURI(roots *x509.CertPool, uri string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0] // a server always has one
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(c)
		}
		if _, err := leaf.Verify(options); err != nil {
			return err
		}
		var has []string
		for _, u := range leaf.URIs {
			has = append(has, u.String())
		}
		if !slices.Contains(has, uri) {
			return fmt.Errorf("the certificate is for %q, not %q", has, uri)
		}
		return nil
	}
}

// Keepalive finds a control plane that went away without a word. gRPC servers
// by default cut off clients that ask more often.
const (
	keepaliveEvery = 5*time.Minute + 10*time.Second
	keepaliveWait  = 20 * time.Second
)

// open is how streams get their channel. It does not wait for the control
// plane.
func (s *Source) open() (grpc.ClientConnInterface, io.Closer, error) {
	secure := insecure.NewCredentials()
	if s.options.TLS != nil {
		config, err := s.options.TLS.config()
		if err != nil {
			return nil, nil, err
		}
		secure = credentials.NewTLS(config)
	}
	channel, err := grpc.NewClient(s.options.Server,
		grpc.WithTransportCredentials(secure),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveWait}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("dial control plane %q: %w", s.options.Server, err)
	}
	return channel, channel, nil
}

// parseMetadata reads "key=value,key=value" into a struct of text.
func parseMetadata(text string) (*structpb.Struct, error) {
	if text == "" {
		return nil, nil
	}
	fields := map[string]any{}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("node metadata %q: %q is not key=value", text, pair)
		}
		fields[key] = value
	}
	metadata, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, fmt.Errorf("node metadata %q: %w", text, err)
	}
	return metadata, nil
}

// parseHeaders reads "name:value,name:value". A name may come again.
func parseHeaders(text string) (metadata.MD, error) {
	headers := metadata.MD{}
	if text == "" {
		return headers, nil
	}
	for i, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), ":")
		if !ok || name == "" { // what it is may be a secret
			return nil, fmt.Errorf("header %d of the list is not name:value", i+1)
		}
		if err := checkHeader(strings.ToLower(name), value); err != nil {
			return nil, fmt.Errorf("header %q: %w", name, err)
		}
		headers.Append(name, strings.TrimSpace(value))
	}
	return headers, nil
}

// checkHeader keeps out what gRPC would refuse at each stream. The error does
// not show the value, which may be a secret.
func checkHeader(name, value string) error {
	const legal = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	switch {
	case strings.Trim(name, legal) != "":
		return errors.New("a name has letters, digits, and -_. only")
	case strings.HasPrefix(name, "grpc-"):
		return errors.New("names that begin with grpc- are gRPC's own")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("its value has more than printable ASCII")
	}
	return nil
}
