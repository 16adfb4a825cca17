package v2

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	scrape "github.com/weirproxy/weir/services/discovery/internal/rest/prometheus"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// fixture is a face over a registry that is loaded.
type fixture struct {
	http.Handler
	registry *registry.Registry
	metrics  *prometheus.Registry
	stop     func() // ends all waits
	// policy knows the callers, who come from 192.0.2.1. Without rules they may
	// do everything; otherwise they have token unless they show another.
	policy *auth.Policy
}

const token = "users-0123456789abcdef"

// ServeHTTP puts the caller into the context of a call, as the gate does.
func (f *fixture) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	caller := f.policy.HTTP(r)
	f.Handler.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), &caller)))
}

// as is f for a caller of that name and a rule, in the flow style of YAML.
func (f *fixture) as(t testing.TB, name, rule string) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.yaml")
	require.NoError(t, os.WriteFile(path, []byte("tokens: [{name: "+name+", token: "+token+", "+rule+"}]"), 0o600))
	f.policy = newPolicy(t, path)
	return f
}

func newPolicy(t testing.TB, path string) *auth.Policy {
	t.Helper()
	policy, err := auth.New(auth.Options{
		File: filewatch.File{Setting: "RULES", Path: path}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	return policy
}

// newFixture makes a fixture, after changes to its options. A service of it has
// ten hosts at most, and a host drains for 30 s.
func newFixture(t testing.TB, changes ...func(*Options)) *fixture {
	hosts := newRegistry()
	registrytest.Run(t, hosts)
	<-hosts.Loaded()
	return fixtureOf(t, hosts, changes...)
}

func newRegistry() *registry.Registry {
	o := registrytest.Options()
	o.Limits.HostsPerService = 10
	return registry.New(o)
}

func fixtureOf(t testing.TB, hosts *registry.Registry, changes ...func(*Options)) *fixture {
	stopping := make(chan struct{})
	metrics := prometheus.NewRegistry()
	denials := denial.NewCounters(metrics, call.Limits()...)
	o := Options{
		Registry: hosts, TTL: time.Minute, MaxTTL: time.Hour, LongPollMax: 5 * time.Minute, MaxWaiters: 2,
		Stopping: stopping, Metrics: metrics,
		Clients:   func(xds.ClientQuery) xds.ClientList { return xds.ClientList{List: []xds.StreamStatus{}} },
		Resources: func(uint64, string) ([]xds.ResourceStatus, bool) { return nil, false },
		Files:     func() *resourcefiles.Status { return nil },
	}
	for _, change := range changes {
		change(&o)
	}
	routes := append(Routes(o), scrape.Routes(hosts)...)
	face := call.NewRouter(call.Options{Log: slog.New(slog.DiscardHandler), Metrics: metrics, Denials: denials}, routes...)
	return &fixture{face, hosts, metrics, func() { close(stopping) }, newPolicy(t, "")}
}

// call is one request; a body of "" is none.
func (f *fixture) call(method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, newRequest(method, target, body))
	return w
}

func newRequest(method, target, body string) *http.Request {
	if body == "" {
		return httptest.NewRequest(method, target, nil)
	}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// put registers a host, which must be taken, and returns the answer.
func (f *fixture) put(t testing.TB, target, body string) map[string]any {
	t.Helper()
	w := f.call("PUT", target, body)
	require.Contains(t, []int{200, 201}, w.Code, w.Body)
	return decode(t, w.Body)
}

// get is the answer to a GET, which must be 200.
func (f *fixture) get(t testing.TB, target string) map[string]any {
	t.Helper()
	w := f.call("GET", target, "")
	require.Equal(t, 200, w.Code, "%s: %s", target, w.Body)
	return decode(t, w.Body)
}

// ids are those of the hosts in the answer to a list.
func (f *fixture) ids(t testing.TB, target string) []string {
	t.Helper()
	ids := []string{}
	for _, host := range f.get(t, target)["hosts"].([]any) {
		ids = append(ids, host.(map[string]any)["id"].(string))
	}
	return ids
}

// events are what the history of a service tells, by kind, host and actor.
func (f *fixture) events(t testing.TB, service string) (events []string) {
	t.Helper()
	for _, event := range f.get(t, "/v2/services/"+service+"/history")["events"].([]any) {
		e := event.(map[string]any)
		events = append(events, strings.TrimSpace(e["kind"].(string)+" "+e["id"].(string)+" by "+e["actor"].(string)+" "+e["detail"].(string)))
	}
	return events
}

func decode(t testing.TB, body io.Reader) (read map[string]any) {
	t.Helper()
	require.NoError(t, json.NewDecoder(body).Decode(&read))
	return read
}

// requireRefused wants an answer of one status that names all that is wrong,
// each once in the line and once by field.
func requireRefused(t testing.TB, w *httptest.ResponseRecorder, status int, faults ...string) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body)
	var read struct {
		Error  string
		Fields call.Faults
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &read))
	require.Equal(t, strings.Join(faults, "; "), read.Error)
	for i, fault := range read.Fields {
		require.Equal(t, faults[i], fault.Field+": "+fault.Reason)
	}
}

const fine = `{"address":"10.0.0.1","port":8080}`

func TestNothingIsAnsweredBeforeTheRegistryIsLoaded(t *testing.T) {
	f := fixtureOf(t, newRegistry())
	const lease = `"00000000000000aa"`
	for _, test := range []struct{ method, target, body string }{
		{"PUT", "/v2/services/users/hosts/a", fine},
		{"GET", "/v2/services/users/hosts/a", ""},
		{"DELETE", "/v2/services/users/hosts/a", ""},
		{"POST", "/v2/services/users/hosts/a/heartbeat", ""},
		{"POST", "/v2/heartbeats", `{"leases":[` + lease + `]}`},
		{"GET", "/v2/services/users/hosts", ""},
		{"GET", "/v2/services/users/hosts?index=0000000000000000&wait=1m", ""},
		{"GET", "/v2/services", ""},
		{"GET", "/v2/services/users/revisions", ""},
		{"GET", "/v2/services/users/history", ""},
		{"GET", "/v2/events", ""},
		{"GET", "/v2/settings", ""},
		{"PUT", "/v2/settings/drain", `{"scope":{"zone":"a"},"author":"ada","reason":"r"}`},
		{"DELETE", "/v2/settings/drain?zone=a", ""},
		{"GET", "/v2/guard", ""},
		{"DELETE", "/v2/guard/suspension?reason=r", ""},
	} {
		w := f.call(test.method, test.target, test.body)
		requireRefused(t, w, 503, "the registry is not loaded yet")
		require.Equal(t, "1", w.Header().Get("Retry-After"), "%s %s", test.method, test.target)
	}
	require.Equal(t, 200, f.call("GET", "/v2/openapi.yaml", "").Code)
}

func TestAWrongMethodIsToldTheRightOnes(t *testing.T) {
	f := newFixture(t)
	for target, allow := range map[string]string{
		"/v2/services/users/hosts/a":           "DELETE, GET, HEAD, PUT",
		"/v2/services/users/hosts/a/heartbeat": "POST",
		"/v2/heartbeats":                       "POST",
		"/v2/services/users/hosts":             "GET, HEAD",
		"/v2/settings/drain":                   "DELETE, PUT",
	} {
		w := f.call("PATCH", target, "{}")
		requireRefused(t, w, 405, "method PATCH: not one of "+allow)
		require.Equal(t, allow, w.Header().Get("Allow"))
	}
}

func TestNothingIsAtOtherPaths(t *testing.T) {
	f := newFixture(t)
	for _, target := range []string{"/v2", "/v2/", "/v2/services/", "/v2/services/users", "/v2/services/users/hosts/a/b"} {
		w := f.call("GET", target, "")
		requireRefused(t, w, 404, "nothing is at "+target)
	}
}

func TestAPathThatNamesNothingIsRefused(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", 256)
	requireRefused(t, f.call("GET", "/v2/services/*/hosts", ""), 400, `service: "*" is not a name`)
	requireRefused(t, f.call("GET", "/v2/services/%FF/hosts/a%0Ab", ""), 400, `service: "\xff" is not UTF-8`, `id: "a\nb" holds a control character`)
	requireRefused(t, f.call("DELETE", "/v2/services/"+long+"/hosts/"+long, ""), 400,
		`service: the name has 256 bytes, of 255 at most`, `id: the name has 256 bytes, of 255 at most`)
	requireRefused(t, f.call("PUT", "/v2/services/*/hosts/a", `{}`), 400,
		`service: "*" is not a name`, `address: missing`, `port: missing`)
}

func TestAParameterThatMeansNothingIsRefused(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct{ method, target, body string }{
		{"PUT", "/v2/services/users/hosts/a", fine},
		{"GET", "/v2/services/users/hosts/a", ""},
		{"DELETE", "/v2/services/users/hosts/a", ""},
		{"POST", "/v2/services/users/hosts/a/heartbeat", ""},
		{"POST", "/v2/heartbeats", `{"leases":[]}`},
		{"GET", "/v2/services/users/hosts", ""},
		{"GET", "/v2/services", ""},
		{"GET", "/v2/services/users/revisions", ""},
		{"GET", "/v2/services/users/history", ""},
		{"GET", "/v2/events", ""},
		{"GET", "/v2/settings", ""},
		{"PUT", "/v2/settings/drain", `{"scope":{"zone":"a"},"author":"ada","reason":"r"}`},
		{"GET", "/v2/guard", ""},
		{"DELETE", "/v2/guard/suspension?reason=r&", ""},
		{"GET", "/v2/status", ""},
		{"GET", "/v2/openapi.yaml", ""},
	} {
		mark := "?"
		if strings.Contains(test.target, mark) {
			mark = ""
		}
		requireRefused(t, f.call(test.method, test.target+mark+"zon=a", test.body), 400, "zon: unknown")
	}
	requireRefused(t, f.call("DELETE", "/v2/settings/drain?zon=a", ""), 400, "scope: names neither service nor zone", "zon: unknown")
	requireRefused(t, f.call("GET", "/v2/services?=a", ""), 400, `"": unknown`)
	requireRefused(t, f.call("GET", "/v2/services?%zz", ""), 400, `query: invalid URL escape "%zz"`)
	require.Empty(t, f.ids(t, "/v2/services/users/hosts"))
	require.Empty(t, f.get(t, "/v2/settings")["settings"])
}

// What a replica has from its snapshot alone is not all: another may have taken the host
// in since, or again. So it does not say that there is none.
func TestAHostThatAStaleReplicaDoesNotKnowIsNotTakenForGone(t *testing.T) {
	f := fixtureOf(t, registrytest.Stale(t, registry.Host{
		Key: registry.Key{Service: "users", ID: "a"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), TTL: time.Minute,
	}))
	for _, target := range []string{"/v2/services/users/hosts/b", "/v2/services/users/hosts/a?lease=00000000000000aa"} {
		w := f.call("DELETE", target, "")
		requireRefused(t, w, 503, registry.ErrUnheard.Error())
		require.Equal(t, "1", w.Header().Get("Retry-After"))
	}
	require.Equal(t, 204, f.call("DELETE", "/v2/services/users/hosts/a", "").Code, "this one it knows")
}
