// Package client calls discovery's v2 API for discovery-agent: hosts that
// register and beat, readers that wait for changes, operators' settings. It
// knows several registries, which are replicas of one, and turns from one that
// does not answer to the next. It never calls by itself: when to call and when
// to try again is its callers' to decide, and it keeps nothing of the answers.
package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options is where discovery is and how it knows the caller.
type Options struct {
	// Registries are the base URLs of discovery's HTTP listeners, such as
	// http://127.0.0.1:8090, one at least.
	Registries []string
	// TokenFile holds the bearer token that each call carries; empty for none.
	// It is read again for each call.
	TokenFile string
	// CA holds the certificates that a registry's may be signed by; empty for
	// those of the system.
	CA string
	// Cert and Key are shown to a registry that asks for a certificate; both or
	// none. They are read again for each connection.
	Cert, Key string
	// Transport carries the calls; nil is the network, with the TLS of the above.
	Transport http.RoundTripper
}

// Client calls registries in turn. It is safe for concurrent use.
type Client struct {
	registries []*Registry
	http       *http.Client
	token      *token

	mu sync.Mutex
	// first is which registry is asked first: the last that answered.
	first int
}

// Registry is one replica of discovery.
type Registry struct {
	// Base is its URL, without a slash at the end.
	Base string

	client *Client
	// notBefore is when it may be called again, and lastly why it may not until
	// then. Both are guarded by client.mu.
	notBefore time.Time
	lastly    error
}

// New makes a client. The error says all that is wrong with o, and with the
// files that it names.
func New(o Options) (*Client, error) {
	c := &Client{}
	var errs []error
	for _, base := range o.Registries {
		base = strings.TrimRight(strings.TrimSpace(base), "/")
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, fmt.Errorf("%q: not a URL such as http://127.0.0.1:8090", base))
			continue
		}
		c.registries = append(c.registries, &Registry{Base: base, client: c})
	}
	if len(o.Registries) == 0 {
		errs = append(errs, errors.New("no registry"))
	}
	var err error
	if c.token, err = openToken(o.TokenFile); err != nil {
		errs = append(errs, err)
	}
	security, err := o.tlsConfig()
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	// Followed, a redirection could make a GET of a PUT, and look like success.
	c.http = &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if o.Transport == nil {
		network := http.DefaultTransport.(*http.Transport).Clone()
		network.TLSClientConfig = security
		c.http.Transport = network
	}
	return c, nil
}

// Close ends connections that no call uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Len is how many registries there are.
func (c *Client) Len() int { return len(c.registries) }

// First is the registry that is asked first.
func (c *Client) First() *Registry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registries[c.first]
}

// InTurn calls try with one registry after another until one does not fail, and
// begins with that one the next time. A registry that asked to be called later
// is passed over until then, with the error that it asked with. The error joins
// all.
func (c *Client) InTurn(try func(*Registry) error) error {
	return c.inTurn(func(r *Registry) error {
		if err := r.askedToWait(); err != nil {
			return err
		}
		return try(r)
	})
}

// Insist is InTurn for what has one chance: it passes nobody over.
func (c *Client) Insist(try func(*Registry) error) error { return c.inTurn(try) }

func (c *Client) inTurn(try func(*Registry) error) error {
	c.mu.Lock()
	first := c.first
	c.mu.Unlock()
	var errs []error
	for i := range c.registries {
		next := (first + i) % len(c.registries)
		err := try(c.registries[next])
		if err == nil {
			c.mu.Lock()
			c.first = next
			c.mu.Unlock()
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// askedToWait is the error with which the registry asked to be called later
// than now, or nil.
func (r *Registry) askedToWait() error {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	if time.Now().Before(r.notBefore) {
		return r.lastly
	}
	return nil
}

// wait has InTurn pass the registry over for a time.
func (r *Registry) wait(d time.Duration, why error) {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.notBefore, r.lastly = time.Now().Add(d), why
}
