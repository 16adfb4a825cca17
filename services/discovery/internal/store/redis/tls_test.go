package redis

import (
	"crypto/x509"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

// at is what a certificate of this address has.
func at(address string) x509.Certificate {
	return x509.Certificate{IPAddresses: []net.IP{net.ParseIP(address)}}
}

func TestTLS(t *testing.T) {
	ours, theirs := servicetest.NewAuthority(t), servicetest.NewAuthority(t)
	oursFile, theirsFile := ours.File(), theirs.File()
	cert, key := ours.IssueFiles(at("127.0.0.1"))
	elsewhere, elsewhereKey := ours.IssueFiles(at("127.0.0.2"))
	stranger, strangerKey := theirs.IssueFiles(at("127.0.0.1"))
	for _, c := range []struct {
		name                  string
		serverCert, serverKey string
		scheme                string
		client                url.Values
		fault                 string
	}{
		{"both_know_each_other", cert, key, "rediss", url.Values{"cacert": {oursFile}, "cert": {cert}, "key": {key}}, ""},
		{"another_name", elsewhere, elsewhereKey, "rediss", url.Values{"cacert": {oursFile}, "cert": {cert}, "key": {key}}, "127.0.0.2"},
		{"another_authority", cert, key, "rediss", url.Values{"cacert": {theirsFile}, "cert": {cert}, "key": {key}}, "signed by unknown authority"},
		{"the_authorities_of_the_system", cert, key, "rediss", url.Values{"cert": {cert}, "key": {key}}, "signed by unknown authority"},
		// The server only hangs up on these, which is told in more ways than one.
		{"a_client_without_a_certificate", cert, key, "rediss", url.Values{"cacert": {oursFile}}, "redis at "},
		{"a_client_with_that_of_a_stranger", cert, key, "rediss", url.Values{"cacert": {oursFile}, "cert": {stranger}, "key": {strangerKey}}, "redis at "},
		{"a_client_without_TLS", cert, key, "redis", nil, "redis at "},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := servicetest.FreeAddress(t)
			_, port, _ := net.SplitHostPort(address)
			servicetest.Redis(t, "--tls-port", port, "--tls-cert-file", c.serverCert, "--tls-key-file", c.serverKey, "--tls-ca-cert-file", oursFile)
			s := open(t, c.scheme+"://"+address+"?"+c.client.Encode(), patience)
			r := storetest.Record("users", "a", 1)
			err := s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}})
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				return
			}
			require.NoError(t, err)
			contents, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Len(t, contents.Records, 1)
		})
	}
}
