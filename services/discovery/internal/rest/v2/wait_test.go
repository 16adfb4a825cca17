package v2

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

func newMetrics() *prometheus.Registry { return prometheus.NewRegistry() }

// waiting is a call that is made in the background.
type waiting struct {
	w     *httptest.ResponseRecorder
	ended chan struct{} // closed at the answer
	leave func()        // ends the call from the caller's side
}

func (f *fixture) wait(target string) *waiting {
	ctx, leave := context.WithCancel(context.Background())
	c := &waiting{httptest.NewRecorder(), make(chan struct{}), leave}
	// Ends with the answer, which each test waits for.
	go func() {
		defer close(c.ended)
		f.ServeHTTP(c.w, newRequest("GET", target, "").WithContext(ctx))
	}()
	synctest.Wait()
	return c
}

// answered reports whether the call has its answer, once nothing moves any more.
func (c *waiting) answered() bool {
	synctest.Wait()
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (f *fixture) index(t testing.TB, service string) string {
	return f.get(t, "/v2/services/"+service+"/hosts")["index"].(string)
}

func TestAListIsWaitedForUntilItChanges(t *testing.T) {
	const at = "/v2/services/users/hosts"
	for name, test := range map[string]struct {
		change func(t *testing.T, f *fixture)
	}{
		"a host comes":   {func(t *testing.T, f *fixture) { f.put(t, at+"/b", fine) }},
		"a host changes": {func(t *testing.T, f *fixture) { f.put(t, at+"/a", `{"address":"10.0.0.1","port":8081}`) }},
		"a host goes":    {func(t *testing.T, f *fixture) { f.call("DELETE", at+"/a", "") }},
		"a host expires": {func(t *testing.T, f *fixture) { time.Sleep(61 * time.Second) }},
		"an operator drains": {func(t *testing.T, f *fixture) {
			require.Equal(t, 200, f.call("PUT", "/v2/settings/drain", `{"scope":{"service":"users"},"author":"ada","reason":"r"}`).Code)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.put(t, at+"/a", fine)
				index := f.index(t, "users")
				c := f.wait(at + "?wait=5m&zone=none&index=" + index)
				f.put(t, at+"/a", fine) // a heartbeat is no change
				f.put(t, "/v2/services/carts/hosts/a", fine)
				require.False(t, c.answered())
				test.change(t, f)
				require.True(t, c.answered())
				require.Equal(t, 200, c.w.Code)
				answer := decode(t, c.w.Body)
				require.NotEqual(t, index, answer["index"])
				require.Empty(t, answer["hosts"], "the filter holds for the answer")
			})
		})
	}
}

func TestAServiceThatIsNotKnownIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		c := f.wait("/v2/services/users/hosts?wait=5m&index=0000000000000000")
		require.False(t, c.answered())
		f.put(t, "/v2/services/users/hosts/a", fine)
		require.True(t, c.answered())
		require.Len(t, decode(t, c.w.Body)["hosts"], 1)
	})
}

func TestAWaitEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		begin := time.Now()
		c := f.wait("/v2/services/users/hosts?wait=30s&index=0000000000000000")
		<-c.ended
		require.Equal(t, 30*time.Second, time.Since(begin))
		require.Equal(t, 304, c.w.Code)
		require.Empty(t, c.w.Body.String())
	})
}

func TestWhoHasAnotherIndexDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		c := f.wait("/v2/services/users/hosts?wait=5m&index=00000000000000aa")
		require.True(t, c.answered())
		require.Equal(t, 200, c.w.Code)
	})
}

func TestAWaitEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		c := f.wait("/v2/services/users/hosts?wait=5m&index=0000000000000000")
		c.leave()
		require.True(t, c.answered())
	})
}

func TestWaitsAndStreamsEndWhenTheServiceStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		poll := f.wait("/v2/services/users/hosts?wait=5m&index=0000000000000000")
		stream := f.wait("/v2/events")
		f.stop()
		require.True(t, poll.answered())
		require.Equal(t, 304, poll.w.Code)
		require.True(t, stream.answered())
		require.Equal(t, 200, stream.w.Code)
	})
}

const refusedWaiters = `
# HELP discovery_refusals_total What callers were refused by a rule or a limit, by reason.
# TYPE discovery_refusals_total counter
discovery_refusals_total{reason="address"} 0
discovery_refusals_total{reason="body"} 0
discovery_refusals_total{reason="hosts"} 0
discovery_refusals_total{reason="identity"} 0
discovery_refusals_total{reason="node"} 0
discovery_refusals_total{reason="rate"} 0
discovery_refusals_total{reason="services"} 0
discovery_refusals_total{reason="settings"} 0
discovery_refusals_total{reason="tags"} 0
discovery_refusals_total{reason="token"} 0
discovery_refusals_total{reason="waiters"} 2
`

func TestOneWaiterTooManyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t) // of two
		const poll = "/v2/services/users/hosts?wait=5m&index=0000000000000000"
		first, second := f.wait(poll), f.wait("/v2/events")
		for _, target := range []string{poll, "/v2/events"} {
			w := f.call("GET", target, "")
			requireRefused(t, w, 429, "too many calls wait for changes already")
			require.Equal(t, "10", w.Header().Get("Retry-After"))
		}
		require.NoError(t, testutil.GatherAndCompare(f.metrics, strings.NewReader(refusedWaiters), "discovery_refusals_total"))
		require.Equal(t, 200, f.call("GET", "/v2/services/users/hosts", "").Code, "who does not wait is answered")
		first.leave()
		<-first.ended
		third := f.wait(poll)
		require.False(t, third.answered())
		f.stop()
		<-second.ended
		<-third.ended
	})
}

// TestAWaitOutlastsTheListenersDeadlines has deadlines that are far shorter than
// the wait, which is over at a change that comes after both of them.
func TestAWaitOutlastsTheListenersDeadlines(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewUnstartedServer(f)
	server.Config.ReadHeaderTimeout = servicetest.Patience // which a busy machine keeps
	server.Config.ReadTimeout, server.Config.WriteTimeout = time.Second, time.Second
	server.Start()
	defer server.Close()
	answers := make(chan *http.Response, 1)
	// Ends with the answer, which the test waits for.
	go func() {
		response, err := server.Client().Get(server.URL + "/v2/services/users/hosts?wait=1m&index=0000000000000000")
		if err != nil {
			t.Error(err)
		}
		answers <- response
	}()
	select {
	case <-answers:
		t.Fatal("answered before the change")
	case <-time.After(1200 * time.Millisecond): // past the deadlines
	}
	f.put(t, "/v2/services/users/hosts/a", fine)
	response := <-answers
	require.NotNil(t, response)
	defer response.Body.Close()
	require.Equal(t, 200, response.StatusCode)
	require.Len(t, decode(t, response.Body)["hosts"], 1)
}

// newColdFixture is a fixture whose registry is not warm for 15 s.
func newColdFixture(t testing.TB) *fixture {
	o := registrytest.Options()
	o.WarmUp = 15 * time.Second
	hosts := registry.New(o)
	registrytest.Run(t, hosts)
	<-hosts.Loaded()
	return fixtureOf(t, hosts)
}

const notWarm = "the registry began a moment ago and may not know all hosts: those that live may only be about to check in"

func TestUntilTheRegistryIsWarmAListTakesNoHostsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newColdFixture(t)
		requireRefused(t, f.call("GET", "/v2/services", ""), 503, notWarm)
		f.put(t, "/v2/services/users/hosts/a", fine)
		require.Len(t, f.get(t, "/v2/services")["services"], 1)
		for _, target := range []string{
			"/v2/services/carts/hosts", "/v2/services/carts/revisions", "/v2/services/users/hosts?zone=none",
			"/v2/services/users/hosts?index=00000000000000aa", "/v2/services/users/hosts?index=0000000000000000",
		} {
			w := f.call("GET", target, "")
			requireRefused(t, w, 503, notWarm)
			require.Equal(t, "1", w.Header().Get("Retry-After"))
			require.Empty(t, w.Header().Get("ETag"))
		}
		r := newRequest("GET", "/v2/services/users/hosts", "")
		r.Header.Set("If-None-Match", `W/"00000000000000aa"`)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		requireRefused(t, w, 503, notWarm)

		require.Equal(t, []string{"a"}, f.ids(t, "/v2/services/users/hosts"))
		require.Empty(t, f.call("GET", "/v2/services/users/hosts", "").Header().Get("ETag"), "so that who has one has it from before")
		require.Len(t, f.get(t, "/v2/services/users/revisions")["revisions"], 1)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		require.Empty(t, f.ids(t, "/v2/services/carts/hosts"))
		require.Equal(t, []string{"a"}, f.ids(t, "/v2/services/users/hosts?index=00000000000000aa"))
	})
}

func TestWhoWaitsIsAnsweredWhenTheRegistryIsWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newColdFixture(t)
		begin := time.Now()
		c := f.wait("/v2/services/users/hosts?wait=5m&index=00000000000000aa")
		f.put(t, "/v2/services/users/hosts/a", fine)
		require.False(t, c.answered(), "others may be about to check in")
		<-c.ended
		require.Equal(t, 15*time.Second, time.Since(begin))
		require.Len(t, decode(t, c.w.Body)["hosts"], 1)
	})
}

func TestAWaitThatIsOverBeforeTheRegistryIsWarmTakesNoHostsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newColdFixture(t)
		begin := time.Now()
		c := f.wait("/v2/services/users/hosts?wait=10s&index=00000000000000aa")
		<-c.ended
		require.Equal(t, 10*time.Second, time.Since(begin))
		requireRefused(t, c.w, 503, notWarm)
	})
}
