// Package auth says who makes a call and what they may do: by bearer tokens and
// by the names in client certificates, both from one file of rules that is read
// again when it changes, and by the address a call comes from. The gate before
// the faces makes a Caller of each call, and the faces ask it. The package
// answers no call, and knows no host and no service beyond their names.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

// Options is what a policy is made of. Log, Metrics and Denials are required.
type Options struct {
	// File holds the rules. If its path is empty, everyone may do everything
	// that OwnAddress allows.
	File filewatch.File
	// Poll is the time between looks at the file, for changes of which the file
	// system does not tell.
	Poll time.Duration
	// ClosedReads says that only callers whom a rule names may read.
	ClosedReads bool
	// OwnAddress says that hosts are registered only by themselves: at the
	// address that the call comes from. A rule may say otherwise.
	OwnAddress bool
	// Hops is how many proxies stand in front of every caller, each of which
	// adds to X-Forwarded-For the address that it was called from.
	Hops int
	// Proxies is where the nearest of them are. A call from elsewhere came past
	// them, and its X-Forwarded-For is not believed. If empty, every call is
	// taken to have come through them.
	Proxies []netip.Prefix
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Denials *denial.Counters
}

// Policy knows callers.
type Policy struct {
	options Options
	watch   *filewatch.Watch // nil if there is no file
	rules   atomic.Pointer[rules]
	good    prometheus.Gauge
}

// New reads the file of rules, if there is one. The error holds all that is
// wrong with it, each with the setting, the file and the place.
func New(o Options) (*Policy, error) {
	p := &Policy{options: o}
	if o.File.Path == "" {
		return p, nil
	}
	watch, contents, err := filewatch.Open(filewatch.Options{
		Files: []filewatch.File{o.File}, Poll: o.Poll, What: "access rules", Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	read, err := readRules(o.File.Path, contents[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File.Setting, err)
	}
	p.watch = watch
	p.rules.Store(read)
	p.good = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "discovery_auth_file_good",
		Help: "1 while the access rules in force are those of their file, 0 while that is bad and those before it stay.",
	})
	o.Metrics.MustRegister(p.good)
	p.good.Set(1)
	p.warnIfReadable()
	return p, nil
}

// Enforced reports whether callers must say who they are: whether there is a
// file of rules.
func (p *Policy) Enforced() bool { return p.watch != nil }

// Run reads the file of rules anew whenever it changes, until ctx ends. A bad
// one is logged, and the rules before it stay. The error is always nil.
// changed is called once other rules are in force.
func (p *Policy) Run(ctx context.Context, changed func()) error {
	if p.watch == nil {
		<-ctx.Done()
		return nil
	}
	p.watch.Run(ctx, func(contents [][]byte, err error) {
		var read *rules
		if err == nil {
			read, err = readRules(p.options.File.Path, contents[0])
		}
		if err != nil {
			p.good.Set(0)
			p.options.Log.Error("access rules are not changed", "error", err)
			return
		}
		p.rules.Store(read)
		p.good.Set(1)
		p.options.Log.Info("access rules changed", "tokens", len(read.tokens), "identities", len(read.exact)+len(read.patterns))
		p.warnIfReadable()
		changed()
	})
	return nil
}

// warnIfReadable logs when others than the file's owner and group may read it.
func (p *Policy) warnIfReadable() {
	info, err := os.Stat(p.options.File.Path)
	if err == nil && info.Mode().Perm()&0o004 != 0 {
		p.options.Log.Warn("every user of this machine can read the file of access rules",
			"file", p.options.File.Path, "mode", info.Mode().Perm().String())
	}
}

// Call is what a call shows of its caller, whatever protocol it came by.
type Call struct {
	// Authorization is the field of that name, empty if there is none.
	Authorization string
	// TLS is the state of the connection; nil if it is in the clear.
	TLS *tls.ConnectionState
	// Remote is the address of the other end of the connection, which may be a
	// proxy.
	Remote netip.Addr
	// ForwardedFor is the lines of X-Forwarded-For.
	ForwardedFor []string
}

// HTTP is the caller of an HTTP request.
func (p *Policy) HTTP(r *http.Request) Caller {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr) // else it has no address
	return p.Caller(Call{
		Authorization: r.Header.Get("Authorization"),
		TLS:           r.TLS,
		Remote:        remote.Addr(),
		ForwardedFor:  r.Header["X-Forwarded-For"],
	})
}

// Caller says who makes a call. A caller that is not known is told so when it
// asks for something that needs that: a token that is shown must be known, else
// the certificate decides.
func (p *Policy) Caller(c Call) Caller {
	caller := Caller{Address: p.address(c), policy: p}
	if c.TLS != nil && len(c.TLS.VerifiedChains) > 0 {
		caller.showed.names = identitiesOf(c.TLS.VerifiedChains[0][0])
	}
	if scheme, token, _ := strings.Cut(c.Authorization, " "); strings.EqualFold(scheme, "Bearer") {
		caller.showed.token, caller.showed.digest = true, sha256.Sum256([]byte(strings.TrimSpace(token)))
	} else {
		caller.showed.other = c.Authorization != ""
	}
	caller.judge(p.rules.Load())
	return caller
}

// address is where a call comes from, or the zero address if the proxies in
// front do not tell.
func (p *Policy) address(c Call) netip.Addr {
	remote := plain(c.Remote)
	contains := func(r netip.Prefix) bool { return r.Contains(remote) }
	if len(p.options.Proxies) > 0 && !slices.ContainsFunc(p.options.Proxies, contains) {
		return remote
	}
	return ForwardedFor(c.ForwardedFor, remote, p.options.Hops)
}
