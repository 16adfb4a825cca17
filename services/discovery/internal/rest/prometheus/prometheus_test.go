package prometheus_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/guard"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/prometheus"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// group is one of the answer's.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func put(t testing.TB, r *registry.Registry, service, address string, change func(*registry.Host)) {
	t.Helper()
	h := registry.Host{Key: registry.Key{Service: service, ID: address}, Address: netip.MustParseAddrPort(address), TTL: time.Hour}
	if change != nil {
		change(&h)
	}
	_, err := r.Put(h, "test")
	require.NoError(t, err)
}

// face serves the targets alone, as the app serves all.
func face(r *registry.Registry) http.Handler {
	metrics := client.NewRegistry()
	return call.NewRouter(call.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Denials: denial.NewCounters(metrics, call.Limits()...),
	}, prometheus.Routes(r)...)
}

func ask(r *registry.Registry, method, query string, header ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, "/v2/prometheus/sd"+query, nil)
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	face(r).ServeHTTP(w, request)
	return w
}

func groups(t testing.TB, r *registry.Registry, query string) (list []group) {
	t.Helper()
	w := ask(r, "GET", query)
	require.Equal(t, 200, w.Code, w.Body)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, strconv.Itoa(w.Body.Len()), w.Header().Get("Content-Length"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list), "%s", w.Body)
	require.NotNil(t, list, "Prometheus takes null for an error")
	return list
}

func TestAHostIsATargetWithWhatItSaysOfItself(t *testing.T) {
	r := registrytest.Loaded(t)
	canary := true
	put(t, r, "users", "10.0.0.1:80", func(h *registry.Host) {
		h.Repo, h.Revision = "users-repo", `r"1"`
		h.Tags = registry.Tags{Zone: "eu-1", Region: "eu", Canary: &canary, Other: registry.TagListOf(map[string]json.RawMessage{
			"rack": []byte(`"7 \"a\""`), "team-name": []byte(`"search"`), "größe": []byte(`1.5`), "on": []byte(`true`),
			"more": []byte(`{"a":["b"]}`), "none": []byte(`null`), "": []byte(`""`),
		})}
	})
	put(t, r, "mail", "[fd00::1]:25", nil)
	require.Equal(t, []group{
		{[]string{"[fd00::1]:25"}, map[string]string{"__meta_discovery_service": "mail", "__meta_discovery_state": "serving"}},
		{[]string{"10.0.0.1:80"}, map[string]string{
			"__meta_discovery_service": "users", "__meta_discovery_state": "serving", "__meta_discovery_zone": "eu-1",
			"__meta_discovery_region": "eu", "__meta_discovery_revision": `r"1"`, "__meta_discovery_repo": "users-repo",
			"__meta_discovery_canary": "true", "__meta_discovery_tag_rack": `7 "a"`, "__meta_discovery_tag_team_name": "search",
			"__meta_discovery_tag_gr__e": "1.5", "__meta_discovery_tag_on": "true", "__meta_discovery_tag_more": `{"a":["b"]}`,
			"__meta_discovery_tag_": "",
		}},
	}, groups(t, r, ""))
}

func TestHostsThatSayTheSameAreOneGroup(t *testing.T) {
	r := registrytest.Loaded(t)
	for i, zone := range []string{"a", "b", "a", "b", "a"} {
		put(t, r, "users", fmt.Sprintf("10.0.0.%d:80", i+1), func(h *registry.Host) { h.Tags.Zone = zone })
	}
	put(t, r, "vault", "10.0.0.9:80", func(h *registry.Host) { h.Tags.Zone = "a" })
	labels := func(service, zone string) map[string]string {
		return map[string]string{"__meta_discovery_service": service, "__meta_discovery_state": "serving", "__meta_discovery_zone": zone}
	}
	require.Equal(t, []group{
		{[]string{"10.0.0.1:80", "10.0.0.3:80", "10.0.0.5:80"}, labels("users", "a")},
		{[]string{"10.0.0.2:80", "10.0.0.4:80"}, labels("users", "b")},
		{[]string{"10.0.0.9:80"}, labels("vault", "a")},
	}, groups(t, r, ""))
}

func TestTagsWhoseNamesBecomeTheSameAreOneLabel(t *testing.T) {
	r := registrytest.Loaded(t)
	put(t, r, "users", "10.0.0.1:80", func(h *registry.Host) {
		h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{"a.b": []byte(`"first"`), "a/b": []byte(`"second"`), "a_b": []byte(`"third"`)})
	})
	require.Equal(t, "first", groups(t, r, "")[0].Labels["__meta_discovery_tag_a_b"])
	require.Contains(t, ask(r, "GET", "").Body.String(), `"__meta_discovery_tag_a_b":"first"}}`)
}

func TestAQuerySaysWhichServiceAndWhichPort(t *testing.T) {
	r := registrytest.Loaded(t)
	put(t, r, "users", "10.0.0.1:80", func(h *registry.Host) {
		h.Ports = []registry.Port{{Name: "admin", Number: 81}, {Name: "metrics", Number: 9100}}
	})
	put(t, r, "users", "10.0.0.2:80", nil)
	put(t, r, "mail", "[fd00::1]:25", func(h *registry.Host) { h.Ports = []registry.Port{{Name: "metrics", Number: 9101}} })
	for query, want := range map[string][]string{
		"":                              {"[fd00::1]:25", "10.0.0.1:80", "10.0.0.2:80"},
		"?service=users":                {"10.0.0.1:80", "10.0.0.2:80"},
		"?port=metrics":                 {"[fd00::1]:9101", "10.0.0.1:9100"},
		"?port=admin&service=users":     {"10.0.0.1:81"},
		"?port=admin&service=mail":      nil,
		"?port=80":                      nil,
		"?service=nobody":               nil,
		"?service=us%65rs&port=%61dmin": {"10.0.0.1:81"},
	} {
		var targets []string
		for _, g := range groups(t, r, query) {
			targets = append(targets, g.Targets...)
		}
		require.Equal(t, want, targets, query)
	}
}

func TestAHostThatIsUnhealthyIsATargetWithALabelThatSaysSo(t *testing.T) {
	r := registrytest.Loaded(t)
	put(t, r, "users", "10.0.0.1:80", nil)
	require.NotContains(t, groups(t, r, "")[0].Labels, "__meta_discovery_unhealthy")
	list, err := r.List("users")
	require.NoError(t, err)
	require.Equal(t, 1, r.SetHealth(map[registry.Key]bool{list.Hosts[0].Host.Key: true}, "test"))
	require.Equal(t, "true", groups(t, r, "")[0].Labels["__meta_discovery_unhealthy"])
}

func TestHostsThatDrainAreTargetsUntilTheyAreOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.Loaded(t)
		put(t, r, "users", "10.0.0.1:80", func(h *registry.Host) { h.Draining = true })
		require.Equal(t, "draining", groups(t, r, "")[0].Labels["__meta_discovery_state"])
		time.Sleep(30 * time.Second)
		require.Empty(t, groups(t, r, ""))
		require.Equal(t, "[]\n", ask(r, "GET", "").Body.String())
	})
}

func TestAHostThatAGuardHoldsIsATargetThatIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := registrytest.Options()
		o.Guard = guard.Limits{LastHost: -1}
		r := registry.New(o)
		registrytest.Run(t, r)
		<-r.Loaded()
		put(t, r, "users", "10.0.0.1:80", nil)
		labels := map[string]string{"__meta_discovery_service": "users", "__meta_discovery_state": "serving"}
		require.Equal(t, []group{{[]string{"10.0.0.1:80"}, labels}}, groups(t, r, ""))
		tag := ask(r, "GET", "").Header().Get("ETag")
		time.Sleep(time.Hour + o.SweepInterval)
		synctest.Wait()
		labels["__meta_discovery_stale"] = "true"
		require.Equal(t, []group{{[]string{"10.0.0.1:80"}, labels}}, groups(t, r, ""))
		require.Equal(t, 200, ask(r, "GET", "", "If-None-Match", tag).Code)
	})
}

func TestAListIsSentAgainOnlyWhenItSaysSomethingElse(t *testing.T) {
	r := registrytest.Loaded(t)
	put(t, r, "users", "10.0.0.1:80", nil)
	put(t, r, "mail", "10.0.0.2:25", nil)
	tags := map[string]string{}
	for _, query := range []string{"", "?service=users"} {
		tags[query] = ask(r, "GET", query).Header().Get("ETag")
		require.Regexp(t, `^W/"[0-9a-f]{16}"$`, tags[query])
		put(t, r, "users", "10.0.0.1:80", nil)
		for _, method := range []string{"GET", "HEAD"} {
			w := ask(r, method, query, "If-None-Match", tags[query])
			require.Equal(t, 304, w.Code)
			require.Empty(t, w.Body)
		}
	}
	put(t, r, "mail", "10.0.0.3:25", nil)
	require.Equal(t, 200, ask(r, "GET", "", "If-None-Match", tags[""]).Code)
	require.Equal(t, 304, ask(r, "GET", "?service=users", "If-None-Match", tags["?service=users"]).Code)
}

func TestWhatCannotBeAnsweredIsRefusedWithItsReason(t *testing.T) {
	r := registrytest.Loaded(t)
	for _, test := range []struct {
		method, query string
		status        int
		reason        string
	}{
		{"GET", "?servce=users&service=", 400, "service: empty; servce: unknown"},
		{"GET", "?port=a&port=b", 400, "port: there 2 times"},
		{"GET", "?port=%zz", 400, `query: invalid URL escape "%zz"`},
		{"POST", "", 405, "method POST: not one of GET, HEAD"},
	} {
		w := ask(r, test.method, test.query)
		require.Equal(t, test.status, w.Code)
		var answer struct{ Error string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.Equal(t, test.reason, answer.Error)
		require.Equal(t, test.status == 405, w.Header().Get("Allow") == "GET, HEAD")
	}
}

func TestNothingIsAnsweredBeforeTheRegistryIsLoaded(t *testing.T) {
	for _, query := range []string{"", "?service=users"} {
		w := ask(registry.New(registrytest.Options()), "GET", query)
		require.Equal(t, 503, w.Code)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.JSONEq(t, `{"error":"the registry is not loaded yet"}`, w.Body.String())
		require.Empty(t, w.Header().Get("ETag"))
	}
}

func TestUntilTheRegistryIsWarmAListTakesNoTargetsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := registrytest.Options()
		o.WarmUp = 15 * time.Second
		r := registry.New(o)
		registrytest.Run(t, r)
		<-r.Loaded()
		require.Equal(t, 503, ask(r, "GET", "").Code)
		put(t, r, "users", "10.0.0.1:80", nil)
		for query, status := range map[string]int{"": 200, "?service=users": 200, "?service=mail": 503, "?port=metrics": 503} {
			w := ask(r, "GET", query)
			require.Equal(t, status, w.Code, query)
			require.Equal(t, status == 503, w.Header().Get("Retry-After") == "1")
			require.Empty(t, w.Header().Get("ETag"))
			require.Equal(t, 503, ask(r, "GET", query, "If-None-Match", `W/"00000000000000aa"`).Code, query)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		require.Empty(t, groups(t, r, "?service=mail"))
		require.Equal(t, 200, ask(r, "GET", "", "If-None-Match", `W/"00000000000000aa"`).Code)
	})
}

// FuzzTags shows hosts of any tags: the answer must be JSON without a label
// twice.
func FuzzTags(f *testing.F) {
	f.Add("rack", `"7"`, "a.b")
	f.Add("größe", `{"a":"\u0061"}`, "gr__e")
	f.Add("\xff", `[1, 2]`, "")
	r := registrytest.Loaded(f)
	f.Fuzz(func(t *testing.T, name, value, other string) {
		if !json.Valid([]byte(value)) {
			return
		}
		put(t, r, "users", "10.0.0.1:80", func(h *registry.Host) {
			h.Tags.Zone = name
			h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{name: json.RawMessage(value), other: []byte(`1`)})
		})
		list := groups(t, r, "")
		require.Len(t, list, 1)
		for label := range list[0].Labels {
			require.Regexp(t, `^[a-zA-Z_][a-zA-Z0-9_]*$`, label)
		}
	})
}

func BenchmarkHundredThousandHosts(b *testing.B) {
	r := registrytest.Loaded(b)
	for service := range 10_000 {
		for host := range 10 {
			address := netip.AddrFrom4([4]byte{10, byte(service >> 8), byte(service), byte(host)})
			put(b, r, fmt.Sprint("service-", service), netip.AddrPortFrom(address, 80).String(), func(h *registry.Host) {
				h.Repo, h.Revision = "repo", "0123456789abcdef0123456789abcdef01234567"
				h.Tags = registry.Tags{Zone: []string{"eu-1", "eu-2", "eu-3"}[host%3], Region: "eu", InstanceID: h.ID,
					Other: registry.TagListOf(map[string]json.RawMessage{"team": []byte(`"search"`)})}
			})
		}
	}
	for name, query := range map[string]string{"all": "", "one service": "?service=service-7"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if w := ask(r, "GET", query); w.Code != 200 {
					b.Fatal(w.Body)
				}
			}
			b.ReportMetric(float64(ask(r, "GET", query).Body.Len()), "B/answer")
		})
	}
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			if w := ask(r, "GET", "", "If-None-Match", "*"); w.Code != 304 {
				b.Fatal(w.Code)
			}
		}
	})
}
