package redis

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestOptions(t *testing.T) {
	const (
		hidden    = "URL: redis address (not shown, for it may hold a password)"
		sentinels = " is not the name of a master and then the host:port of its sentinels, with commas between"
	)
	for _, c := range []struct {
		name    string
		o       Options
		address string
		fault   string
	}{
		{"single_in_any_letter_case", Options{Type: "Single", URL: "a:1"}, "a:1", ""},
		{"an_unknown_type", Options{Type: "ring", URL: "a:1"}, "", "TYPE=ring: not one of single, sentinel, cluster"},
		{"a_path", Options{URL: "/run/redis.sock"}, "/run/redis.sock", ""},
		{"a_path_that_only_the_socket_type_tells", Options{URL: "redis.sock", SocketType: "Unix"}, "redis.sock", ""},
		{"a_scheme_says_more_than_the_socket_type", Options{URL: "redis://a:1", SocketType: "unix"}, "a:1", ""},
		{"an_unknown_socket_type", Options{URL: "a:1", SocketType: "udp"}, "", "SOCKET_TYPE=udp: neither tcp nor unix"},
		{"no_path", Options{SocketType: "unix"}, "", `URL: redis address "" is neither a URL nor host:port`},
		{"waiting_for_a_connection", Options{URL: "a:1", PoolOnEmpty: "wait"}, "a:1", ""},
		{
			"not_waiting_for_a_connection", Options{URL: "a:1", PoolOnEmpty: "CREATE"}, "",
			"POOL_ON_EMPTY_BEHAVIOR=CREATE: requests share connections and wait for a free one: only WAIT is supported",
		},
		{"a_cluster", Options{Type: "cluster", URL: "a:1, b:2,redis://c:3"}, "a:1,b:2,c:3", ""},
		{"a_cluster_with_a_fault", Options{Type: "cluster", URL: "a:1,b"}, "", `URL: redis address "a:1,b" is neither a URL nor host:port`},
		{"a_cluster_on_sockets", Options{Type: "cluster", URL: "a:1,/b"}, "", `URL: redis address "a:1,/b" names a socket of this machine: a cluster has addresses of a network`},
		{"a_database_of_a_cluster", Options{Type: "cluster", URL: "redis://a:1/2"}, "", `URL: redis address "redis://a:1/2" names database 2: a cluster has only 0`},
		{"a_password_with_a_comma", Options{Type: "cluster", URL: "redis://user:se,cret@a:1"}, "", hidden + " is not a URL: in a user, password or path, what means something in URLs must be percent-encoded"},
		{"a_password_with_a_comma_in_one_of_several", Options{Type: "cluster", URL: "a:1,se,cret@b:1"}, "", hidden + " is neither a URL nor host:port"},
		{"sentinels", Options{Type: "sentinel", URL: "main,a:1,b:2"}, "main,a:1,b:2", ""},
		{"a_master_without_sentinels", Options{Type: "sentinel", URL: "main"}, "", `URL: redis address "main"` + sentinels},
		{"sentinels_without_a_master", Options{Type: "sentinel", URL: ",a:1"}, "", `URL: redis address ",a:1"` + sentinels},
		{"sentinels_with_a_password", Options{Type: "sentinel", URL: "main,secret@a:1"}, "", hidden + sentinels},
		{"a_certificate_without_its_key", Options{URL: "a:1", TLS: TLS{ClientCert: "c"}}, "", "TLS_CLIENT_CERT and TLS_CLIENT_KEY: one is set without the other"},
		{"a_certificate_that_is_not_there", Options{URL: "a:1", TLS: TLS{On: true, ClientCert: "no/c", ClientKey: "no/k"}}, "", "TLS_CLIENT_CERT=no/c: open no/c: no such file or directory"},
		{"authorities_that_are_not_there", Options{URL: "rediss://a:1", TLS: TLS{CACert: "no/a"}}, "", "TLS_CACERT: open no/a: no such file or directory"},
		{"authorities_that_are_none", Options{URL: "a:1", TLS: TLS{On: true, CACert: "place_test.go"}}, "", "TLS_CACERT=place_test.go: holds no certificate in PEM form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.address, Address(c.o))
			_, err := c.o.place()
			if c.fault == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.fault)
			_, err = New(c.o)
			require.EqualError(t, err, c.fault)
		})
	}
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name           string
		o              Options
		user, password string
	}{
		{"none", Options{URL: "a:1"}, "", ""},
		{"a_password", Options{URL: "a:1", Auth: "secret"}, "", "secret"},
		{"a_user_and_a_password_with_a_colon", Options{URL: "a:1", Auth: "user:sec:ret"}, "user", "sec:ret"},
		{"those_of_the_URL", Options{URL: "redis://user:secret@a:1"}, "user", "secret"},
		{"others_than_those_of_the_URL", Options{URL: "redis://user:secret@a:1", Auth: "other"}, "", "other"},
		{"those_of_one_of_a_cluster", Options{Type: "cluster", URL: "redis://user:secret@a:1,b:1"}, "user", "secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := c.o.place()
			require.NoError(t, err)
			require.Equal(t, c.user, p.username)
			require.Equal(t, c.password, p.password)
		})
	}
	p, err := Options{Type: "sentinel", URL: "main,a:1", SentinelAuth: "user:secret"}.place()
	require.NoError(t, err)
	require.Equal(t, "user", p.sentinelUsername)
	require.Equal(t, "secret", p.sentinelPassword)
	require.Empty(t, p.password)
}

func TestAUserOfRedisCountsWithHisPasswordOnly(t *testing.T) {
	server := servicetest.Redis(t)
	server.Command("ACL SETUSER weir on >secret ~rl:* +incrby +pexpire +get +hello")
	server.Command("ACL SETUSER default off")
	good := openWith(t, Options{URL: server.Address, Auth: "weir:secret", KeyPrefix: "rl:"})
	require.NoError(t, good.Ping(t.Context()))
	_, err := hit(t.Context(), good, "rl:k")
	require.NoError(t, err)
	_, err = hit(t.Context(), good, "other")
	require.ErrorContains(t, err, "NOPERM")

	bad := openWith(t, Options{URL: server.Address, Auth: "weir:wrong"})
	_, err = hit(t.Context(), bad, "rl:k")
	require.ErrorContains(t, err, "WRONGPASS")
	require.NotContains(t, err.Error(), "wrong:")
	require.Error(t, bad.Ping(t.Context()))
	require.Error(t, openWith(t, Options{URL: server.Address}).Ping(t.Context()))
}

func TestASocketOfThisMachineIsAnAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	servicetest.Redis(t, "--unixsocket", path)
	for _, url := range []string{path, "unix://" + path} {
		s := openWith(t, Options{URL: url})
		_, err := hit(t.Context(), s, "k")
		require.NoError(t, err)
	}
}

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
		client                TLS
		fault                 string
	}{
		{"both_know_each_other", cert, key, "", TLS{On: true, ClientCert: cert, ClientKey: key, CACert: oursFile}, ""},
		{"a_URL_turns_it_on", cert, key, "rediss://", TLS{ClientCert: cert, ClientKey: key, CACert: oursFile}, ""},
		{"another_name", elsewhere, elsewhereKey, "", TLS{On: true, ClientCert: cert, ClientKey: key, CACert: oursFile}, "127.0.0.2"},
		{
			"another_name_that_does_not_matter", elsewhere, elsewhereKey, "",
			TLS{On: true, ClientCert: cert, ClientKey: key, CACert: oursFile, SkipHostnameVerification: true}, "",
		},
		{
			"another_authority_matters_without_a_name_too", cert, key, "",
			TLS{On: true, ClientCert: cert, ClientKey: key, CACert: theirsFile, SkipHostnameVerification: true}, "signed by unknown authority",
		},
		// The server only hangs up on these, which is told in more ways than one.
		{"a_client_without_a_certificate", cert, key, "", TLS{On: true, CACert: oursFile}, "redis at 127.0.0.1:"},
		{"a_client_with_that_of_a_stranger", cert, key, "", TLS{On: true, ClientCert: stranger, ClientKey: strangerKey, CACert: oursFile}, "redis at 127.0.0.1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := servicetest.FreeAddress(t)
			_, port, _ := net.SplitHostPort(address)
			servicetest.Redis(t, "--tls-port", port, "--tls-cert-file", c.serverCert, "--tls-key-file", c.serverKey, "--tls-ca-cert-file", oursFile)
			s := openWith(t, Options{URL: c.scheme + address, TLS: c.client})
			_, err := hit(t.Context(), s, "k")
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				return
			}
			require.NoError(t, err)
		})
	}
	config, err := Options{URL: "rediss://a:1"}.place()
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS12), config.tls.MinVersion)
}
