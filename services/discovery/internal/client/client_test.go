package client

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// transport is a function in the place of the network.
type transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f transport) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// newTestClient is a client of registries by their URLs.
func newTestClient(t *testing.T, o Options, registries ...string) *Client {
	t.Helper()
	o.Registries = registries
	c, err := New(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// answering is a registry that answers all calls alike, and notes them.
func answering(t *testing.T, status int, header http.Header, body string) (base string, calls *[]string) {
	calls = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		*calls = append(*calls, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, text)))
		for name := range header {
			w.Header().Set(name, header.Get(name))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL, calls
}

func TestCallsAreThoseOfTheAPI(t *testing.T) {
	canary := true
	for name, test := range map[string]struct {
		call func(context.Context, *Registry) error
		want string
	}{
		"a registration": {func(ctx context.Context, r *Registry) error {
			_, err := r.Put(ctx, "a/b", "[fd00::1]:80", Registration{
				Address: netip.MustParseAddr("fd00::1"), AdditionalAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Port: 80,
				Ports: map[string]uint16{"grpc": 90}, Zone: "z", Region: "r", Repo: "p", Revision: "v", Weight: 7, Canary: &canary, TTL: "30s", Draining: true,
			})
			return err
		}, `PUT /v2/services/a%2Fb/hosts/%5Bfd00::1%5D:80 {"address":"fd00::1","additional_addresses":["10.0.0.1"],"port":80,"ports":{"grpc":90},` +
			`"zone":"z","region":"r","repo":"p","revision":"v","weight":7,"canary":true,"ttl":"30s","draining":true}`},
		"a short registration": {func(ctx context.Context, r *Registry) error {
			_, err := r.Put(ctx, "a", "i", Registration{Address: netip.MustParseAddr("10.0.0.1"), Port: 80, TTL: "1s"})
			return err
		}, `PUT /v2/services/a/hosts/i {"address":"10.0.0.1","port":80,"ttl":"1s"}`},
		"a beat":            {func(ctx context.Context, r *Registry) error { return r.Heartbeat(ctx, "a", "i", "12") }, `POST /v2/services/a/hosts/i/heartbeat {"lease":"12"}`},
		"a removal":         {func(ctx context.Context, r *Registry) error { return r.Remove(ctx, "a", "i", "") }, "DELETE /v2/services/a/hosts/i"},
		"the end of a stay": {func(ctx context.Context, r *Registry) error { return r.Remove(ctx, "a", "i", "12") }, "DELETE /v2/services/a/hosts/i?lease=12"},
		"a drain": {func(ctx context.Context, r *Registry) error {
			return r.Make(ctx, "drain", Setting{Scope: Scope{Service: "a", ID: "i"}, Author: "me", Reason: "why", ExpiresIn: "1h0m0s"})
		}, `PUT /v2/settings/drain {"scope":{"service":"a","id":"i"},"author":"me","reason":"why","expires_in":"1h0m0s"}`},
		"its end": {func(ctx context.Context, r *Registry) error {
			return r.End(ctx, "drain", Scope{Service: "a", Zone: "z 1"})
		},
			"DELETE /v2/settings/drain?service=a&zone=z+1"},
	} {
		t.Run(name, func(t *testing.T) {
			base, calls := answering(t, 200, nil, "{}")
			c := newTestClient(t, Options{}, base+"/")
			require.NoError(t, c.InTurn(func(r *Registry) error { return test.call(t.Context(), r) }))
			require.Equal(t, []string{test.want}, *calls)
		})
	}
}

func TestAListIsReadWithAllThatItSaysOfAHost(t *testing.T) {
	const host = `{"id":"i","address":"10.0.0.1","port":80,"zone":"z","state":"draining","stale":true,"revision":"v","weight":7,` +
		`"last_check_in":"2026-11-26T14:30:00Z","more":[1]}`
	base, calls := answering(t, 200, nil, `{"service":"a","known":true,"index":"0000000000000012","hosts":[`+host+`]}`)
	r := newTestClient(t, Options{}, base).First()
	list, err := r.Hosts(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "0000000000000012", list.Index)
	require.True(t, list.Known)
	text, err := list.Hosts[0].MarshalJSON()
	require.NoError(t, err)
	require.JSONEq(t, host, string(text))
	list.Hosts[0].text = nil
	require.Equal(t, []Host{{
		ID: "i", Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Zone: "z", State: "draining", Stale: true, Revision: "v", Weight: 7,
		LastCheckIn: time.Date(2026, 11, 26, 14, 30, 0, 0, time.UTC),
	}}, list.Hosts)

	_, changed, err := r.AwaitHosts(t.Context(), "a", "0000000000000011", 30*time.Second)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, []string{"GET /v2/services/a/hosts", "GET /v2/services/a/hosts?index=0000000000000011&wait=30s"}, *calls)
}

func TestAListThatHasNotChangedIsNotThere(t *testing.T) {
	base, _ := answering(t, 304, nil, "")
	_, changed, err := newTestClient(t, Options{}, base).First().AwaitHosts(t.Context(), "a", "1", time.Second)
	require.NoError(t, err)
	require.False(t, changed)
}

func TestAnErrorSaysWhatWasAskedAndTheReason(t *testing.T) {
	for name, test := range map[string]struct {
		status           int
		body, want       string
		refused, unknown bool
	}{
		"a reason":            {400, `{"error":"port: missing","fields":[]}`, "400 Bad Request: port: missing", true, false},
		"not known":           {404, `{"error":"no such host"}`, "404 Not Found: no such host", true, true},
		"text":                {502, "upstream\n", "502 Bad Gateway: upstream", false, false},
		"nothing":             {500, "", "500 Internal Server Error", false, false},
		"too many":            {429, `{"error":"full"}`, "429 Too Many Requests: full", false, false},
		"too slow":            {408, ``, "408 Request Timeout", false, false},
		"leads elsewhere":     {307, ``, "307 Temporary Redirect", false, false},
		"not JSON though 200": {200, `<html>`, "200 OK: the answer is not that of discovery: invalid character '<' looking for beginning of value", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			base, _ := answering(t, test.status, http.Header{"Location": {"/"}}, test.body)
			_, err := newTestClient(t, Options{}, base).First().Put(t.Context(), "a", "i", Registration{Address: netip.MustParseAddr("10.0.0.1")})
			require.EqualError(t, err, "PUT "+base+"/v2/services/a/hosts/i: "+test.want)
			require.Equal(t, test.refused, IsRefusal(err))
			require.Equal(t, test.unknown, IsUnknown(err))
			require.False(t, IsUnsent(err))
		})
	}
}

func TestACallWithoutAConnectionIsUnsent(t *testing.T) {
	r := newTestClient(t, Options{}, "http://127.0.0.1:1").First() // where nobody listens
	err := r.Remove(t.Context(), "a", "i", "")
	require.True(t, IsUnsent(err))
	require.False(t, IsRefusal(err))
}

func TestTheRegistryThatAnsweredLastIsAskedFirst(t *testing.T) {
	c := newTestClient(t, Options{}, "http://a", "http://b", "http://c")
	var asked []string
	down := map[string]bool{"http://a": true}
	try := func(r *Registry) error {
		asked = append(asked, strings.TrimPrefix(r.Base, "http://"))
		if down[r.Base] {
			return errors.New(r.Base + " is down")
		}
		return nil
	}
	require.NoError(t, c.InTurn(try))
	require.NoError(t, c.InTurn(try))
	require.Equal(t, []string{"a", "b", "b"}, asked)
	require.Equal(t, "http://b", c.First().Base)

	asked, down["http://b"], down["http://c"] = nil, true, true
	require.EqualError(t, c.InTurn(try), "http://b is down\nhttp://c is down\nhttp://a is down")
	down["http://b"] = false
	require.NoError(t, c.InTurn(try))
	require.Equal(t, []string{"b", "c", "a", "b"}, asked)
}

func TestARegistryThatAsksToBeCalledLaterIsPassedOverUntilThen(t *testing.T) {
	for name, test := range map[string]struct {
		header string
		want   time.Duration
	}{
		"seconds":      {"3", 3 * time.Second},
		"too long":     {"86400", longestWait},
		"none":         {"", 0},
		"not a number": {"Wed, 21 Oct 2026 07:28:00 GMT", 0},
		"below zero":   {"-1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := map[string]int{}
				c := newTestClient(t, Options{Transport: transport(func(request *http.Request) (*http.Response, error) {
					calls[request.URL.Host]++
					response := &http.Response{StatusCode: http.StatusServiceUnavailable, Status: "503 Service Unavailable", Header: http.Header{}, Body: http.NoBody}
					if request.URL.Host == "a" && test.header != "" {
						response.Header.Set("Retry-After", test.header)
					}
					return response, nil
				})}, "http://a", "http://b")
				remove := func(r *Registry) error { return r.Remove(t.Context(), "s", "i", "") }
				first := c.InTurn(remove)
				require.Error(t, first)
				if test.want > 0 {
					time.Sleep(test.want - time.Millisecond)
					require.Equal(t, first.Error(), c.InTurn(remove).Error(), "the reason is the same")
					require.Equal(t, map[string]int{"a": 1, "b": 2}, calls)
					require.Error(t, c.Insist(remove))
					require.Equal(t, map[string]int{"a": 2, "b": 3}, calls)
					time.Sleep(test.want)
				}
				before := calls["a"]
				require.Error(t, c.InTurn(remove))
				require.Equal(t, before+1, calls["a"])
			})
		})
	}
}

func TestAWrongOptionIsToldWithAllOthers(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	_, err := New(Options{
		Registries: []string{"ftp://a", "http://", "http://u:p@b", "http://c?d", "x y"}, TokenFile: empty, CA: empty, Cert: empty, Key: "/none/such",
	})
	require.Error(t, err)
	for _, reason := range []string{`"ftp://a": not a URL`, `"http:": not`, `"http://c?d": not`, `"x y": not`, "does not hold one word", "holds none in PEM", "/none/such"} {
		require.ErrorContains(t, err, reason)
	}
	_, err = New(Options{CA: "/none/such", Cert: "a"})
	for _, reason := range []string{"no registry", "/none/such", "a certificate and its key: only one of them is given"} {
		require.ErrorContains(t, err, reason)
	}
}

func TestTheTokenIsThatOfItsFileAtEachCall(t *testing.T) {
	var said atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { said.Store(r.Header.Get("Authorization")) }))
	defer s.Close()
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("one\n"), 0o600))
	r := newTestClient(t, Options{TokenFile: path}, s.URL).First()
	for _, step := range []struct {
		change func() error
		want   string
	}{
		{func() error { return nil }, "Bearer one"},
		{func() error { return os.WriteFile(path, []byte("two"), 0o600) }, "Bearer two"},
		{func() error { return os.WriteFile(path, nil, 0o600) }, "Bearer two"}, // as one that is just being written
		{func() error { return os.Remove(path) }, "Bearer two"},
	} {
		require.NoError(t, step.change())
		require.NoError(t, r.Remove(t.Context(), "a", "i", ""))
		require.Equal(t, step.want, said.Load())
	}
}

func TestARegistryIsKnownByItsCertificateAndTheCallerByIts(t *testing.T) {
	authority := servicetest.NewAuthority(t)
	serverCert, serverKey := authority.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	var serials []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		serials = append(serials, r.TLS.PeerCertificates[0].SerialNumber.String())
	}))
	config, err := (&Options{CA: authority.File(), Cert: serverCert, Key: serverKey}).tlsConfig()
	require.NoError(t, err)
	pair, err := config.GetClientCertificate(nil)
	require.NoError(t, err)
	s.TLS = config
	s.TLS.Certificates = append(s.TLS.Certificates, *pair)
	s.TLS.ClientCAs, s.TLS.ClientAuth = authority.Pool(), 4 // a certificate is wanted and verified
	s.StartTLS()
	defer s.Close()

	cert, key := authority.IssueFiles(x509.Certificate{SerialNumber: big.NewInt(7), URIs: []*url.URL{{Scheme: "spiffe", Host: "a"}}})
	c := newTestClient(t, Options{CA: authority.File(), Cert: cert, Key: key}, s.URL)
	call := func() { require.NoError(t, c.First().Remove(t.Context(), "a", "i", "")); c.Close() }
	call()
	newCert, newKey := authority.Issue(x509.Certificate{SerialNumber: big.NewInt(8)})
	require.NoError(t, os.WriteFile(cert, newCert, 0o600))
	call() // the key does not fit yet
	require.NoError(t, os.WriteFile(key, newKey, 0o600))
	call()
	require.Equal(t, []string{"7", "7", "8"}, serials)

	stranger := newTestClient(t, Options{}, s.URL) // trusts the system's authorities alone
	err = stranger.First().Remove(t.Context(), "a", "i", "")
	require.ErrorContains(t, err, "certificate")
}

// FuzzHosts holds that no list harms a reader, and that what is read of one is
// written again as it was.
func FuzzHosts(f *testing.F) {
	f.Add([]byte(`{"service":"a","known":true,"index":"12","hosts":[{"id":"i","address":"fd00::1","port":80,"weight":7,"state":"out","last_check_in":"2026-11-26T14:30:00Z"}]}`))
	f.Add([]byte(`{"hosts":[{"port":65536}]}`))
	f.Add([]byte(`{"hosts":[null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var list Hosts
		if json.Unmarshal(text, &list) != nil {
			return
		}
		again, err := json.Marshal(list)
		require.NoError(t, err)
		var second Hosts
		require.NoError(t, json.Unmarshal(again, &second))
		require.Len(t, second.Hosts, len(list.Hosts))
	})
}
