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
	"strconv"
	"strings"
)

// The kinds of Redis.
const (
	single   = "redis"
	sentinel = "redis+sentinel"
	cluster  = "redis+cluster"
)

// Schemes are those of the URLs of stores: by kind of Redis, each also with TLS.
func Schemes() []string {
	return []string{single, "rediss", sentinel, "rediss+sentinel", cluster, "rediss+cluster"}
}

// Forms is what URLs look like.
const Forms = "redis://user:password@host:port/db, redis+sentinel://user:password@host:port,host:port/master/db, " +
	"redis+cluster://user:password@host:port,host:port (rediss for TLS)"

// place is where Redis is, and how to get in.
type place struct {
	kind      string
	master    string   // the name that Sentinels know it by
	addresses []string // of the server, the Sentinels or some of the Cluster
	tls       *tls.Config
	db        int
	prefix    string

	username, password                 string
	sentinelUsername, sentinelPassword string
}

// String is what may be shown of it: host:port, or a list of them.
func (p *place) String() string {
	list := strings.Join(p.addresses, ",")
	if p.kind == sentinel {
		return p.master + "," + list
	}
	return list
}

// parse reads a URL. Its parameters are prefix, that of all keys; for TLS cacert,
// cert and key, paths of files; and sentinel_username and sentinel_password, which
// Sentinels ask for. The error shows nothing of what may be a password.
func parse(rawURL string) (*place, error) {
	u, err := url.Parse(rawURL)
	if err != nil || !slices.Contains(Schemes(), u.Scheme) || u.Opaque != "" || u.Host == "" {
		return nil, fmt.Errorf("not of the form %s; what means something in URLs must be percent-encoded in a password", Forms)
	}
	secure := strings.HasPrefix(u.Scheme, "rediss")
	p := &place{kind: strings.Replace(u.Scheme, "rediss", "redis", 1), prefix: "sd:"}
	p.username = u.User.Username()
	p.password, _ = u.User.Password()
	if err := p.locate(u); err != nil {
		return nil, err
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("its parameters are not those of a URL")
	}
	var files struct{ ca, cert, key string }
	parameters := map[string]*string{
		"prefix": &p.prefix, "cacert": &files.ca, "cert": &files.cert, "key": &files.key,
		"sentinel_username": &p.sentinelUsername, "sentinel_password": &p.sentinelPassword,
	}
	for name, values := range query {
		if parameters[name] == nil || len(values) != 1 {
			return nil, errors.New("it has a parameter twice, or one that is none of prefix, cacert, cert, key, sentinel_username, sentinel_password")
		}
		*parameters[name] = values[0]
	}
	if strings.ContainsAny(p.prefix, "{}") {
		return nil, fmt.Errorf("prefix %q: braces would put all keys into one slot of a Cluster", p.prefix)
	}
	switch {
	case secure:
		p.tls, err = encryption(files.ca, files.cert, files.key)
	case files.ca != "" || files.cert != "" || files.key != "":
		err = errors.New("cacert, cert and key are for TLS: rediss in the place of redis")
	}
	return p, err
}

// locate reads the hosts and the path of a URL.
func (p *place) locate(u *url.URL) error {
	port := "6379"
	if p.kind == sentinel {
		port = "26379"
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if one := (&url.URL{Host: host}); one.Port() == "" {
			host = net.JoinHostPort(one.Hostname(), port)
		}
		if name, number, err := net.SplitHostPort(host); err != nil || name == "" || !isPort(number) {
			return errors.New("not host:port, or a list of them with commas between")
		}
		p.addresses = append(p.addresses, host)
	}
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch {
	case p.kind == single && len(p.addresses) > 1:
		return fmt.Errorf("%d hosts: with several the scheme is %s or %s", len(p.addresses), sentinel, cluster)
	case p.kind == sentinel && path[0] == "":
		return errors.New("the name of the master is missing, behind the hosts of the Sentinels")
	case p.kind == sentinel:
		p.master, path = path[0], path[1:]
	case p.kind == cluster && path[0] != "":
		return errors.New("a Cluster has no databases to choose from, so nothing stands behind its hosts")
	}
	if len(path) > 1 {
		return errors.New("its path has too many parts")
	}
	if len(path) == 0 || path[0] == "" {
		return nil
	}
	db, err := strconv.Atoi(path[0])
	if err != nil || db < 0 {
		return errors.New("the database is not a number")
	}
	p.db = db
	return nil
}

// isPort says whether text is that of a port.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// encryption is TLS with these files; "" for the authorities of the system, and
// for no certificate of ours. That certificate is read anew for each connection.
func encryption(ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if (cert == "") != (key == "") {
		return nil, errors.New("cert and key: one is there without the other")
	}
	if cert != "" {
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			return nil, fmt.Errorf("cert %s: %w", cert, err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}
	}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("cacert %s: holds no certificate in PEM form", ca)
		}
	}
	return config, nil
}
