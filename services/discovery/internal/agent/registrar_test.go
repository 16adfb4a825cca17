package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestAProgramWhosePortIsAnsweredBeforeItIsNotStarted(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).AddrPort().Port()
	var e events
	d := newDiscovery(t, &e, 200)
	o := Options{Discovery: []string{d.URL}, IP: netip.MustParseAddr("127.0.0.1"), Port: port, TTL: time.Second,
		Interval: time.Millisecond, Command: []string{"/none/such"}}
	code := Run(o, nil, &e, &e, slog.New(slog.NewTextHandler(&e, nil)))
	require.Equal(t, startFailed, code)
	require.Len(t, e.all(), 1)
	require.Contains(t, e.all()[0], fmt.Sprintf("port %d is answered before /none/such was started", port))
}

func TestThePortOfAnAddressThatIsNotOursIsNotAsked(t *testing.T) {
	r := newRegistrar(Options{Discovery: []string{"http://127.0.0.1"}, IP: netip.MustParseAddr("192.0.2.1"), Port: 1, TTL: time.Second},
		slog.New(slog.DiscardHandler))
	begin := time.Now()
	require.False(t, r.portIsTaken())
	require.Less(t, time.Since(begin), portTryout)
}

func TestAHostThatWasNeverTakenIsNotDeregistered(t *testing.T) {
	for name, before := range map[string][]string{
		"refused":                        nil,
		"not heard by one, refused then": {"http://127.0.0.1:1"}, // nobody listens there
	} {
		t.Run(name, func(t *testing.T) {
			var e events
			d := newDiscovery(t, &e, 400)
			r := newRegistrar(Options{Discovery: append(before, d.URL), Service: "users", IP: netip.MustParseAddr("127.0.0.1"),
				Port: 1, TTL: time.Second}, slog.New(slog.NewTextHandler(&e, nil)))
			for range 3 {
				require.ErrorContains(t, r.beat(t.Context()), "400 Bad Request: the reason")
			}
			r.deregister()
			require.Equal(t, 3, e.count("POST /v1/registration/users 400"))
			require.Len(t, e.all(), 3, "neither a DELETE nor a word of one")
		})
	}
}

func TestARefusalIsSaidOnceWhileItLasts(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 400)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	servicetest.Eventually(t, "it tries on", func() bool { return e.count("POST /v1/registration/users 400") >= 3 })
	require.Equal(t, 1, e.count("not registered, trying on"))
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
}

// transport is a function in the place of the network.
type transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f transport) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func TestABeatThatHasBegunIsLetFinishBeforeTheDeregistration(t *testing.T) {
	beating, stop := context.WithCancel(t.Context())
	var calls []string
	r := newRegistrar(Options{Discovery: []string{"http://one"}, Service: "users", IP: netip.MustParseAddr("127.0.0.1"),
		Port: 1, TTL: time.Second}, slog.New(slog.DiscardHandler))
	r.client.Transport = transport(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPost {
			stop()
		}
		calls = append(calls, fmt.Sprintf("%s, cut off: %v", request.Method, request.Context().Err()))
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})
	r.keepRegistered(beating)
	r.deregister()
	require.Equal(t, []string{"POST, cut off: <nil>", "DELETE, cut off: <nil>"}, calls)
}

func TestABeatThatHangsAtTheStopIsCutOffAndItsHostDeregistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beating, stop := context.WithCancel(t.Context())
		var calls []string
		r := newRegistrar(Options{Discovery: []string{"http://one", "http://two"}, Service: "users",
			IP: netip.MustParseAddr("127.0.0.1"), Port: 1, TTL: time.Minute}, slog.New(slog.DiscardHandler))
		r.client.Transport = transport(func(request *http.Request) (*http.Response, error) {
			calls = append(calls, request.Method+" "+request.URL.Host)
			if request.Method == http.MethodPost {
				stop()
				<-request.Context().Done()
				return nil, request.Context().Err()
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})
		begin := time.Now()
		r.keepRegistered(beating)
		require.Equal(t, beatTimeout, time.Since(begin))
		r.deregister()
		require.Equal(t, []string{"POST one", "DELETE one"}, calls, "the other is not asked any more")
	})
}

func TestAHostThatMayHaveBeenTakenIsDeregistered(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 500)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "POST")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Equal(t, 1, e.count("DELETE /v1/registration/users/127.0.0.1?port="+os.Getenv(programPort)+" 500"))
	require.Equal(t, 1, e.count("not deregistered; if it is still registered, that ends with the ttl"))
}

func TestAHostThatWasTakenOnceIsDeregisteredThoughRefusedLater(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "msg=registered")
	d.answer(400)
	e.await(t, "POST /v1/registration/users 400")
	d.answer(200)
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "users 400", "DELETE", "msg=deregistered")
}

func TestThePausesGrowAndMostAfterARefusal(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		longest time.Duration
	}{
		"refused":                           {&statusError{400, "no"}, time.Minute},
		"refused by one, another not heard": {errors.Join(io.EOF, &statusError{400, "no"}), time.Minute},
		"not ready":                         {&statusError{503, "later"}, 2 * time.Second},
		"not heard":                         {io.EOF, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			pause := nextRetry(retryShortest, test.err)
			require.Equal(t, 2*retryShortest, pause)
			for range 10 {
				pause = nextRetry(pause, test.err)
			}
			require.Equal(t, test.longest, pause)
		})
	}
}
