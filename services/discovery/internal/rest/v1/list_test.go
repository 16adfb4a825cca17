package v1

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

// put registers a host as another face does, "ID" of service "users".
func put(t testing.TB, r *registry.Registry, id string, change func(*registry.Host)) {
	t.Helper()
	h := registry.Host{
		Key: registry.Key{Service: "users", ID: id}, Address: netip.MustParseAddrPort("10.0.0.1:80"),
		Revision: "r1", Repo: "users-repo", TTL: time.Hour,
	}
	change(&h)
	_, err := r.Put(h, "test")
	require.NoError(t, err)
}

// listedPorts tells hosts of a list apart.
func listedPorts(t testing.TB, o Options, target string) (ports []any) {
	for _, host := range listed(t, handlerOf(o), target) {
		ports = append(ports, host["port"])
	}
	return ports
}

func TestAHostThatDrainsIsListedOnlyWhereNoOtherServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := registrytest.Loaded(t)
		drain := func(service string, port uint16, draining bool) {
			put(t, hosts, fmt.Sprint(port), func(h *registry.Host) {
				h.Service, h.Address, h.Draining = service, netip.AddrPortFrom(h.Address.Addr(), port), draining
			})
		}
		ports := func(target string) []any {
			o := options(hosts) // each Handler has metrics of its own
			return listedPorts(t, o, target)
		}
		drain("users", 1, false)
		drain("users", 2, true)
		drain("users", 3, false)
		drain("mail", 4, true)
		require.Equal(t, []any{1.0, 3.0}, ports("users"))
		require.Equal(t, []any{4.0}, ports("mail"), "the last one still works")
		require.Equal(t, []any{4.0, 1.0, 3.0}, ports("repo/users-repo"), "each service by itself")
		require.Equal(t, 1, hosts.SetHealth(map[registry.Key]bool{{Service: "users", ID: "3"}: true}, "test"))
		require.Equal(t, []any{1.0}, ports("users"), "an unhealthy one is not listed either")
		drain("users", 1, true)
		require.Equal(t, []any{1.0, 2.0, 3.0}, ports("users"), "unless nothing else is left")
		require.Equal(t, 1, hosts.SetHealth(map[registry.Key]bool{{Service: "users", ID: "3"}: false}, "test"))
		require.Equal(t, []any{3.0}, ports("users"))
		drain("users", 3, true)
		require.Equal(t, []any{1.0, 2.0, 3.0}, ports("users"))
		time.Sleep(30 * time.Second)
		require.Empty(t, ports("users"), "the time to drain is over")
	})
}

func TestTheWeightOfAnOperatorIsShownInThePlaceOfTheHosts(t *testing.T) {
	o := options(registrytest.Loaded(t))
	h := handlerOf(o)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users",
		fields("tags", `{"az":"a","region":"r","instance_id":"i","load_balancing_weight":50}`)).Code)
	_, err := o.Registry.Make(registry.Setting{
		Scope: registry.Scope{Service: "users"}, Kind: registry.Weigh, Weight: 3, Author: "ann", Made: time.Now(),
	})
	require.NoError(t, err)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
	require.Equal(t, 3.0, listed(t, h, "users")[0]["tags"].(map[string]any)["load_balancing_weight"])
	_, err = o.Registry.End(registry.SettingKey{Scope: registry.Scope{Service: "users"}, Kind: registry.Weigh}, "ann")
	require.NoError(t, err)
	require.Equal(t, 50.0, listed(t, h, "users")[0]["tags"].(map[string]any)["load_balancing_weight"])
}

func TestNoHostOfAnotherFaceSpoilsAList(t *testing.T) {
	hosts := registrytest.Loaded(t)
	put(t, hosts, "any", func(h *registry.Host) {
		h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{
			"az": []byte(`1`), "region": []byte(`{}`), "instance_id": []byte(`null`), "canary": []byte(`"yes"`),
			"load_balancing_weight": []byte(`0`), "rack": []byte(`7`),
		})
	})
	require.Equal(t, map[string]any{"az": "", "region": "", "instance_id": "", "rack": 7.0}, listed(t, newHandler(hosts), "users")[0]["tags"])
}

func TestAListIsSentAgainOnlyWhenItSaysSomethingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(registrytest.Loaded(t))
		h := handlerOf(o)
		tag := func(target string) string {
			t.Helper()
			w := do(h, "GET", target, nil)
			require.Equal(t, 200, w.Code)
			require.Regexp(t, `^W/"[0-9a-f]{16}"$`, w.Header().Get("ETag"))
			require.Equal(t, fmt.Sprint(w.Body.Len()), w.Header().Get("Content-Length"))
			return w.Header().Get("ETag")
		}
		for _, target := range []string{"/v1/registration/users", "/v1/registration/repo/users-repo"} {
			empty := tag(target)
			require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
			one := tag(target)
			require.NotEqual(t, empty, one)

			time.Sleep(time.Minute)
			require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
			require.Equal(t, one, tag(target), "a heartbeat is no news")
			for _, method := range []string{"GET", "HEAD"} {
				w := do(h, method, target, nil, "If-None-Match", `"x", `+one)
				require.Equal(t, 304, w.Code)
				require.Empty(t, w.Body)
				require.Equal(t, one, w.Header().Get("ETag"))
				require.Empty(t, w.Header().Get("Content-Type"))
			}

			for _, change := range []func() *httptest.ResponseRecorder{
				func() *httptest.ResponseRecorder {
					return do(h, "POST", "/v1/loadbalancing/users", url.Values{"load_balancing_weight": {"7"}})
				},
				func() *httptest.ResponseRecorder {
					return do(h, "POST", "/v1/registration/users", fields("revision", "r2"))
				},
				func() *httptest.ResponseRecorder {
					return do(h, "POST", "/v1/registration/users", fields("revision", "r2", "tags", `{"az":"eu-1","region":"eu","instance_id":"i-1","rack":1}`))
				},
				func() *httptest.ResponseRecorder {
					return do(h, "POST", "/v1/registration/users", fields("ip", "10.0.0.9"))
				},
			} {
				before := tag(target)
				require.Less(t, change().Code, 300)
				require.NotEqual(t, before, tag(target))
				require.Equal(t, 200, do(h, "GET", target, nil, "If-None-Match", before).Code)
			}
			require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/users", url.Values{"load_balancing_weight": {"7"}}).Code)

			other := options(o.Registry)
			other.Env = "other"
			w := do(handlerOf(other), "GET", target, nil, "If-None-Match", tag(target))
			require.Equal(t, 200, w.Code, "env is in the list too")
			require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/10.0.0.1", nil).Code)
			require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/10.0.0.9", nil).Code)
			require.Equal(t, empty, tag(target))
		}
	})
}

func TestUntilTheRegistryIsWarmAListTakesNoHostsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := registrytest.Options()
		o.WarmUp = 15 * time.Second
		hosts := registry.New(o)
		registrytest.Run(t, hosts)
		<-hosts.Loaded()
		h := newHandler(hosts)
		lists := []string{"/v1/registration/users", "/v1/registration/repo/users-repo"}
		refused := func(w *httptest.ResponseRecorder) {
			require.Equal(t, 503, w.Code)
			require.Equal(t, "1", w.Header().Get("Retry-After"))
			require.Empty(t, w.Header().Get("ETag"))
		}
		for _, target := range lists {
			refused(do(h, "GET", target, nil))
			refused(do(h, "HEAD", target, nil))
		}
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
		for _, target := range lists {
			w := do(h, "GET", target, nil)
			require.Equal(t, 200, w.Code)
			require.Empty(t, w.Header().Get("ETag"), "so that who has one has it from before")
			refused(do(h, "GET", target, nil, "If-None-Match", `W/"00000000000000aa"`))
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		for _, target := range append(lists, "/v1/registration/nobody") {
			w := do(h, "GET", target, nil, "If-None-Match", `W/"00000000000000aa"`)
			require.Equal(t, 200, w.Code)
			require.NotEmpty(t, w.Header().Get("ETag"))
		}
	})
}

// What is kept of a list must not be told from a list that is made anew, as that
// of a repository is.
func TestAListThatWasKeptIsAsOneMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := loadedHandler(t)
		for i := range 40 {
			ip, tags := fmt.Sprintf("10.0.0.%d", i%7), fmt.Sprintf(`{"az":"z%d","region":"é<>","instance_id":"i-%d","rack":[%d]}`, i%3, i, i%2)
			require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", ip, "port", fmt.Sprint(80+i%2), "tags", tags)).Code)
			for range 2 {
				time.Sleep(1234567 * time.Microsecond)
				require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", ip, "port", fmt.Sprint(80+i%2), "tags", tags)).Code)
				of, repo := do(h, "GET", "/v1/registration/users", nil).Body.String(), do(h, "GET", "/v1/registration/repo/users-repo", nil).Body.String()
				require.Equal(t, strings.Replace(repo, `"service_repo_name":"users-repo"`, `"service":"users"`, 1), of)
			}
		}
	})
}
