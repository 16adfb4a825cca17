package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// transport is a function in the place of the network.
type transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f transport) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// answer is a response of a registry.
func answer(status int, body string) (*http.Response, error) {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// newTestRegistrar is a registrar of the host users/i-1 at 127.0.0.1:1, which
// calls registries by way of f; nil is the network. change may change its
// options.
func newTestRegistrar(t *testing.T, log io.Writer, f transport, registries []string, change func(*Options)) *registrar {
	o := Options{
		Service: "users", ID: "i-1", Host: client.Registration{Address: netip.MustParseAddr("127.0.0.1"), Port: 1},
		TTL: 30 * time.Second, Interval: 10 * time.Second, Discovery: client.Options{Registries: registries},
	}
	if f != nil {
		o.Discovery.Transport = f
	}
	if change != nil {
		change(&o)
	}
	discovery, err := client.New(o.Discovery)
	require.NoError(t, err)
	t.Cleanup(discovery.Close)
	return newRegistrar(o, discovery, slog.New(slog.NewTextHandler(log, nil)))
}

func TestAHostThatWasNeverTakenIsNotDeregistered(t *testing.T) {
	for name, before := range map[string][]string{
		"refused":                        nil,
		"not heard by one, refused then": {"http://127.0.0.1:1"}, // nobody listens there
	} {
		t.Run(name, func(t *testing.T) {
			var e events
			d := newDiscovery(t, &e, 400)
			r := newTestRegistrar(t, &e, nil, append(before, d.URL), nil)
			for range 3 {
				require.ErrorContains(t, r.beat(t.Context()), "400 Bad Request: the reason")
			}
			r.leave(t.Context(), time.Hour)
			require.Equal(t, 3, e.count("PUT "+path+" 400"))
			require.Len(t, e.all(), 3, "neither a DELETE nor a word of one")
		})
	}
}

func TestARefusalIsSaidOnceWhileItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e events
		r := newTestRegistrar(t, &e, func(request *http.Request) (*http.Response, error) {
			e.add(request.Method)
			return answer(403, `{"error":"not yours"}`)
		}, []string{"http://one"}, nil)
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		r.keepRegistered(ctx)
		require.Equal(t, 1, e.count("not registered, trying on"))
		require.Equal(t, 1, e.count("not yours"))
		require.InDelta(t, 80, e.count("PUT"), 25, "once in 45s, more or less")
	})
}

func TestABeatThatHasBegunIsLetFinishBeforeTheDeregistration(t *testing.T) {
	beating, stop := context.WithCancel(t.Context())
	var calls []string
	r := newTestRegistrar(t, io.Discard, func(request *http.Request) (*http.Response, error) {
		stop()
		calls = append(calls, fmt.Sprintf("%s, cut off: %v", request.Method, request.Context().Err()))
		return answer(200, `{}`)
	}, []string{"http://one"}, nil)
	r.keepRegistered(beating)
	r.leave(t.Context(), 0)
	require.Equal(t, []string{"PUT, cut off: <nil>", "DELETE, cut off: <nil>"}, calls)
}

func TestABeatThatHangsAtTheStopIsCutOffAndItsHostDeregistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beating, stop := context.WithCancel(t.Context())
		var calls []string
		r := newTestRegistrar(t, io.Discard, func(request *http.Request) (*http.Response, error) {
			calls = append(calls, request.Method+" "+request.URL.Host)
			if request.Method == http.MethodPut {
				stop()
				<-request.Context().Done()
				return nil, request.Context().Err()
			}
			return answer(204, "")
		}, []string{"http://one", "http://two"}, nil)
		begin := time.Now()
		r.keepRegistered(beating)
		require.Equal(t, callTimeout, time.Since(begin))
		r.leave(t.Context(), 0)
		require.Equal(t, []string{"PUT one", "DELETE one"}, calls, "the other is not asked any more")
	})
}

func TestAHostThatLeavesIsDrainedForItsTimeAndBeatsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e events
		begin := time.Now()
		r := newTestRegistrar(t, io.Discard, func(request *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(request.Body)
			e.add(fmt.Sprintf("%v %s %v", time.Since(begin).Round(10*time.Second), request.Method, strings.Contains(string(body), `"draining":true`)))
			return answer(200, `{"lease":"1"}`)
		}, []string{"http://one"}, nil)
		require.NoError(t, r.beat(t.Context()))
		r.leave(t.Context(), 35*time.Second)
		require.Equal(t, []string{"0s PUT false", "0s PUT true", "10s POST false", "20s POST false", "30s POST false", "40s DELETE false"}, e.all())
	})
}

func TestRegistriesThatAllHangHoldUpTheEndForABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := false
		r := newTestRegistrar(t, io.Discard, func(request *http.Request) (*http.Response, error) {
			if hangs {
				<-request.Context().Done()
				return nil, request.Context().Err()
			}
			return answer(200, `{"lease":"1"}`)
		}, []string{"http://one", "http://two", "http://three"}, nil)
		require.NoError(t, r.beat(t.Context()))
		hangs = true
		begin := time.Now()
		r.leave(t.Context(), time.Second)
		require.Equal(t, callTimeout+deregisterTimeout, time.Since(begin))
	})
}

func TestTheTimeBetweenBeatsFollowsTheTTLThatTheRegistryGrants(t *testing.T) {
	for granted, want := range map[string]time.Duration{
		"30s": 10 * time.Second, "1h0m0s": 10 * time.Second, "6s": 2 * time.Second, "": 10 * time.Second, "x": 10 * time.Second, "0s": 10 * time.Second,
	} {
		t.Run(granted, func(t *testing.T) {
			r := newTestRegistrar(t, io.Discard, func(*http.Request) (*http.Response, error) {
				return answer(200, `{"lease":"1","ttl":"`+granted+`"}`)
			}, []string{"http://one"}, nil)
			require.NoError(t, r.beat(t.Context()))
			require.Equal(t, want, r.interval)
		})
	}
}

func TestWithoutANameAHostIsNamedByItsAddressAndKeepsThat(t *testing.T) {
	var hosts []string
	r := newTestRegistrar(t, io.Discard, func(request *http.Request) (*http.Response, error) {
		var host client.Registration
		_ = json.NewDecoder(request.Body).Decode(&host)
		hosts = append(hosts, request.Method+" "+request.URL.Path+" "+host.Address.String())
		return answer(200, `{"lease":"1"}`)
	}, []string{"http://one"}, func(o *Options) { o.ID, o.Host.Address = "", netip.MustParseAddr("fd00::1") })
	require.NoError(t, r.beat(t.Context()))
	r.options.Host.Address = netip.MustParseAddr("fd00::2") // as where the machine got another one
	require.NoError(t, r.beat(t.Context()))
	require.Equal(t, []string{
		"PUT /v2/services/users/hosts/[fd00::1]:1 fd00::1",
		"PUT /v2/services/users/hosts/[fd00::1]:1 fd00::2",
	}, hosts)
}

func TestAHostThatMayHaveBeenTakenIsDeregistered(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 500)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "PUT")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Equal(t, 1, e.count("DELETE "+path+" 500"))
	require.Equal(t, 1, e.count("not deregistered; if it is still registered, that ends with the ttl"))
}

func TestAHostThatIsOutAlreadyIsDeregistered(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	r := newTestRegistrar(t, &e, nil, []string{d.URL}, nil)
	require.NoError(t, r.beat(t.Context()))
	d.forget()
	r.leave(t.Context(), 0)
	e.order(t, "DELETE "+path+"?lease=0000000000000001 404", "msg=deregistered")
}

func TestAHostThatWasTakenOnceIsDeregisteredThoughRefusedLater(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "msg=registered")
	d.answer(400)
	e.await(t, "heartbeat 400")
	d.answer(200)
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "heartbeat 400", "DELETE", "msg=deregistered")
}

func TestTheOwnAddressIsThatTowardsDiscovery(t *testing.T) {
	for _, base := range []string{"http://127.0.0.1:8090", "http://127.0.0.1", "https://127.0.0.1"} {
		r := newTestRegistrar(t, io.Discard, nil, []string{base}, func(o *Options) { o.Host.Address = netip.Addr{} })
		target, err := r.target(t.Context())
		require.NoError(t, err)
		require.Equal(t, netip.MustParseAddrPort("127.0.0.1:1"), target)
	}
}

func TestAnAddressThatCannotBeFoundTowardsOneRegistryIsTowardsAnother(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	r := newTestRegistrar(t, &e, nil, []string{"http://no.such.invalid", d.URL}, func(o *Options) { o.Host.Address = netip.Addr{} })
	require.NoError(t, r.beat(t.Context()))
	require.Equal(t, 1, e.count(`{"address":"127.0.0.1"`))
}

func TestThePausesGrowAndMostAfterARefusal(t *testing.T) {
	refusal, err := func() (error, error) {
		c, err := client.New(client.Options{Registries: []string{"http://one"}, Transport: transport(func(*http.Request) (*http.Response, error) { return answer(400, "") })})
		return c.InTurn(func(r *client.Registry) error { return r.Remove(t.Context(), "a", "b", "") }), err
	}()
	require.NoError(t, err)
	for name, test := range map[string]struct {
		err     error
		longest time.Duration
	}{
		"refused":   {refusal, refusedLongest},
		"not heard": {io.EOF, retryLongest},
	} {
		t.Run(name, func(t *testing.T) {
			var b backoff
			for i := range 12 {
				step := min(retryShortest<<i, test.longest)
				pause := b.next(test.err)
				require.LessOrEqual(t, pause, step)
				require.GreaterOrEqual(t, pause, step/2)
			}
			b.reset()
			require.LessOrEqual(t, b.next(test.err), retryShortest)
		})
	}
}
