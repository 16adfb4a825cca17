package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"

	"github.com/weirproxy/weir/internal/certificates"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/gate"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/quota"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/web"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// AccessOptions are the settings of who may do what, and how often.
type AccessOptions struct {
	AuthFile      string         `envconfig:"DISCOVERY_AUTH_FILE" desc:"file of tokens and identities and what they may do, YAML; if unset, everyone may do everything"`
	Reads         string         `envconfig:"DISCOVERY_READS" default:"open" desc:"open: everyone may read; closed: only whom DISCOVERY_AUTH_FILE names"`
	OwnAddress    bool           `envconfig:"DISCOVERY_OWN_ADDRESS" default:"false" desc:"whether hosts may be registered only at the address that the call comes from"`
	TrustedHops   int            `envconfig:"DISCOVERY_TRUSTED_HOPS" default:"0" desc:"proxies in front of every caller; the address that a call comes from is as many from the end of X-Forwarded-For"`
	TrustedRanges []netip.Prefix `envconfig:"DISCOVERY_TRUSTED_RANGES" desc:"where the nearest of those proxies are; X-Forwarded-For from elsewhere is not believed; if unset, from everywhere"`

	CallsPerSource float64 `envconfig:"DISCOVERY_CALLS_PER_SOURCE" default:"0" desc:"calls per second from one address, reads not counted and beats in bulk counted as one; 0: as many as come"`
	CallsBurst     int     `envconfig:"DISCOVERY_CALLS_BURST" default:"100" desc:"how many of them may come at once"`

	TLSCert       string `envconfig:"DISCOVERY_TLS_CERT" desc:"file of the certificate chain of the REST and xDS listeners, PEM; if unset, they serve in the clear"`
	TLSKey        string `envconfig:"DISCOVERY_TLS_KEY" desc:"file of its key, PEM"`
	TLSClientCA   string `envconfig:"DISCOVERY_TLS_CLIENT_CA" desc:"file of the authorities of clients, PEM; if unset, clients are asked for no certificate"`
	TLSClientAuth string `envconfig:"DISCOVERY_TLS_CLIENT_AUTH" default:"required" desc:"required: every client shows a certificate; optional: it may show none"`
}

// What a setting of calls per second can be.
const (
	leastRate = 0.001
	mostRate  = 1e6
	mostBurst = 1_000_000
)

// check reports each fault of a value that its type alone does not rule out.
func (o AccessOptions) check(fault func(format string, args ...any)) {
	if o.Reads != "open" && o.Reads != "closed" {
		fault("DISCOVERY_READS=%s: not one of open, closed", o.Reads)
	}
	if o.Reads == "closed" && o.AuthFile == "" {
		fault("DISCOVERY_READS=closed: DISCOVERY_AUTH_FILE must name who may read")
	}
	setting.AtLeast("DISCOVERY_TRUSTED_HOPS", o.TrustedHops, 0, fault)
	if o.TrustedHops == 0 && len(o.TrustedRanges) > 0 {
		fault("DISCOVERY_TRUSTED_RANGES: %v does not say how many proxies there are", setting.Variable("DISCOVERY_TRUSTED_HOPS", 0))
	}
	for _, p := range o.TrustedRanges {
		if p != p.Masked() {
			fault("DISCOVERY_TRUSTED_RANGES: %v: the range of that is %v", p, p.Masked())
		}
	}
	if !(o.CallsPerSource == 0 || o.CallsPerSource >= leastRate && o.CallsPerSource <= mostRate) {
		fault("%v: not 0, and not from %v to %v", setting.Variable("DISCOVERY_CALLS_PER_SOURCE", o.CallsPerSource), leastRate, mostRate)
	}
	if o.CallsBurst < 1 || o.CallsBurst > mostBurst {
		fault("%v: not from 1 to %d", setting.Variable("DISCOVERY_CALLS_BURST", o.CallsBurst), mostBurst)
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		fault("DISCOVERY_TLS_CERT=%s, DISCOVERY_TLS_KEY=%s: one needs the other", o.TLSCert, o.TLSKey)
	}
	if o.TLSClientCA != "" && o.TLSCert == "" {
		fault("DISCOVERY_TLS_CLIENT_CA=%s: clients can show a certificate only with DISCOVERY_TLS_CERT", o.TLSClientCA)
	}
	if o.TLSClientAuth != "required" && o.TLSClientAuth != "optional" {
		fault("DISCOVERY_TLS_CLIENT_AUTH=%s: not one of required, optional", o.TLSClientAuth)
	}
}

// filePoll is the time between looks at files of access, for changes of which
// the file system does not tell.
const filePoll = 10 * time.Second

// access is what stands between callers and the faces.
type access struct {
	denials      *denial.Counters
	policy       *auth.Policy
	certificates *certificates.Certificates // nil where listeners serve in the clear
	gate         *gate.Gate
	log          *slog.Logger
}

// newAccess reads the files of access. The error names the settings and all that is
// wrong; what is returned beside it lets nobody in.
func newAccess(o AccessOptions, metrics prometheus.Registerer, log *slog.Logger) (*access, error) {
	a := &access{log: log, denials: denial.NewCounters(metrics, call.Limits()...)}
	var badRules, badCertificates error
	a.policy, badRules = auth.New(auth.Options{
		File:        filewatch.File{Setting: "DISCOVERY_AUTH_FILE", Path: o.AuthFile},
		Poll:        filePoll,
		ClosedReads: o.Reads == "closed",
		OwnAddress:  o.OwnAddress,
		Hops:        o.TrustedHops,
		Proxies:     o.TrustedRanges,
		Log:         log,
		Metrics:     metrics,
		Denials:     a.denials,
	})
	if o.TLSCert != "" && o.TLSKey != "" {
		good := prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_certificates_good",
			Help: "1 while listeners show and ask for certificates as their files say, 0 while one of those is bad and what was read before stays.",
		})
		metrics.MustRegister(good)
		a.certificates, badCertificates = certificates.Load(certificates.Options{
			Cert:     filewatch.File{Setting: "DISCOVERY_TLS_CERT", Path: o.TLSCert},
			Key:      filewatch.File{Setting: "DISCOVERY_TLS_KEY", Path: o.TLSKey},
			ClientCA: filewatch.File{Setting: "DISCOVERY_TLS_CLIENT_CA", Path: o.TLSClientCA},
			Optional: o.TLSClientAuth == "optional",
			Poll:     filePoll,
			Loaded: func(_ int, err error) {
				good.Set(0)
				if err == nil {
					good.Set(1)
				}
			},
			Log: log,
		})
	}
	a.gate = &gate.Gate{
		Policy:    a.policy,
		Sources:   quota.NewSources(o.CallsPerSource, o.CallsBurst, a.denials),
		Open:      func(path string) bool { return path == "/healthcheck" || web.Has(path) },
		OnlyReads: func(path string) bool { return strings.HasPrefix(path, "/envoy.service.") || xds.IsPoll(path) },
		Denials:   a.denials,
	}
	return a, errors.Join(badRules, badCertificates)
}

// addParts adds what reads the files of access again. changed is called once other
// rules are in force.
func (a *access) addParts(group *daemon.Group, changed func()) {
	if a.policy.Enforced() {
		group.Add(daemon.Background("access rules", func(ctx context.Context) error { return a.policy.Run(ctx, changed) }))
	}
	if a.certificates != nil {
		group.Add(daemon.Background("certificates", a.certificates.Run))
	}
}

// http is l with TLS, where it is wanted.
func (a *access) http(l net.Listener) net.Listener {
	if a.certificates == nil {
		return httpjson.Unread(l)
	}
	return tls.NewListener(l, a.certificates.Config("h2", "http/1.1"))
}

// scheme is that of URLs of the REST listener.
func (a *access) scheme() string {
	if a.certificates == nil {
		return "http"
	}
	return "https"
}

// guard puts the gate before a gRPC server, and TLS where it is wanted.
func (a *access) guard(o *grpchttp2.Options) {
	o.UnaryInterceptor, o.StreamInterceptor = a.gate.Unary, a.gate.Stream
	if a.certificates != nil {
		o.Credentials = credentials.NewTLS(a.certificates.Config("h2"))
	}
}

// mayBe returns why the caller of a stream or call may not be a node, or see what
// one does, by the rules that are in force now; as a gRPC status.
func (a *access) mayBe(ctx context.Context, id, cluster string) error {
	caller := auth.FromContext(ctx).Now()
	err := caller.MayRead()
	if err == nil {
		err = caller.MayBeNode(id, cluster)
	}
	return a.refused(err)
}

// mayRead returns why the caller of a stream may not see anything, by the rules that
// are in force now; as a gRPC status.
func (a *access) mayRead(ctx context.Context) error {
	caller := auth.FromContext(ctx).Now()
	return a.refused(caller.MayRead())
}

// refused is why a client is refused as a gRPC status, which it logs; nil if it is
// not.
func (a *access) refused(err error) error {
	if err == nil {
		return nil
	}
	a.log.Warn("client refused", "error", err)
	return a.gate.Status(err)
}

// warnIfOpen logs that strangers may change everything, where they may: nobody
// asks who calls, and the listener of an address is reached from elsewhere.
func (a *access) warnIfOpen(o AccessOptions, address string, log *slog.Logger) {
	known := a.policy.Enforced() || o.TLSClientCA != "" && o.TLSClientAuth == "required"
	at, err := netip.ParseAddrPort(address)
	if known || err == nil && at.Addr().IsLoopback() {
		return
	}
	log.Warn(fmt.Sprintf("whoever reaches %s may register and take out hosts of every service: DISCOVERY_AUTH_FILE is not set", address))
}
