package auth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// The tokens of the tests' rules.
const (
	usersToken   = "users-0123456789abcdef"
	rotatedToken = "users-fedcba9876543210"
	natToken     = "nat-0123456789abcdef"
	heldToken    = "held-0123456789abcdef"
	opsToken     = "ops-0123456789abcdef"
)

// ruleFile has a rule of each sort.
var ruleFile = `
tokens:
- {name: users-team, sha256: ` + digest(usersToken) + `, services: [users, "users-*"]}
- {name: users-team, sha256: ` + strings.ToUpper(digest(rotatedToken)) + `, services: [users, "users-*"]}
- {name: nat, token: ` + natToken + `, services: ["*"], addresses: [10.1.0.0/16, 10.2.0.1, "fd00::/8"]}
- {name: held, token: ` + heldToken + `, services: [users], addresses: []}
- {name: ops, token: ` + opsToken + `, operator: true}
identities:
- {spiffe: spiffe://td/ns/prod/sa/ops, operator: true}
- {spiffe: "spiffe://td/ns/*/sa/users", services: [users]}
- {spiffe: "spiffe://td/ns/*/sa/ops", services: [ops]}
- {dns: "*.Users.svc", services: [users]}
- {dns: gate.svc, services: [gate]}
`

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// write writes a file of rules, for its owner alone.
func write(t testing.TB, path, text string) filewatch.File {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return filewatch.File{Setting: "RULES", Path: path}
}

// policy makes one of the rules in text, with what change says.
func policy(t testing.TB, text string, change func(*auth.Options)) *auth.Policy {
	t.Helper()
	metrics := prometheus.NewRegistry()
	o := auth.Options{
		File: write(t, filepath.Join(t.TempDir(), "rules.yaml"), text), Poll: time.Hour,
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Denials: denial.NewCounters(metrics),
	}
	if change != nil {
		change(&o)
	}
	p, err := auth.New(o)
	require.NoError(t, err)
	return p
}

// bearing is a call with a token from 10.0.0.1.
func bearing(token string) auth.Call {
	return auth.Call{Authorization: "Bearer " + token, Remote: netip.MustParseAddr("10.0.0.1")}
}

// showing is a call with a certificate of those names.
func showing(names x509.Certificate) auth.Call {
	return auth.Call{TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{&names}}}, Remote: netip.MustParseAddr("10.0.0.1")}
}

func uris(list ...string) x509.Certificate {
	var c x509.Certificate
	for _, text := range list {
		u, err := url.Parse(text)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

// refused is the refusal that err is; it fails the test if it is none.
func refused(t testing.TB, err error) *denial.Error {
	t.Helper()
	r, ok := errors.AsType[*denial.Error](err)
	require.True(t, ok, "not a refusal: %v", err)
	return r
}

func TestWhoMayRegisterWhat(t *testing.T) {
	p := policy(t, ruleFile, nil)
	for name, test := range map[string]struct {
		call     auth.Call
		actor    string
		may, not []string // services
	}{
		"a token":                       {bearing(usersToken), "users-team", []string{"users", "users-v2", "users-"}, []string{"user", "usersx", "billing", ""}},
		"another of the same name":      {bearing(rotatedToken), "users-team", []string{"users"}, []string{"billing"}},
		"a token for all services":      {bearing(natToken), "nat", []string{"users", "billing"}, nil},
		"a token of an operator":        {bearing(opsToken), "ops", []string{"users", "billing"}, nil},
		"the scheme in other letters":   {auth.Call{Authorization: "bearer  " + usersToken}, "users-team", []string{"users"}, []string{"billing"}},
		"a token is asked for first":    {auth.Call{Authorization: "Bearer " + usersToken, TLS: showing(uris("spiffe://td/ns/prod/sa/ops")).TLS}, "users-team", []string{"users"}, []string{"billing"}},
		"an identity":                   {showing(uris("spiffe://td/ns/a/sa/users")), "spiffe://td/ns/a/sa/users", []string{"users"}, []string{"billing"}},
		"an exact one before a pattern": {showing(uris("spiffe://td/ns/prod/sa/ops")), "spiffe://td/ns/prod/sa/ops", []string{"users", "ops"}, nil},
		"the pattern for others":        {showing(uris("spiffe://td/ns/test/sa/ops")), "spiffe://td/ns/test/sa/ops", []string{"ops"}, []string{"users"}},
		"a host name":                   {showing(x509.Certificate{DNSNames: []string{"other", "A.users.SVC"}}), "a.users.svc", []string{"users"}, []string{"gate"}},
		"a host name that is exact":     {showing(x509.Certificate{DNSNames: []string{"a.users.svc", "gate.svc"}}), "gate.svc", []string{"gate"}, []string{"users"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.Caller(test.call)
			require.Equal(t, test.actor, c.Actor())
			for _, service := range test.may {
				require.NoError(t, c.MayRegister(service), service)
				require.True(t, c.Registers(service), service)
			}
			for _, service := range test.not {
				require.Equal(t, 403, refused(t, c.MayRegister(service)).Status, service)
				require.False(t, c.Registers(service), service)
			}
			require.NoError(t, c.MayWrite())
			require.NoError(t, c.MayRead())
		})
	}
}

func TestWhoIsNotKnownIsToldWhatIsMissing(t *testing.T) {
	p := policy(t, ruleFile, func(o *auth.Options) { o.ClosedReads = true })
	challenge, invalid := `Bearer realm="discovery"`, `Bearer realm="discovery", error="invalid_token"`
	for name, test := range map[string]struct {
		call      auth.Call
		status    int
		reason    denial.Reason
		challenge string
		text      string
	}{
		"nothing shown":           {auth.Call{}, 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer, or a client certificate that has a rule"},
		"another scheme":          {auth.Call{Authorization: "Basic " + usersToken}, 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer; another scheme is not known"},
		"a token without scheme":  {auth.Call{Authorization: usersToken}, 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer; another scheme is not known"},
		"an unknown token":        {bearing("s3cret"), 401, denial.Token, invalid, "to change anything takes a token that is known, and this one is not"},
		"no token":                {bearing(""), 401, denial.Token, invalid, "to change anything takes a token that is known, and this one is not"},
		"the digest of a token":   {bearing(digest(usersToken)), 401, denial.Token, invalid, "to change anything takes a token that is known, and this one is not"},
		"an unknown identity":     {showing(uris("spiffe://td/ns/a/b/sa/users")), 403, denial.Identity, "", `no rule is for identity "spiffe://td/ns/a/b/sa/users", and to change anything takes one`},
		"another trust domain":    {showing(uris("spiffe://other/ns/a/sa/users")), 403, denial.Identity, "", `no rule is for identity "spiffe://other/ns/a/sa/users", and to change anything takes one`},
		"two URIs, which is none": {showing(uris("spiffe://td/ns/a/sa/users", "spiffe://td/ns/b/sa/users")), 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer, or a client certificate that has a rule"},
		"a URI of another scheme": {showing(uris("https://td/ns/a/sa/users")), 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer, or a client certificate that has a rule"},
		"a deeper host name":      {showing(x509.Certificate{DNSNames: []string{"a.b.users.svc"}}), 403, denial.Identity, "", `no rule is for identity "a.b.users.svc", and to change anything takes one`},
		"a name of all hosts":     {showing(x509.Certificate{DNSNames: []string{"*.users.svc"}}), 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer, or a client certificate that has a rule"},
		"an unverified chain":     {auth.Call{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{DNSNames: []string{"gate.svc"}}}}}, 401, denial.Token, challenge, "to change anything takes a token, as Authorization: Bearer, or a client certificate that has a rule"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.Caller(test.call)
			require.Equal(t, &denial.Error{Status: test.status, Reason: test.reason, Challenge: test.challenge, Text: test.text}, refused(t, c.MayWrite()))
			for _, err := range []error{c.MayRegister("users"), c.MayOperate(), c.MayRead()} {
				require.Equal(t, test.status, refused(t, err).Status)
			}
		})
	}
}

func TestWhatARuleDoesNotSayIsRefused(t *testing.T) {
	p := policy(t, ruleFile, nil)
	users := p.Caller(bearing(usersToken))
	require.Equal(t, &denial.Error{Status: 403, Reason: denial.Token, Text: `the rule of "users-team" does not let it change hosts of service "billing"`}, users.MayRegister("billing"))
	require.Equal(t, &denial.Error{Status: 403, Reason: denial.Token, Text: `the rule of "users-team" does not let it do what is an operator's`}, users.MayOperate())
	gate := p.Caller(showing(x509.Certificate{DNSNames: []string{"gate.svc"}}))
	require.Equal(t, &denial.Error{Status: 403, Reason: denial.Identity, Text: `the rule of "gate.svc" does not let it do what is an operator's`}, gate.MayOperate())
	ops := p.Caller(bearing(opsToken))
	require.NoError(t, ops.MayOperate())
}

func TestReadsAreOpenUnlessTheyAreClosed(t *testing.T) {
	stranger := policy(t, ruleFile, nil).Caller(bearing("s3cret"))
	require.NoError(t, stranger.MayRead())
	closed := policy(t, ruleFile, func(o *auth.Options) { o.ClosedReads = true })
	stranger = closed.Caller(bearing("s3cret"))
	require.Equal(t, 401, refused(t, stranger.MayRead()).Status)
	users := closed.Caller(bearing(usersToken))
	require.NoError(t, users.MayRead())
}

func TestWithoutRulesEveryoneMayDoEverything(t *testing.T) {
	off := policy(t, ruleFile, func(o *auth.Options) { o.File.Path = "" })
	require.False(t, off.Enforced())
	require.True(t, policy(t, ruleFile, nil).Enforced())
	anyone := off.Caller(bearing("s3cret"))
	identified := off.Caller(showing(uris("spiffe://td/ns/a/sa/users")))
	for _, c := range []*auth.Caller{&anyone, &identified, auth.FromContext(t.Context())} {
		require.NoError(t, c.MayRegister("users"))
		require.True(t, c.Registers("users"))
		require.NoError(t, c.MayRegisterAddress(netip.MustParseAddr("10.0.0.2")))
		require.NoError(t, c.MayWrite())
		require.NoError(t, c.MayOperate())
		is, whyNot := c.IsOperator()
		require.True(t, is)
		require.Empty(t, whyNot)
		require.NoError(t, c.MayRead())
	}
	require.Equal(t, "10.0.0.1", anyone.Actor())
	require.Equal(t, "spiffe://td/ns/a/sa/users", identified.Actor())
	require.Equal(t, "unknown", auth.FromContext(t.Context()).Actor())
	require.Equal(t, "10.0.0.1", auth.FromContext(auth.NewContext(t.Context(), &anyone)).Actor())
}

func TestWhereAHostMayBe(t *testing.T) {
	const own = "10.0.0.1"
	ownOnly := func(o *auth.Options) { o.OwnAddress = true }
	behind := func(hops int, proxies ...netip.Prefix) func(*auth.Options) {
		return func(o *auth.Options) { o.OwnAddress, o.Hops, o.Proxies = true, hops, proxies }
	}
	open := func(change func(*auth.Options)) func(*auth.Options) {
		return func(o *auth.Options) { change(o); o.File.Path = "" }
	}
	proxies := netip.MustParsePrefix("10.0.0.0/24")
	for name, test := range map[string]struct {
		change    func(*auth.Options)
		token     string
		remote    string
		forwarded []string
		address   string
		want      string // "" if it may
	}{
		"anywhere without the setting":         {nil, usersToken, own, nil, "10.9.9.9", ""},
		"its own":                              {ownOnly, usersToken, own, nil, own, ""},
		"its own, v4 in v6":                    {ownOnly, usersToken, "::ffff:10.0.0.1", nil, own, ""},
		"its own, v4, as v6 holds it":          {ownOnly, usersToken, own, nil, "::ffff:10.0.0.1", ""},
		"its own, v6":                          {ownOnly, usersToken, "fd00::1", nil, "fd00:0::1", ""},
		"its own, with a zone":                 {ownOnly, usersToken, "fe80::1%eth0", nil, "fe80::1", ""},
		"another":                              {ownOnly, usersToken, own, nil, "10.0.0.2", "address 10.0.0.2 is not that of the caller, 10.0.0.1, and it may register no other"},
		"another, v6":                          {ownOnly, usersToken, "fd00::1", nil, "fd00::2", "address fd00::2 is not that of the caller, fd00::1, and it may register no other"},
		"a header is not believed unasked":     {ownOnly, usersToken, own, []string{"10.0.0.2"}, "10.0.0.2", "address 10.0.0.2 is not that of the caller, 10.0.0.1, and it may register no other"},
		"in the range of its rule":             {ownOnly, natToken, own, nil, "10.1.2.3", ""},
		"an address of its rule":               {ownOnly, natToken, own, nil, "10.2.0.1", ""},
		"its own beside those of its rule":     {ownOnly, natToken, own, nil, own, ""},
		"v4 in v6 in the range of its rule":    {ownOnly, natToken, own, nil, "::ffff:10.1.2.3", ""},
		"beside its rule":                      {ownOnly, natToken, own, nil, "10.2.0.2", "address 10.2.0.2 is not that of the caller, 10.0.0.1, and it may register no other"},
		"a rule holds without the setting":     {nil, natToken, own, nil, "10.2.0.2", "address 10.2.0.2 is not that of the caller, 10.0.0.1, and it may register no other"},
		"a rule without any holds to its own":  {nil, heldToken, own, nil, "10.2.0.2", "address 10.2.0.2 is not that of the caller, 10.0.0.1, and it may register no other"},
		"its own by a rule without any":        {nil, heldToken, own, nil, own, ""},
		"an operator anywhere":                 {ownOnly, opsToken, own, nil, "10.9.9.9", ""},
		"the setting holds without rules":      {open(ownOnly), "", own, nil, "10.0.0.2", "address 10.0.0.2 is not that of the caller, 10.0.0.1, and it may register no other"},
		"its own without rules":                {open(ownOnly), "", own, nil, own, ""},
		"behind a proxy":                       {behind(1), usersToken, own, []string{"10.9.9.9, 10.0.0.7"}, "10.0.0.7", ""},
		"a stranger's element behind a proxy":  {behind(1), usersToken, own, []string{"10.9.9.9, 10.0.0.7"}, "10.9.9.9", "address 10.9.9.9 is not that of the caller, 10.0.0.7, and it may register no other"},
		"the proxy's own is not the caller's":  {behind(1), usersToken, own, []string{"10.0.0.7"}, own, "address 10.0.0.1 is not that of the caller, 10.0.0.7, and it may register no other"},
		"behind a proxy that tells nothing":    {behind(2), usersToken, own, []string{"10.0.0.7"}, "10.0.0.7", "address 10.0.0.7: it is not known to be the caller's, for x-forwarded-for does not tell that of the caller before 2 proxies"},
		"behind a proxy of the ranges":         {behind(1, proxies), usersToken, own, []string{"10.1.0.7"}, "10.1.0.7", ""},
		"past the proxies: its own":            {behind(1, proxies), usersToken, "10.1.0.8", []string{"10.1.0.7"}, "10.1.0.8", ""},
		"past the proxies: a header of theirs": {behind(1, proxies), usersToken, "10.1.0.8", []string{"10.1.0.7"}, "10.1.0.7", "address 10.1.0.7 is not that of the caller, 10.1.0.8, and it may register no other"},
	} {
		t.Run(name, func(t *testing.T) {
			c := policy(t, ruleFile, test.change).Caller(auth.Call{
				Authorization: "Bearer " + test.token,
				Remote:        netip.MustParseAddr(test.remote),
				ForwardedFor:  test.forwarded,
			})
			err := c.MayRegisterAddress(netip.MustParseAddr(test.address))
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, &denial.Error{Status: 403, Reason: denial.Address, Text: test.want}, err)
		})
	}
}

func TestRefusalsAreCountedOnceEach(t *testing.T) {
	metrics := prometheus.NewRegistry()
	p := policy(t, ruleFile, func(o *auth.Options) {
		o.Metrics, o.Denials, o.OwnAddress = prometheus.NewRegistry(), denial.NewCounters(metrics), true
	})
	unknown, users := p.Caller(bearing("s3cret")), p.Caller(bearing(usersToken))
	stranger := p.Caller(showing(uris("spiffe://td/none")))
	require.Error(t, unknown.MayWrite())
	require.Error(t, users.MayRegister("billing"))
	require.Error(t, stranger.MayOperate())
	require.False(t, stranger.Registers("users"))
	is, whyNot := stranger.IsOperator()
	require.False(t, is)
	require.Equal(t, `no rule is for identity "spiffe://td/none", and to do what is an operator's takes one`, whyNot)
	require.Error(t, users.MayRegisterAddress(netip.MustParseAddr("10.0.0.2")))
	require.NoError(t, users.MayRegister("users"))
	require.NoError(t, testutil.GatherAndCompare(metrics, strings.NewReader(`
# HELP discovery_refusals_total What callers were refused by a rule or a limit, by reason.
# TYPE discovery_refusals_total counter
discovery_refusals_total{reason="address"} 1
discovery_refusals_total{reason="body"} 0
discovery_refusals_total{reason="hosts"} 0
discovery_refusals_total{reason="identity"} 1
discovery_refusals_total{reason="node"} 0
discovery_refusals_total{reason="rate"} 0
discovery_refusals_total{reason="services"} 0
discovery_refusals_total{reason="settings"} 0
discovery_refusals_total{reason="tags"} 0
discovery_refusals_total{reason="token"} 2
discovery_refusals_total{reason="waiters"} 0
`)))
}

// nodeFile has rules that name nodes, and one that does not.
var nodeFile = `
tokens:
- {name: edge-team, token: ` + natToken + `, nodes: ["edge-*", gate], clusters: [edge, "eu/*"]}
- {name: any, token: ` + heldToken + `, nodes: ["*"], clusters: ["*"]}
- {name: users-team, token: ` + usersToken + `, services: [users]}
- {name: ops, token: ` + opsToken + `, operator: true}
identities:
- {spiffe: "spiffe://td/ns/*/sa/edge", nodes: ["edge-*"], clusters: []}
`

func TestWhoMayBeWhichNode(t *testing.T) {
	p := policy(t, nodeFile, nil)
	edge := showing(uris("spiffe://td/ns/a/sa/edge"))
	for name, test := range map[string]struct {
		call        auth.Call
		id, cluster string
		want        string // "" if it may
		status      int
	}{
		"by a beginning":               {bearing(natToken), "edge-7", "edge", "", 0},
		"by name":                      {bearing(natToken), "gate", "eu/1", "", 0},
		"of no cluster":                {bearing(natToken), "gate", "", "", 0},
		"any":                          {bearing(heldToken), "", "x", "", 0},
		"an operator":                  {bearing(opsToken), "edge-7", "shop", "", 0},
		"a certificate":                {edge, "edge-7", "", "", 0},
		"another id":                   {bearing(natToken), "edge", "edge", `the rule of "edge-team" does not let it be node "edge" of cluster "edge" (FILE)`, 403},
		"no id":                        {bearing(natToken), "", "edge", `the rule of "edge-team" does not let it be node "" of cluster "edge" (FILE)`, 403},
		"another cluster":              {bearing(natToken), "gate", "eu", `the rule of "edge-team" does not let it be node "gate" of cluster "eu" (FILE)`, 403},
		"a cluster where none is":      {edge, "edge-7", "edge", `the rule of "spiffe://td/ns/a/sa/edge" does not let it be node "edge-7" of cluster "edge" (FILE)`, 403},
		"a rule that names no nodes":   {bearing(usersToken), "u", "", `the rule of "users-team" does not let it be node "u" of cluster "" (FILE)`, 403},
		"a certificate without a rule": {showing(uris("spiffe://td/x")), "u", "", `no rule is for identity "spiffe://td/x", and to be node "u" of cluster "" (FILE) takes one`, 403},
		"a token that nobody knows":    {bearing("s3cret"), "u", "", `to be node "u" of cluster "" (FILE) takes a token that is known, and this one is not`, 401},
		"nobody":                       {auth.Call{}, "u", "", `to be node "u" of cluster "" (FILE) takes a token, as Authorization: Bearer, or a client certificate that has a rule`, 401},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.Caller(test.call)
			err := c.MayBeNode(test.id, test.cluster)
			require.Equal(t, test.want == "", c.IsNode(test.id, test.cluster))
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			r := refused(t, err)
			require.Equal(t, test.want, regexp.MustCompile(`\(/.*rules\.yaml\)`).ReplaceAllString(r.Text, "(FILE)"))
			require.Equal(t, test.status, r.Status)
			require.Equal(t, denial.Node, r.Reason)
		})
	}
}

func TestWhereNoRuleNamesNodesEveryoneMayBeAny(t *testing.T) {
	for _, p := range []*auth.Policy{policy(t, ruleFile, nil), policy(t, ruleFile, func(o *auth.Options) { o.File.Path = "" })} {
		for _, call := range []auth.Call{{}, bearing("s3cret"), bearing(usersToken), showing(uris("spiffe://td/x"))} {
			c := p.Caller(call)
			require.NoError(t, c.MayBeNode("a", "b"))
		}
	}
	require.NoError(t, auth.FromContext(t.Context()).MayBeNode("a", "b"))
}

func TestACallerIsJudgedAnewByTheRulesOfNow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, ruleFile)
	p := policy(t, ruleFile, func(o *auth.Options) { o.File.Path, o.Poll = path, 10*time.Millisecond })
	run(t, p)
	byToken, byName := p.Caller(bearing(natToken)), p.Caller(showing(uris("spiffe://td/ns/a/sa/edge")))
	require.True(t, byToken.IsNode("shop", ""))
	require.Equal(t, "nat", byToken.Identity())
	write(t, path, nodeFile)
	servicetest.Eventually(t, "the rules name nodes", func() bool { now := byToken.Now(); return now.Identity() == "edge-team" })
	now := byToken.Now()
	require.False(t, now.IsNode("shop", ""))
	require.True(t, now.IsNode("gate", ""))
	now = byName.Now()
	require.True(t, now.IsNode("edge-1", ""))
	require.Equal(t, "nat", byToken.Identity(), "it stays who it was")
	require.True(t, byToken.IsNode("shop", ""))
	zero := auth.FromContext(t.Context()).Now()
	require.True(t, zero.IsNode("shop", ""))
}

func TestTheCallerOfAnHTTPRequest(t *testing.T) {
	p := policy(t, ruleFile, func(o *auth.Options) { o.Hops = 2 })
	c := p.HTTP(&http.Request{
		RemoteAddr: "10.0.0.1:1234",
		Header:     http.Header{"Authorization": {"Bearer " + usersToken}, "X-Forwarded-For": {"10.0.0.3", "10.0.0.2"}},
	})
	require.Equal(t, "users-team", c.Identity())
	require.Equal(t, "10.0.0.3", c.Address.String())
	c = p.HTTP(&http.Request{RemoteAddr: "@", TLS: showing(uris("spiffe://td/ns/a/sa/users")).TLS})
	require.Equal(t, "spiffe://td/ns/a/sa/users", c.Identity())
	require.False(t, c.Address.IsValid())
}

// text is a log that may be read while it is written.
type text struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *text) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(line)
}

func (l *text) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.all.Bytes(), []byte(part))
}

// run has p read its file anew until the test ends.
func run(t *testing.T, p *auth.Policy) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	// Ends with ctx; the test's end waits for it.
	go func() { done <- p.Run(ctx, func() {}) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
}

func TestChangedRulesAreTakenAndBadOnesAreNot(t *testing.T) {
	log, metrics := &text{}, prometheus.NewRegistry()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, ruleFile)
	p := policy(t, ruleFile, func(o *auth.Options) {
		o.File.Path, o.Poll, o.Metrics = path, 10*time.Millisecond, metrics
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	})
	run(t, p)
	may := func(token string) bool {
		c := p.Caller(bearing(token))
		return c.MayRegister("users") == nil
	}
	good := func() float64 {
		families, err := metrics.Gather()
		require.NoError(t, err)
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	require.True(t, may(usersToken))
	require.Equal(t, 1.0, good())

	write(t, path, "tokens: [{name: users-team, token: a-new-token-of-users, services: [users]}]")
	servicetest.Eventually(t, "the new token is known", func() bool { return may("a-new-token-of-users") })
	require.False(t, may(usersToken), "the old one is not")

	write(t, path, "tokens: [{name: users-team, token: short, services: [users]}]")
	servicetest.Eventually(t, "the bad file is told", func() bool { return good() == 0 })
	require.True(t, may("a-new-token-of-users"), "the last good rules stay")
	require.Equal(t, 1, log.count("access rules are not changed"))
	require.Equal(t, 1, log.count(path+":1:36: token: shorter than 16 characters, so that it may be guessed"))

	require.NoError(t, os.Remove(path))
	servicetest.Eventually(t, "the missing file is told", func() bool { return log.count("access rules are not changed") == 2 })
	require.True(t, may("a-new-token-of-users"))

	write(t, path, ruleFile)
	servicetest.Eventually(t, "the mended file is taken", func() bool { return may(usersToken) && good() == 1 })
	require.Zero(t, log.count(usersToken)+log.count("a-new-token-of-users"), "no token is logged")
}

func TestAFileThatEveryoneCanReadIsWarnedOf(t *testing.T) {
	for mode, warnings := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1, 0o604: 1} {
		log := &text{}
		policy(t, ruleFile, func(o *auth.Options) {
			require.NoError(t, os.Chmod(o.File.Path, mode))
			o.Log = slog.New(slog.NewTextHandler(log, nil))
		})
		require.Equal(t, warnings, log.count("every user of this machine can read"), "%v", mode)
	}
}

func TestTheStartNamesTheSettingOfABadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	o := auth.Options{File: filewatch.File{Setting: "RULES", Path: path}}
	_, err := auth.New(o)
	require.ErrorContains(t, err, "RULES="+path+": open ")
	write(t, path, "tokens: 7")
	_, err = auth.New(o)
	require.EqualError(t, err, "RULES: "+path+":1:9: tokens: want a list")
}

func BenchmarkCaller(b *testing.B) {
	for name, call := range map[string]auth.Call{
		"token":    bearing(usersToken),
		"identity": showing(uris("spiffe://td/ns/a/sa/users")),
	} {
		b.Run(name, func(b *testing.B) {
			p := policy(b, ruleFile, func(o *auth.Options) { o.OwnAddress = true })
			b.ReportAllocs()
			for b.Loop() {
				c := p.Caller(call)
				if c.MayRegister("users") != nil || c.MayRegisterAddress(call.Remote) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}
