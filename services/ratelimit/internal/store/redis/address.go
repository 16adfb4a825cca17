package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// TLS says how connections are encrypted, to the Sentinels too.
type TLS struct {
	// On turns it on; a rediss:// URL does so as well.
	On bool
	// ClientCert and ClientKey are files with what the server asks of its
	// clients, both or none. They are read anew for each connection.
	ClientCert, ClientKey string
	// CACert is a file with the authorities that sign the server's certificate;
	// "" stands for those of the system.
	CACert string
	// SkipHostnameVerification takes a certificate for any name, as long as an
	// authority signed it.
	SkipHostnameVerification bool
}

// The kinds of Redis.
const (
	single   = "single"
	sentinel = "sentinel"
	cluster  = "cluster"
)

// place is where Redis is, and how to get in.
type place struct {
	kind      string
	master    string   // the name that Sentinels know it by
	addresses []string // of the server, the Sentinels or some of the Cluster
	tls       *tls.Config
	db        int

	username, password                 string
	sentinelUsername, sentinelPassword string
}

// Address is where a store of these options looks for Redis: what may be shown
// of its URL. It is "" if New refuses the options.
func Address(o Options) string {
	p, err := o.place()
	if err != nil {
		return ""
	}
	return p.String()
}

// String is host:port, the path of a socket, or a list of them.
func (p *place) String() string {
	list := strings.Join(p.addresses, ",")
	if p.kind == sentinel {
		return p.master + "," + list
	}
	return list
}

// place checks the options that say where Redis is. Each error begins with the
// name of the setting, and shows nothing that may be a password.
func (o Options) place() (*place, error) {
	p := &place{kind: strings.ToLower(o.Type)}
	switch p.kind {
	case "":
		p.kind = single
	case single, sentinel, cluster:
	default:
		return nil, fmt.Errorf("TYPE=%s: not one of single, sentinel, cluster", o.Type)
	}
	unix := false
	switch strings.ToLower(o.SocketType) {
	case "", "tcp":
	case "unix":
		unix = true
	default:
		return nil, fmt.Errorf("SOCKET_TYPE=%s: neither tcp nor unix", o.SocketType)
	}
	if on := o.PoolOnEmpty; on != "" && !strings.EqualFold(on, "WAIT") {
		return nil, fmt.Errorf("POOL_ON_EMPTY_BEHAVIOR=%s: requests share connections and wait for a free one: only WAIT is supported", on)
	}
	if err := p.locate(o.URL, unix); err != nil {
		return nil, fmt.Errorf("URL: %w", err)
	}
	if o.Auth != "" {
		p.username, p.password = credentials(o.Auth)
	}
	p.sentinelUsername, p.sentinelPassword = credentials(o.SentinelAuth)
	if err := p.encrypt(o.TLS); err != nil {
		return nil, err
	}
	return p, nil
}

// credentials reads "password" or "user:password".
func credentials(auth string) (user, password string) {
	if user, password, named := strings.Cut(auth, ":"); named {
		return user, password
	}
	return "", auth
}

// locate reads Options.URL. Its errors quote nothing of a text that holds an @
// in any place but where a URL has it, and never the user before it: both may
// be a password.
func (p *place) locate(text string, unix bool) error {
	shown, hidden := fmt.Sprintf("redis address %q", text), strings.Contains(text, "@")
	if hidden {
		shown = "redis address (not shown, for it may hold a password)"
	}
	parts := []string{text}
	if p.kind != single {
		parts = strings.Split(text, ",")
	}
	if p.kind == sentinel {
		if p.master, parts = parts[0], parts[1:]; p.master == "" || len(parts) == 0 || hidden {
			return fmt.Errorf("%s is not the name of a master and then the host:port of its sentinels, with commas between", shown)
		}
	}
	for _, part := range parts {
		options, err := parseURL(strings.TrimSpace(part), shown, hidden, unix)
		switch {
		case err != nil:
			return err
		case p.kind != single && options.Network == "unix":
			return fmt.Errorf("%s names a socket of this machine: a %s has addresses of a network", shown, p.kind)
		case p.kind == cluster && options.DB != 0:
			return fmt.Errorf("%s names database %d: a cluster has only 0", shown, options.DB)
		}
		p.addresses = append(p.addresses, options.Addr)
		p.db = max(p.db, options.DB)
		if options.Password != "" {
			p.username, p.password = options.Username, options.Password
		}
		if options.TLSConfig != nil {
			p.tls = options.TLSConfig
		}
	}
	if len(p.addresses) > 1 && p.tls != nil {
		p.tls.ServerName = "" // each has a name of its own
	}
	return nil
}

// parseURL reads one address. shown is how its errors may call it.
func parseURL(text, shown string, hidden, unix bool) (*goredis.Options, error) {
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL && (unix || strings.HasPrefix(text, "/")) && text != "" {
		return &goredis.Options{Addr: text, Network: "unix"}, nil
	}
	if !isURL {
		if _, _, err := net.SplitHostPort(text); err != nil || strings.Contains(text, "@") {
			return nil, fmt.Errorf("%s is neither a URL nor host:port", shown)
		}
		return &goredis.Options{Addr: text}, nil
	}
	if !slices.Contains([]string{"redis", "rediss", "unix"}, strings.ToLower(scheme)) {
		return nil, fmt.Errorf("%s begins with none of redis://, rediss://, unix://", shown)
	}
	_, err := url.Parse(text)
	end := strings.IndexAny(rest+"/", "/?#") // of user and host
	if hidden && (err != nil || strings.Contains(rest[end:], "@")) {
		return nil, fmt.Errorf("%s is not a URL: in a user, password or path, what means something in URLs must be percent-encoded", shown)
	}
	options, err := goredis.ParseURL(text)
	if inURL, ok := errors.AsType[*url.Error](err); ok { // its text repeats the URL
		err = inURL.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return options, nil
}

// encrypt turns o into p.tls.
func (p *place) encrypt(o TLS) error {
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return errors.New("TLS_CLIENT_CERT and TLS_CLIENT_KEY: one is set without the other")
	}
	if p.tls == nil {
		if !o.On {
			return nil
		}
		p.tls = &tls.Config{}
	}
	p.tls.MinVersion = tls.VersionTLS12
	if o.ClientCert != "" {
		if _, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey); err != nil {
			return fmt.Errorf("TLS_CLIENT_CERT=%s: %w", o.ClientCert, err)
		}
		p.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
			return &pair, err
		}
	}
	if o.CACert != "" {
		text, err := os.ReadFile(o.CACert)
		if err != nil {
			return fmt.Errorf("TLS_CACERT: %w", err)
		}
		p.tls.RootCAs = x509.NewCertPool()
		if !p.tls.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("TLS_CACERT=%s: holds no certificate in PEM form", o.CACert)
		}
	}
	if o.SkipHostnameVerification {
		roots := p.tls.RootCAs
		p.tls.InsecureSkipVerify = true // in favour of the check below
		p.tls.VerifyConnection = func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		}
	}
	return nil
}
