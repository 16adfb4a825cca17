package grpcserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/certificates"
	"github.com/weirproxy/weir/internal/filewatch"
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

// LoadCertificates reads the files, and registers metrics of what is read. The
// error names the variable and the file that is wrong.
func LoadCertificates(files Files, log *slog.Logger, metrics prometheus.Registerer) (*certificates.Certificates, error) {
	o := certificates.Options{
		Cert:     filewatch.File{Setting: "GRPC_SERVER_TLS_CERT", Path: files.Cert},
		Key:      filewatch.File{Setting: "GRPC_SERVER_TLS_KEY", Path: files.Key},
		ClientCA: filewatch.File{Setting: "GRPC_CLIENT_TLS_CACERT", Path: files.ClientCA},
		Poll:     files.Poll,
		Loaded:   newCertificateStats(metrics).loaded,
		Log:      log,
	}
	for _, f := range []filewatch.File{o.Cert, o.Key} {
		if f.Path == "" {
			return nil, fmt.Errorf("%s must name a file for GRPC_SERVER_USE_TLS=true", f.Setting)
		}
	}
	if files.ClientSAN != "" {
		if files.ClientCA == "" {
			return nil, fmt.Errorf("GRPC_CLIENT_TLS_SAN=%s: GRPC_CLIENT_TLS_CACERT must say who signs for clients", files.ClientSAN)
		}
		o.Verify = func(state tls.ConnectionState) error {
			return verifyName(state.PeerCertificates[0], files.ClientSAN)
		}
	}
	return certificates.Load(o)
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
